"""One key, one order: however often, wherever and whenever it is sent."""

import asyncio
from collections import Counter
from uuid import uuid4

import httpx2
import pytest

from tests.platform.assembly import Platform, Shopper, order_body
from tests.platform.conftest import MakePlatform, Stocked
from tests.platform.faults import AnswerGate, refused, reply_lost

AT_ONCE = 50


def _stored(answer: httpx2.Response) -> tuple[int, bytes, str | None]:
    return answer.status_code, answer.content, answer.headers.get("location")


def _replayed(answer: httpx2.Response) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


def _code(answer: httpx2.Response) -> str:
    return answer.json()["type"].rpartition("/")[2]


async def _counts(platform: Platform) -> tuple[int, int, int]:
    """Orders, provider's charges that were captured, reservations."""
    return (
        await platform.orders[0].database.fetchval("SELECT count(*) FROM orders"),
        await platform.payment.database.fetchval("SELECT count(*) FROM simulator_charges WHERE captured_minor > 0"),
        await platform.product.database.fetchval("SELECT count(*) FROM reservations"),
    )


@pytest.mark.parametrize("lost_replies", [False, True])
async def test_one_key_fifty_times_at_once_over_three_replicas(
    make_platform: MakePlatform, *, lost_replies: bool
) -> None:
    platform = make_platform(replicas=3)
    customer = await platform.customer()
    product_id = await platform.product_of(await platform.admin(), stock=10)
    if lost_replies:
        for peer, method, path in (("product", "PUT", "/reservations/"), ("payment", "POST", "/capture$")):
            platform.faults.strike(peer, method, path, reply_lost, nth=1)

    answers = await asyncio.gather(
        *(customer.order((product_id, 1), key="the same", replica=n % 3) for n in range(AT_ONCE))
    )
    made = [answer for answer in answers if answer.status_code == 201]
    in_progress = [answer for answer in answers if answer.status_code != 201]
    assert len([answer for answer in made if not _replayed(answer)]) == 1
    assert {(answer.status_code, _code(answer), answer.headers["retry-after"]) for answer in in_progress} <= {
        (409, "request-in-progress", "1")
    }

    again = [await customer.order((product_id, 1), key="the same", replica=n) for n in range(3)]
    assert all(_replayed(answer) for answer in again)
    assert len({_stored(answer) for answer in (*made, *again)}) == 1
    assert await _counts(platform) == (1, 1, 1)
    assert await platform.available(product_id) == 9
    assert await platform.violations() == []


