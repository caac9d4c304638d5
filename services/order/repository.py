"""Every SQL statement of the order service.

An order changes only by statements that compare its `version`, so of two replicas that drive it, or a saga and a
buyer who cancels, one wins and the other is told that it was superseded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from chassis.database import Database, Statements
from chassis.idempotency import KEPT_HOURS, StoredAnswer
from services.order.domain import Entry, Line, Order, OrderNotFound, Status, Superseded, Undo

MOST_CART_LINES = 100

COLUMNS = """id, user_id, status, lines, currency, address, payment_method, payment_id, history, undo, from_cart,
    traceparent, version, attempts, created_at"""

PLACE = f"""
WITH /* place order */ claimed AS (
    INSERT INTO idempotency_keys AS taken (user_id, key, fingerprint, order_id)
    VALUES ($1, $2, $3, uuidv7())
    ON CONFLICT (user_id, key) DO UPDATE
        SET fingerprint = excluded.fingerprint, order_id = excluded.order_id, created_at = now(),
            deferred = false, status = NULL, body = NULL, location = NULL
        WHERE taken.created_at < now() - interval '{KEPT_HOURS} hours'
    RETURNING order_id
)
INSERT INTO orders (id, user_id, status, lines, total_minor, currency, address, payment_method, history, from_cart,
    traceparent, created_at, lease_until)
SELECT order_id, $1, 'pending', $4, $5, $6, $7, $8, $9, $10, $11, $12, now() + make_interval(secs => $13)
FROM claimed
RETURNING id
"""

ANSWERED = f"""
SELECT /* kept answer */ keys.fingerprint, keys.deferred, keys.status, keys.body, keys.location, keys.order_id
FROM idempotency_keys AS keys
WHERE keys.user_id = $1 AND keys.key = $2 AND keys.created_at >= now() - interval '{KEPT_HOURS} hours'
"""

ANSWER_OF = """
SELECT /* answer of order */ status, body, location FROM idempotency_keys WHERE order_id = $1 AND status IS NOT NULL
"""

GET = f"SELECT /* order */ {COLUMNS} FROM orders WHERE id = $1"
GET_OF_USER = f"{GET} AND (user_id = $2 OR $3)"

LIST = f"""
SELECT /* orders of user */ {COLUMNS} FROM orders WHERE user_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
"""
LIST_BY_STATUS = f"""
SELECT /* orders of user by status */ {COLUMNS} FROM orders
WHERE user_id = $1 AND status = $4 AND id < $2 ORDER BY id DESC LIMIT $3
"""
LIST_OF_EVERYONE = f"""
SELECT /* orders of everyone */ {COLUMNS} FROM orders WHERE id < $1 ORDER BY id DESC LIMIT $2
"""
WALKED = 1000
"""Orders that a page of everyone's of one status looks through: there is no index by status (see MOVE)."""
LIST_OF_EVERYONE_BY_STATUS = f"""
SELECT /* orders of everyone by status */ {COLUMNS}
FROM (SELECT * FROM orders WHERE id < $1 ORDER BY id DESC LIMIT {WALKED}) AS walked
WHERE status = $3 ORDER BY id DESC LIMIT $2
"""
WALKED_TO = f"""
SELECT /* walked to */ id FROM orders WHERE id < $1 ORDER BY id DESC OFFSET {WALKED - 1} LIMIT 1
"""
AFTER_ALL = UUID(int=2**128 - 1)

# No indexed column changes while the saga goes forward, so PostgreSQL writes no index (a heap-only tuple): the lease is
# longer than a request works on an order, and there is no index by status.
MOVE = """
UPDATE orders /* move order */
SET status = $3, history = $4, payment_id = $5, undo = $6, version = version + 1, updated_at = now(),
    lease_until = coalesce(lease_until, now() + make_interval(secs => $7))
WHERE id = $1 AND version = $2
RETURNING version
"""

SETTLE = """
WITH /* settle order */ settled AS (
    UPDATE orders
    SET status = $3, history = $4, payment_id = $5, undo = NULL, version = version + 1, updated_at = now(),
        lease_until = NULL
    WHERE id = $1 AND version = $2
    RETURNING version, user_id, lines, from_cart, status
), answered AS (
    UPDATE idempotency_keys AS keys SET status = $6, body = $7, location = $8
    FROM settled WHERE keys.order_id = $1 AND keys.status IS NULL
), emptied AS (
    DELETE FROM cart_items
    USING settled, jsonb_to_recordset(settled.lines) AS line(product_id uuid, quantity integer)
    WHERE settled.from_cart AND settled.status = 'confirmed' AND cart_items.user_id = settled.user_id
        AND cart_items.product_id = line.product_id AND cart_items.quantity = line.quantity
)
SELECT version FROM settled
"""

