"""The process is killed before and after every call and every statement of a checkout, and of a cancellation; another
replica takes the order up.

It is all four services that are killed together, as the process of local mode is: what is committed is there, nothing
else is. So the moments inside product and payment are among those that are tried.
"""

import pytest

from tests.platform.assembly import Platform, Shopper
from tests.platform.conftest import Stocked
from tests.platform.faults import Crash

OUTCOMES = {
    "tok_visa": (201, "confirmed"),
    "tok_mastercard": (201, "confirmed"),
    "tok_slow": (201, "confirmed"),
    "tok_timeout": (201, "confirmed"),
    "tok_declined": (402, "rejected"),
    "tok_insufficient_funds": (402, "rejected"),
    "tok_expired_card": (402, "rejected"),
}


async def _crashed(platform: Platform, crash_at: int, customer: Shopper, product_id: str, key: str, method: str) -> str:
    """Order, be killed at that moment, and return which it was."""
    points = platform.faults.crash_points
    points.watch(crash_at)
    with pytest.raises(Crash) as crash:
        await customer.order((product_id, 2), method=method, key=key)
    return str(crash.value)


@pytest.mark.parametrize("method", OUTCOMES)
async def test_an_order_whose_process_is_killed_anywhere_comes_to_its_end(
    platform: Platform, customer: Shopper, stocked: Stocked, method: str
) -> None:
    status, order_status = OUTCOMES[method]
    product_id = await stocked(1000)
    assert (await customer.order((product_id, 1))).status_code == 201  # so that keys are fetched and pools open
    platform.faults.crash_points.watch()
    assert (await customer.order((product_id, 2), method=method)).status_code == status
    moments = platform.faults.crash_points.stop()
    assert len(moments) >= 20

    sold = 1 + (2 if status == 201 else 0)
    for crash_at in range(len(moments)):
        key = f"crash-{crash_at}"
        moment = await _crashed(platform, crash_at, customer, product_id, key, method)
        await platform.recover(replica=1)
        (answer, again) = [await customer.order((product_id, 2), method=method, key=key, replica=1) for _ in range(2)]
        assert (answer.status_code, again.content) == (status, answer.content), moment
        assert again.headers["idempotency-replayed"] == "true", moment
        placed = (await customer.orders())[0]
        assert placed["status"] == order_status, moment
        assert answer.json()["id" if status == 201 else "order_id"] == placed["id"], moment
        assert await platform.violations() == [], moment
        sold += 2 if status == 201 else 0
    assert await platform.available(product_id) == 1000 - sold
    made = await platform.orders[0].database.fetchval("SELECT count(*) FROM orders")
    assert made == len(moments) + 2


async def test_an_order_without_stock_whose_process_is_killed_anywhere_is_rejected(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(1)
    assert await customer.orders() == []  # so that keys are fetched and pools open
    platform.faults.crash_points.watch()
    assert (await customer.order((product_id, 2))).status_code == 409
    moments = platform.faults.crash_points.stop()

    for crash_at in range(len(moments)):
        key = f"crash-{crash_at}"
        platform.faults.crash_points.watch(crash_at)
        with pytest.raises(Crash) as crash:
            await customer.order((product_id, 2), key=key)
        await platform.recover(replica=1)
        answer = await customer.order((product_id, 2), key=key, replica=1)
        assert answer.status_code == 409, crash.value
        shortage = {"product_id": product_id, "requested": 2, "available": 1}
        assert answer.json()["items"] == [shortage], crash.value
        assert {order["status"] for order in await customer.orders()} == {"rejected"}, crash.value
        assert await platform.violations() == [], crash.value
    assert await platform.available(product_id) == 1


async def test_a_cancellation_whose_process_is_killed_anywhere_can_be_repeated(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(1000)
    order = await customer.bought((product_id, 3))
    platform.faults.crash_points.watch()
    assert (await customer.cancel(order["id"])).status_code == 200
    moments = platform.faults.crash_points.stop()
    assert len(moments) >= 12

    for crash_at in range(len(moments)):
        order = await customer.bought((product_id, 3))
        platform.faults.crash_points.watch(crash_at)
        with pytest.raises(Crash) as crash:
            await customer.cancel(order["id"])
        assert await platform.violations() == [], crash.value  # it is not settled, and so not compared
        await platform.recover(replica=1)
        found = await customer.read_order(order["id"], replica=1)
        assert found["status"] in {"confirmed", "cancelled"}, crash.value
        assert await platform.violations() == [], crash.value
        cancelled = await customer.cancel(order["id"], replica=1)
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled"), crash.value
        assert (await customer.payment(order["id"]) or {})["status"] == "refunded", crash.value
        assert await platform.violations() == [], crash.value
    assert await platform.available(product_id) == 1000


async def test_a_recovery_that_is_killed_anywhere_is_itself_recovered(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(1000)
    await customer.bought((product_id, 1))
    points = platform.faults.crash_points

    async def leave_an_order_pending(key: str) -> None:
        points.watch(await_reservation)
        with pytest.raises(Crash):
            await customer.order((product_id, 2), key=key)

    points.watch()
    await customer.bought((product_id, 2))
    await_reservation = next(n for n, moment in enumerate(points.stop()) if moment.startswith("before PUT product"))
    await leave_an_order_pending("learn")
    points.watch()
    await platform.recover(replica=1)
    moments = points.stop()
    assert len(moments) >= 20

    for crash_at in range(len(moments)):
        key = f"crash-{crash_at}"
        await leave_an_order_pending(key)
        points.watch(crash_at)
        with pytest.raises(Crash) as crash:
            await platform.recover(replica=1)
        await platform.recover(replica=0)
        answer = await customer.order((product_id, 2), key=key)
        assert (answer.status_code, answer.headers["idempotency-replayed"]) == (201, "true"), crash.value
        assert await platform.violations() == [], crash.value
