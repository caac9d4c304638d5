"""The four services. None imports another; what they share is the chassis."""
