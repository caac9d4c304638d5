"""The trace that an order was placed in, whole: with only its id, a recovery forgot whether the trace is recorded.

Expand: the release before knows nothing of the new column and fills the old one, which the release after need not.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column without a default and lift a constraint: of the catalogue alone, however large the table is."""
    op.execute("ALTER TABLE orders ADD COLUMN traceparent text, ALTER COLUMN trace_id DROP NOT NULL")


def downgrade() -> None:
    """Take the column away."""
    op.execute("ALTER TABLE orders DROP COLUMN traceparent")