DEFER = """
WITH /* defer order */ deferred AS (
    UPDATE idempotency_keys SET deferred = true WHERE order_id = $1
), released AS (
    -- What is put into the cart from now on is for another order.
    UPDATE orders SET lease_until = LEAST(lease_until, now()), from_cart = false
    WHERE id = $1 AND lease_until IS NOT NULL
    RETURNING user_id, lines, old.from_cart AS from_cart
)
DELETE FROM cart_items
USING released, jsonb_to_recordset(released.lines) AS line(product_id uuid, quantity integer)
WHERE released.from_cart AND cart_items.user_id = released.user_id
    AND cart_items.product_id = line.product_id AND cart_items.quantity = line.quantity
"""

CLAIM_UNFINISHED = f"""
WITH /* claim unfinished */ claimed AS MATERIALIZED (
    SELECT id AS claimed_id FROM orders WHERE lease_until < now() ORDER BY lease_until LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE orders
SET lease_until = now() + make_interval(secs => $1), attempts = attempts + 1
FROM claimed WHERE id = claimed_id
RETURNING {COLUMNS}
"""

POSTPONE = """
UPDATE orders /* postpone order */ SET lease_until = now() + make_interval(secs => $2)
WHERE id = $1 AND lease_until IS NOT NULL
"""

UNFINISHED = """
SELECT /* unfinished orders */ count(*), coalesce(extract(epoch FROM now() - min(updated_at)), 0)::float8
FROM orders WHERE lease_until IS NOT NULL
"""

CHANGED = """
SELECT /* changed orders */ orders.id, orders.history
FROM unnest($1::uuid[], $2::integer[]) AS watched(id, seen)
JOIN orders ON orders.id = watched.id AND jsonb_array_length(orders.history) > watched.seen
"""

FORGET_KEYS = f"""
WITH /* forget keys */ old AS MATERIALIZED (
    SELECT user_id, key FROM idempotency_keys
    WHERE created_at < now() - interval '{KEPT_HOURS} hours' LIMIT $1 FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency_keys AS keys USING old WHERE keys.user_id = old.user_id AND keys.key = old.key
"""

CART = """
SELECT /* cart */ product_id, quantity, name, unit_price_minor, currency FROM cart_items
WHERE user_id = $1 ORDER BY added_at, product_id
"""

# A cart is its lines: there is no row whose lock would guard their number, and a count in the statement that inserts is
# of its snapshot. So who comes second waits before PUT_ITEM takes one.
LOCK_CART = "SELECT /* lock cart */ pg_advisory_xact_lock(hashtextextended($1::uuid::text, 0))"

PUT_ITEM = f"""
INSERT INTO cart_items /* put item */ (user_id, product_id, quantity, name, unit_price_minor, currency)
SELECT $1, $2, $3, $4, $5, $6
WHERE EXISTS (SELECT FROM cart_items WHERE user_id = $1 AND product_id = $2)
    OR (SELECT count(*) FROM cart_items WHERE user_id = $1) < {MOST_CART_LINES}
ON CONFLICT (user_id, product_id) DO UPDATE
    SET quantity = excluded.quantity, name = excluded.name, unit_price_minor = excluded.unit_price_minor,
        currency = excluded.currency
RETURNING product_id
"""

AUDIT = """
SELECT /* audit */ json_build_object('kind', 'order', 'id', id, 'user_id', user_id, 'status', status,
    'unfinished', lease_until IS NOT NULL OR undo IS NOT NULL OR status IN ('pending', 'reserved', 'authorised'),
    'total', json_build_object('amount_minor', total_minor, 'currency', currency),
    'lines', (SELECT json_agg(json_build_object('product_id', line->'product_id', 'quantity', line->'quantity'))
        FROM jsonb_array_elements(lines) AS line),
    'payment_id', payment_id,
    'updated_at', to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
FROM orders
"""


