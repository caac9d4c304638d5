"""Users, address books, login attempts, refresh tokens, signing keys."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CREATE = (
    """
    CREATE TABLE users (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        email text NOT NULL UNIQUE,
        name text NOT NULL,
        role text NOT NULL CHECK (role IN ('customer', 'admin')),
        password_hash text NOT NULL,
        session_epoch integer NOT NULL DEFAULT 0,
        address_count integer NOT NULL DEFAULT 0 CHECK (address_count BETWEEN 0 AND 100),
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "COMMENT ON COLUMN users.email IS 'case-folded'",
    "COMMENT ON COLUMN users.session_epoch IS 'raised to end every refresh token of the user at once'",
    """
    CREATE TABLE addresses (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
        name text NOT NULL,
        line1 text NOT NULL,
        line2 text,
        city text NOT NULL,
        region text,
        postal_code text NOT NULL,
        country text NOT NULL CHECK (length(country) = 2)
    )
    """,
    "CREATE INDEX addresses_by_user ON addresses (user_id, id)",
    # Few rows, deleted after 15 minutes: an index on the time would cost each login more than it spares the worker.
    """
    CREATE TABLE login_attempts (
        email_digest bytea PRIMARY KEY,
        attempted_at timestamptz[] NOT NULL,
        last_attempted_at timestamptz NOT NULL
    )
    """,
    "COMMENT ON COLUMN login_attempts.email_digest IS 'SHA-256 of the case-folded e-mail, known or unknown'",
    "COMMENT ON COLUMN login_attempts.attempted_at IS 'the last ten attempts that did not succeed, oldest first'",
    # Only the primary key and the user are indexed, so that a rotation stays on its page (a heap-only tuple).
    """
    CREATE TABLE refresh_families (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
        session_epoch integer NOT NULL,
        secret_digest bytea NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX refresh_families_by_user ON refresh_families (user_id)",
    "COMMENT ON COLUMN refresh_families.secret_digest IS 'SHA-256 of the secret of the one token that is good'",
    """
    CREATE TABLE signing_keys (
        number integer PRIMARY KEY,
        kid text NOT NULL UNIQUE,
        public_key bytea NOT NULL,
        private_key_encrypted bytea NOT NULL,
        active_from timestamptz NOT NULL
    )
    """,
    "COMMENT ON COLUMN signing_keys.private_key_encrypted IS '12 bytes of nonce, then AES-256-GCM bound to the kid'",
)


def upgrade() -> None:
    for statement in CREATE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE signing_keys, refresh_families, login_attempts, addresses, users")
