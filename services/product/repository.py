"""Every SQL statement of the product service.

Locks are taken in one order everywhere, so that no two requests deadlock: new categories by slug, products by SKU, an
order's reservation, stock by product id, and last of all a row of `catalogue_generation`. A statement that writes in
several steps names them as CTEs, and a step that must come later reads the result of the earlier one: PostgreSQL gives
data-modifying CTEs no order of their own.

All parts of one statement see the same snapshot, so what is decided on a row that others change comes from a
`SELECT ... FOR UPDATE`: READ COMMITTED waits for the lock and then reads the row anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from asyncpg import Record
from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from chassis.crash_points import crash_point
from chassis.database import Database
from chassis.pagination import decode_cursor, encode_cursor
from chassis.problems import IllegalTransition, InsufficientStock, InvalidCursor, PreconditionFailed
from chassis.schemas import AmountMinor, Text
from services.product.domain import ProductNotFound, ReservationNotFound, SkuTaken, category_name, sort_key
from services.product.schemas import HeldStatus, ImportLine, NewProduct, ProductChange, Sort, Wanted

TIME = """to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
"""A time as `chassis.schemas.rfc3339` writes it."""

FIELDS = f"""
    p.id, p.sku, p.name, p.description, p.category, p.tags,
    json_build_object('amount_minor', p.price_minor, 'currency', p.currency) AS price,
    p.image_url, p.attributes, s.on_hand - s.reserved AS available, p.version,
    {TIME.format("p.created_at")} AS created_at, {TIME.format("p.updated_at")} AS updated_at
"""
"""A product on the wire, of products `p` and stock `s`. Every answer that shows one is made of this, so that all
agree byte for byte, and with them their entity tags."""

EDITED = """
    UPDATE catalogue_generation /* edited */ SET edits = edits + 1 WHERE slot = pg_backend_pid() % 64
"""
MOVED = """
    UPDATE catalogue_generation /* moved */ SET movements = movements + 1 WHERE slot = pg_backend_pid() % 64
"""
"""What every change that a read of the catalogue shows has to do too, in the same transaction and as its last step:
the row stays locked until the commit."""

GENERATION = "SELECT /* generation */ sum(edits)::bigint, sum(edits + movements)::bigint FROM catalogue_generation"


class Generation(NamedTuple):
    """How often the catalogue was changed: two equal generations have seen the same changes.

    `edits` counts those of products, `all` those of stock too.
    """

    edits: int
    all: int


class ProductJson(NamedTuple):
    """A product as JSON text."""

    id: UUID
    version: int
    body: str


@dataclass(frozen=True, slots=True)
class Search:
    """Which products are asked for, and in which order."""

    q: str | None
    category: str | None
    min_price: int | None
    max_price: int | None
    in_stock: bool
    sort: Sort

    def scope(self) -> Mapping[str, Any]:
        """What a cursor is good for."""
        return {
            "list": "products",
            "q": self.q,
            "category": self.category,
            "min_price": self.min_price,
            "max_price": self.max_price,
            "in_stock": self.in_stock,
            "sort": self.sort,
        }


class _Key(NamedTuple):
    """A sort's key: its SQL, its direction, and what a cursor holds of it."""

    sql: str
    direction: Literal["ASC", "DESC"]
    position: TypeAdapter[tuple[Any, UUID]]


_Age = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(9000, 1, 1, tzinfo=UTC))]
_Rank = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_PRICE: TypeAdapter[tuple[Any, UUID]] = TypeAdapter(tuple[AmountMinor, UUID])

KEYS: dict[Sort, _Key] = {
    # As double precision, which JSON and a parameter carry without loss.
    "relevance": _Key("ts_rank(p.search, query)::float8", "DESC", TypeAdapter(tuple[_Rank, UUID])),
    "newest": _Key("p.created_at", "DESC", TypeAdapter(tuple[_Age, UUID])),
    "price": _Key("p.price_minor", "ASC", _PRICE),
    "-price": _Key("p.price_minor", "DESC", _PRICE),
    "name": _Key("p.name_folded", "ASC", TypeAdapter(tuple[Text, UUID])),
}


NEAR = 1_000
"""How many products a page looks through in the order of its sort for those that pass its filters, before it asks the
filters' own indexes, which give all that pass, in any order."""