@dataclass(frozen=True, slots=True)
class CartItem:
    """A product in a cart; name and price as of when it was put there."""

    product_id: UUID
    quantity: int
    name: str
    unit_price_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What is known of an idempotency key: the order that it made, and the answer when there is one."""

    fingerprint: bytes
    order_id: UUID
    deferred: bool
    answer: StoredAnswer | None


class Unfinished(NamedTuple):
    """How many orders are not at an end, and the seconds since the last step of the one that waits longest for its
    next. Of an order of last year whose buyer cancels now it is the decision.
    """

    orders: int
    oldest_s: float


def _lines(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [
        {
            "product_id": line.product_id,
            "sku": line.sku,
            "name": line.name,
            "quantity": line.quantity,
            "unit_price_minor": line.unit_price_minor,
        }
        for line in lines
    ]


def _history(history: Sequence[Entry]) -> list[dict[str, Any]]:
    return [{"status": entry.status, "at": entry.at, "reason": entry.reason} for entry in history]


def entries(history: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """An order's history as it is stored."""
    return tuple(
        Entry(Status(entry["status"]), datetime.fromisoformat(entry["at"]), entry["reason"]) for entry in history
    )


def _undo(undo: Undo | None) -> dict[str, Any] | None:
    return None if undo is None else {"to": undo.to, "reason": undo.reason, "refusal": undo.refusal}


def _order(row: asyncpg.Record) -> Order:
    undo = row["undo"]
    return Order(
        id=row["id"],
        user_id=row["user_id"],
        status=Status(row["status"]),
        lines=tuple(
            Line(UUID(line["product_id"]), line["sku"], line["name"], line["quantity"], line["unit_price_minor"])
            for line in row["lines"]
        ),
        currency=row["currency"],
        address=row["address"],
        payment_method=row["payment_method"],
        from_cart=row["from_cart"],
        traceparent=row["traceparent"],
        created_at=row["created_at"],
        history=entries(row["history"]),
        payment_id=row["payment_id"],
        undo=undo and Undo(Status(undo["to"]), undo["reason"], undo["refusal"]),
        version=row["version"],
        attempts=row["attempts"],
    )


