"""What an order may become, what it costs, and how its checkout ends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis.problems import IllegalTransition, InsufficientStock, InvalidRequest
from services.order.checkout import priced
from services.order.clients import Quote
from services.order.domain import (
    CANCELLABLE,
    FINAL,
    FOLLOWS,
    IN_FLIGHT,
    Entry,
    Line,
    Order,
    PaymentDeclined,
    Status,
    Undo,
    decided_to_undo,
    moved,
    refusal_of,
    total_minor,
)

AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
MUG = UUID("019c2000-0000-7000-8000-000000000001")
POT = UUID("019c2000-0000-7000-8000-000000000002")

LEGAL = {
    ("pending", "reserved"),
    ("pending", "rejected"),
    ("pending", "cancelled"),
    ("reserved", "authorised"),
    ("reserved", "rejected"),
    ("reserved", "cancelled"),
    ("authorised", "confirmed"),
    ("authorised", "cancelled"),
    ("confirmed", "shipped"),
    ("confirmed", "cancelled"),
    ("shipped", "delivered"),
}


def _line(quantity: int = 2, unit_price_minor: int = 1999) -> Line:
    return Line(MUG, "MUG-1", "Enamel mug", quantity, unit_price_minor)


def _order(status: Status = Status.PENDING, **members: Any) -> Order:
    usual: dict[str, Any] = {
        "id": uuid4(),
        "user_id": uuid4(),
        "lines": (_line(),),
        "currency": "USD",
        "address": {},
        "payment_method": "tok_visa",
        "from_cart": False,
        "traceparent": "00-00000000000000000000000000000001-0000000000000001-00",
        "created_at": AT,
        "history": (Entry(status, AT),),
    }
    return Order(status=status, **(usual | members))


def test_every_status_says_what_follows_it() -> None:
    assert FOLLOWS.keys() == set(Status)
    assert {(status.value, to.value) for status, following in FOLLOWS.items() for to in following} == LEGAL


@pytest.mark.parametrize(("before", "to"), list(product(Status, Status)))
def test_an_order_takes_legal_transitions_only(before: Status, to: Status) -> None:
    order = _order(before)
    if (before.value, to.value) in LEGAL:
        after = moved(order, to, AT + timedelta(seconds=1), "why")
        assert after.status is to
        assert after.history == (*order.history, Entry(to, AT + timedelta(seconds=1), "why"))
        assert (order.status, len(order.history)) == (before, 1)
    else:
        with pytest.raises(IllegalTransition) as refused:
            moved(order, to, AT)
        assert refused.value.facts == {"order_id": str(order.id), "order_status": before}


def test_final_statuses_have_no_next_and_are_not_in_flight() -> None:
    assert {Status.DELIVERED, Status.REJECTED, Status.CANCELLED} == FINAL
    assert {Status.PENDING, Status.RESERVED, Status.AUTHORISED} == IN_FLIGHT
    assert IN_FLIGHT | {Status.CONFIRMED} == CANCELLABLE
    assert all(Status.CANCELLED in FOLLOWS[status] for status in CANCELLABLE)


@pytest.mark.parametrize("status", Status)
def test_what_can_be_cancelled_can_be_decided_to(status: Status) -> None:
    undo = Undo(Status.CANCELLED, "cancelled_by_customer")
    if status in CANCELLABLE:
        assert decided_to_undo(_order(status), undo).undo == undo
    else:
        with pytest.raises(IllegalTransition):
            decided_to_undo(_order(status), undo)


def test_an_order_is_taken_back_once() -> None:
    order = _order(Status.CONFIRMED, undo=Undo(Status.CANCELLED, "cancelled_by_customer"))
    with pytest.raises(IllegalTransition):
        decided_to_undo(order, Undo(Status.CANCELLED, "insufficient_stock"))


@pytest.mark.parametrize("to", Status)
def test_an_order_that_is_taken_back_goes_nowhere_else(to: Status) -> None:
    order = _order(Status.CONFIRMED, undo=Undo(Status.CANCELLED, "cancelled_by_customer"))
    if to is Status.CANCELLED:
        after = moved(order, to, AT, "cancelled_by_customer")
        assert (after.undo, after.unfinished) == (None, False)
    else:
        with pytest.raises(IllegalTransition):
            moved(order, to, AT)


@pytest.mark.parametrize("status", Status)
def test_an_order_is_unfinished_in_flight_and_while_it_is_taken_back(status: Status) -> None:
    order = _order(status)
    assert order.unfinished == (status in IN_FLIGHT)
    assert replace(order, undo=Undo(Status.CANCELLED, "cancelled_by_customer")).unfinished


def test_an_order_costs_the_sum_of_its_lines() -> None:
    lines = (_line(3, 1999), _line(1, 0), _line(99, 10**12))
    assert [line.total_minor for line in lines] == [5997, 0, 99 * 10**12]
    assert total_minor(lines) == _order(lines=lines).total_minor == 5997 + 99 * 10**12
    assert total_minor(()) == 0


def test_the_reason_of_an_order_is_that_of_its_last_status() -> None:
    order = _order()
    assert order.reason is None
    assert moved(order, Status.REJECTED, AT, "insufficient_stock").reason == "insufficient_stock"


def test_a_checkout_that_was_declined_says_why_and_for_which_order() -> None:
    order = _order(Status.REJECTED)
    problem = refusal_of(order, {"code": "payment-declined", "decline_code": "expired_card"})
    assert isinstance(problem, PaymentDeclined)
    assert problem.facts == {"decline_code": "expired_card", "order_id": str(order.id)}


def test_a_checkout_without_stock_says_what_is_short_and_for_which_order() -> None:
    order = _order(Status.REJECTED)
    items = [{"product_id": str(MUG), "requested": 2, "available": 1}]
    problem = refusal_of(order, {"code": "insufficient-stock", "items": items})
    assert isinstance(problem, InsufficientStock)
    assert problem.facts == {"items": items, "order_id": str(order.id)}


def test_a_checkout_that_was_cancelled_is_an_illegal_transition() -> None:
    order = _order(Status.CANCELLED)
    problem = refusal_of(order, None)
    assert isinstance(problem, IllegalTransition)
    assert problem.facts == {"order_id": str(order.id)}


def _quote(unit_price_minor: int = 1999, currency: str = "EUR") -> Quote:
    return Quote("SKU-1", "Enamel mug", unit_price_minor, currency, available=5)


def test_lines_take_name_and_price_from_the_quotes_in_the_order_asked() -> None:
    lines, currency = priced([(POT, 2), (MUG, 1)], {MUG: _quote(100), POT: _quote(250)}, "USD")
    assert lines == (Line(POT, "SKU-1", "Enamel mug", 2, 250), Line(MUG, "SKU-1", "Enamel mug", 1, 100))
    assert currency == "EUR"


def test_a_product_without_a_quote_is_a_line_without_name_or_price() -> None:
    lines, currency = priced([(MUG, 1), (POT, 2)], {MUG: _quote()}, "USD")
    assert lines[1] == Line(POT, "", "", 2, 0)
    assert currency == "EUR"


def test_an_order_of_unknown_products_only_has_the_shops_currency() -> None:
    assert priced([(MUG, 1)], {}, "USD")[1] == "USD"


def test_prices_in_two_currencies_cannot_be_one_order() -> None:
    with pytest.raises(InvalidRequest) as refused:
        priced([(MUG, 1), (POT, 1)], {MUG: _quote(), POT: _quote(currency="USD")}, "USD")
    assert refused.value.facts["errors"] == [
        {"field": "items", "detail": "has prices in EUR, USD; an order has one currency"}
    ]
