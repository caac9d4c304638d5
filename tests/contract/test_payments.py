"""Payments and refunds, as the customer and the admin see them."""

from uuid import uuid4

import pytest

from tests.contract.client import Json, Payment, Storefront, pages
from tests.contract.shopping import Catalogue, Customer, buy, order_body, unique_key


@pytest.fixture
def payment(customer: Customer, catalogue: Catalogue) -> Payment:
    """A captured payment of 10.00 USD."""
    order = buy(customer, (catalogue.product(price_minor=500, stock=2), 2))
    assert order.payment_id is not None
    return customer.shop.payment(order.payment_id).expect(200)


def amounts(payment: Payment) -> tuple[str, int, int]:
    """Give status, captured and refunded minor units."""
    return payment.status, payment.captured.amount_minor, payment.refunded.amount_minor


# Reading


def test_a_confirmed_order_is_captured(customer: Customer, payment: Payment) -> None:
    assert amounts(payment) == ("captured", 1000, 0)
    assert (payment.amount.amount_minor, payment.amount.currency) == (1000, "USD")
    assert {payment.captured.currency, payment.refunded.currency} == {"USD"}
    assert payment.provider_reference
    assert payment.history
    order = customer.shop.order(payment.order_id).expect(200)
    assert order.payment_id == payment.id
    assert order.total == payment.amount


def test_a_payment_is_found_by_its_order(customer: Customer, payment: Payment) -> None:
    page = customer.shop.payments(order_id=payment.order_id).expect(200)
    assert page.items == [payment]
    assert page.next_cursor is None
    assert customer.shop.payments(order_id=uuid4()).expect(200).items == []


def test_payments_are_the_callers_own(stranger: Customer, payment: Payment) -> None:
    stranger.shop.payment(payment.id).problem(404, "not-found")
    assert stranger.shop.payments().expect(200).items == []
    answer = stranger.shop.payments(order_id=payment.order_id)
    if answer.status == 404:
        answer.problem(404, "not-found")
    else:
        assert answer.expect(200).items == []


def test_an_admin_may_read_any_payment(admin: Storefront, payment: Payment) -> None:
    assert admin.payment(payment.id).expect(200) == payment


def test_payments_are_paged(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    orders = [buy(customer, (product, 1)) for _ in range(5)]
    for limit in (1, 2, 5, 100):
        read = pages(customer.shop.payments, limit=limit)
        listed = [payment.order_id for page in read for payment in page]
        assert len(listed) == 5
        assert set(listed) == {order.id for order in orders}


def test_a_cursor_of_payments_holds_for_its_filter_only(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    orders = [buy(customer, (product, 1)) for _ in range(2)]
    cursor = customer.shop.payments(limit=1).expect(200).next_cursor
    assert cursor is not None
    customer.shop.payments(cursor=cursor, order_id=orders[0].id).problem(400, "invalid-cursor")


@pytest.mark.parametrize("order_id", ["1", "no-uuid", "\0"])
def test_an_order_id_that_is_no_uuid_is_422(customer: Customer, order_id: str) -> None:
    customer.shop.payments(order_id=order_id).invalid("order_id")


def test_no_card_number_is_accepted(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=1)
    for payment_method in ("4111111111111111", "4111 1111 1111 1111"):
        body = order_body((product, 1), payment_method=payment_method)
        answer = customer.shop.place_order(body, unique_key())
        answer.invalid("payment_method")
        assert payment_method not in answer.response.text
    assert customer.shop.payments().expect(200).items == []


# Refunds


def test_a_refund_may_be_whole(customer: Customer, admin: Storefront, payment: Payment) -> None:
    admin.refund(payment.id, reason="broken").expect(200)
    refunded = customer.shop.payment(payment.id).expect(200)
    assert amounts(refunded) == ("refunded", 1000, 1000)
    assert len(refunded.history) > len(payment.history)
    assert customer.shop.order(payment.order_id).expect(200).status == "confirmed"
    answer = admin.refund(payment.id, amount_minor=1, reason="again")
    answer.problem(409, "refund-exceeds-captured")


def test_refunds_may_be_in_parts_up_to_what_was_captured(
    customer: Customer, admin: Storefront, payment: Payment
) -> None:
    admin.refund(payment.id, amount_minor=300, reason="scratched").expect(200)
    assert amounts(customer.shop.payment(payment.id).expect(200)) == ("partially_refunded", 1000, 300)
    admin.refund(payment.id, amount_minor=701, reason="more").problem(409, "refund-exceeds-captured")
    assert amounts(customer.shop.payment(payment.id).expect(200)) == ("partially_refunded", 1000, 300)
    admin.refund(payment.id, amount_minor=700, reason="the rest").expect(200)
    assert amounts(customer.shop.payment(payment.id).expect(200)) == ("refunded", 1000, 1000)
    assert customer.shop.order(payment.order_id).expect(200).status == "confirmed"


@pytest.mark.parametrize("amount_minor", [1001, 10**12])
def test_no_refund_is_more_than_was_captured(
    customer: Customer, admin: Storefront, payment: Payment, amount_minor: int
) -> None:
    answer = admin.refund(payment.id, amount_minor=amount_minor, reason="too much")
    answer.problem(409, "refund-exceeds-captured")
    assert customer.shop.payment(payment.id).expect(200) == payment


def test_what_was_declined_cannot_be_refunded(customer: Customer, admin: Storefront, catalogue: Catalogue) -> None:
    body = order_body((catalogue.product(stock=1), 1), payment_method="tok_declined")
    problem = customer.shop.place_order(body, unique_key()).problem(402, "payment-declined")
    [declined] = customer.shop.payments(order_id=problem.facts["order_id"]).expect(200).items
    answer = admin.refund(declined.id, amount_minor=1, reason="nothing")
    answer.problem(409, "refund-exceeds-captured")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"amount_minor": 1}, "reason"),
        ({"amount_minor": 0, "reason": "x"}, "amount_minor"),
        ({"amount_minor": -1, "reason": "x"}, "amount_minor"),
        ({"amount_minor": 1.5, "reason": "x"}, "amount_minor"),
        ({"amount_minor": "1", "reason": "x"}, "amount_minor"),
        ({"amount_minor": True, "reason": "x"}, "amount_minor"),
        ({"amount_minor": 10**30, "reason": "x"}, "amount_minor"),
        ({"reason": 1}, "reason"),
        ({"reason": "NUL \0"}, "reason"),
        ({"reason": "x", "currency": "USD"}, "currency"),
    ],
)
def test_a_refund_that_cannot_be_is_422(
    customer: Customer, admin: Storefront, payment: Payment, body: Json, field: str
) -> None:
    admin.refund(payment.id, **body).invalid(field)
    assert customer.shop.payment(payment.id).expect(200) == payment


