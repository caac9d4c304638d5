"""Carts, orders and the answers given to idempotency keys."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE cart_items (
        user_id uuid NOT NULL,
        product_id uuid NOT NULL,
        quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 99),
        -- As of the last PUT: what a cart shows of a product that is gone by now.
        name text NOT NULL,
        unit_price_minor bigint NOT NULL CHECK (unit_price_minor >= 0),
        currency text NOT NULL,
        added_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (user_id, product_id)
    )
    """,
    """
    CREATE TABLE orders (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        user_id uuid NOT NULL,
        status text NOT NULL CHECK (status IN (
            'pending', 'reserved', 'authorised', 'confirmed', 'shipped', 'delivered', 'rejected', 'cancelled')),
        lines jsonb NOT NULL,
        total_minor bigint NOT NULL CHECK (total_minor >= 0),
        currency text NOT NULL,
        address jsonb NOT NULL,
        payment_method text NOT NULL,
        payment_id uuid,
        history jsonb NOT NULL,
        -- The decision to take the order back, from when it is made until it is carried out.
        undo jsonb,
        from_cart boolean NOT NULL,
        trace_id text NOT NULL,
        version integer NOT NULL DEFAULT 1,
        attempts integer NOT NULL DEFAULT 0,
        -- Until when one replica works on the order; null when there is nothing to do.
        lease_until timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX orders_by_user ON orders (user_id, id DESC)",
    "CREATE INDEX orders_unfinished ON orders (lease_until) WHERE lease_until IS NOT NULL",
    """
    CREATE TABLE idempotency_keys (
        user_id uuid NOT NULL,
        key text NOT NULL,
        fingerprint bytea NOT NULL,
        order_id uuid NOT NULL,
        -- Whether 202 was answered: then a repetition is told so too, until there is an outcome.
        deferred boolean NOT NULL DEFAULT false,
        status smallint,
        body bytea,
        location text,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (user_id, key)
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX idempotency_keys_by_order ON idempotency_keys (order_id)",
    "CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at)",
)


def upgrade() -> None:
    """Create the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP TABLE idempotency_keys, orders, cart_items")
