"""The model of the statements is true: each is replayed on PostgreSQL, for every world and arguments that a search has
met, and answers and leaves behind what the model says.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson
import pytest

from chassis.database import Connection, Database
from chassis.settings import ServiceSettings
from chassis.testing import settings_for
from services.order import repository as orders
from services.payment import repository as payments
from services.payment import simulator
from services.payment.domain import CAPTURE, REFUND
from services.product import repository as products
from tests.databases import Databases
from tests.model import world as model
from tests.model.processes import FINGERPRINT
from tests.model.search import Executed, Search
from tests.model.world import (
    CURRENCY,
    KEY,
    MOMENT,
    ORDER_ID,
    PAYMENT_ID,
    PRODUCT_ID,
    QUANTITY,
    REFERENCE,
    TOTAL_MINOR,
    TRACEPARENT,
    USER_ID,
    World,
)

Put = Callable[[Connection, World], Any]
Read = Callable[[Connection, World], Any]

ITEMS = [{"product_id": PRODUCT_ID, "quantity": QUANTITY}]


# The order service

PUT_ORDER = """
INSERT INTO orders (id, user_id, status, lines, total_minor, currency, address, payment_method, payment_id, history,
    undo, from_cart, traceparent, version, created_at, lease_until)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, false, $12, $13, $14,
    CASE WHEN $15 THEN now() - interval '1 s' END)
"""
PUT_KEY = """
INSERT INTO idempotency_keys (user_id, key, fingerprint, order_id, deferred, status, body, location)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
READ_ORDER = """
SELECT orders.status AS "order", history, payment_id, undo, version, lease_until IS NOT NULL AS lease, deferred,
    keys.status, body, location, payment_method
FROM orders JOIN idempotency_keys AS keys ON keys.order_id = orders.id
"""


async def put_order(connection: Connection, world: World) -> None:
    if world.order is None:
        return
    row = model.order_row(world)
    await connection.execute(
        PUT_ORDER, row["id"], row["user_id"], row["status"], row["lines"], TOTAL_MINOR, CURRENCY, row["address"],
        row["payment_method"], row["payment_id"], row["history"], row["undo"], TRACEPARENT, row["version"], MOMENT,
        world.lease,
    )  # fmt: skip
    answer = world.answer or (None, None, None)
    await connection.execute(PUT_KEY, USER_ID, KEY, FINGERPRINT, ORDER_ID, world.deferred, *answer)


async def read_order(connection: Connection, _: World) -> World:
    row = await connection.fetchrow(READ_ORDER)
    if row is None:
        return World()
    return World(
        order=row["order"],
        history=_text(row["history"]),
        payment_id=row["payment_id"] and str(row["payment_id"]),
        undo=row["undo"] and _text(row["undo"]),
        version=row["version"],
        lease=row["lease"],
        deferred=row["deferred"],
        answer=None if row["status"] is None else (row["status"], row["body"], row["location"]),
        method=row["payment_method"],
    )


# The product service

PUT_PRODUCT = """
WITH category AS (INSERT INTO categories VALUES ('kettles', 'Kettles') RETURNING slug)
INSERT INTO products (id, sku, name, name_folded, category, price_minor, currency)
SELECT $1, 'sku', 'Kettle', 'kettle', slug, $2, $3 FROM category
"""
PUT_RESERVATION = "INSERT INTO reservations (order_id, items, status, expires_at) VALUES ($1, $2, $3, $4)"
READ_STOCK = """
SELECT on_hand, stock.reserved, CASE WHEN items = '[]' THEN 'tombstone' ELSE status END AS reservation
FROM stock LEFT JOIN reservations ON true
"""


async def put_stock(connection: Connection, world: World) -> None:
    await connection.execute(PUT_PRODUCT, PRODUCT_ID, TOTAL_MINOR, CURRENCY)
    await connection.execute("INSERT INTO stock VALUES ($1, $2, $3)", PRODUCT_ID, world.on_hand, world.reserved)
    if world.reservation is not None:
        tombstone = world.reservation == "tombstone"
        status = "released" if tombstone else world.reservation
        await connection.execute(PUT_RESERVATION, ORDER_ID, [] if tombstone else ITEMS, status, MOMENT)


async def read_stock(connection: Connection, _: World) -> World:
    row = await connection.fetchrow(READ_STOCK)
    assert row is not None
    return World(reservation=row["reservation"], on_hand=row["on_hand"], reserved=row["reserved"])


# The payment service

