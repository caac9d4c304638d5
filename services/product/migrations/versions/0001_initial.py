"""The catalogue, its stock, reservations, and the generation that proves a cached read fresh."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE categories (
    slug text COLLATE "C" PRIMARY KEY,
    name text NOT NULL
);

-- array_to_string() is only STABLE, since it prints any type; of text it is immutable, as a generated column needs.
CREATE FUNCTION search_document(name text, tags text[], description text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN setweight(to_tsvector('pg_catalog.english', name), 'A')
    || setweight(to_tsvector('pg_catalog.english', array_to_string(tags, ' ')), 'B')
    || setweight(to_tsvector('pg_catalog.english', coalesce(description, '')), 'C');

CREATE TABLE products (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    sku text COLLATE "C" NOT NULL UNIQUE,
    name text NOT NULL,
    -- The name case-folded as Unicode does it, which no function of PostgreSQL's builtin locales does: the key of
    -- sort=name.
    name_folded text COLLATE "C" NOT NULL,
    description text,
    category text COLLATE "C" NOT NULL REFERENCES categories,
    tags text[] NOT NULL DEFAULT '{}',
    price_minor bigint NOT NULL CHECK (price_minor >= 0),
    currency text NOT NULL,
    image_url text,
    attributes jsonb NOT NULL DEFAULT '{}',
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    search tsvector NOT NULL GENERATED ALWAYS AS (search_document(name, tags, description)) STORED
);

-- One index for the keyset of each sort, with and without a category; each is read in both directions.
CREATE INDEX products_by_age ON products (created_at, id) WHERE retired_at IS NULL;

CREATE INDEX products_by_price ON products (price_minor, id) WHERE retired_at IS NULL;

CREATE INDEX products_by_name ON products (name_folded, id) WHERE retired_at IS NULL;

CREATE INDEX products_by_category_and_age ON products (category, created_at, id) WHERE retired_at IS NULL;

CREATE INDEX products_by_category_and_price ON products (category, price_minor, id) WHERE retired_at IS NULL;

CREATE INDEX products_by_category_and_name ON products (category, name_folded, id) WHERE retired_at IS NULL;

-- No pending list: a search must not pay for what an import left to sort in.
CREATE INDEX products_by_word ON products USING gin (search) WITH (fastupdate = off) WHERE retired_at IS NULL;

-- Apart from products: a checkout updates a narrow row of which no index but the key knows, so that the new version
-- stays on its page (HOT).
CREATE TABLE stock (
    product_id uuid PRIMARY KEY REFERENCES products,
    on_hand bigint NOT NULL CHECK (on_hand >= 0),
    reserved bigint NOT NULL DEFAULT 0 CHECK (reserved BETWEEN 0 AND on_hand)
) WITH (fillfactor = 50);

-- Append-only: what came in and went out other than by orders.
CREATE TABLE stock_movements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product_id uuid NOT NULL REFERENCES products,
    delta bigint NOT NULL CHECK (delta <> 0),
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE reservations (
    order_id uuid PRIMARY KEY,
    -- [{"product_id", "quantity"}] in the order of the ids; never changes.
    items jsonb NOT NULL,
    status text NOT NULL CHECK (status IN ('held', 'committed', 'released', 'expired')),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 80);

CREATE INDEX reservations_held ON reservations (expires_at) WHERE status = 'held';

-- How many transactions have changed what reads of the catalogue show: `edits` those of products, `movements` those of
-- stock alone. The sums over all rows only grow. 64 rows, so that writers rarely wait for each other's commit.
CREATE TABLE catalogue_generation (
    slot smallint PRIMARY KEY,
    edits bigint NOT NULL DEFAULT 0,
    movements bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

INSERT INTO catalogue_generation (slot) SELECT generate_series(0, 63);
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n\n"):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE catalogue_generation, reservations, stock_movements, stock, products, categories")
    op.execute("DROP FUNCTION search_document")
