"""What the service tells of the orders that are under way, and that it costs no more than they are."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import asyncpg
import httpx2
import orjson
import pytest

from chassis.app import Service
from chassis.testing import UserTokens, client, settings_for
from services.order import repository
from services.order.app import create_app
from services.order.repository import Orders, Unfinished
from services.order.settings import OrderSettings

WITHIN_S = 20
FINISHED = 5000
FILL = """
INSERT INTO orders (user_id, status, lines, total_minor, currency, address, payment_method, history, from_cart,
    traceparent, created_at, updated_at, lease_until, undo)
SELECT uuidv7(), $1, '[]', 0, 'USD', '{}', 'tok_visa', '[]', false, '', now() - interval '1 year',
    now() - make_interval(secs => $2), CASE WHEN $3 THEN now() + interval '1 hour' END, $4
FROM generate_series(1, $5)
"""
UNDO = {"to": "cancelled", "reason": "cancelled_by_customer", "refusal": None}


@pytest.fixture
def order_url(database_url: Callable[[str], str]) -> str:
    return database_url("order")


@pytest.fixture
async def service(order_url: str) -> AsyncIterator[Service]:
    # Nothing here calls product or payment: no order's lease runs out.
    peers: dict[str, httpx2.AsyncBaseTransport] = dict.fromkeys(
        ("user", "product", "payment"), UserTokens().transport()
    )
    service = create_app(settings_for(OrderSettings, "order", order_url), peers)
    yield service
    await service.database.close()


async def fill(
    service: Service, status: str, since_s: float, *, leased: bool, undo: Any = None, count: int = 1
) -> None:
    """Store orders of last year whose last step was `since_s` ago."""
    await service.database.execute(FILL, status, since_s, leased, undo, count)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def test_unfinished_are_those_that_something_is_left_to_do_for(service: Service) -> None:
    orders: Orders = service.state.orders
    assert await orders.unfinished() == Unfinished(0, 0.0)
    await fill(service, "confirmed", 1000, leased=False, count=3)
    assert await orders.unfinished() == Unfinished(0, 0.0)
    await fill(service, "confirmed", 5, leased=True, undo=UNDO)
    count, oldest_s = await orders.unfinished()
    assert count == 1
    assert 5 <= oldest_s < 5 + WITHIN_S, "since the buyer cancelled, not since the order was placed"
    await fill(service, "authorised", 70, leased=True, count=2)
    count, oldest_s = await orders.unfinished()
    assert count == 3
    assert 70 <= oldest_s < 70 + WITHIN_S


async def test_unfinished_orders_are_found_by_their_index(service: Service, order_url: str) -> None:
    await fill(service, "confirmed", 0, leased=False, count=FINISHED)
    await fill(service, "authorised", 0, leased=True, count=20)
    connection = await asyncpg.connect(order_url)
    try:
        await connection.execute("VACUUM ANALYZE orders")
        [row] = await connection.fetch(f"EXPLAIN (FORMAT JSON) {repository.UNFINISHED}")
    finally:
        await connection.close()
    plan = orjson.loads(row[0])[0]["Plan"]
    assert "orders_unfinished" in {node.get("Index Name") for node in nodes(plan)}
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"]


async def test_the_gauges_follow_the_orders_while_the_service_runs(service: Service) -> None:
    await fill(service, "authorised", 120, leased=True, count=2)
    await service.start()
    async with client(service) as http, asyncio.timeout(WITHIN_S):
        while "souk_orders_unfinished 2.0" not in (text := (await http.get("/metrics")).text):  # noqa: ASYNC110 - of a worker
            await asyncio.sleep(0.02)
    await service.stop()
    (line,) = [line for line in text.splitlines() if line.startswith("souk_order_oldest_unfinished_seconds ")]
    assert float(line.split()[1]) >= 120
