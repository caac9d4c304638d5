"""Load tests: shoppers sent at a running shop, and what came back, told honestly (README.md)."""