def test_a_customer_refunds_nothing(customer: Customer, payment: Payment) -> None:
    customer.shop.refund(payment.id, reason="please").problem(403, "forbidden")
    assert customer.shop.payment(payment.id).expect(200) == payment


def test_a_refund_under_a_key_happens_once(customer: Customer, admin: Storefront, payment: Payment) -> None:
    key = unique_key()
    first = admin.refund(payment.id, key, amount_minor=300, reason="scratched")
    first.expect(200)
    assert not first.replayed
    again = admin.refund(payment.id, key, reason="scratched", amount_minor=300)
    assert again.replayed
    again.expect(200)
    assert again.response.json() == first.response.json()
    answer = admin.refund(payment.id, key, amount_minor=301, reason="scratched")
    answer.problem(422, "idempotency-key-reused")
    assert amounts(customer.shop.payment(payment.id).expect(200)) == ("partially_refunded", 1000, 300)


def test_refunds_without_a_key_are_each_one_of_its_own(customer: Customer, admin: Storefront, payment: Payment) -> None:
    for _ in range(2):
        admin.refund(payment.id, amount_minor=300, reason="scratched").expect(200)
    assert amounts(customer.shop.payment(payment.id).expect(200)) == ("partially_refunded", 1000, 600)


def test_a_refund_that_was_refused_leaves_the_key_free(customer: Customer, admin: Storefront, payment: Payment) -> None:
    key = unique_key()
    admin.refund(payment.id, key, amount_minor=0, reason="nothing").invalid("amount_minor")
    answer = admin.refund(payment.id, key, amount_minor=300, reason="scratched")
    answer.expect(200)
    assert not answer.replayed
    assert customer.shop.payment(payment.id).expect(200).refunded.amount_minor == 300


def test_a_key_of_a_refund_holds_for_its_payment_only(
    customer: Customer, admin: Storefront, catalogue: Catalogue, payment: Payment
) -> None:
    other = buy(customer, (catalogue.product(price_minor=1000, stock=1), 1))
    assert other.payment_id is not None
    key = unique_key()
    for payment_id in (payment.id, other.payment_id):
        answer = admin.refund(payment_id, key, amount_minor=300, reason="scratched")
        answer.expect(200)
        assert not answer.replayed
        assert customer.shop.payment(payment_id).expect(200).refunded.amount_minor == 300


def test_the_key_of_a_refund_has_at_most_255_characters(
    customer: Customer, admin: Storefront, payment: Payment
) -> None:
    answer = admin.refund(payment.id, "k" * 256, reason="x")
    answer.problem(400, "idempotency-key-invalid")
    assert customer.shop.payment(payment.id).expect(200) == payment


def test_cancelling_refunds_the_rest(customer: Customer, admin: Storefront, payment: Payment) -> None:
    admin.refund(payment.id, amount_minor=300, reason="scratched").expect(200)
    customer.shop.cancel(payment.order_id).expect(200, 202)
    customer.shop.settled(payment.order_id, "cancelled")
    assert amounts(customer.shop.payment(payment.id).expect(200)) == ("refunded", 1000, 1000)


def test_what_was_refunded_whole_can_still_be_cancelled(
    customer: Customer, admin: Storefront, payment: Payment
) -> None:
    admin.refund(payment.id, reason="broken").expect(200)
    customer.shop.cancel(payment.order_id).expect(200, 202)
    customer.shop.settled(payment.order_id, "cancelled")
    assert amounts(customer.shop.payment(payment.id).expect(200)) == ("refunded", 1000, 1000)


def test_a_cancelled_order_has_nothing_left_to_refund(customer: Customer, admin: Storefront, payment: Payment) -> None:
    customer.shop.cancel(payment.order_id).expect(200, 202)
    customer.shop.settled(payment.order_id, "cancelled")
    answer = admin.refund(payment.id, amount_minor=1, reason="more")
    answer.problem(409, "refund-exceeds-captured")
