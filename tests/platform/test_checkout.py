"""Checkouts that meet: with each other, with price changes, with cancellations, with time that runs out."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from uuid import uuid4

import httpx2
import orjson
import pytest

from chassis.testing import client, credential
from services.order.repository import MOST_CART_LINES
from tests.platform.assembly import Json, Platform, Shopper
from tests.platform.conftest import MakePlatform, Stocked
from tests.platform.faults import AnswerGate, Deliver, Gate, refused
from tests.platform.streams import EventStream

BUYERS = 500
UNITS = 100
AT_ONCE = 60


async def test_five_hundred_buyers_of_a_hundred_units_over_three_replicas(make_platform: MakePlatform) -> None:
    platform = make_platform(replicas=3)
    product_id = await platform.product_of(await platform.admin(), stock=UNITS)
    signing_in, ordering = asyncio.Semaphore(4), asyncio.Semaphore(AT_ONCE)

    async def buy(replica: int) -> int:
        async with signing_in:  # the user service checks few passwords at once
            buyer = await platform.customer()
        async with ordering:
            answer = await buyer.order((product_id, 1), replica=replica)
            if answer.status_code == 409:
                assert answer.json()["items"] == [{"product_id": product_id, "requested": 1, "available": 0}]
            return answer.status_code

    outcomes = Counter(await asyncio.gather(*(buy(n % 3) for n in range(BUYERS))))
    assert outcomes == {201: UNITS, 409: BUYERS - UNITS}
    assert await platform.available(product_id) == 0
    assert await platform.violations() == []


async def test_orders_of_the_same_products_in_opposite_order_all_come_through(
    platform: Platform, stocked: Stocked
) -> None:
    products = [await stocked(100) for _ in range(4)]
    buyers = [await platform.customer() for _ in range(20)]
    answers = await asyncio.gather(
        *(
            buyer.order(*[(product_id, 2) for product_id in products[:: 1 if n % 2 else -1]], replica=n % 2)
            for n, buyer in enumerate(buyers)
        )
    )
    assert {answer.status_code for answer in answers} == {201}
    assert [await platform.available(product_id) for product_id in products] == [60] * 4
    assert await platform.violations() == []


async def test_a_price_that_changes_between_cart_and_order_is_paid_as_it_is_when_ordered(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10, price_minor=1000)
    await customer.put_in_cart(product_id, 3)
    price = {"price": {"amount_minor": 1200, "currency": "USD"}}
    assert (await admin.call("PATCH", f"/api/v1/products/{product_id}", price)).status_code == 200
    order = await customer.bought()
    await admin.call("PATCH", f"/api/v1/products/{product_id}", {"price": {"amount_minor": 1, "currency": "USD"}})
    assert order["total"] == {"amount_minor": 3600, "currency": "USD"}
    assert (await customer.read_order(order["id"]))["total"] == order["total"]
    payment = await customer.payment(order["id"])
    assert payment is not None
    assert payment["captured"] == order["total"]
    assert await platform.violations() == []


async def test_a_price_that_changes_while_the_order_is_placed_does_not_change_it(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10, price_minor=1000)
    gate = Gate()
    platform.faults.strike("payment", "PUT", "/payments/", gate)
    placing = asyncio.create_task(customer.order((product_id, 2)))
    await gate.reached()
    await admin.call("PATCH", f"/api/v1/products/{product_id}", {"price": {"amount_minor": 5, "currency": "USD"}})
    gate.open()
    assert (await placing).json()["total"] == {"amount_minor": 2000, "currency": "USD"}
    assert await platform.violations() == []


async def test_a_product_that_is_retired_between_cart_and_order_is_out_of_stock(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    kept, retired = await stocked(10), await stocked(10)
    await customer.put_in_cart(kept, 1)
    await customer.put_in_cart(retired, 1)
    assert (await admin.call("DELETE", f"/api/v1/products/{retired}")).status_code == 204
    cart = await customer.get("/api/v1/cart")
    assert [item["problem"] for item in cart["items"]] == [None, "gone"]
    answer = await customer.order()
    assert answer.status_code == 409
    assert answer.json()["items"] == [{"product_id": retired, "requested": 1, "available": 0}]
    assert await platform.available(kept) == 10
    assert len(await customer.cart()) == 2
    assert await platform.violations() == []


async def test_a_product_that_is_retired_after_it_was_reserved_is_still_sold(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    gate = Gate()
    platform.faults.strike("payment", "PUT", "/payments/", gate)
    placing = asyncio.create_task(customer.order((product_id, 2)))
    await gate.reached()
    assert (await admin.call("DELETE", f"/api/v1/products/{product_id}")).status_code == 204
    gate.open()
    assert (await placing).status_code == 201
    assert await platform.violations() == []


@pytest.mark.parametrize(
    ("method", "quantity", "status", "emptied"),
    [("tok_visa", 1, 201, True), ("tok_declined", 1, 402, False), ("tok_visa", 11, 409, False)],
)
async def test_a_cart_is_emptied_by_an_order_that_is_confirmed_and_kept_by_one_that_is_refused(
    customer: Shopper, stocked: Stocked, method: str, quantity: int, status: int, *, emptied: bool
) -> None:
    product_id = await stocked(10)
    await customer.put_in_cart(product_id, quantity)
    assert (await customer.order(method=method)).status_code == status
    assert await customer.cart() == ([] if emptied else [(product_id, quantity)])


async def test_a_cart_is_emptied_by_an_order_that_is_pending(make_platform: MakePlatform) -> None:
    platform = make_platform(checkout_budget_s=0.3)
    customer = await platform.customer()
    product_id = await platform.product_of(await platform.admin(), stock=10)
    await customer.put_in_cart(product_id, 1)
    platform.faults.strike("payment", "*", "", refused)
    assert (await customer.order()).status_code == 202
    assert await customer.cart() == []


async def test_a_cart_is_kept_by_an_order_of_items(customer: Shopper, stocked: Stocked) -> None:
    in_cart, ordered = await stocked(10), await stocked(10)
    await customer.put_in_cart(in_cart, 2)
    await customer.bought((ordered, 1))
    assert await customer.cart() == [(in_cart, 2)]


async def test_a_full_cart_takes_no_other_product_and_another_quantity_of_one_that_it_holds(
    platform: Platform, customer: Shopper, admin: Shopper
) -> None:
    line = {"price_minor": 100, "currency": "USD", "on_hand": 5}
    *held, another = await platform.products(admin, *(line for _ in range(MOST_CART_LINES + 1)))
    for product_id in held:
        await customer.put_in_cart(product_id, 1)
    full = await customer.call("PUT", f"/api/v1/cart/items/{another}", {"quantity": 1})
    assert full.status_code == 422, full.text
    assert [error["field"] for error in full.json()["errors"]] == ["product_id"]
    await customer.put_in_cart(held[0], 2)
    assert await customer.cart() == [(held[0], 2), *((product_id, 1) for product_id in held[1:])]
    await customer.bought()
    assert await customer.cart() == []


async def test_what_is_put_into_the_cart_while_it_is_ordered_stays_there(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    ordered, added = await stocked(10), await stocked(10)
    await customer.put_in_cart(ordered, 2)
    gate = Gate()
    platform.faults.strike("payment", "POST", "/capture$", gate)
    placing = asyncio.create_task(customer.order())
    await gate.reached()
    await customer.put_in_cart(added, 1)
    gate.open()
    assert (await placing).status_code == 201
    assert await customer.cart() == [(added, 1)]


IN_FLIGHT = [
    ("product", "PUT", "/reservations/"),
    ("payment", "PUT", "/payments/"),
    ("product", "POST", "/commit$"),
    ("payment", "POST", "/capture$"),
]


@pytest.mark.parametrize("gate_class", [Gate, AnswerGate])
@pytest.mark.parametrize(("peer", "method", "path"), IN_FLIGHT)
async def test_an_order_cancelled_while_a_step_is_in_flight_ends_cancelled(
    platform: Platform,
    customer: Shopper,
    stocked: Stocked,
    peer: str,
    method: str,
    path: str,
    gate_class: type[Gate],
) -> None:
    product_id = await stocked(10)
    gate = gate_class()
    platform.faults.strike(peer, method, path, gate, nth=1)
    placing = asyncio.create_task(customer.order((product_id, 2), key="cancelled"))
    await gate.reached()
    (order,) = await customer.orders()
    cancelling = await customer.cancel(order["id"], replica=1)
    assert cancelling.status_code == 202
    gate.open()
    answer = await placing
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/illegal-transition")
    ended = await customer.read_order(order["id"])
    assert (ended["status"], ended["reason"]) == ("cancelled", "cancelled_by_customer")
    payment = await customer.payment(order["id"])
    assert payment is None or payment["status"] in {"voided", "refunded"}
    assert await platform.available(product_id) == 10
    assert (await customer.cancel(order["id"])).status_code == 200
    assert (await customer.order((product_id, 2), key="cancelled")).content == answer.content
    assert await platform.violations() == []


async def test_an_order_cancelled_while_in_flight_whose_replica_dies_is_cancelled_by_another(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    gate = Gate()
    platform.faults.strike("payment", "POST", "/capture$", gate, nth=1)
    placing = asyncio.create_task(customer.order((product_id, 2)))
    await gate.reached()
    (order,) = await customer.orders()
    assert (await customer.cancel(order["id"], replica=1)).status_code == 202
    placing.cancel()
    await asyncio.gather(placing, return_exceptions=True)
    await platform.recover(replica=1)
    assert (await customer.read_order(order["id"]))["status"] == "cancelled"
    assert await platform.available(product_id) == 10
    assert await platform.violations() == []


async def test_two_replicas_that_drive_one_order_at_once_confirm_it_once(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    gate = AnswerGate()
    platform.faults.strike("payment", "PUT", "/payments/", gate, nth=1)
    placing = asyncio.create_task(customer.order((product_id, 2)))
    await gate.reached()
    await platform.recover(replica=1)  # the first replica is slow, not lost
    gate.open()
    answer = await placing
    assert answer.status_code == 201
    assert (await customer.read_order(answer.json()["id"])) == answer.json()
    assert await platform.available(product_id) == 8
    assert await platform.violations() == []


async def test_of_a_cancellation_and_a_shipment_at_once_one_wins(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(100)
    for _ in range(20):
        order = await customer.bought((product_id, 1))
        cancelled, shipped = await asyncio.gather(
            customer.cancel(order["id"], replica=0), admin.move(order["id"], "ship", replica=1)
        )
        ended = (await customer.read_order(order["id"]))["status"]
        assert (cancelled.status_code, shipped.status_code, ended) in {(200, 409, "cancelled"), (409, 200, "shipped")}
    assert await platform.violations() == []


async def test_an_order_whose_cancellation_is_in_flight_is_not_shipped(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    order = await customer.bought((product_id, 1))
    gate = Gate()
    platform.faults.strike("product", "DELETE", "/reservations/", gate)
    cancelling = asyncio.create_task(customer.cancel(order["id"]))
    await gate.reached()
    shipped = await admin.move(order["id"], "ship", replica=1)
    assert (shipped.status_code, shipped.json()["order_status"]) == (409, "confirmed")
    gate.open()
    assert (await cancelling).json()["status"] == "cancelled"
    assert await platform.violations() == []


async def test_a_cancellation_after_a_refund_refunds_the_rest_only(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10, price_minor=1000)
    order = await customer.bought((product_id, 2))
    assert (await admin.refund(order["payment_id"], 700)).status_code == 200
    assert (await customer.read_order(order["id"]))["status"] == "confirmed"
    assert (await customer.cancel(order["id"])).status_code == 200
    payment = await customer.payment(order["id"])
    assert payment is not None
    assert (payment["status"], payment["refunded"]["amount_minor"]) == ("refunded", 2000)
    refunds = await platform.payment.database.fetch("SELECT amount_minor FROM refunds ORDER BY amount_minor")
    assert [row["amount_minor"] for row in refunds] == [700, 1300]
    assert await platform.violations() == []


async def test_a_cancellation_after_a_refund_of_everything_refunds_nothing_more(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    order = await customer.bought((product_id, 2))
    assert (await admin.refund(order["payment_id"])).status_code == 200
    assert (await customer.cancel(order["id"])).status_code == 200
    assert await platform.payment.database.fetchval("SELECT count(*) FROM refunds") == 1
    assert await platform.violations() == []


async def _expire(platform: Platform) -> None:
    """Let all reservations run out, as they do after 15 minutes."""
    await platform.product.database.execute("UPDATE reservations SET expires_at = now() - interval '1 second'")
    await platform.product.state.stock.expire(100)


async def _left_authorised(platform: Platform, customer: Shopper, product_id: str, key: str) -> Json:
    """An order whose replica was lost before it committed the stock, and whose reservation has expired."""
    gate = Gate()
    platform.faults.strike("product", "POST", "/commit$", gate)
    placing = asyncio.create_task(customer.order((product_id, 3), key=key))
    await gate.reached()
    placing.cancel()
    await asyncio.gather(placing, return_exceptions=True)
    platform.faults.heal()
    await _expire(platform)
    (order, *_) = await customer.orders()
    assert order["status"] == "authorised"
    return order


async def test_a_reservation_that_expired_before_its_commit_is_taken_again(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)
    await _left_authorised(platform, customer, product_id, "expired")
    assert await platform.available(product_id) == 10
    await platform.recover(replica=1)
    answer = await customer.order((product_id, 3), key="expired")
    assert (answer.status_code, answer.json()["status"]) == (201, "confirmed")
    assert await platform.available(product_id) == 7
    assert await platform.violations() == []


async def test_an_order_whose_expired_reservation_was_sold_to_others_is_cancelled_and_not_charged(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(3)
    order = await _left_authorised(platform, customer, product_id, "expired")
    await (await platform.customer()).bought((product_id, 2))
    await platform.recover(replica=1)
    answer = await customer.order((product_id, 3), key="expired")
    assert answer.status_code == 409
    assert answer.json()["items"] == [{"product_id": product_id, "requested": 3, "available": 1}]
    assert answer.json()["order_id"] == order["id"]
    ended = await customer.read_order(order["id"])
    assert (ended["status"], ended["reason"]) == ("cancelled", "insufficient_stock")
    payment = await customer.payment(order["id"])
    assert payment is not None
    assert (payment["status"], payment["captured"]["amount_minor"]) == ("voided", 0)
    assert await platform.available(product_id) == 1
    assert await platform.violations() == []


@pytest.mark.parametrize("recorded", ["00", "01"])
async def test_recovery_goes_on_in_the_trace_of_the_request(
    platform: Platform, customer: Shopper, stocked: Stocked, recorded: str
) -> None:
    product_id = await stocked(10)
    trace_id = uuid4().hex
    gate = Gate()
    rule = platform.faults.strike("payment", "PUT", "/payments/", gate)
    headers = {"traceparent": f"00-{trace_id}-{'2' * 16}-{recorded}"}
    placing = asyncio.create_task(customer.order((product_id, 1), method="tok_declined", key="traced", headers=headers))
    await gate.reached()
    placing.cancel()
    await asyncio.gather(placing, return_exceptions=True)
    gate.open()
    await platform.recover(replica=1)
    assert rule.matched == 2
    assert {(each.split("-")[1], each.split("-")[3]) for each in rule.traceparents} == {(trace_id, recorded)}
    answer = await customer.order((product_id, 1), method="tok_declined", key="traced")
    assert (answer.status_code, answer.json()["trace_id"]) == (402, trace_id)


async def test_an_event_stream_tells_what_another_replica_does(
    platform: Platform, customer: Shopper, admin: Shopper, stocked: Stocked
) -> None:
    order = await customer.bought((await stocked(10), 1))
    path = f"/api/v1/orders/{order['id']}/events"
    async with EventStream(platform.orders[1], path, customer.headers) as events:
        assert (events.status, events.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        history = [await events.next() for _ in range(4)]
        assert [event["id"] for event in history] == ["1", "2", "3", "4"]
        assert {event["event"] for event in history} == {"status"}
        assert [orjson.loads(event["data"]) for event in history] == [
            {"status": entry["status"], "at": entry["at"]} for entry in order["history"]
        ]
        await admin.move(order["id"], "ship", replica=0)
        shipped = await events.next()
        assert (shipped["id"], orjson.loads(shipped["data"])["status"]) == ("5", "shipped")
        await admin.move(order["id"], "deliver", replica=0)
        delivered = await events.next()
        assert (delivered["id"], orjson.loads(delivered["data"])["status"]) == ("6", "delivered")
        assert await events.ended()


async def test_an_event_stream_goes_on_after_the_last_event_that_was_seen(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    order = await customer.bought((await stocked(10), 1))
    path = f"/api/v1/orders/{order['id']}/events"
    async with EventStream(platform.orders[1], path, customer.headers | {"Last-Event-ID": "3"}) as events:
        assert (await events.next())["id"] == "4"
        await customer.cancel(order["id"], replica=0)
        cancelled = await events.next()
        assert cancelled["id"] == "5"
        data = orjson.loads(cancelled["data"])
        assert (data["status"], data["reason"]) == ("cancelled", "cancelled_by_customer")
        assert await events.ended()


async def test_an_event_stream_of_an_order_that_ended_tells_its_history_and_closes(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    answer = await customer.order((await stocked(10), 1), method="tok_declined")
    path = f"/api/v1/orders/{answer.json()['order_id']}/events"
    async with EventStream(platform.orders[1], path, customer.headers) as events:
        found = [orjson.loads((await events.next())["data"])["status"] for _ in range(3)]
        assert found == ["pending", "reserved", "rejected"]
        assert await events.ended()


async def test_an_order_that_costs_more_than_a_payment_takes_is_refused_before_it_begins(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10, price_minor=10**12)
    await customer.put_in_cart(product_id, 2)
    answer = await customer.order((product_id, 2))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "items")
    assert await customer.cart() == [(product_id, 2)]
    assert await customer.orders() == []
    assert await platform.violations() == []


async def test_an_order_that_a_peer_refuses_for_good_is_taken_back(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(10)

    async def refuse(_: Deliver) -> httpx2.Response:
        document = {"type": "/problems/invalid-request"}
        return httpx2.Response(422, json=document, headers={"Content-Type": "application/problem+json"})

    platform.faults.strike("payment", "PUT", "/payments/", refuse)
    answer = await customer.order((product_id, 1))
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/illegal-transition")
    (order,) = await customer.orders()
    assert (order["status"], order["reason"]) == ("cancelled", "refused by payment: invalid-request")
    assert await platform.available(product_id) == 10
    assert await platform.violations() == []


async def test_a_reservation_that_arrives_after_its_order_was_rejected_takes_nothing(
    platform: Platform, customer: Shopper, stocked: Stocked
) -> None:
    product_id = await stocked(1)
    answer = await customer.order((product_id, 2))
    assert answer.status_code == 409
    body = {"items": [{"product_id": product_id, "quantity": 1}]}
    async with client(platform.services["product"]) as late:
        headers = {"Authorization": credential("order").authorization("product")}
        path = f"/internal/v1/reservations/{answer.json()['order_id']}"
        assert (await late.put(path, json=body, headers=headers)).status_code == 409
    assert await platform.available(product_id) == 1
    assert await platform.violations() == []


async def test_a_pending_order_that_is_confirmed_later_leaves_what_came_into_the_cart_since(
    make_platform: MakePlatform,
) -> None:
    platform = make_platform(checkout_budget_s=0.3)
    product_id = await platform.product_of(await platform.admin(), stock=10)
    buyer = await platform.customer()
    await buyer.put_in_cart(product_id, 2)
    platform.faults.strike("payment", "PUT", "/payments/", refused)
    assert (await buyer.order()).status_code == 202
    assert await buyer.cart() == []
    await buyer.put_in_cart(product_id, 2)
    platform.faults.heal()
    await platform.recover(0)
    assert [order["status"] for order in await buyer.orders()] == ["confirmed"]
    assert await buyer.cart() == [(product_id, 2)]


async def test_a_user_opens_twenty_event_streams_and_they_leave_room_for_requests(make_platform: MakePlatform) -> None:
    platform = make_platform(max_in_flight=5)
    product_id = await platform.product_of(await platform.admin(), stock=10)
    buyer = await platform.customer()
    order = await buyer.bought((product_id, 1))
    path = f"/api/v1/orders/{order['id']}/events"
    async with AsyncExitStack() as streams:
        for _ in range(20):
            stream = EventStream(platform.services["order"], path, buyer.headers)
            await streams.enter_async_context(stream)
            await stream.next()
        assert (await buyer.call("GET", path)).status_code == 503
        assert (await buyer.order((product_id, 1))).status_code == 201
