"""The shapes of `make load`, a file each. Rates are for a laptop that runs shop and shoppers; RATE= says others."""
