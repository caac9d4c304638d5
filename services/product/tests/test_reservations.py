"""The internal calls: quotes, reservations and the audit; and that nothing is sold twice, whatever happens at once."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from chassis.testing import credential
from services.product.expiry import expire_reservations
from services.product.repository import RESERVE
from services.product.tests.conftest import ADMIN, AUDIT, ORDER, Json, Shop, unique
from services.product.tests.test_routes import UNKNOWN, fields, problem

RESERVATION = f"/internal/v1/reservations/{UNKNOWN}"
INTERNAL: list[tuple[str, str, Json | None]] = [
    ("POST", "/internal/v1/quotes", {"items": [{"product_id": UNKNOWN, "quantity": 1}]}),
    ("PUT", RESERVATION, {"items": [{"product_id": UNKNOWN, "quantity": 1}]}),
    ("POST", f"{RESERVATION}/commit", None),
    ("DELETE", RESERVATION, None),
    ("GET", "/internal/v1/audit", None),
]
IS_WAITING = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')
"""
TAKERS = 500
UNITS = 100


async def run_out(shop: Shop, order_id: UUID) -> None:
    """Let a reservation's time be over."""
    await shop.service.database.execute(
        "UPDATE reservations SET expires_at = now() - interval '1 s' WHERE order_id = $1", order_id
    )


async def expire(shop: Shop) -> None:
    """Do a round of the worker's work."""
    await expire_reservations(shop.service.state.stock, shop.service.state.metrics)


async def audited(shop: Shop) -> list[Json]:
    """All records of the audit."""
    answer = await shop.send("GET", "/internal/v1/audit", headers=AUDIT)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [orjson.loads(line) for line in answer.content.splitlines()]


async def check_books(shop: Shop) -> None:
    """Every unit ever received is on hand or committed, and what is held is reserved."""
    records = await audited(shop)
    committed: dict[str, int] = {}
    held: dict[str, int] = {}
    for record in records:
        if record["kind"] == "reservation":
            counted = {"committed": committed, "held": held}.get(record["status"], {})
            for item in record["items"]:
                counted[item["product_id"]] = counted.get(item["product_id"], 0) + item["quantity"]
    for record in records:
        if record["kind"] == "stock":
            product_id = record["product_id"]
            assert record["on_hand"] + committed.get(product_id, 0) == record["received"]
            assert record["reserved"] == held.get(product_id, 0)


@pytest.mark.parametrize(("method", "path", "body"), INTERNAL)
async def test_internal_calls_take_the_right_callers_credential(
    shop: Shop, method: str, path: str, body: Json | None
) -> None:
    problem(await shop.send(method, path, json=body), 401, "unauthenticated")
    problem(await shop.send(method, path, json=body, headers=ADMIN), 401, "unauthenticated")
    wrong = {"Authorization": credential("payment").authorization("product")}
    problem(await shop.send(method, path, json=body, headers=wrong), 403, "forbidden")
    other = {"Authorization": credential("order").authorization("payment")}
    problem(await shop.send(method, path, json=body, headers=other), 401, "unauthenticated")


async def test_quotes_tell_what_is_in_the_catalogue(shop: Shop) -> None:
    product, retired = await shop.product(7), await shop.product(7)
    await shop.retire(retired["id"])
    await shop.reserve(uuid4(), (product["id"], 3))
    items = [{"product_id": each, "quantity": 1} for each in (product["id"], retired["id"], str(uuid4()))]
    answer = await shop.send("POST", "/internal/v1/quotes", json={"items": items}, headers=ORDER)
    assert answer.json() == {
        "items": [
            {
                "product_id": product["id"],
                "sku": product["sku"],
                "name": product["name"],
                "unit_price": product["price"],
                "available": 4,
            }
        ]
    }
    nothing = await shop.send("POST", "/internal/v1/quotes", json={"items": items[1:]}, headers=ORDER)
    assert nothing.json() == {"items": []}


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([], "items"),
        ([{"product_id": "x", "quantity": 1}], "items.0.product_id"),
        ([{"product_id": UNKNOWN, "quantity": 0}], "items.0.quantity"),
        ([{"product_id": UNKNOWN, "quantity": 100}], "items.0.quantity"),
        ([{"product_id": str(UUID(int=1)), "quantity": 1}] * 2, "items"),
        ([{"product_id": str(UUID(int=each)), "quantity": 1} for each in range(101)], "items"),
    ],
)
async def test_items_that_cannot_be_are_refused(shop: Shop, items: list[Json], field: str) -> None:
    for method, path in (("POST", "/internal/v1/quotes"), ("PUT", f"/internal/v1/reservations/{uuid4()}")):
        assert fields(await shop.send(method, path, json={"items": items}, headers=ORDER)) == {field}


