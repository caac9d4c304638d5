"""Payments, refunds, the ledger, kept answers, and the embedded provider's own record."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PAYMENTS = """
CREATE TABLE payments (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    order_id uuid NOT NULL UNIQUE,
    user_id uuid,
    amount_minor bigint CHECK (amount_minor >= 0),
    currency text CHECK (currency ~ '^[A-Z]{3}$'),
    payment_method text,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN (
        'pending', 'authorised', 'captured', 'partially_refunded', 'refunded', 'voided', 'declined')),
    decline_code text,
    captured_minor bigint NOT NULL DEFAULT 0,
    refunded_minor bigint NOT NULL DEFAULT 0,
    -- The sum of the pending refunds. Here, so that the guard of a refund reads the one row that it locks.
    refunding_minor bigint NOT NULL DEFAULT 0,
    provider_reference text,
    history jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- What was voided before it was asked for has nothing but its order.
    CONSTRAINT known CHECK (num_nulls(user_id, amount_minor, currency, payment_method) = 0
        OR (status = 'voided' AND num_nulls(user_id, amount_minor, currency, payment_method) = 4)),
    CONSTRAINT decline_has_code CHECK ((status = 'declined') = (decline_code IS NOT NULL)),
    CONSTRAINT captured_whole CHECK (CASE
        WHEN status IN ('captured', 'partially_refunded', 'refunded') THEN captured_minor = amount_minor
        ELSE captured_minor = 0 END),
    CONSTRAINT refunds_within_captured CHECK (
        refunded_minor >= 0 AND refunding_minor >= 0 AND refunded_minor + refunding_minor <= captured_minor),
    CONSTRAINT refunded_as_status_says CHECK (CASE status
        WHEN 'refunded' THEN refunded_minor = captured_minor
        WHEN 'partially_refunded' THEN refunded_minor BETWEEN 1 AND captured_minor - 1
        ELSE refunded_minor = 0 END)
) WITH (fillfactor = 80)  -- a payment changes twice soon after its insert: room for it on the same page
"""

REFUNDS = """
CREATE TABLE refunds (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    payment_id uuid NOT NULL REFERENCES payments,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    reason text NOT NULL,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'done')),
    -- Until then somebody is at it.
    leased_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
)
"""

LEDGER = """
CREATE TABLE ledger_entries (
    -- The payment's id for its capture, the refund's for a refund: neither can be booked twice.
    movement_id uuid NOT NULL,
    account text NOT NULL CHECK (account IN ('provider_receivable', 'sales_revenue', 'sales_returns')),
    payment_id uuid NOT NULL REFERENCES payments,
    -- A debit is positive, a credit negative.
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (movement_id, account)
)
"""

REFUSE_CHANGE = """
CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: correct it by a new movement' USING ERRCODE = 'restrict_violation';
END
$$
"""

APPEND_ONLY = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()
"""

REFUSE_IMBALANCE = """
CREATE FUNCTION refuse_ledger_imbalance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added GROUP BY movement_id
        HAVING count(*) <> 2 OR sum(amount_minor) <> 0 OR min(currency) <> max(currency)
    ) THEN
        RAISE EXCEPTION 'a movement is two entries of one currency that sum to zero' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$
"""

DOUBLE_ENTRY = """
CREATE TRIGGER double_entry AFTER INSERT ON ledger_entries REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_imbalance()
"""

IDEMPOTENCY_KEYS = """
CREATE TABLE idempotency_keys (
    user_id uuid NOT NULL,
    payment_id uuid NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    -- The refund that the key began, so that a repetition finds it after a crash. Deferred: the key goes in first.
    refund_id uuid NOT NULL REFERENCES refunds DEFERRABLE INITIALLY DEFERRED,
    -- The body of the 200, null until the refund is done.
    answer text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, payment_id, key)
)
"""

SIMULATOR_CHARGES = """
CREATE TABLE simulator_charges (
    key uuid PRIMARY KEY,
    reference text NOT NULL DEFAULT 'sim_' || replace(uuidv7()::text, '-', ''),
    payment_method text,
    amount_minor bigint CHECK (amount_minor >= 0),
    currency text,
    status text NOT NULL CHECK (status IN ('authorised', 'captured', 'voided', 'declined')),
    decline_code text,
    captured_minor bigint NOT NULL DEFAULT 0 CHECK (captured_minor <= amount_minor),
    refunded_minor bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT refunded_at_most_captured CHECK (refunded_minor BETWEEN 0 AND captured_minor)
) WITH (fillfactor = 80)
"""

SIMULATOR_REFUNDS = """
CREATE TABLE simulator_refunds (
    key uuid PRIMARY KEY,
    charge_key uuid NOT NULL REFERENCES simulator_charges,
    amount_minor bigint NOT NULL CHECK (amount_minor >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
)
"""

STATEMENTS = (
    PAYMENTS,
    # The list of a user's payments, newest first; `id` is a UUIDv7 and so in the order of time.
    "CREATE INDEX payments_of_user ON payments (user_id, id)",
    REFUNDS,
    "CREATE INDEX refunds_pending ON refunds (leased_until) WHERE status = 'pending'",
    "CREATE INDEX refunds_pending_of_payment ON refunds (payment_id) WHERE status = 'pending'",
    # A refund of nothing leaves as much as there was: what is set aside cannot tell the second from the first.
    "CREATE UNIQUE INDEX refunds_of_nothing ON refunds (payment_id) WHERE amount_minor = 0",
    LEDGER,
    REFUSE_CHANGE,
    APPEND_ONLY,
    REFUSE_IMBALANCE,
    DOUBLE_ENTRY,
    IDEMPOTENCY_KEYS,
    "CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at)",
    "CREATE UNIQUE INDEX idempotency_keys_of_refund ON idempotency_keys (refund_id)",
    SIMULATOR_CHARGES,
    SIMULATOR_REFUNDS,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_keys, simulator_refunds, simulator_charges, ledger_entries, refunds, payments")
    op.execute("DROP FUNCTION refuse_ledger_change(), refuse_ledger_imbalance()")