CONDITIONS = {
    "q": "p.search @@ query",
    "category": "p.category = ${}",
    "min_price": "p.price_minor >= ${}",
    "max_price": "p.price_minor <= ${}",
}
IN_STOCK = "(SELECT s.on_hand > s.reserved FROM stock s WHERE s.product_id = p.id)"
FOUND = f"""page AS (
            SELECT {FIELDS}, found.position
            FROM found JOIN products p ON p.id = found.id JOIN stock s ON s.product_id = p.id
            ORDER BY found.position {{0}}, p.id {{0}}
        )"""
"""What is shown of the products that were found; of others nothing is looked up."""


@cache
def _page_statement(sort: Sort, *, in_stock: bool, after: bool, filters: tuple[str, ...]) -> str:
    """The statement of one combination of filters: always the same text, so that the driver prepares it once.

    Parameters: the limit, the filters' values in their order, then the cursor's position. One row: the items as JSON
    text, and the position of the last one where more follow.
    """
    key, direction, _ = KEYS[sort]
    # What the index of the sort knows, and what it does not.
    along, across = ["p.retired_at IS NULL"], list[str]()
    query = ""
    for number, name in enumerate(filters, 2):
        if name == "q":
            query = f"CROSS JOIN plainto_tsquery('pg_catalog.english', ${number}) query"
        known = name == "category" or (name != "q" and key == "p.price_minor")
        (along if known else across).append(CONDITIONS[name].format(number))
    if after:
        comparison = "<" if direction == "DESC" else ">"
        along.append(f"({key}, p.id) {comparison} (${len(filters) + 2}, ${len(filters) + 3})")
    order = f"ORDER BY {key} {direction}, p.id {direction} LIMIT"
    nearest = f"ORDER BY position {direction}, id {direction} LIMIT $1 + 1"
    # Planned by itself. The planner takes a word that it has not met for one of 200 products, whatever it is: it would
    # walk along the sort, through the whole catalogue, to find the first few of them.
    passing = across + [IN_STOCK] * in_stock
    far = f"""(
        SELECT p.id, {key} AS position FROM products p {query} WHERE {" AND ".join(along + passing)} OFFSET 0
    ) far"""
    if not across:
        page = f"""page AS (
            SELECT {FIELDS}, {key} AS position
            FROM products p JOIN stock s ON s.product_id = p.id
            WHERE {" AND ".join(along)} {"AND s.on_hand > s.reserved" if in_stock else ""} {order} $1 + 1
        )"""
    elif sort == "relevance":
        page = f"found AS (SELECT id, position FROM {far} {nearest}), {FOUND.format(direction)}"
    else:
        page = f"""near AS MATERIALIZED (
            SELECT id, position FROM (
                SELECT p.id, {key} AS position, p.price_minor, p.search
                FROM products p WHERE {" AND ".join(along)} {order} {NEAR}
            ) p {query}
            WHERE {" AND ".join(passing)} {nearest}
        ), enough AS MATERIALIZED (
            SELECT count(*) > $1 AS enough FROM near
        ), found AS (
            SELECT id, position FROM near WHERE (SELECT enough FROM enough)
            UNION ALL (SELECT id, position FROM {far} WHERE NOT (SELECT enough FROM enough) {nearest})
        ), {FOUND.format(direction)}"""
    return f"""
        WITH /* page */ {page}, numbered AS (
            SELECT row_number() OVER () AS n, id, position, (
                SELECT row_to_json(item)::text FROM (
                    SELECT page.id, sku, name, description, category, tags, price, image_url, attributes, available,
                        version, created_at, updated_at
                ) item
            ) AS item
            FROM page
        )
        SELECT coalesce(string_agg(item, ',' ORDER BY n) FILTER (WHERE n <= $1), '') AS items,
            count(*) > $1 AS more,
            (array_agg(position) FILTER (WHERE n = $1))[1] AS position,
            (array_agg(id) FILTER (WHERE n = $1))[1] AS id
        FROM numbered
    """


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What one batch did; `short` are the SKUs whose line sets fewer units than are reserved."""

    created: int
    updated: int
    short: frozenset[str]


class Catalogue:
    """Products and categories, as they are read and edited."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def generation(self) -> Generation:
        """The present generation."""
        row = await self._database.fetchrow(GENERATION)
        assert row is not None
        return Generation(row[0], row[1])

    async def page(self, search: Search, limit: int, cursor: str | None) -> str:
        """One page as JSON text; raises InvalidCursor."""
        arguments: list[Any] = [limit]
        filters: list[str] = []
        for name, value in (
            ("q", search.q),
            ("category", search.category),
            ("min_price", search.min_price),
            ("max_price", search.max_price),
        ):
            if value is not None:
                filters.append(name)
                arguments.append(value)
        if cursor is not None:
            try:
                arguments += KEYS[search.sort].position.validate_python(decode_cursor(cursor, search.scope()))
            except ValidationError:
                raise InvalidCursor from None
        statement = _page_statement(
            search.sort, in_stock=search.in_stock, after=cursor is not None, filters=tuple(filters)
        )
        row = await self._database.fetchrow(statement, *arguments)
        assert row is not None
        items, more, position, last_id = row
        next_cursor = f'"{encode_cursor((position, last_id), search.scope())}"' if more else "null"
        return f'{{"items":[{items}],"next_cursor":{next_cursor}}}'

    async def product(self, product_id: UUID) -> ProductJson:
        """A product that is not retired; raises ProductNotFound."""
        row = await self._database.fetchrow(
            f"""
            SELECT /* product */ id, version, row_to_json(product)::text AS body
            FROM (
                SELECT {FIELDS} FROM products p JOIN stock s ON s.product_id = p.id
                WHERE p.id = $1 AND p.retired_at IS NULL
            ) product
            """,
            product_id,
        )
        return _product(row)

    async def categories(self) -> str:
        """The categories that have products, as JSON text."""
        return await self._database.fetchval(
            """
            SELECT /* categories */ coalesce(json_agg(row_to_json(category) ORDER BY slug), '[]')::text
            FROM (
                SELECT c.slug, c.name, count(*) AS product_count
                FROM categories c JOIN products p ON p.category = c.slug
                WHERE p.retired_at IS NULL
                GROUP BY c.slug
            ) category
            """
        )

    async def add(self, product: NewProduct) -> ProductJson:
        """Create a product and, where it is the first of it, its category; raises SkuTaken."""
        row = await self._database.fetchrow(
            f"""
            WITH /* add product */ new_category AS (
                INSERT INTO categories VALUES ($5, $11) ON CONFLICT DO NOTHING RETURNING slug
            ), p AS (
                INSERT INTO products (
                    sku, name, name_folded, description, category, tags, price_minor, currency, image_url, attributes
                )
                SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 WHERE (SELECT count(*) FROM new_category) >= 0
                ON CONFLICT (sku) DO NOTHING
                RETURNING *
            ), s AS (
                INSERT INTO stock SELECT id, 0 FROM p RETURNING *
            ), generation AS (
                {EDITED} AND (SELECT count(*) FROM s) > 0
            )
            SELECT id, version, row_to_json(product)::text AS body
            FROM (SELECT {FIELDS} FROM p JOIN s ON s.product_id = p.id) product
            """,
            product.sku,
            product.name,
            sort_key(product.name),
            product.description,
            product.category,
            product.tags,
            product.price.amount_minor,
            product.price.currency,
            product.image_url,
            product.attributes,
            category_name(product.category),
        )
        if row is None:
            raise SkuTaken
        return _product(row)

    async def change(self, product_id: UUID, change: ProductChange, versions: Sequence[int] | None) -> ProductJson:
        """Change the fields that are there, if the version is one of `versions`, or whatever it is.

        Without a field nothing changes, the version neither. Raises ProductNotFound and PreconditionFailed.
        """
        given = change.model_fields_set
        if not given:
            product = await self.product(product_id)
            if versions is not None and product.version not in versions:
                raise PreconditionFailed
            return product
        row = await self._database.fetchrow(
            f"""
            WITH /* change product */ new_category AS (
                INSERT INTO categories SELECT $5::text, $14 WHERE $5::text IS NOT NULL
                ON CONFLICT DO NOTHING
                RETURNING slug
            ), found AS (
                SELECT id, version FROM products
                WHERE id = $1 AND retired_at IS NULL AND (SELECT count(*) FROM new_category) >= 0
                FOR UPDATE
            ), p AS (
                UPDATE products SET
                    name = coalesce($2, name), name_folded = coalesce($3, name_folded),
                    description = CASE WHEN $12 THEN $4 ELSE description END,
                    category = coalesce($5, category), tags = coalesce($6, tags),
                    price_minor = coalesce($7, price_minor), currency = coalesce($8, currency),
                    image_url = CASE WHEN $13 THEN $9 ELSE image_url END,
                    attributes = coalesce($10, attributes),
                    version = version + 1, updated_at = now()
                WHERE id = (SELECT id FROM found WHERE $11::bigint[] IS NULL OR version = ANY ($11))
                RETURNING *
            ), generation AS (
                {EDITED} AND (SELECT count(*) FROM p) > 0
            )
            SELECT found.id, product.version, row_to_json(product)::text AS body
            FROM found LEFT JOIN (
                SELECT {FIELDS} FROM p JOIN stock s ON s.product_id = p.id
            ) product ON product.id = found.id
            """,
            product_id,
            change.name if "name" in given else None,
            sort_key(change.name) if "name" in given else None,
            change.description,
            change.category,
            change.tags,
            change.price.amount_minor if "price" in given else None,
            change.price.currency if "price" in given else None,
            change.image_url,
            change.attributes,
            versions,
            "description" in given,
            "image_url" in given,
            category_name(change.category) if "category" in given else None,
        )
        return _changed(row)

    async def retire(self, product_id: UUID, versions: Sequence[int] | None) -> None:
        """Take a product out of the catalogue; raises ProductNotFound and PreconditionFailed."""
        row = await self._database.fetchrow(
            f"""
            WITH /* retire product */ found AS (
                SELECT id, version FROM products WHERE id = $1 AND retired_at IS NULL FOR UPDATE
            ), retired AS (
                UPDATE products SET retired_at = now(), version = version + 1, updated_at = now()
                WHERE id = (SELECT id FROM found WHERE $2::bigint[] IS NULL OR version = ANY ($2))
                RETURNING id, version
            ), generation AS (
                {EDITED} AND (SELECT count(*) FROM retired) > 0
            )
            SELECT found.id, retired.version, '' AS body FROM found LEFT JOIN retired USING (id)
            """,
            product_id,
            versions,
        )
        _changed(row)

    async def land(self, lines: Mapping[str, ImportLine]) -> ImportCounts:
        """Create or update products by SKU, in one transaction."""
        slugs = sorted({line.category for line in lines.values()})
        names = [category_name(slug) for slug in slugs]
        outcomes: dict[str, str] = {}
        crash_point("product.import.asked")
        # A SKU is left over where another created it between the statement's snapshot and its insert: next time it is
        # known.
        while left := [line for sku, line in lines.items() if sku not in outcomes]:
            rows = [line.model_dump() | {"name_folded": sort_key(line.name)} for line in left]
            async with self._database.transaction() as tx:
                await tx.execute(NEW_CATEGORIES, slugs, names)
                landed = await tx.fetch(IMPORT, rows)
                crash_point("product.import.uncommitted")
                await tx.execute(EDITED)
            crash_point("product.import.landed")
            outcomes.update({row["sku"]: row["outcome"] for row in landed})
        count = list(outcomes.values()).count
        return ImportCounts(
            count("created"),
            count("updated"),
            frozenset(sku for sku, outcome in outcomes.items() if outcome == "short"),
        )