async def test_a_reservation_is_held_committed_and_given_back_once(shop: Shop) -> None:
    a, b = (await shop.product(5))["id"], (await shop.product(5))["id"]
    order_id = uuid4()
    held = await shop.reserve(order_id, (a, 2), (b, 5))
    assert held.status_code == 200
    assert held.json()["order_id"] == str(order_id)
    assert held.json()["status"] == "held"
    again = await shop.reserve(order_id, (b, 5), (a, 2))
    assert again.json() == held.json()
    assert (await shop.stock(a), await shop.stock(b)) == ((5, 2), (5, 5))
    for _ in range(2):
        committed = await shop.commit(order_id)
        assert (committed.status_code, committed.json()["status"]) == (200, "committed")
        assert (await shop.stock(a), await shop.stock(b)) == ((3, 0), (0, 0))
    assert (await shop.reserve(order_id, (a, 2), (b, 5))).json()["status"] == "committed"
    for _ in range(2):
        assert (await shop.release(order_id)).status_code == 204
        assert (await shop.stock(a), await shop.stock(b)) == ((5, 0), (5, 0))
    problem(await shop.commit(order_id), 409, "illegal-transition")
    problem(await shop.reserve(order_id, (a, 2), (b, 5)), 409, "illegal-transition")


async def test_all_are_held_or_none(shop: Shop) -> None:
    enough, short, retired = await shop.product(9), await shop.product(1), await shop.product(9)
    await shop.retire(retired["id"])
    unknown = str(uuid4())
    order_id = uuid4()
    refused = await shop.reserve(order_id, (enough["id"], 9), (short["id"], 2), (retired["id"], 1), (unknown, 1))
    items = problem(refused, 409, "insufficient-stock")["items"]
    assert {item["product_id"]: (item["requested"], item["available"]) for item in items} == {
        short["id"]: (2, 1),
        retired["id"]: (1, 0),
        unknown: (1, 0),
    }
    assert await shop.stock(enough["id"]) == (9, 0)
    problem(await shop.commit(order_id), 404, "not-found")
    await shop.move(short["id"], 1)
    assert (await shop.reserve(order_id, (short["id"], 2))).status_code == 200, "a refusal leaves nothing behind"


async def test_other_items_under_the_same_order_are_refused(shop: Shop) -> None:
    product_id = (await shop.product(5))["id"]
    order_id = uuid4()
    assert (await shop.reserve(order_id, (product_id, 1))).status_code == 200
    problem(await shop.reserve(order_id, (product_id, 2)), 409, "illegal-transition")
    assert await shop.stock(product_id) == (5, 1)


async def test_a_release_before_the_reservation_refuses_it(shop: Shop) -> None:
    product_id = (await shop.product(5))["id"]
    order_id = uuid4()
    for _ in range(2):
        assert (await shop.release(order_id)).status_code == 204
    problem(await shop.reserve(order_id, (product_id, 1)), 409, "illegal-transition")
    problem(await shop.commit(order_id), 409, "illegal-transition")
    assert await shop.stock(product_id) == (5, 0)


