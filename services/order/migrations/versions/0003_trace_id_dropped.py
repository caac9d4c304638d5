"""The id of the trace, which `traceparent` holds: the release before neither reads nor writes it any more.

Contract, two releases after the column beside it came.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the column, of the catalogue alone: rows keep its bytes until they are next written."""
    op.execute("ALTER TABLE orders DROP COLUMN trace_id")


def downgrade() -> None:
    """Bring it back, filled from where its content is now."""
    op.execute("ALTER TABLE orders ADD COLUMN trace_id text")
    op.execute("UPDATE orders SET trace_id = split_part(traceparent, '-', 2) WHERE traceparent IS NOT NULL")