def _product(row: Record | None) -> ProductJson:
    if row is None:
        raise ProductNotFound
    return ProductJson(*row)


def _changed(row: Record | None) -> ProductJson:
    product = _product(row)
    if product.version is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise PreconditionFailed
    return product


class StockLevel(NamedTuple):
    """Units of a product."""

    on_hand: int
    reserved: int

    @property
    def available(self) -> int:
        """What can still be bought."""
        return self.on_hand - self.reserved


class Held(NamedTuple):
    """An order's reservation: `held` or `committed`, and whether it became so just now."""

    status: HeldStatus
    expires_at: datetime
    changed: bool


class HeldStock(NamedTuple):
    """The reservations that hold units, the units, and the products of which they hold 90% or more of what is there."""

    reservations: int
    units: int
    nearly_reserved_products: int


class Stock:
    """Units on hand, what orders hold of them, and how they came."""

    def __init__(self, database: Database, reservation_ttl_s: float) -> None:
        self._database = database
        self._reservation_ttl_s = reservation_ttl_s

    async def move(self, product_id: UUID, delta: int, reason: str) -> StockLevel:
        """Add to the units on hand, or take from those that are not reserved.

        Raises ProductNotFound and InsufficientStock.
        """
        row = await self._database.fetchrow(
            f"""
            WITH /* move stock */ found AS (
                SELECT s.* FROM stock s JOIN products p ON p.id = s.product_id
                WHERE p.id = $1 AND p.retired_at IS NULL
                FOR UPDATE OF s
            ), moved AS (
                UPDATE stock SET on_hand = on_hand + $2
                WHERE product_id = (SELECT product_id FROM found WHERE on_hand + $2 >= reserved)
                RETURNING product_id
            ), noted AS (
                INSERT INTO stock_movements (product_id, delta, reason) SELECT product_id, $2, $3 FROM moved
            ), generation AS (
                {MOVED} AND (SELECT count(*) FROM moved) > 0
            )
            SELECT on_hand, reserved, EXISTS (SELECT FROM moved) AS moved FROM found
            """,
            product_id,
            delta,
            reason,
        )
        if row is None:
            raise ProductNotFound
        on_hand, reserved, moved = row
        if not moved:
            before = StockLevel(on_hand, reserved)
            raise InsufficientStock(**before._asdict(), available=before.available)
        return StockLevel(on_hand + delta, reserved)

    async def quotes(self, product_ids: Sequence[UUID]) -> str:
        """Quotes of the products that the catalogue has, as JSON text."""
        return await self._database.fetchval(
            """
            SELECT /* quotes */ '{"items":' || coalesce(json_agg(row_to_json(quote)), '[]') || '}'
            FROM (
                SELECT p.id AS product_id, p.sku, p.name,
                    json_build_object('amount_minor', p.price_minor, 'currency', p.currency) AS unit_price,
                    s.on_hand - s.reserved AS available
                FROM products p JOIN stock s ON s.product_id = p.id
                WHERE p.id = ANY ($1::uuid[]) AND p.retired_at IS NULL
            ) quote
            """,
            product_ids,
        )

    async def reserve(self, order_id: UUID, wanted: Sequence[Wanted]) -> Held:
        """Hold all the units for an order, or none.

        Asking again changes nothing, unless the reservation has expired: then the units are taken anew. Raises
        InsufficientStock and IllegalTransition.
        """
        crash_point("product.reserve.asked")
        product_ids = [item.product_id for item in wanted]
        quantities = [item.quantity for item in wanted]
        while True:
            row = await self._database.fetchrow(RESERVE, order_id, product_ids, quantities, self._reservation_ttl_s)
            assert row is not None
            known: HeldStatus | Literal["released", "expired"] | None = row["status"]
            if row["expires_at"] is not None:
                crash_point("product.reserved")
                return Held("held", row["expires_at"], changed=True)
            if known is None:
                # Unknown to the statement's snapshot. The same order's first reservation may have come between, and may
                # even be what took the last units: then the next look sees it.
                if row["short"] is None or await self._is_known(order_id):
                    continue
            elif not row["same"]:
                raise IllegalTransition("the order has a reservation of other items")
            elif known == "released":
                raise IllegalTransition("the reservation was released")
            elif known != "expired":
                return Held(known, row["known_expires_at"], changed=False)
            raise InsufficientStock(items=row["short"])

    async def _is_known(self, order_id: UUID) -> bool:
        return await self._database.fetchval(
            "SELECT /* is known */ EXISTS (SELECT FROM reservations WHERE order_id = $1)", order_id
        )

    async def commit(self, order_id: UUID) -> Held:
        """Take the reserved units out of the stock for good.

        Committing again changes nothing. After expiry the units are taken anew, if there still are enough. Raises
        ReservationNotFound, InsufficientStock and IllegalTransition.
        """
        crash_point("product.commit.asked")
        row = await self._database.fetchrow(COMMIT, order_id)
        crash_point("product.committed")
        if row is None:
            raise ReservationNotFound
        if row["status"] == "released":
            raise IllegalTransition("the reservation was released")
        if row["short"] is not None:
            raise InsufficientStock(items=row["short"])
        return Held("committed", row["expires_at"], changed=row["status"] != "committed")

    async def release(self, order_id: UUID) -> str | None:
        """Give the units back, whether held or committed; return the status before, or none where nothing was known.

        An unknown order gets a reservation that is released already, so that a late `reserve` is refused.
        """
        crash_point("product.release.asked")
        while True:
            row = await self._database.fetchrow(RELEASE, order_id)
            assert row is not None
            if row["status"] is not None or row["new"]:
                crash_point("product.released")
                return row["status"]
            # A reservation was made between this statement's snapshot and its insert: now it can be seen.

    async def expire(self, most: int) -> int:
        """Free the units of at most `most` reservations whose time is over; return how many expired.

        Replicas that do this at once pass over each other's rows.
        """
        return await self._database.fetchval(EXPIRE, most)

    async def held(self) -> HeldStock:
        """What reservations hold now."""
        row = await self._database.fetchrow(HELD)
        assert row is not None
        return HeldStock(*row)

    async def on_hand(self) -> int:
        """The units on hand of all products. Reads all of the table: 0.1 us a product."""
        return await self._database.fetchval(ON_HAND)