async def test_what_expires_is_free_and_can_be_taken_anew(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop()
    product_id = (await shop.product(5))["id"]
    again, committed, lost = uuid4(), uuid4(), uuid4()
    for order_id in (again, committed, lost):
        assert (await shop.reserve(order_id, (product_id, 1))).status_code == 200
        await run_out(shop, order_id)
    kept = uuid4()
    assert (await shop.reserve(kept, (product_id, 1))).status_code == 200
    await expire(shop)
    assert await shop.stock(product_id) == (5, 1)
    assert (await shop.reserve(again, (product_id, 1))).json()["status"] == "held"
    assert (await shop.commit(committed)).json()["status"] == "committed"
    assert await shop.stock(product_id) == (4, 2)
    assert (await shop.reserve(uuid4(), (product_id, 2))).status_code == 200
    refused = problem(await shop.commit(lost), 409, "insufficient-stock")
    assert refused["items"] == [{"product_id": product_id, "requested": 1, "available": 0}]
    problem(await shop.reserve(lost, (product_id, 1)), 409, "insufficient-stock")
    assert (await shop.release(lost)).status_code == 204
    assert await shop.stock(product_id) == (4, 4)
    await check_books(shop)
    text = (await shop.send("GET", "/metrics")).text
    assert 'souk_reservations_total{outcome="expired"} 3.0' in text


async def test_what_has_run_out_but_was_not_freed_yet_is_still_committed(shop: Shop) -> None:
    product_id = (await shop.product(1))["id"]
    order_id = uuid4()
    await shop.reserve(order_id, (product_id, 1))
    await run_out(shop, order_id)
    assert (await shop.commit(order_id)).status_code == 200
    assert await shop.stock(product_id) == (0, 0)


async def test_a_product_that_was_retired_meanwhile_is_committed_if_held_and_not_if_expired(shop: Shop) -> None:
    product_id = (await shop.product(5))["id"]
    held, expired = uuid4(), uuid4()
    for order_id in (held, expired):
        await shop.reserve(order_id, (product_id, 1))
    await run_out(shop, expired)
    await expire(shop)
    await shop.retire(product_id)
    assert (await shop.commit(held)).status_code == 200
    problem(await shop.commit(expired), 409, "insufficient-stock")
    assert await shop.stock(product_id) == (4, 0)


async def test_five_hundred_takers_get_exactly_a_hundred_units(own_shop: Callable[..., Shop]) -> None:
    replicas = [own_shop(max_in_flight=TAKERS, database_acquire_timeout_s=60) for _ in range(3)]
    product_id = (await replicas[0].product(UNITS))["id"]
    answers = await asyncio.gather(*(replicas[taker % 3].reserve(uuid4(), (product_id, 1)) for taker in range(TAKERS)))
    assert sorted(answer.status_code for answer in answers) == [200] * UNITS + [409] * (TAKERS - UNITS)
    assert await replicas[0].stock(product_id) == (UNITS, UNITS)
    await asyncio.gather(
        *(replicas[0].commit(UUID(answer.json()["order_id"])) for answer in answers if answer.status_code == 200)
    )
    assert await replicas[0].stock(product_id) == (0, 0)
    await check_books(replicas[0])


async def test_one_order_fifty_times_at_once_takes_once(own_shop: Callable[..., Shop]) -> None:
    replicas = [own_shop(database_acquire_timeout_s=60) for _ in range(3)]
    product_id = (await replicas[0].product(1))["id"]
    for _ in range(5):
        order_id = uuid4()
        answers = await asyncio.gather(*(replicas[n % 3].reserve(order_id, (product_id, 1)) for n in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1
        assert await replicas[0].stock(product_id) == (1, 1)
        assert {
            a.status_code for a in await asyncio.gather(*(replicas[n % 3].release(order_id) for n in range(9)))
        } == {204}
        assert await replicas[0].stock(product_id) == (1, 0)


async def test_the_twin_that_waited_for_the_last_unit_learns_that_the_order_has_it(
    own_shop: Callable[..., Shop],
) -> None:
    shop = own_shop()
    product_id, order_id = (await shop.product(1))["id"], uuid4()
    async with shop.service.database.transaction() as first:
        row = await first.fetchrow(RESERVE, order_id, [UUID(product_id)], [1], 900.0)
        assert row is not None
        assert row["expires_at"] is not None
        twin = asyncio.create_task(shop.reserve(order_id, (product_id, 1)))
        waiting = False
        while not waiting:
            waiting = await shop.service.database.fetchval(IS_WAITING)
    answer = await twin
    assert (answer.status_code, answer.json()["status"]) == (200, "held")
    assert await shop.stock(product_id) == (1, 1)


async def test_baskets_in_opposite_order_do_not_deadlock(own_shop: Callable[..., Shop]) -> None:
    replicas = [own_shop(database_acquire_timeout_s=60) for _ in range(2)]
    shop = replicas[0]
    a, b = (await shop.product(1_000))["id"], (await shop.product(1_000))["id"]

    async def buy(n: int) -> list[int]:
        order_id = uuid4()
        items = ((a, 1), (b, 1)) if n % 2 else ((b, 1), (a, 1))
        replica = replicas[n % 2]
        answers = [await replica.reserve(order_id, *items)]
        answers.append(await (replica.release(order_id) if n % 3 == 0 else replica.commit(order_id)))
        return [answer.status_code for answer in answers]

    line = {"name": "x", "category": shop.category, "price_minor": 1, "currency": "USD"}
    lines = [line | {"sku": product["sku"]} for product in (await shop.read("/api/v1/products"))["items"]]
    body = b"\n".join(orjson.dumps(each) for each in lines)
    done = await asyncio.gather(*(buy(n) for n in range(200)), *(replicas[n % 2].bring_in(body) for n in range(6)))
    assert all(statuses in ([200, 200], [200, 204]) for statuses in done[:200]), done
    assert [getattr(answer, "status_code", answer) for answer in done[200:]] == [200] * 6
    await check_books(shop)


async def test_expiry_that_races_a_commit_or_a_release_counts_no_unit_twice(own_shop: Callable[..., Shop]) -> None:
    replicas = [own_shop(database_acquire_timeout_s=60) for _ in range(2)]
    shop = replicas[0]
    product_ids = sorted([(await shop.product(40))["id"] for _ in range(2)])
    orders = [uuid4() for _ in range(40)]
    for order_id in orders:
        assert (await shop.reserve(order_id, *((each, 1) for each in product_ids))).status_code == 200
    await shop.service.database.execute("UPDATE reservations SET expires_at = now() - interval '1 s'")

    async def end(n: int, order_id: UUID) -> Any:
        return await (replicas[n % 2].commit(order_id) if n % 4 else replicas[n % 2].release(order_id))

    answers = await asyncio.gather(
        *(end(n, order_id) for n, order_id in enumerate(orders)), *(expire(replica) for replica in replicas * 3)
    )
    assert {answer.status_code for answer in answers[:40]} == {200, 204}, "there was enough for all"
    await expire(shop)
    for product_id in product_ids:
        assert await shop.stock(product_id) == (10, 0)
    await check_books(shop)


async def test_a_late_reservation_that_races_its_release_stays_released(own_shop: Callable[..., Shop]) -> None:
    replicas = [own_shop(database_acquire_timeout_s=60) for _ in range(2)]
    product_id = (await replicas[0].product(50))["id"]
    orders = [uuid4() for _ in range(30)]
    await asyncio.gather(
        *(call for each in orders for call in (replicas[0].reserve(each, (product_id, 1)), replicas[1].release(each)))
    )
    assert await replicas[0].stock(product_id) == (50, 0)
    for order_id in orders:
        problem(await replicas[0].commit(order_id), 409, "illegal-transition")


async def test_the_audit_tells_stock_and_reservations(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop()
    assert await audited(shop) == []
    product = await shop.product(7, sku=unique())
    await shop.move(product["id"], -2, "broken")
    order_id = uuid4()
    held = (await shop.reserve(order_id, (product["id"], 3))).json()
    stock, reservation = await audited(shop)
    assert stock == {"kind": "stock", "product_id": product["id"], "on_hand": 5, "reserved": 3, "received": 5}
    assert reservation.pop("updated_at").endswith("Z")
    assert reservation == {
        "kind": "reservation",
        "order_id": str(order_id),
        "status": "held",
        "items": [{"product_id": product["id"], "quantity": 3}],
        "expires_at": held["expires_at"],
    }
