"""A peer or a database is away for a while: clear answers meanwhile, and everything to its end afterwards."""

import asyncio
from collections.abc import Callable, Iterator
from time import perf_counter

import pytest

from local.postgres import EmbeddedPostgres
from services.order.domain import IN_FLIGHT
from tests.databases import Databases
from tests.platform.assembly import ADDRESS, Platform, Shopper
from tests.platform.conftest import MakePlatform, Stocked
from tests.platform.faults import Fault, Gate, refused, reply_lost

ANSWERS_WITHIN_S = 3.0
SETTLES_WITHIN_S = 15.0

CALLS = [
    ("product", "PUT", "/reservations/"),
    ("payment", "PUT", "/payments/"),
    ("product", "POST", "/commit$"),
    ("payment", "POST", "/capture$"),
]
UNDOING = [
    ("product", "DELETE", "/reservations/"),
    ("payment", "POST", "/void$"),
    ("payment", "POST", "/refund$"),
]


@pytest.fixture
def impatient(make_platform: MakePlatform) -> Platform:
    """A platform whose checkouts wait for an outcome for 0.3 s."""
    return make_platform(replicas=2, checkout_budget_s=0.3)


@pytest.mark.parametrize("fault", [refused, reply_lost])
@pytest.mark.parametrize(("peer", "method", "path"), CALLS)
async def test_a_call_of_a_checkout_that_fails_once_is_made_again(
    platform: Platform, customer: Shopper, stocked: Stocked, peer: str, method: str, path: str, fault: Fault
) -> None:
    product_id = await stocked(10)
    rule = platform.faults.strike(peer, method, path, fault, nth=1)
    assert (await customer.order((product_id, 1))).status_code == 201
    assert rule.matched == 2
    assert await platform.available(product_id) == 9
    assert await platform.violations() == []


@pytest.mark.parametrize("fault", [refused, reply_lost])
@pytest.mark.parametrize(("peer", "method", "path"), UNDOING)
async def test_a_call_of_a_cancellation_that_fails_once_is_made_again(
    platform: Platform, customer: Shopper, stocked: Stocked, peer: str, method: str, path: str, fault: Fault
) -> None:
    product_id = await stocked(10)
    order = await customer.bought((product_id, 1))
    platform.faults.strike(peer, method, path, fault, nth=1)
    assert (await customer.cancel(order["id"])).status_code == 200
    assert await platform.available(product_id) == 10
    assert await platform.violations() == []


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(("peer", "method", "path"), CALLS)
async def test_an_order_whose_peer_stays_away_is_pending_and_recovered(
    impatient: Platform, peer: str, method: str, path: str, *, slow: bool
) -> None:
    customer = await impatient.customer()
    product_id = await impatient.product_of(await impatient.admin(), stock=10)
    impatient.faults.strike(peer, method, path, Gate() if slow else refused)
    answer = await customer.order((product_id, 1), key="pending")
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert answer.headers["location"] == f"/api/v1/orders/{answer.json()['id']}"
    impatient.faults.heal()
    await impatient.recover(replica=1)
    assert (await customer.read_order(answer.json()["id"]))["status"] == "confirmed"
    assert (await customer.order((product_id, 1), key="pending")).status_code == 201
    assert await impatient.violations() == []


@pytest.mark.parametrize(("peer", "method", "path"), UNDOING)
async def test_a_cancellation_whose_peer_stays_away_is_finished_by_recovery(
    impatient: Platform, peer: str, method: str, path: str
) -> None:
    customer = await impatient.customer()
    product_id = await impatient.product_of(await impatient.admin(), stock=10)
    order = await customer.bought((product_id, 1))
    impatient.faults.strike(peer, method, path, refused)
    assert (await customer.cancel(order["id"])).status_code == 202
    assert (await customer.cancel(order["id"])).status_code == 202
    impatient.faults.heal()
    await impatient.recover(replica=1)
    assert (await customer.cancel(order["id"])).status_code == 200
    assert await impatient.available(product_id) == 10
    assert await impatient.violations() == []


