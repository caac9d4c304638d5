"""The shop's pages as a browser without scripts gets them, from real processes."""
