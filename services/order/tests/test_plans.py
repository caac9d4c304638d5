"""An order, a history and a cart are read by an index: what PostgreSQL plans, over many orders, for the very
statements that are served.
"""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from bench.grown import bring_orders, identifier
from services.order import repository
from services.order.domain import Status
from services.order.repository import Orders
from tests.databases import Databases
from tests.plans import Noting, plan_of, to_fill

ORDERS, CUSTOMERS = 50_000, 5_000
SEED = 7
MOST, FEW = identifier(0), identifier(CUSTOMERS - 1)
"""The customer who ordered most, and one of those who ordered least."""
SHOWN = 21
"""A page of twenty, and the row that tells whether more follow."""
CARTS = """
INSERT INTO cart_items (user_id, product_id, quantity, name, unit_price_minor, currency)
SELECT user_id, uuidv7(), 1, 'Lantern', 1999, 'USD' FROM (SELECT DISTINCT user_id FROM orders), generate_series(1, 3)
"""


@pytest.fixture(scope="module")
async def database(postgres: Databases) -> AsyncIterator[Noting]:
    """Many orders, unevenly spread over their customers, and a cart of each."""
    async with to_fill(postgres, "order") as (database, connection):
        await bring_orders(connection, ORDERS, CUSTOMERS, SEED)
        await connection.execute(CARTS)
        await connection.execute("VACUUM (ANALYZE) cart_items")
        yield database


@pytest.fixture
def orders(database: Noting) -> Orders:
    return Orders(database, lease_s=10)


@pytest.mark.parametrize("before", [None, identifier(ORDERS // 2), identifier(ORDERS // 50)])
@pytest.mark.parametrize("customer", [MOST, FEW], ids=["most", "few"])
async def test_a_page_of_a_history_reads_what_it_shows(
    database: Noting, orders: Orders, customer: UUID, before: UUID | None
) -> None:
    plan = await plan_of(database, orders.page(customer, None, before, SHOWN))
    assert plan.indexes == {"orders_by_user"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("orders") <= SHOWN


@pytest.mark.parametrize("before", [None, identifier(ORDERS // 2)])
@pytest.mark.parametrize("customer", [MOST, FEW], ids=["most", "few"])
async def test_a_history_by_status_reads_that_customers_orders_only(
    database: Noting, orders: Orders, customer: UUID, before: UUID | None
) -> None:
    plan = await plan_of(database, orders.page(customer, Status.REJECTED, before, SHOWN))
    assert plan.indexes == {"orders_by_user"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("orders") <= len(await orders.page(customer, None, None, ORDERS))


@pytest.mark.parametrize("before", [None, identifier(ORDERS // 2)])
@pytest.mark.parametrize("status", [None, Status.CONFIRMED, Status.DELIVERED])
async def test_a_page_of_everyones_orders_walks_no_further_than_it_says(
    database: Noting, orders: Orders, status: Status | None, before: UUID | None
) -> None:
    plan = await plan_of(database, orders.page_of_everyone(status, before, SHOWN - 1))
    assert plan.indexes == {"orders_pkey"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("orders") <= (SHOWN if status is None else repository.WALKED)


async def test_a_page_of_everyones_orders_of_a_status_that_none_has_goes_on_where_it_stopped(orders: Orders) -> None:
    everyones, _ = await orders.page_of_everyone(None, None, 2 * repository.WALKED)
    assert len(everyones) == 2 * repository.WALKED
    newest_first = [order.id for order in everyones]
    assert newest_first == sorted(newest_first, reverse=True)
    walked = newest_first[repository.WALKED - 1]
    assert await orders.page_of_everyone(Status.PENDING, None, SHOWN) == ([], walked)
    rest, _ = await orders.page_of_everyone(None, walked, SHOWN)
    assert rest[0].id == newest_first[repository.WALKED]
    assert await orders.page_of_everyone(Status.PENDING, identifier(10), SHOWN) == ([], None)


async def test_where_a_page_of_everyones_orders_stopped_is_read_from_the_index(database: Noting) -> None:
    plan = await plan_of(database, database.fetchval(repository.WALKED_TO, repository.AFTER_ALL))
    assert plan.indexes == {"orders_pkey"}
    assert not plan.whole_tables


@pytest.mark.parametrize("any_user", [False, True])
async def test_an_order_is_found_by_its_id(database: Noting, orders: Orders, any_user: bool) -> None:
    [placed] = await orders.page(MOST, None, None, 1)
    for read in (orders.get(placed.id), orders.get_for(placed.id, MOST, any_user=any_user)):
        plan = await plan_of(database, read)
        assert plan.indexes == {"orders_pkey"}
        assert plan.rows_looked_at("orders") == 1


async def test_followed_orders_are_found_by_their_ids(database: Noting, orders: Orders) -> None:
    followed = {order.id: 0 for order in await orders.page(MOST, None, None, 10)}
    plan = await plan_of(database, orders.changed(followed))
    assert plan.indexes == {"orders_pkey"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("orders") == len(followed)


async def test_a_cart_reads_its_own_lines(database: Noting) -> None:
    plan = await plan_of(database, repository.cart(database, MOST))
    assert plan.indexes == {"cart_items_pkey"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("cart_items") == 3
