"""What both sides of a run know of the catalogue: the shoppers, who are Locust's, and who prepares the shop."""

OWN_CATEGORY = "load-tests"
"""What the admins import, and the product of a flash sale. Shoppers read it and do not buy of it otherwise."""
HOT_SKU = "LOAD-HOT"
"""The one product of a flash sale."""
PAGE = 100
MOST_PRODUCTS = 500
"""Of a larger catalogue shoppers look at so many, the first by name."""
