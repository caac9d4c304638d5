"""The shapes of `make load`, a file each. Rates are for a laptop on which shop and shoppers run together; RATE= says others."""