class Orders:
    """The orders, as the saga and the routes use them; each call is one statement that commits by itself."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s

    async def place(
        self,
        *,
        key: str,
        fingerprint: bytes,
        user_id: UUID,
        lines: tuple[Line, ...],
        currency: str,
        address: dict[str, Any],
        payment_method: str,
        from_cart: bool,
        traceparent: str,
        at: datetime,
    ) -> Order | None:
        """Claim the idempotency key and store the pending order, both or neither; none where the key is taken."""
        history = (Entry(Status.PENDING, at),)
        total_minor = sum(line.total_minor for line in lines)
        order_id = await self._database.fetchval(
            PLACE, user_id, key, fingerprint, _lines(lines), total_minor, currency, address, payment_method,
            _history(history), from_cart, traceparent, at, self._lease_s,
        )  # fmt: skip
        if order_id is None:
            return None
        return Order(
            id=order_id,
            user_id=user_id,
            status=Status.PENDING,
            lines=lines,
            currency=currency,
            address=address,
            payment_method=payment_method,
            from_cart=from_cart,
            traceparent=traceparent,
            created_at=at,
            history=history,
        )

    async def answered(self, user_id: UUID, key: str) -> Answered | None:
        """What the key has done so far, or none where it is free."""
        row = await self._database.fetchrow(ANSWERED, user_id, key)
        if row is None:
            return None
        answer = None if row["status"] is None else StoredAnswer(row["status"], row["body"], row["location"])
        return Answered(row["fingerprint"], row["order_id"], row["deferred"], answer)

    async def answer_of(self, order_id: UUID) -> StoredAnswer | None:
        """The answer with which the order's checkout ended, or none before that."""
        row = await self._database.fetchrow(ANSWER_OF, order_id)
        return None if row is None else StoredAnswer(row["status"], row["body"], row["location"])

    async def get(self, order_id: UUID) -> Order:
        """The order, whoever's it is; raises OrderNotFound."""
        row = await self._database.fetchrow(GET, order_id)
        if row is None:
            raise OrderNotFound
        return _order(row)

    async def get_for(self, order_id: UUID, user_id: UUID, *, any_user: bool = False) -> Order:
        """The user's order, or with `any_user` anybody's; raises OrderNotFound."""
        row = await self._database.fetchrow(GET_OF_USER, order_id, user_id, any_user)
        if row is None:
            raise OrderNotFound
        return _order(row)

    async def page(self, user_id: UUID, status: Status | None, before: UUID | None, limit: int) -> list[Order]:
        """The user's orders, newest first, those older than `before`."""
        if status is None:
            rows = await self._database.fetch(LIST, user_id, before or AFTER_ALL, limit)
        else:
            rows = await self._database.fetch(LIST_BY_STATUS, user_id, before or AFTER_ALL, limit, status)
        return [_order(row) for row in rows]

    async def page_of_everyone(
        self, status: Status | None, before: UUID | None, limit: int
    ) -> tuple[list[Order], UUID | None]:
        """Everybody's orders, newest first, those older than `before`, and the id after which the next page begins.

        A page of one status holds fewer than `limit` where WALKED orders had no more of it, and may hold none.
        """
        after = before or AFTER_ALL
        if status is None:
            rows = await self._database.fetch(LIST_OF_EVERYONE, after, limit + 1)
        else:
            rows = await self._database.fetch(LIST_OF_EVERYONE_BY_STATUS, after, limit + 1, status)
        orders = [_order(row) for row in rows]
        if len(orders) > limit:
            return orders[:limit], orders[limit - 1].id
        return orders, None if status is None else await self._database.fetchval(WALKED_TO, after)

    async def save(self, before: Order, after: Order) -> Order:
        """Store an order that the saga goes on with; raises Superseded."""
        version = await self._database.fetchval(
            MOVE, before.id, before.version, after.status, _history(after.history), after.payment_id,
            _undo(after.undo), self._lease_s,
        )  # fmt: skip
        return _as_version(after, version)

    async def settle(self, before: Order, after: Order, answer: StoredAnswer | None) -> Order:
        """Store an order that nothing is left to do for, the checkout's answer where it had none, and empty the cart of
        what was bought. Raises Superseded.
        """
        status, body, location = (None, None, None) if answer is None else (answer.status, answer.body, answer.location)
        version = await self._database.fetchval(
            SETTLE, before.id, before.version, after.status, _history(after.history), after.payment_id,
            status, body, location,
        )  # fmt: skip
        return _as_version(after, version)

    async def defer(self, order_id: UUID) -> None:
        """Note that 202 is answered, empty the cart, and let any replica take the order up at once."""
        await self._database.execute(DEFER, order_id)

    async def claim_unfinished(self, limit: int) -> list[Order]:
        """Take up orders whose lease has run out; no other replica gets the same ones."""
        return [_order(row) for row in await self._database.fetch(CLAIM_UNFINISHED, self._lease_s, limit)]

    async def postpone(self, order_id: UUID, delay_s: float) -> None:
        """Give an order back, to be taken up again after `delay_s`."""
        await self._database.execute(POSTPONE, order_id, delay_s)

    async def changed(self, seen: Mapping[UUID, int]) -> dict[UUID, tuple[Entry, ...]]:
        """The whole histories of those orders that have more entries than were seen."""
        rows = await self._database.fetch(CHANGED, list(seen), list(seen.values()))
        return {row["id"]: entries(row["history"]) for row in rows}

    async def unfinished(self) -> Unfinished:
        """The orders that something is left to do for, in the hands of whichever replica."""
        row = await self._database.fetchrow(UNFINISHED)
        assert row is not None
        return Unfinished(*row)

    async def forget_keys(self, limit: int) -> int:
        """Delete idempotency keys that are older than 24 hours; returns how many."""
        return int((await self._database.execute(FORGET_KEYS, limit)).rpartition(" ")[2])


def _as_version(order: Order, version: int | None) -> Order:
    if version is None:
        raise Superseded
    return replace(order, version=version)


async def cart(statements: Statements, user_id: UUID) -> list[CartItem]:
    """What is in the user's cart, in the order in which it came there."""
    return [
        CartItem(row["product_id"], row["quantity"], row["name"], row["unit_price_minor"], row["currency"])
        for row in await statements.fetch(CART, user_id)
    ]


async def put_item(database: Database, user_id: UUID, item: CartItem) -> bool:
    """Set a product's quantity in the cart; false where the cart is full, exactly, also for two at once."""
    async with database.transaction() as transaction:
        await transaction.execute(LOCK_CART, user_id)
        return None is not await transaction.fetchval(
            PUT_ITEM, user_id, item.product_id, item.quantity, item.name, item.unit_price_minor, item.currency
        )


async def remove_item(statements: Statements, user_id: UUID, product_id: UUID) -> None:
    """Take a product out of the cart, where it is there."""
    await statements.execute(
        "DELETE FROM cart_items /* remove item */ WHERE user_id = $1 AND product_id = $2", user_id, product_id
    )


async def empty_cart(statements: Statements, user_id: UUID) -> None:
    """Take everything out of the cart."""
    await statements.execute("DELETE FROM cart_items /* empty cart */ WHERE user_id = $1", user_id)