PUT_PAYMENT = """
INSERT INTO payments (id, order_id, user_id, amount_minor, currency, payment_method, status, decline_code,
    captured_minor, refunded_minor, refunding_minor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
PUT_REFUND = """
INSERT INTO refunds (id, payment_id, amount_minor, reason, status, leased_until) VALUES ($1, $2, $3, 'r', $4, now())
"""
PUT_MOVEMENT = """
INSERT INTO ledger_entries (movement_id, payment_id, account, amount_minor, currency)
VALUES ($1, $2, $3, $5, $6), ($1, $2, $4, -$5, $6)
"""
READ_PAYMENT = """
SELECT id, status, user_id IS NOT NULL AS asked_for, payment_method, captured_minor, refunded_minor, refunding_minor
FROM payments
"""
READ_LEDGER = """
SELECT debit.movement_id, debit.account, credit.account AS credited, debit.amount_minor
FROM ledger_entries AS debit JOIN ledger_entries AS credit USING (movement_id)
WHERE debit.amount_minor > 0 AND credit.amount_minor < 0
ORDER BY debit.movement_id
"""


async def put_payment(connection: Connection, world: World) -> None:
    if world.payment is None:
        return
    asked = (USER_ID, TOTAL_MINOR, CURRENCY, world.method) if world.asked_for else (None, None, None, None)
    await connection.execute(
        PUT_PAYMENT, PAYMENT_ID, ORDER_ID, *asked, world.payment, "declined" if world.payment == "declined" else None,
        world.captured_minor, world.refunded_minor, world.refunding_minor,
    )  # fmt: skip
    for number, (status, amount_minor) in enumerate(world.refunds):
        await connection.execute(PUT_REFUND, model.refund_id(number), PAYMENT_ID, amount_minor, status)
    for movement, amount_minor in world.ledger:
        capture = movement == "capture"
        movement_id = PAYMENT_ID if capture else model.refund_id(int(movement.removeprefix("refund ")))
        posting = CAPTURE if capture else REFUND
        await connection.execute(
            PUT_MOVEMENT, movement_id, PAYMENT_ID, posting.debit, posting.credit, amount_minor, CURRENCY
        )


async def read_payment(connection: Connection, before: World) -> World:
    row = await connection.fetchrow(READ_PAYMENT)
    if row is None:
        return World(method=before.method)
    assert row["payment_method"] in {None, before.method}
    refunds = await connection.fetch("SELECT id, status, amount_minor FROM refunds ORDER BY id")
    numbers = {refund["id"]: number for number, refund in enumerate(refunds)}
    ledger: list[tuple[str, int]] = []
    for movement in await connection.fetch(READ_LEDGER):
        capture = movement["movement_id"] == row["id"]
        posting = CAPTURE if capture else REFUND
        assert (movement["account"], movement["credited"]) == (posting.debit, posting.credit)
        name = "capture" if capture else f"refund {numbers[movement['movement_id']]}"
        ledger.append((name, movement["amount_minor"]))
    return World(
        payment=row["status"],
        asked_for=row["asked_for"],
        method=before.method,
        captured_minor=row["captured_minor"],
        refunded_minor=row["refunded_minor"],
        refunding_minor=row["refunding_minor"],
        refunds=tuple((refund["status"], refund["amount_minor"]) for refund in refunds),
        ledger=tuple(ledger),
    )


# The provider

PUT_CHARGE = """
INSERT INTO simulator_charges (key, reference, payment_method, amount_minor, currency, status, decline_code,
    captured_minor, refunded_minor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
READ_CHARGE = "SELECT status, captured_minor, refunded_minor FROM simulator_charges"


async def put_charge(connection: Connection, world: World) -> None:
    if world.charge is None:
        return
    await connection.execute(
        PUT_CHARGE, ORDER_ID, REFERENCE, world.method, TOTAL_MINOR, CURRENCY, world.charge,
        "declined" if world.charge == "declined" else None, world.charge_captured_minor, world.charge_refunded_minor,
    )  # fmt: skip
    for key in world.charge_refunds:
        await connection.execute(
            "INSERT INTO simulator_refunds (key, charge_key, amount_minor) VALUES ($1, $2, $3)",
            UUID(int=key),
            ORDER_ID,
            TOTAL_MINOR,
        )


async def read_charge(connection: Connection, _: World) -> World:
    row = await connection.fetchrow(READ_CHARGE)
    if row is None:
        return World()
    refunds = await connection.fetch("SELECT key FROM simulator_refunds ORDER BY created_at, key")
    return World(
        charge=row["status"],
        charge_captured_minor=row["captured_minor"],
        charge_refunded_minor=row["refunded_minor"],
        charge_refunds=tuple(refund["key"].int for refund in refunds),
    )


class Store(NamedTuple):
    """One service's part of a world: which fields, and how they are written to its tables and read from them."""

    database: str
    fields: tuple[str, ...]
    put: Put
    read: Read

    def of(self, world: World) -> tuple[Any, ...]:
        """This part of a world; JSON is compared by what it says."""
        values = (getattr(world, name) for name in self.fields)
        return tuple(
            orjson.loads(value) if name in {"history", "undo"} and value else value
            for name, value in zip(self.fields, values, strict=True)
        )


STORES = {
    orders: Store(
        "order",
        ("order", "history", "payment_id", "undo", "version", "lease", "deferred", "answer", "method"),
        put_order,
        read_order,
    ),
    products: Store("product", ("reservation", "on_hand", "reserved"), put_stock, read_stock),
    payments: Store(
        "payment",
        (
            "payment",
            "asked_for",
            "method",
            "captured_minor",
            "refunded_minor",
            "refunding_minor",
            "refunds",
            "ledger",
        ),
        put_payment,
        read_payment,
    ),
    simulator: Store(
        "payment",
        ("charge", "charge_captured_minor", "charge_refunded_minor", "charge_refunds"),
        put_charge,
        read_charge,
    ),
}


# Replaying


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _store(text: str) -> Store:
    return next((store for module, store in STORES.items() if text in vars(module).values()), STORES[products])


def _ids(store: Store, world: World) -> set[UUID]:
    """The ids that were there before a statement; others it has made, and each side in its own way."""
    ids = {USER_ID, PRODUCT_ID, ORDER_ID, PAYMENT_ID, *(model.refund_id(n) for n in range(len(world.refunds)))}
    if store is STORES[orders] and world.order is None:
        ids.remove(ORDER_ID)
    if store is STORES[payments] and world.payment is None:
        ids.remove(PAYMENT_ID)
    return ids


def _plain(name: str, value: Any, ids: set[UUID]) -> Any:
    """A value of a row, but for what is made anew each time: a new id, a time, a reference of the provider's."""
    match value:
        case UUID():
            return value if value in ids else "a new id"
        case datetime():
            return "a time"
        case str() if name == "reference":
            return value[:4]
        case str() if name == "document":
            document = orjson.loads(value)
            return _plain("id", UUID(document["id"]), ids), document["status"], document["decline_code"]
        case _:
            return value


def _rows(answer: Any, ids: set[UUID]) -> Any:
    """An answer in a form in which the model's and PostgreSQL's can be compared. The model counts no attempts."""
    if isinstance(answer, Exception):
        return type(answer)
    return [
        {name: _plain(name, value, ids) for name, value in columns.items() if name != "attempts"}
        for columns in (dict(zip(_names(each), each, strict=True)) for each in answer)
    ]


def _names(each: Any) -> Sequence[str]:
    return each.names if isinstance(each, model.Row) else list(each.keys())


async def _replay(connection: Connection, store: Store, done: Executed) -> tuple[Any, World]:
    """What PostgreSQL answers to a statement in a world, and the world after it."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await store.put(connection, done.world)
        try:
            async with connection.transaction():
                answer: Any = await connection.fetch(done.text, *done.arguments)
        except asyncpg.IntegrityConstraintViolationError as error:
            answer = error
        return answer, await store.read(connection, done.world)
    finally:
        await transaction.rollback()


@pytest.fixture
def met() -> list[Executed]:
    """What searches have executed, once for each part of a world that the statement's service has.

    A fixture, since the model steps its coroutines where no event loop is running.
    """
    different: dict[str, Executed] = {}
    for method in ("tok_visa", "tok_declined"):
        search = Search(method=method, faults=1)
        assert search.run().violation is None
        for done in search.executed():
            different.setdefault(f"{_store(done.text).of(done.world)} {done.text} {done.arguments}", done)
    return list(different.values())


async def test_postgresql_does_what_the_model_of_each_statement_says(postgres: Databases, met: list[Executed]) -> None:
    assert {done.text for done in met} == model.STATEMENTS.keys()
    assert len(met) > 400
    urls = {name: postgres.clone(name) for name in ("order", "product", "payment")}
    databases = {name: Database(settings_for(ServiceSettings, name, url)) for name, url in urls.items()}
    for done in met:
        store = _store(done.text)
        async with databases[store.database].connection() as connection:
            answer, after = await _replay(connection, store, done)
        ids = _ids(store, done.world)
        told = f"{done.text}\n{done.arguments}\n{done.world}"
        assert _rows(answer, ids) == _rows(done.answer, ids), told
        assert store.of(after) == store.of(done.after), told
    for name, database in databases.items():
        await database.close()
        postgres.drop(urls[name])
