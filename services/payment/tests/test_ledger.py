"""The ledger cannot be changed, and balances whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.database import Database
from chassis.problems import Problem
from chassis.testing import UserTokens, client, settings_for
from services.payment import repository
from services.payment.app import create_app
from services.payment.settings import PaymentSettings
from services.payment.simulator import Simulator
from services.payment.tests.harness import Callers, Crash, Crashing, Flows, books, flows

APPEND = """
INSERT INTO ledger_entries (movement_id, payment_id, account, amount_minor, currency)
SELECT $1, $2, account, amount_minor, currency FROM unnest($3::text[], $4::bigint[], $5::text[])
    AS entry (account, amount_minor, currency)
"""


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_entries SET amount_minor = 0",
        "UPDATE ledger_entries SET amount_minor = 0 WHERE false",
        "DELETE FROM ledger_entries",
        "TRUNCATE ledger_entries",
        "TRUNCATE payments CASCADE",
    ],
)
async def test_the_ledger_is_append_only(callers: Callers, database: Database, change: str) -> None:
    order_id = UUID((await callers.captured())["order_id"])
    before = await books(database, order_id)
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await database.execute(change)
    assert await books(database, order_id) == before


@pytest.mark.parametrize(
    "entries",
    [
        [("provider_receivable", 100, "USD")],
        [("provider_receivable", 100, "USD"), ("sales_revenue", -99, "USD")],
        [("provider_receivable", 100, "USD"), ("sales_revenue", -100, "EUR")],
        [("provider_receivable", 100, "USD"), ("sales_revenue", -50, "USD"), ("sales_returns", -50, "USD")],
    ],
)
async def test_a_movement_that_does_not_balance_is_refused(
    callers: Callers, database: Database, entries: list[tuple[str, int, str]]
) -> None:
    payment_id = UUID((await callers.authorised())["id"])
    with pytest.raises(asyncpg.CheckViolationError, match="sum to zero"):
        await database.execute(APPEND, uuid4(), payment_id, *map(list, zip(*entries, strict=True)))


async def test_a_movement_cannot_be_booked_twice(callers: Callers, database: Database) -> None:
    payment_id = UUID((await callers.captured())["id"])
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.execute(
            APPEND, payment_id, payment_id, ["provider_receivable", "sales_revenue"], [1, -1], ["USD", "USD"]
        )


async def test_the_gauge_tells_by_how_much_the_ledger_misses_zero(callers: Callers, database: Database) -> None:
    payment_id = UUID((await callers.authorised())["id"])
    assert await repository.imbalance_minor(database) == 0
    async with database.connection() as connection:
        planted = connection.transaction()
        await planted.start()
        try:
            await connection.execute("ALTER TABLE ledger_entries DISABLE TRIGGER double_entry")
            await connection.execute(APPEND, uuid4(), payment_id, ["sales_revenue"], [-7], ["USD"])
            await connection.execute(APPEND, uuid4(), payment_id, ["sales_revenue"], [5], ["EUR"])
            assert await repository.imbalance_minor(connection) == 12
        finally:
            await planted.rollback()


async def test_a_service_that_runs_shows_what_its_ledger_misses(
    database_url: Callable[[str], str], tokens: UserTokens
) -> None:
    settings = settings_for(PaymentSettings, "payment", database_url("payment"), ledger_check_every_s=0.05)
    service = create_app(settings, {"user": tokens.transport()})
    database = service.database
    await service.start()
    async with client(service) as http:

        async def shown(line: str) -> None:
            async with asyncio.timeout(20):
                while line not in (await http.get("/metrics")).text.splitlines():  # noqa: ASYNC110 - of a worker
                    await asyncio.sleep(0.02)

        payment_id = UUID((await Callers(http, tokens).captured())["id"])
        await shown("souk_ledger_imbalance_minor 0.0")
        await database.execute("ALTER TABLE ledger_entries DISABLE TRIGGER double_entry")
        await database.execute(APPEND, uuid4(), payment_id, ["sales_revenue"], [-7], ["USD"])
        await shown("souk_ledger_imbalance_minor 7.0")
    await service.stop()


def _act(on: Flows, action: str, order_id: UUID, payment_id: UUID, amount_minor: int) -> Awaitable[object]:
    match action:
        case "authorise":
            return on.authorise(order_id, 1000)
        case "capture":
            return on.charges.capture(order_id)
        case "void":
            return on.charges.void(order_id)
        case "refund":
            return on.refunds.refund(payment_id, amount_minor, "walk")
        case "refund whole":
            return on.refunds.refund(payment_id, None, "walk")
        case "recover":
            return on.refunds.recover()
        case _:
            return on.refunds.refund_rest(order_id, "walk")


ACTIONS = st.tuples(
    st.sampled_from(["authorise", "capture", "void", "refund", "refund whole", "recover", "refund rest"]),
    st.integers(1, 700),
    st.sampled_from(
        [None, *((op, at) for op in ("authorise", "capture", "void", "refund") for at in ("before", "after"))]
    ),
)


# The database is the same for all examples, and each makes a payment of its own.
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walk=st.lists(st.lists(ACTIONS, min_size=1, max_size=3), min_size=1, max_size=8))
async def test_after_any_walk_the_books_agree(
    database: Database, simulator: Simulator, walk: list[list[tuple[str, int, tuple[str, str] | None]]]
) -> None:
    """A walk is rounds of actions at once, each of which may crash before or after the provider has acted."""
    order_id, sound = uuid4(), flows(database, simulator, lease_s=0)
    payment_id = UUID(orjson.loads(await sound.authorise(order_id, 1000))["id"])
    for together in walk:
        done = await asyncio.gather(
            *(
                _act(
                    flows(database, simulator if crash is None else Crashing(simulator, *crash), lease_s=0),
                    action,
                    order_id,
                    payment_id,
                    amount_minor,
                )
                for action, amount_minor, crash in together
            ),
            return_exceptions=True,
        )
        for outcome in done:
            assert not isinstance(outcome, BaseException) or isinstance(outcome, Problem | Crash), outcome
    try:
        await sound.charges.void(order_id)
    except Problem:
        await sound.refunds.refund_rest(order_id, "the end")
    written = await books(database, order_id)
    assert written.status in {"voided", "refunded"}
    written.agree()
    assert await repository.imbalance_minor(database) == 0
