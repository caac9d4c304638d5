"""The four services, and the storefront. None imports another; what they share is the chassis."""