RESERVE = f"""
WITH /* reserve */ wanted AS (
    SELECT * FROM unnest($2::uuid[], $3::bigint[]) AS w (product_id, quantity)
), items AS (
    SELECT jsonb_agg(jsonb_build_object('product_id', product_id, 'quantity', quantity) ORDER BY product_id) AS items
    FROM wanted
), known AS MATERIALIZED (
    SELECT r.status, r.expires_at, r.items = (SELECT items FROM items) AS same
    FROM reservations r WHERE r.order_id = $1 FOR UPDATE
), needed AS MATERIALIZED (
    SELECT NOT EXISTS (SELECT FROM known WHERE status <> 'expired' OR NOT same) AS needed
), locked AS MATERIALIZED (
    SELECT s.product_id, s.on_hand - s.reserved AS available
    FROM stock s JOIN products p ON p.id = s.product_id
    WHERE s.product_id = ANY ($2::uuid[]) AND p.retired_at IS NULL AND (SELECT needed FROM needed)
    ORDER BY s.product_id FOR UPDATE OF s
), short AS MATERIALIZED (
    SELECT jsonb_agg(jsonb_build_object('product_id', w.product_id, 'requested', w.quantity,
        'available', coalesce(l.available, 0)) ORDER BY w.product_id) AS short
    FROM wanted w LEFT JOIN locked l USING (product_id)
    WHERE coalesce(l.available, 0) < w.quantity AND (SELECT needed FROM needed)
), created AS (
    -- Without waiting for the row's lock where another made it first: its commit may wait for the stock that is
    -- locked here.
    INSERT INTO reservations (order_id, items, status, expires_at)
    SELECT $1, items, 'held', now() + make_interval(secs => $4)
    FROM items, short WHERE short IS NULL AND NOT EXISTS (SELECT FROM known)
    ON CONFLICT DO NOTHING
    RETURNING expires_at
), renewed AS (
    UPDATE reservations SET status = 'held', expires_at = now() + make_interval(secs => $4), updated_at = now()
    WHERE order_id = $1 AND EXISTS (SELECT FROM known) AND (SELECT needed AND short IS NULL FROM needed, short)
    RETURNING expires_at
), held AS MATERIALIZED (
    SELECT expires_at FROM created UNION ALL SELECT expires_at FROM renewed
), taken AS (
    UPDATE stock s SET reserved = s.reserved + w.quantity
    FROM wanted w WHERE s.product_id = w.product_id AND EXISTS (SELECT FROM held)
    RETURNING s.product_id
), generation AS (
    {MOVED} AND (SELECT count(*) FROM taken) > 0
)
SELECT known.status, known.same, known.expires_at AS known_expires_at, short.short, held.expires_at
FROM short LEFT JOIN known ON true LEFT JOIN held ON true
"""

