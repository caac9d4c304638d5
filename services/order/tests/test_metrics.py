"""What the service tells of the orders that are under way, and that it costs no more than they are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from chassis.app import Service
from chassis.testing import UserTokens, client, settings_for
from services.order import repository
from services.order.app import create_app
from services.order.repository import Orders, Unfinished
from services.order.settings import OrderSettings
from tests.plans import plan_without_running

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


async def test_unfinished_orders_are_found_by_their_index(service: Service) -> None:
    await fill(service, "confirmed", 0, leased=False, count=FINISHED)
    await fill(service, "authorised", 0, leased=True, count=20)
    await service.database.execute("VACUUM ANALYZE orders")
    plan = await plan_without_running(service.database, repository.UNFINISHED)
    assert "orders_unfinished" in plan.indexes
    assert not plan.whole_tables


async def test_the_gauges_follow_the_orders_while_the_service_runs(service: Service) -> None:
    await fill(service, "authorised", 120, leased=True, count=2)
    await service.start()
    async with client(service) as http, asyncio.timeout(WITHIN_S):
        while "souk_orders_unfinished 2.0" not in (text := (await http.get("/metrics")).text):  # noqa: ASYNC110 - of a worker
            await asyncio.sleep(0.02)
    await service.stop()
    (line,) = [line for line in text.splitlines() if line.startswith("souk_order_oldest_unfinished_seconds ")]
    assert float(line.split()[1]) >= 120
