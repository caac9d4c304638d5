"""The storefront: the shop in a browser."""