ITEMS = "jsonb_to_recordset(items) AS item (product_id uuid, quantity bigint)"

COMMIT = f"""
WITH /* commit */ known AS MATERIALIZED (
    SELECT status, items, expires_at FROM reservations WHERE order_id = $1 FOR UPDATE
), wanted AS MATERIALIZED (
    SELECT product_id, quantity, status FROM known, {ITEMS} WHERE status IN ('held', 'expired')
), locked AS MATERIALIZED (
    SELECT s.product_id, s.on_hand - s.reserved AS available
    FROM stock s WHERE s.product_id IN (SELECT product_id FROM wanted)
    ORDER BY s.product_id FOR UPDATE
), short AS MATERIALIZED (
    SELECT jsonb_agg(jsonb_build_object('product_id', product_id, 'requested', quantity,
        'available', available) ORDER BY product_id) AS short
    FROM (
        SELECT w.product_id, w.quantity,
            CASE WHEN p.retired_at IS NULL THEN l.available ELSE 0 END AS available
        FROM wanted w JOIN locked l USING (product_id) JOIN products p ON p.id = w.product_id
        WHERE w.status = 'expired'
    ) asked
    WHERE available < quantity
), committed AS (
    UPDATE reservations SET status = 'committed', updated_at = now()
    WHERE order_id = $1 AND EXISTS (SELECT FROM wanted) AND (SELECT short IS NULL FROM short)
    RETURNING order_id
), taken AS (
    -- Units that are held leave both numbers, so that what is available stays; after expiry they are taken from it.
    UPDATE stock s SET
        on_hand = s.on_hand - w.quantity,
        reserved = s.reserved - CASE w.status WHEN 'held' THEN w.quantity ELSE 0 END
    FROM wanted w WHERE s.product_id = w.product_id AND EXISTS (SELECT FROM committed)
    RETURNING w.status
), generation AS (
    {MOVED} AND (SELECT count(*) FILTER (WHERE status = 'expired') FROM taken) > 0
)
SELECT known.status, known.expires_at, short.short FROM known CROSS JOIN short
"""