async def test_the_first_request_is_in_progress_until_it_is_answered(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    gate = AnswerGate()
    platform.faults.strike("payment", "POST", "/capture$", gate)
    first = asyncio.create_task(customer.order((product_id, 1), key="slow"))
    await gate.reached()
    second = await customer.order((product_id, 1), key="slow", replica=1)
    assert (second.status_code, _code(second)) == (409, "request-in-progress")
    assert second.headers["retry-after"] == "1"
    gate.open()
    made = await first
    assert (made.status_code, _replayed(made)) == (201, False)
    third = await customer.order((product_id, 1), key="slow", replica=1)
    assert (_stored(third), _replayed(third)) == (_stored(made), True)


async def test_another_body_under_the_same_key_is_refused(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    await customer.bought((product_id, 1), key="used")
    other = await customer.order((product_id, 2), key="used", replica=1)
    assert (other.status_code, _code(other)) == (422, "idempotency-key-reused")
    assert await _counts(platform) == (1, 1, 1)


async def test_a_body_is_the_same_whatever_its_white_space_and_order_of_members(
    customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    made = await customer.order((product_id, 1), key="used")
    body = order_body((product_id, 1))
    backwards = dict(reversed(list(body.items())))
    again = await customer.call("POST", "/api/v1/orders", backwards, headers={"Idempotency-Key": "used"})
    assert (_stored(again), _replayed(again)) == (_stored(made), True)


async def test_a_key_belongs_to_its_user(platform: Platform, stocked: Stocked) -> None:
    product_id = await stocked(10)
    ada, grace = await platform.customer(), await platform.customer()
    theirs = [await shopper.bought((product_id, 1), key="the same") for shopper in (ada, grace)]
    assert theirs[0]["id"] != theirs[1]["id"]


async def test_a_key_survives_a_restart(platform: Platform, customer: Shopper, stocked: Stocked) -> None:
    product_id = await stocked(10)
    made = await customer.order((product_id, 1), key="kept")
    restarted = platform.add_replica()
    again = await customer.order((product_id, 1), key="kept", replica=restarted)
    assert (_stored(again), _replayed(again)) == (_stored(made), True)


async def test_a_key_is_free_again_after_a_day(platform: Platform, customer: Shopper, stocked: Stocked) -> None:
    product_id = await stocked(10)
    first = await customer.bought((product_id, 1), key="daily")
    age = "UPDATE idempotency_keys SET created_at = now() - make_interval(hours => $1, mins => 1)"
    await platform.orders[0].database.execute(age, 23)
    assert _replayed(await customer.order((product_id, 1), key="daily"))
    await platform.orders[0].database.execute(age, 24)
    second = await customer.order((product_id, 2), key="daily")
    assert (second.status_code, _replayed(second)) == (201, False)
    assert second.json()["id"] != first["id"]
    assert await customer.read_order(first["id"]) == first
    assert await platform.violations() == []


@pytest.mark.parametrize(
    ("method", "quantity", "status", "code"),
    [
        ("tok_declined", 1, 402, "payment-declined"),
        ("tok_expired_card", 1, 402, "payment-declined"),
        ("tok_visa", 11, 409, "insufficient-stock"),
    ],
)
async def test_a_refusal_is_replayed_byte_for_byte_in_its_first_trace(
    customer: Shopper, stocked: Stocked, method: str, quantity: int, status: int, code: str
) -> None:
    product_id = await stocked(10)
    trace_id = uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    first = await customer.order((product_id, quantity), method=method, key="refused", headers=headers)
    assert (first.status_code, _code(first), _replayed(first)) == (status, code, False)
    assert first.json()["trace_id"] == trace_id
    again = await customer.order((product_id, quantity), method=method, key="refused", replica=1)
    assert (_stored(again), _replayed(again)) == (_stored(first), True)
    assert again.headers["content-type"] == first.headers["content-type"] == "application/problem+json"
    assert len(await customer.orders()) == 1


async def test_a_refusal_is_replayed_though_what_refused_it_has_changed(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(1)
    first = await customer.order((product_id, 2), key="short")
    await admin.call("POST", f"/api/v1/products/{product_id}/stock", {"delta": 5, "reason": "received"})
    again = await customer.order((product_id, 2), key="short")
    assert (first.status_code, _stored(again)) == (409, _stored(first))
    assert (await customer.order((product_id, 2), key="another")).status_code == 201
    assert await platform.violations() == []


async def test_what_was_refused_before_anything_began_leaves_the_key_free(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    assert (await customer.order((product_id, 0), key="free")).status_code == 422
    assert (await customer.order(key="free")).status_code == 422  # an empty cart
    assert (await customer.order((product_id, 1), method="tok_unknown", key="free")).status_code == 422
    platform.faults.strike("product", "POST", "/quotes$", refused)
    unavailable = await customer.order((product_id, 1), key="free")
    assert (unavailable.status_code, unavailable.headers["retry-after"]) == (503, "1")
    platform.faults.heal()
    made = await customer.order((product_id, 1), key="free")
    assert (made.status_code, _replayed(made)) == (201, False)
    assert await _counts(platform) == (1, 1, 1)


async def test_a_202_says_pending_until_there_is_an_outcome(make_platform: MakePlatform) -> None:
    platform = make_platform(replicas=2, checkout_budget_s=0.3)
    customer = await platform.customer()
    product_id = await platform.product_of(await platform.admin(), stock=10)
    platform.faults.strike("payment", "*", "", refused)
    first = await customer.order((product_id, 1), key="deferred")
    assert (first.status_code, first.json()["status"], _replayed(first)) == (202, "pending", False)
    assert first.headers["location"] == f"/api/v1/orders/{first.json()['id']}"
    still = await customer.order((product_id, 1), key="deferred", replica=1)
    assert (still.status_code, still.json()["status"], _replayed(still)) == (202, "pending", True)
    assert still.headers["location"] == first.headers["location"]
    platform.faults.heal()
    await platform.recover(replica=1)
    outcome = await customer.order((product_id, 1), key="deferred")
    assert (outcome.status_code, outcome.json()["status"], _replayed(outcome)) == (201, "confirmed", True)
    assert outcome.headers["location"] == first.headers["location"]
    assert await _counts(platform) == (1, 1, 1)
    assert await platform.violations() == []


async def test_a_refund_is_made_once_for_a_key(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10, price_minor=1000)
    order = await customer.bought((product_id, 1))
    path, body = f"/api/v1/payments/{order['payment_id']}/refund", {"amount_minor": 300, "reason": "scratched"}
    answers = await asyncio.gather(
        *(admin.call("POST", path, body, headers={"Idempotency-Key": "refund"}) for _ in range(10))
    )
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() <= {200, 409}
    assert statuses[200] >= 1
    payment = await customer.payment(order["id"])
    assert payment is not None
    assert payment["refunded"]["amount_minor"] == 300
    assert await platform.violations() == []
