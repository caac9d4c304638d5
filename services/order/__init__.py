"""The order service: carts, orders, and the saga that makes an order of a cart."""