RELEASE = f"""
WITH /* release */ known AS MATERIALIZED (
    SELECT status, items FROM reservations WHERE order_id = $1 FOR UPDATE
), tombstone AS (
    INSERT INTO reservations (order_id, items, status, expires_at)
    SELECT $1, '[]', 'released', now() WHERE NOT EXISTS (SELECT FROM known)
    ON CONFLICT DO NOTHING
    RETURNING order_id
), freed AS MATERIALIZED (
    SELECT product_id, quantity, status FROM known, {ITEMS} WHERE status IN ('held', 'committed')
), locked AS MATERIALIZED (
    SELECT s.product_id FROM stock s WHERE s.product_id IN (SELECT product_id FROM freed)
    ORDER BY s.product_id FOR UPDATE
), released AS (
    UPDATE reservations SET status = 'released', updated_at = now()
    WHERE order_id = $1 AND EXISTS (SELECT FROM known WHERE status <> 'released')
), given_back AS (
    UPDATE stock s SET
        on_hand = s.on_hand + CASE f.status WHEN 'committed' THEN f.quantity ELSE 0 END,
        reserved = s.reserved - CASE f.status WHEN 'held' THEN f.quantity ELSE 0 END
    FROM freed f WHERE s.product_id = f.product_id AND (SELECT count(*) FROM locked) > 0
    RETURNING s.product_id
), generation AS (
    {MOVED} AND (SELECT count(*) FROM given_back) > 0
)
SELECT (SELECT status FROM known) AS status, EXISTS (SELECT FROM tombstone) AS new
"""