async def test_an_order_is_refused_while_its_prices_cannot_be_asked(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    platform.faults.strike("product", "*", "", refused)
    answer = await customer.order((product_id, 1), key="again")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert await customer.orders() == []
    platform.faults.heal()
    assert (await customer.order((product_id, 1), key="again")).status_code == 201


async def test_without_the_user_service_only_what_needs_it_is_refused(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    saved = await customer.call("POST", "/api/v1/users/me/addresses", ADDRESS)
    address_id = saved.json()["id"]
    assert await customer.orders() == []  # the keys are known from here on
    platform.faults.strike("user", "*", "", refused)
    assert (await customer.order((product_id, 1))).status_code == 201
    answer = await customer.order((product_id, 1), address_id=address_id, key="saved")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    stranger = await customer.call("GET", "/api/v1/orders", replica=platform.add_replica())
    assert (stranger.status_code, stranger.headers["retry-after"]) == (503, "1")
    platform.faults.heal()
    assert (await customer.order((product_id, 1), address_id=address_id, key="saved")).status_code == 201


async def test_an_order_that_cannot_be_recovered_yet_does_not_keep_others_waiting(
    impatient: Platform,
) -> None:
    customer = await impatient.customer()
    product_id = await impatient.product_of(await impatient.admin(), stock=10)
    impatient.faults.strike("payment", "*", "", refused)
    orders = [(await customer.order((product_id, 1))).json()["id"] for _ in range(3)]
    impatient.faults.heal()
    impatient.faults.strike("payment", "*", orders[0], refused)
    await impatient.orders[1].state.saga.recover(0.2)
    statuses = [(await customer.read_order(order_id))["status"] for order_id in orders]
    assert statuses == ["reserved", "confirmed", "confirmed"]
    impatient.faults.heal()
    await impatient.recover(replica=1)
    assert (await customer.read_order(orders[0]))["status"] == "confirmed"
    assert await impatient.violations() == []


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this module alone, which its tests stop, kill and start; so what it acknowledges must be on disk."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("frail") / "postgres")
    server.start()
    yield server
    server.kill()


async def _settled(customer: Shopper, order_id: str) -> str:
    """The status of an order once it is final, by the work of the recovery alone."""
    async with asyncio.timeout(SETTLES_WITHIN_S):
        while (status := (await customer.read_order(order_id))["status"]) in IN_FLIGHT:  # noqa: ASYNC110 - of a worker
            await asyncio.sleep(0.05)
    return status


READS = {
    "user": "/api/v1/users/me",
    "product": "/api/v1/products",
    "payment": "/api/v1/payments",
    "order": "/api/v1/orders",
}


@pytest.mark.parametrize(("service", "ordering"), [("user", 201), ("product", 503), ("payment", 202), ("order", 503)])
@pytest.mark.parametrize("end", [EmbeddedPostgres.kill, EmbeddedPostgres.stop])
async def test_a_database_goes_down_and_comes_back(
    make_platform: MakePlatform,
    frail: EmbeddedPostgres,
    service: str,
    ordering: int,
    end: Callable[[EmbeddedPostgres], None],
) -> None:
    database_url = await asyncio.to_thread(Databases(frail.url("postgres")).clone, service)
    platform = make_platform({service: database_url}, checkout_budget_s=1.0, recover_every_s=0.1)
    await platform.start()
    customer = await platform.customer()
    product_id = await platform.product_of(await platform.admin(), stock=10)
    await customer.bought((product_id, 1))
    await customer.get(READS[service])

    await asyncio.to_thread(end, frail)
    try:
        for _ in range(2):
            started = perf_counter()
            answer = await customer.call("GET", READS[service])
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.headers["content-type"] == "application/problem+json"
            assert perf_counter() - started < ANSWERS_WITHIN_S
        started = perf_counter()
        answer = await customer.order((product_id, 1), key="meanwhile")
        assert answer.status_code == ordering
        assert ordering != 503 or answer.headers["retry-after"] == "1"
        assert perf_counter() - started < ANSWERS_WITHIN_S
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await platform.probe(service, path)).status_code == 200
    finally:
        await asyncio.to_thread(frail.start)

    await customer.get(READS[service])
    if ordering == 202:
        assert await _settled(customer, answer.json()["id"]) == "confirmed"
    assert (await customer.order((product_id, 1), key="meanwhile")).status_code == 201
    assert await platform.available(product_id) == 8
    assert await platform.violations() == []


async def test_services_start_while_their_databases_are_down(
    make_platform: MakePlatform, frail: EmbeddedPostgres
) -> None:
    database_url = await asyncio.to_thread(Databases(frail.url("postgres")).clone, "order")
    await asyncio.to_thread(frail.stop)
    try:
        platform = make_platform({"order": database_url})
        starting = asyncio.create_task(platform.start())
        assert (await platform.probe("order", "/livez")).status_code == 200
        assert (await platform.probe("order", "/readyz")).status_code == 503
    finally:
        await asyncio.to_thread(frail.start)
    async with asyncio.timeout(SETTLES_WITHIN_S):
        await starting
    assert (await platform.probe("order", "/readyz")).status_code == 200
