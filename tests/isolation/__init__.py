"""Two transactions at once, for every guarded statement: docs/decisions/isolation.md has the table."""