EXPIRE = f"""
WITH /* expire */ due AS MATERIALIZED (
    SELECT order_id, items FROM reservations
    WHERE status = 'held' AND expires_at <= now()
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
), freed AS MATERIALIZED (
    SELECT product_id, sum(quantity)::bigint AS quantity FROM due, {ITEMS} GROUP BY product_id
), locked AS MATERIALIZED (
    SELECT s.product_id FROM stock s WHERE s.product_id IN (SELECT product_id FROM freed)
    ORDER BY s.product_id FOR UPDATE
), expired AS (
    UPDATE reservations SET status = 'expired', updated_at = now()
    WHERE order_id IN (SELECT order_id FROM due)
    RETURNING order_id
), given_back AS (
    UPDATE stock s SET reserved = s.reserved - f.quantity
    FROM freed f WHERE s.product_id = f.product_id AND (SELECT count(*) FROM locked) > 0
    RETURNING s.product_id
), generation AS (
    {MOVED} AND (SELECT count(*) FROM given_back) > 0
)
SELECT count(*) FROM expired
"""


# What is held comes from the few reservations that hold it, by their index, and not from all of the stock: an index of
# `stock` on its own numbers would have every checkout write to it.
HELD = f"""
SELECT /* held */ (SELECT count(*) FROM reservations WHERE status = 'held'), coalesce(sum(units), 0)::bigint,
    count(*) FILTER (WHERE (
        SELECT s.reserved * 10 >= s.on_hand * 9 FROM stock s WHERE s.product_id = held.product_id
    ))
FROM (
    SELECT product_id, sum(quantity) AS units FROM reservations, {ITEMS} WHERE status = 'held' GROUP BY product_id
) held
"""

