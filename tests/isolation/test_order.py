"""Two transactions of the order service at once: one order for a key, one outcome for an order, a cart within its
limit.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis.database import Database
from chassis.idempotency import StoredAnswer
from services.order import repository
from services.order.domain import Line, Order, Status, Superseded, Undo, decided_to_undo, moved
from services.order.repository import MOST_CART_LINES, CartItem, Orders
from tests.databases import Databases
from tests.isolation.meeting import Meeting, Work, ends_either_way, meeting_place

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
LEASE_S = 60.0
MOST = 1_000


@pytest.fixture(scope="session")
async def meeting(postgres: Databases) -> AsyncIterator[Meeting]:
    async with meeting_place(postgres, "order") as place:
        yield place


def _item(product_id: UUID, quantity: int = 1) -> CartItem:
    return CartItem(product_id, quantity, "Kettle", 500, "USD")


@dataclass(frozen=True, slots=True)
class Buyer:
    """Somebody who orders what lies in the cart, under one key."""

    user_id: UUID
    product_id: UUID

    def put(self, product_id: UUID, quantity: int = 1) -> Work:
        return lambda database: repository.put_item(database, self.user_id, _item(product_id, quantity))

    def place(self, fingerprint: bytes = b"same") -> Work:
        return lambda database: Orders(database, LEASE_S).place(
            key="k",
            fingerprint=fingerprint,
            user_id=self.user_id,
            lines=(Line(self.product_id, "sku", "Kettle", 1, 500),),
            currency="USD",
            address={"line1": "1 Market Square"},
            payment_method="tok_visa",
            from_cart=True,
            traceparent=f"00-{'0' * 32}-{'0' * 16}-00",
            at=MOMENT,
        )

    async def orders(self, database: Database) -> list[Order]:
        return await Orders(database, LEASE_S).page(self.user_id, None, None, MOST)

    async def cart(self, database: Database) -> list[CartItem]:
        return await repository.cart(database, self.user_id)


@pytest.fixture
def buyer() -> Buyer:
    return Buyer(uuid4(), uuid4())


@pytest.fixture
async def order(meeting: Meeting, buyer: Buyer) -> Order:
    """An order that is authorised, of what still lies in the cart."""
    await buyer.put(buyer.product_id)(meeting.database)
    placed = await buyer.place()(meeting.database)
    orders = Orders(meeting.database, LEASE_S)
    reserved = await orders.save(placed, moved(placed, Status.RESERVED, MOMENT))
    return await orders.save(reserved, moved(reserved, Status.AUTHORISED, MOMENT))


def _settle(order: Order, to: Status, status: int) -> Work:
    after = moved(order, to, MOMENT)
    return lambda database: Orders(database, LEASE_S).settle(order, after, StoredAnswer(status, b"{}", None))


def _confirm(order: Order) -> Work:
    return _settle(order, Status.CONFIRMED, 201)


def _undo(order: Order) -> Work:
    after = decided_to_undo(order, Undo(Status.CANCELLED, "cancelled_by_customer"))
    return lambda database: Orders(database, LEASE_S).save(order, after)


def _defer(order: Order) -> Work:
    return lambda database: Orders(database, LEASE_S).defer(order.id)


def _postpone(order: Order) -> Work:
    return lambda database: Orders(database, LEASE_S).postpone(order.id, LEASE_S)


async def _claim(database: Database) -> list[UUID]:
    return [order.id for order in await Orders(database, LEASE_S).claim_unfinished(MOST)]


async def _forget(database: Database) -> int:
    return await Orders(database, LEASE_S).forget_keys(MOST)


async def _abandon(database: Database, order: Order) -> None:
    """Let the lease of an order have run out."""
    await database.execute("UPDATE orders SET lease_until = now() - interval '1 s' WHERE id = $1", order.id)


@ends_either_way
async def test_one_key_places_one_order(meeting: Meeting, buyer: Buyer, commit: bool) -> None:
    met = await meeting.of(buyer.place(), buyer.place(b"other"), commit=commit)
    assert met.waited
    assert (met.second is None) is commit
    [placed] = await buyer.orders(meeting.database)
    answered = await Orders(meeting.database, LEASE_S).answered(buyer.user_id, "k")
    assert answered is not None
    assert (answered.order_id, answered.fingerprint) == (placed.id, b"same" if commit else b"other")


@ends_either_way
@pytest.mark.parametrize("forget_first", [True, False], ids=["forget-place", "place-forget"])
async def test_a_key_that_came_of_age_is_taken_anew_though_it_is_being_forgotten(
    meeting: Meeting, buyer: Buyer, forget_first: bool, commit: bool
) -> None:
    old = await buyer.place()(meeting.database)
    await meeting.database.execute(
        "UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE order_id = $1", old.id
    )
    works = _forget, buyer.place()
    met = await meeting.of(*(works if forget_first else reversed(works)), commit=commit)
    assert met.waited is forget_first
    found = await Orders(meeting.database, LEASE_S).answered(buyer.user_id, "k")
    if forget_first or commit:
        assert found is not None
        assert found.order_id == (met.second if forget_first else met.first).id
    else:
        assert found is None


@ends_either_way
@pytest.mark.parametrize("first", ["confirm", "undo"])
@pytest.mark.parametrize("second", ["confirm", "undo"])
async def test_of_two_changes_of_one_version_the_second_is_superseded(
    meeting: Meeting, buyer: Buyer, order: Order, first: str, second: str, commit: bool
) -> None:
    works = {"confirm": _confirm(order), "undo": _undo(order)}
    met = await meeting.of(works[first], works[second], commit=commit)
    assert met.waited
    assert isinstance(met.second, Superseded) is commit
    [now] = await buyer.orders(meeting.database)
    confirmed = (first if commit else second) == "confirm"
    assert now.version == order.version + 1
    assert (now.status is Status.CONFIRMED, now.undo is None) == (confirmed, confirmed)
    assert (await Orders(meeting.database, LEASE_S).answer_of(order.id) is not None) is confirmed
    assert (await buyer.cart(meeting.database) == []) is confirmed


@ends_either_way
async def test_a_checkout_has_one_answer(meeting: Meeting, order: Order, commit: bool) -> None:
    met = await meeting.of(_confirm(order), _settle(order, Status.CANCELLED, 409), commit=commit)
    assert met.waited
    assert isinstance(met.second, Superseded) is commit
    answer = await Orders(meeting.database, LEASE_S).answer_of(order.id)
    assert answer is not None
    assert answer.status == (201 if commit else 409)


@ends_either_way
@pytest.mark.parametrize("defer_first", [True, False], ids=["defer-settle", "settle-defer"])
async def test_an_order_that_is_deferred_while_it_is_settled_stays_settled(
    meeting: Meeting, buyer: Buyer, order: Order, defer_first: bool, commit: bool
) -> None:
    works = _defer(order), _confirm(order)
    met = await meeting.of(*(works if defer_first else reversed(works)), commit=commit)
    assert met.waited
    settled = commit or defer_first
    [now] = await buyer.orders(meeting.database)
    assert now.status is (Status.CONFIRMED if settled else Status.AUTHORISED)
    assert await buyer.cart(meeting.database) == []
    answered = await Orders(meeting.database, LEASE_S).answered(buyer.user_id, "k")
    assert answered is not None
    assert answered.deferred is (commit or not defer_first)
    assert (answered.answer is not None) is settled
    assert (order.id in await _claim(meeting.database)) is (not settled)


@ends_either_way
async def test_what_is_put_into_the_cart_after_a_deferral_is_for_another_order(
    meeting: Meeting, buyer: Buyer, order: Order, commit: bool
) -> None:
    async def defer_and_put_again(database: Database) -> Any:
        await _defer(order)(database)
        return await buyer.put(buyer.product_id)(database)

    met = await meeting.of(defer_and_put_again, _confirm(order), commit=commit)
    assert met.waited
    assert len(await buyer.cart(meeting.database)) == int(commit)


@ends_either_way
@pytest.mark.parametrize("put_first", [True, False], ids=["put-settle", "settle-put"])
async def test_a_line_that_is_changed_while_it_is_bought_stays_in_the_cart(
    meeting: Meeting, buyer: Buyer, order: Order, put_first: bool, commit: bool
) -> None:
    works = buyer.put(buyer.product_id, 3), _confirm(order)
    met = await meeting.of(*(works if put_first else reversed(works)), commit=commit)
    assert met.waited
    stays = commit or not put_first
    assert [line.quantity for line in await buyer.cart(meeting.database)] == ([3] if stays else [])


@ends_either_way
@pytest.mark.parametrize("settle_first", [True, False], ids=["settle-postpone", "postpone-settle"])
async def test_a_settled_order_is_not_taken_up_again(
    meeting: Meeting, order: Order, settle_first: bool, commit: bool
) -> None:
    works = _confirm(order), _postpone(order)
    met = await meeting.of(*(works if settle_first else reversed(works)), commit=commit)
    assert met.waited
    lease_until = await meeting.database.fetchval("SELECT lease_until FROM orders WHERE id = $1", order.id)
    assert (lease_until is None) is (commit or not settle_first)


@ends_either_way
async def test_an_order_that_was_left_is_taken_up_by_one_replica(meeting: Meeting, order: Order, commit: bool) -> None:
    await _abandon(meeting.database, order)
    met = await meeting.of(_claim, _claim, commit=commit)
    assert not met.waited
    assert order.id in met.first
    assert order.id not in met.second
    assert (order.id in await _claim(meeting.database)) is (not commit)


@ends_either_way
@pytest.mark.parametrize("claim_first", [True, False], ids=["claim-change", "change-claim"])
@pytest.mark.parametrize("change", ["confirm", "undo"])
async def test_an_order_that_is_taken_up_while_it_is_changed_is_changed_once(
    meeting: Meeting, buyer: Buyer, order: Order, change: str, claim_first: bool, commit: bool
) -> None:
    await _abandon(meeting.database, order)
    works = _claim, {"confirm": _confirm, "undo": _undo}[change](order)
    met = await meeting.of(*(works if claim_first else reversed(works)), commit=commit)
    assert met.waited is claim_first
    assert (order.id in (met.first if claim_first else met.second)) is claim_first
    [now] = await buyer.orders(meeting.database)
    assert now.version == order.version + int(claim_first or commit)
    assert now.attempts == int(claim_first and commit)


@ends_either_way
async def test_a_cart_holds_no_more_than_its_limit(meeting: Meeting, buyer: Buyer, commit: bool) -> None:
    for _ in range(MOST_CART_LINES - 1):
        await buyer.put(uuid4())(meeting.database)
    met = await meeting.of(buyer.put(uuid4()), buyer.put(uuid4()), commit=commit)
    assert met.waited
    assert met.second is not commit
    assert len(await buyer.cart(meeting.database)) == MOST_CART_LINES


@ends_either_way
async def test_a_product_is_in_a_cart_once(meeting: Meeting, buyer: Buyer, commit: bool) -> None:
    met = await meeting.of(buyer.put(buyer.product_id, 2), buyer.put(buyer.product_id, 3), commit=commit)
    assert met.waited
    assert [line.quantity for line in await buyer.cart(meeting.database)] == [3]
