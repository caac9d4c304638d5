"""The embedded default: PostgreSQL, the four services and the edge in one process."""