ON_HAND = "SELECT /* on hand */ coalesce(sum(on_hand), 0)::bigint FROM stock"


IMPORT = """
WITH /* import */ line AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS l (
        sku text, name text, name_folded text, description text, category text, tags text[], price_minor bigint,
        currency text, image_url text, attributes jsonb, on_hand bigint
    )
), existing AS MATERIALIZED (
    SELECT id, sku FROM products WHERE sku IN (SELECT sku FROM line) ORDER BY sku FOR UPDATE
), counted AS MATERIALIZED (
    SELECT product_id, on_hand, reserved FROM stock
    WHERE product_id IN (SELECT e.id FROM existing e JOIN line l USING (sku) WHERE l.on_hand IS NOT NULL)
    ORDER BY product_id FOR UPDATE
), landing AS MATERIALIZED (
    SELECT e.id, l.*, c.on_hand AS had
    FROM line l JOIN existing e USING (sku) LEFT JOIN counted c ON c.product_id = e.id
    WHERE l.on_hand IS NULL OR l.on_hand >= c.reserved
), updated AS (
    UPDATE products p SET
        name = l.name, name_folded = l.name_folded, description = coalesce(l.description, p.description),
        category = l.category, tags = coalesce(l.tags, p.tags), price_minor = l.price_minor, currency = l.currency,
        image_url = coalesce(l.image_url, p.image_url), attributes = coalesce(l.attributes, p.attributes),
        version = p.version + 1, updated_at = now(), retired_at = NULL
    FROM landing l WHERE p.id = l.id
    RETURNING p.sku
), recounted AS (
    UPDATE stock s SET on_hand = l.on_hand
    FROM landing l WHERE s.product_id = l.id AND l.on_hand <> l.had
), created AS (
    INSERT INTO products (
        sku, name, name_folded, description, category, tags, price_minor, currency, image_url, attributes
    )
    SELECT l.sku, l.name, l.name_folded, l.description, l.category, coalesce(l.tags, '{}'), l.price_minor, l.currency,
        l.image_url, coalesce(l.attributes, '{}')
    FROM line l WHERE l.sku NOT IN (SELECT sku FROM existing)
    ORDER BY l.sku
    ON CONFLICT (sku) DO NOTHING
    RETURNING id, sku
), stocked AS (
    INSERT INTO stock (product_id, on_hand)
    SELECT c.id, coalesce(l.on_hand, 0) FROM created c JOIN line l USING (sku)
), moved AS (
    INSERT INTO stock_movements (product_id, delta, reason)
    SELECT id, on_hand - had, 'import' FROM landing WHERE on_hand <> had
    UNION ALL
    SELECT c.id, l.on_hand, 'import' FROM created c JOIN line l USING (sku) WHERE l.on_hand > 0
)
SELECT sku, 'created' AS outcome FROM created
UNION ALL SELECT sku, 'updated' FROM updated
UNION ALL SELECT sku, 'short' FROM existing WHERE sku NOT IN (SELECT sku FROM landing)
"""

NEW_CATEGORIES = """
INSERT INTO categories /* new categories */
SELECT slug, name FROM unnest($1::text[], $2::text[]) AS c (slug, name)
WHERE NOT EXISTS (SELECT FROM categories known WHERE known.slug = c.slug)
ORDER BY slug
ON CONFLICT DO NOTHING
"""


AUDIT = (
    """
    SELECT /* audit */ json_build_object('kind', 'stock', 'product_id', s.product_id, 'on_hand', s.on_hand,
        'reserved', s.reserved, 'received', coalesce(m.received, 0))::text
    FROM stock s LEFT JOIN (
        SELECT product_id, sum(delta) AS received FROM stock_movements GROUP BY product_id
    ) m USING (product_id)
    """,
    f"""
    SELECT /* audit */ json_build_object('kind', 'reservation', 'order_id', order_id, 'status', status, 'items', items,
        'expires_at', {TIME.format("expires_at")}, 'updated_at', {TIME.format("updated_at")})::text
    FROM reservations
    """,
)
