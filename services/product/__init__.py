"""The product service: the catalogue, its stock, and the reservations that orders hold of it."""
