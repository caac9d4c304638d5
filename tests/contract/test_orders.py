"""Checkout and what follows: outcomes of every payment method, idempotency, cancelling, shipping."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.contract.client import Answer, Json, Order, OrderStatus, Product, Storefront, pages, path_of
from tests.contract.shopping import (
    ADDRESS,
    Catalogue,
    Customer,
    buy,
    item,
    ndjson,
    order_body,
    short,
    unique,
    unique_key,
    unique_sku,
)

CONFIRMED = ["pending", "reserved", "authorised", "confirmed"]
DECLINES = {
    "tok_declined": "declined",
    "tok_insufficient_funds": "insufficient_funds",
    "tok_expired_card": "expired_card",
}


def available(anyone: Storefront, product: Product) -> int:
    """Give the units that can be bought."""
    return anyone.product(product.id).expect(200).available


def place(customer: Customer, body: Json, key: str | None = None) -> Answer[Order]:
    """Order, under a new key unless one is given."""
    return customer.shop.place_order(body, key or unique_key())


def settled(customer: Customer, answer: Answer[Order]) -> Order:
    """Give the order of a 201, or of a 202 as soon as it is confirmed; both have a `Location` to poll."""
    order = answer.expect(201, 202)
    assert path_of(answer.headers["location"]) == f"/api/v1/orders/{order.id}"
    if answer.status == 202:
        assert order.status == "pending"
    return customer.shop.settled(order.id, "confirmed")


def nothing_ordered(customer: Customer) -> None:
    """Check that the customer has no order."""
    assert customer.shop.orders().expect(200).items == []


# Confirmed


@pytest.mark.parametrize("payment_method", ["tok_visa", "tok_mastercard"])
def test_an_order_is_confirmed(
    customer: Customer, catalogue: Catalogue, anyone: Storefront, payment_method: str
) -> None:
    kettle = catalogue.product(name="Kettle", price_minor=1999, stock=5)
    cup = catalogue.product(name="Cup", price_minor=350, stock=9)
    answer = place(customer, order_body((kettle, 2), (cup, 3), payment_method=payment_method))
    order = answer.expect(201)
    assert path_of(answer.headers["location"]) == f"/api/v1/orders/{order.id}"
    assert not answer.replayed
    assert order.status == "confirmed"
    assert order.path_taken == CONFIRMED
    assert (order.total.amount_minor, order.total.currency) == (2 * 1999 + 3 * 350, "USD")
    lines = {line.product_id: line for line in order.lines}
    assert len(order.lines) == 2
    line = lines[kettle.id]
    assert (line.sku, line.name, line.quantity) == (kettle.sku, "Kettle", 2)
    assert (line.unit_price.amount_minor, line.line_total.amount_minor) == (1999, 3998)
    assert order.address.model_dump() == ADDRESS
    assert order.payment_id is not None
    assert (available(anyone, kettle), available(anyone, cup)) == (3, 6)
    assert customer.shop.order(order.id).expect(200) == order
    assert customer.shop.orders().expect(200).items == [order]


@pytest.mark.parametrize("payment_method", ["tok_slow", "tok_timeout"])
def test_an_outcome_that_takes_its_time_is_confirmed(
    customer: Customer, catalogue: Catalogue, anyone: Storefront, payment_method: str
) -> None:
    product = catalogue.product(stock=5, price_minor=700)
    body, key = order_body((product, 2), payment_method=payment_method), unique_key()
    order = settled(customer, place(customer, body, key))
    assert order.path_taken == CONFIRMED
    assert available(anyone, product) == 3
    again = place(customer, body, key)
    assert again.replayed
    assert again.expect(201).id == order.id
    assert path_of(again.headers["location"]) == f"/api/v1/orders/{order.id}"
    [payment] = customer.shop.payments(order_id=order.id).expect(200).items
    assert (payment.captured.amount_minor, payment.refunded.amount_minor) == (1400, 0)


def test_stock_is_reserved_while_a_payment_is_slow(
    customer: Customer, catalogue: Catalogue, anyone: Storefront
) -> None:
    product = catalogue.product(stock=5)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(place, customer, order_body((product, 3), payment_method="tok_slow"))
        while available(anyone, product) == 5:
            assert not pending.done()
        stock = catalogue.admin.move_stock(product.id, delta=-1, reason="broken").expect(200)
        assert (stock.on_hand, stock.reserved, stock.available) == (4, 3, 1)
        answer = catalogue.admin.move_stock(product.id, delta=-2, reason="broken")
        answer.problem(409, "insufficient-stock")
        line = {
            "sku": product.sku,
            "name": product.name,
            "category": product.category,
            "price_minor": 1999,
            "currency": "USD",
            "on_hand": 2,
        }
        report = catalogue.admin.import_products(ndjson(line)).expect(200)
        assert (report.updated, [rejected.line for rejected in report.rejected]) == (0, [1])
        settled(customer, pending.result())
    stock = catalogue.admin.move_stock(product.id, delta=1, reason="received").expect(200)
    assert (stock.on_hand, stock.reserved, stock.available) == (2, 0, 2)


def test_an_order_may_name_a_saved_address(customer: Customer, catalogue: Catalogue) -> None:
    address = customer.shop.add_address(ADDRESS).expect(201)
    body = {
        "items": [item(catalogue.product(stock=1), 1)],
        "address_id": str(address.id),
        "payment_method": "tok_visa",
    }
    order = place(customer, body).expect(201)
    assert order.address.model_dump() == ADDRESS
    customer.shop.delete_address(address.id).empty(204)
    assert customer.shop.order(order.id).expect(200).address.model_dump() == ADDRESS


def test_without_items_the_cart_is_bought_and_emptied(customer: Customer, catalogue: Catalogue) -> None:
    kettle = catalogue.product(price_minor=1000, stock=5)
    cup = catalogue.product(price_minor=300, stock=5)
    customer.shop.put_in_cart(kettle.id, 1).expect(200)
    customer.shop.put_in_cart(cup.id, 2).expect(200)
    order = place(customer, order_body()).expect(201)
    assert {line.product_id: line.quantity for line in order.lines} == {kettle.id: 1, cup.id: 2}
    assert order.total.amount_minor == 1600
    assert customer.shop.cart().expect(200).items == []


def test_with_items_the_cart_stays(customer: Customer, catalogue: Catalogue) -> None:
    kept, bought = catalogue.product(stock=5), catalogue.product(stock=5)
    customer.shop.put_in_cart(kept.id, 1).expect(200)
    buy(customer, (bought, 1))
    assert [line.product_id for line in customer.shop.cart().expect(200).items] == [kept.id]


def test_the_price_is_the_one_of_the_moment_of_ordering(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(price_minor=1000, stock=5)
    customer.shop.put_in_cart(product.id, 2).expect(200)
    dearer = {"price": {"amount_minor": 1200, "currency": "USD"}}
    catalogue.admin.change_product(product.id, dearer).expect(200)
    order = place(customer, order_body()).expect(201)
    assert order.total.amount_minor == 2400
    catalogue.admin.change_product(product.id, {"name": "Renamed", "price": {"amount_minor": 1, "currency": "USD"}})
    catalogue.admin.retire_product(product.id).empty(204)
    assert customer.shop.order(order.id).expect(200) == order


def test_an_order_takes_100_lines_of_99(customer: Customer, catalogue: Catalogue, anyone: Storefront) -> None:
    lines = [
        {
            "sku": unique_sku(),
            "name": f"Number {n}",
            "category": catalogue.category,
            "price_minor": n + 1,
            "currency": "USD",
            "on_hand": 99,
        }
        for n in range(100)
    ]
    assert catalogue.admin.import_products(ndjson(*lines)).expect(200).created == 100
    products = anyone.products(category=catalogue.category, limit=100).expect(200).items
    order = buy(customer, *((product, 99) for product in products))
    assert len(order.lines) == 100
    assert order.total.amount_minor == 99 * sum(range(1, 101))


# Refused before anything began


@pytest.mark.parametrize("quantity", [0, 100, -1, 10**12, 10**30, 1.5, "1", True, None])
def test_a_quantity_out_of_range_is_422(
    customer: Customer, catalogue: Catalogue, anyone: Storefront, quantity: Any
) -> None:
    good, bad = catalogue.product(stock=5), catalogue.product(stock=5)
    body = order_body() | {"items": [item(good, 1), item(bad, quantity)]}
    place(customer, body).invalid("items.1.quantity")
    place(customer, order_body() | {"items": [item(bad, quantity)]}).invalid("items.0.quantity")
    nothing_ordered(customer)
    assert (available(anyone, good), available(anyone, bad)) == (5, 5)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"items": []}, "items"),
        ({"items": {}}, "items"),
        ({"items": [1]}, "items.0"),
        ({"items": [{"quantity": 1}]}, "items.0.product_id"),
        ({"items": [{"product_id": "01890a5d-ac96-774b-bcce-b302099a8057"}]}, "items.0.quantity"),
        ({"items": [{"product_id": "no-uuid", "quantity": 1}]}, "items.0.product_id"),
        ({"payment_method": "tok_unknown"}, "payment_method"),
        ({"payment_method": "4242424242424242"}, "payment_method"),
        ({"payment_method": ""}, "payment_method"),
        ({"payment_method": None}, "payment_method"),
        ({"payment_method": "tok_visa\0"}, "payment_method"),
        ({"address": {**ADDRESS, "country": "USA"}}, "address.country"),
        ({"address": {**ADDRESS, "line1": "x" * 201}}, "address.line1"),
        ({"address": {**ADDRESS, "postal_code": "1" * 21}}, "address.postal_code"),
        ({"address": {**ADDRESS, "name": "x" * 101}}, "address.name"),
        ({"address": {**ADDRESS, "city": "NUL \0"}}, "address.city"),
        ({"address": {**ADDRESS, "surprise": 1}}, "address.surprise"),
        ({"total": {"amount_minor": 1, "currency": "USD"}}, "total"),
        ({"status": "confirmed"}, "status"),
        ({"user_id": "01890a5d-ac96-774b-bcce-b302099a8057"}, "user_id"),
    ],
    ids=short,
)
def test_an_order_that_cannot_be_is_422(
    customer: Customer, catalogue: Catalogue, anyone: Storefront, change: Json, field: str
) -> None:
    product = catalogue.product(stock=5)
    problem = place(customer, order_body((product, 1)) | change).invalid()
    assert any(named == field or named.startswith(f"{field}.") for named in problem.fields)
    nothing_ordered(customer)
    assert available(anyone, product) == 5


@pytest.mark.parametrize("missing", ["name", "line1", "city", "postal_code", "country"])
def test_the_address_of_an_order_needs_its_fields(customer: Customer, catalogue: Catalogue, missing: str) -> None:
    address = {name: value for name, value in ADDRESS.items() if name != missing}
    place(customer, order_body((catalogue.product(stock=1), 1), address=address)).invalid(f"address.{missing}")


def test_a_price_named_by_the_customer_is_422(customer: Customer, catalogue: Catalogue) -> None:
    line = {**item(catalogue.product(stock=1), 1), "unit_price": {"amount_minor": 1, "currency": "USD"}}
    place(customer, order_body() | {"items": [line]}).invalid("items.0.unit_price")


def test_a_product_comes_once_in_an_order(customer: Customer, catalogue: Catalogue, anyone: Storefront) -> None:
    product, other = catalogue.product(stock=5), catalogue.product(stock=5)
    problem = place(customer, order_body((product, 1), (other, 1), (product, 2))).invalid()
    assert all(field.startswith("items") for field in problem.fields)
    nothing_ordered(customer)
    assert available(anyone, product) == 5


def test_more_than_100_lines_are_422(customer: Customer) -> None:
    items = [{"product_id": str(uuid4()), "quantity": 1} for _ in range(101)]
    place(customer, order_body() | {"items": items}).invalid("items")


def test_one_order_has_one_currency(customer: Customer, catalogue: Catalogue, anyone: Storefront) -> None:
    dollars = catalogue.product(stock=5, currency="USD")
    euros = catalogue.product(stock=5, currency="EUR")
    place(customer, order_body((dollars, 1), (euros, 1))).invalid()
    customer.shop.put_in_cart(dollars.id, 1).expect(200)
    customer.shop.put_in_cart(euros.id, 1).expect(200)
    place(customer, order_body()).invalid()
    assert len(customer.shop.cart().expect(200).items) == 2
    nothing_ordered(customer)
    assert (available(anyone, dollars), available(anyone, euros)) == (5, 5)


def test_an_empty_cart_is_422(customer: Customer) -> None:
    place(customer, order_body()).invalid()
    nothing_ordered(customer)


def test_an_order_has_one_form_of_address(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    address = customer.shop.add_address(ADDRESS).expect(201)
    place(customer, order_body((product, 1), address_id=str(address.id))).invalid()
    neither = {"items": [item(product, 1)], "payment_method": "tok_visa"}
    place(customer, neither).invalid()
    nothing_ordered(customer)


def test_an_address_of_another_is_422(customer: Customer, stranger: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    others = stranger.shop.add_address(ADDRESS).expect(201)
    for address_id in (str(others.id), str(uuid4()), "no-uuid"):
        body = {"items": [item(product, 1)], "payment_method": "tok_visa", "address_id": address_id}
        place(customer, body).invalid("address_id")
    nothing_ordered(customer)


def test_an_order_needs_a_payment_method(customer: Customer, catalogue: Catalogue) -> None:
    body = {"items": [item(catalogue.product(stock=1), 1)], "address": ADDRESS}
    place(customer, body).invalid("payment_method")


# Refused by stock or by the bank


@pytest.mark.parametrize(("payment_method", "decline_code"), DECLINES.items())
def test_a_declined_payment_is_402_and_gives_the_stock_back(
    customer: Customer, catalogue: Catalogue, anyone: Storefront, payment_method: str, decline_code: str
) -> None:
    product = catalogue.product(stock=5, price_minor=700)
    problem = place(customer, order_body((product, 2), payment_method=payment_method)).problem(402, "payment-declined")
    assert problem.facts["decline_code"] == decline_code
    order = customer.shop.order(problem.facts["order_id"]).expect(200)
    assert order.status == "rejected"
    assert order.path_taken == ["pending", "reserved", "rejected"]
    assert order.reason
    assert order.total.amount_minor == 1400
    assert available(anyone, product) == 5
    assert customer.shop.orders(status="rejected").expect(200).items == [order]
    [payment] = customer.shop.payments(order_id=order.id).expect(200).items
    assert (payment.status, payment.captured.amount_minor) == ("declined", 0)


def test_a_cart_survives_a_refusal(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    customer.shop.put_in_cart(product.id, 2).expect(200)
    place(customer, order_body(payment_method="tok_declined")).problem(402, "payment-declined")
    assert len(customer.shop.cart().expect(200).items) == 1
    place(customer, order_body()).expect(201)
    assert customer.shop.cart().expect(200).items == []


def test_what_is_not_there_is_409_and_takes_nothing(
    customer: Customer, catalogue: Catalogue, anyone: Storefront
) -> None:
    enough, short = catalogue.product(stock=5), catalogue.product(stock=1)
    retired, unknown = catalogue.product(stock=5), uuid4()
    catalogue.admin.retire_product(retired.id).empty(204)
    body = order_body() | {
        "items": [
            item(enough, 2),
            item(short, 2),
            item(retired, 3),
            {"product_id": str(unknown), "quantity": 4},
        ]
    }
    problem = place(customer, body).problem(409, "insufficient-stock")
    missing = {UUID(each["product_id"]): each for each in problem.facts["items"]}
    assert {key: (each["requested"], each["available"]) for key, each in missing.items()} == {
        short.id: (2, 1),
        retired.id: (3, 0),
        unknown: (4, 0),
    }
    order = customer.shop.order(problem.facts["order_id"]).expect(200)
    assert order.status == "rejected"
    assert order.path_taken == ["pending", "rejected"]
    assert order.reason
    assert (available(anyone, enough), available(anyone, short)) == (5, 1)
    assert customer.shop.payments(order_id=order.id).expect(200).items == []


def test_a_cart_with_a_marked_line_is_409(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=1)
    customer.shop.put_in_cart(product.id, 2).expect(200)
    problem = place(customer, order_body()).problem(409, "insufficient-stock")
    assert problem.facts["items"] == [{"product_id": str(product.id), "requested": 2, "available": 1}]
    assert len(customer.shop.cart().expect(200).items) == 1


def test_the_last_units_are_sold_once(catalogue: Catalogue, anyone: Storefront, customer: Customer) -> None:
    product = catalogue.product(stock=3)
    body = order_body((product, 1))
    with ThreadPoolExecutor(8) as pool:
        attempts = [pool.submit(place, customer, body) for _ in range(8)]
        answers = [attempt.result() for attempt in attempts]
    assert sorted(answer.status for answer in answers) == [201] * 3 + [409] * 5
    assert available(anyone, product) == 0


# Idempotency


def test_an_order_needs_a_key(customer: Customer, catalogue: Catalogue) -> None:
    body = order_body((catalogue.product(stock=1), 1))
    customer.shop.call("POST", "/api/v1/orders", json=body).problem(400, "idempotency-key-missing")
    place(customer, body, "k" * 256).problem(400, "idempotency-key-invalid")
    nothing_ordered(customer)


def test_a_key_is_any_string_up_to_255_characters(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    for key in (f'with spaces, "quotes" and /:;<=>?@ {unique_key()}', unique_key().ljust(255, "k")):
        order = place(customer, order_body((product, 1)), key).expect(201)
        again = place(customer, order_body((product, 1)), key)
        assert again.replayed
        assert again.expect(201).id == order.id


def test_a_repeated_order_is_answered_as_the_first_time(
    customer: Customer, catalogue: Catalogue, anyone: Storefront
) -> None:
    product = catalogue.product(stock=5)
    key = unique_key()
    body = order_body((product, 2))
    first = place(customer, body, key)
    order = first.expect(201)
    catalogue.admin.ship(order.id).expect(200)
    backwards: Json = dict(reversed(body.items()))
    repeats = [
        place(customer, body, key),
        customer.shop.call(
            "POST",
            "/api/v1/orders",
            content=json.dumps(backwards, indent=7),
            headers={"Idempotency-Key": key, "Content-Type": "application/json"},
        ),
    ]
    for again in repeats:
        assert again.status == 201
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["location"] == first.headers["location"]
        assert again.response.json() == first.response.json()
    assert available(anyone, product) == 3
    assert len(customer.shop.orders().expect(200).items) == 1


def test_another_body_under_a_used_key_is_422(customer: Customer, catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product(stock=5)
    key = unique_key()
    order = place(customer, order_body((product, 1)), key).expect(201)
    for body in (order_body((product, 2)), order_body((product, 1), payment_method="tok_mastercard")):
        place(customer, body, key).problem(422, "idempotency-key-reused")
    again = place(customer, order_body((product, 1)), key)
    assert again.replayed
    assert again.expect(201).id == order.id
    assert available(anyone, product) == 4


@pytest.mark.parametrize(("payment_method", "decline_code"), DECLINES.items())
def test_a_declined_payment_is_answered_again_as_it_was(
    customer: Customer, catalogue: Catalogue, payment_method: str, decline_code: str
) -> None:
    body = order_body((catalogue.product(stock=5), 1), payment_method=payment_method)
    key = unique_key()
    first = place(customer, body, key)
    problem = first.problem(402, "payment-declined")
    assert problem.facts["decline_code"] == decline_code
    assert not first.replayed
    again = place(customer, body, key)
    assert again.replayed
    assert again.problem(402, "payment-declined") == problem
    assert again.response.json() == first.response.json()
    assert len(customer.shop.orders().expect(200).items) == 1


def test_a_repeated_answer_keeps_the_trace_of_the_first(customer: Customer, catalogue: Catalogue) -> None:
    body = order_body((catalogue.product(stock=1), 1), payment_method="tok_declined")
    key, first_trace, later_trace = unique_key(), unique(), unique()
    for trace_id in (first_trace, later_trace):
        answer = customer.shop.call(
            "POST",
            "/api/v1/orders",
            json=body,
            headers={"Idempotency-Key": key, "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"},
        )
        assert answer.problem(402, "payment-declined").trace_id == first_trace


def test_insufficient_stock_is_answered_again_as_it_was(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=1)
    body, key = order_body((product, 2)), unique_key()
    first = place(customer, body, key)
    problem = first.problem(409, "insufficient-stock")
    catalogue.admin.move_stock(product.id, delta=5, reason="received").expect(200)
    again = place(customer, body, key)
    assert again.replayed
    assert again.problem(409, "insufficient-stock") == problem
    assert again.response.json() == first.response.json()
    place(customer, body).expect(201)


def test_what_was_refused_before_anything_began_leaves_the_key_free(
    customer: Customer, catalogue: Catalogue, anyone: Storefront
) -> None:
    product = catalogue.product(stock=5)
    key = unique_key()
    place(customer, order_body((product, 100)), key).invalid("items.0.quantity")
    place(customer, order_body((product, 1), payment_method="tok_unknown"), key).invalid("payment_method")
    place(customer, order_body(), key).invalid()
    anyone.place_order(order_body((product, 1)), key).problem(401, "unauthenticated")
    customer.shop.call(
        "POST", "/api/v1/orders", content="x", headers={"Idempotency-Key": key, "Content-Type": "text/plain"}
    ).problem(415, "unsupported-media-type")
    answer = place(customer, order_body((product, 1)), key)
    answer.expect(201)
    assert not answer.replayed


def test_a_key_that_an_empty_cart_left_free_buys_the_filled_cart(customer: Customer, catalogue: Catalogue) -> None:
    key = unique_key()
    place(customer, order_body(), key).invalid()
    customer.shop.put_in_cart(catalogue.product(stock=1).id, 1).expect(200)
    first = place(customer, order_body(), key)
    first.expect(201)
    assert not first.replayed
    again = place(customer, order_body(), key)
    assert again.replayed
    assert again.response.json() == first.response.json()


def test_a_key_is_its_callers_own(customer: Customer, stranger: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    key = unique_key()
    mine = place(customer, order_body((product, 1)), key).expect(201)
    theirs = place(stranger, order_body((product, 1)), key)
    assert not theirs.replayed
    assert theirs.expect(201).id != mine.id


def test_one_key_at_once_is_one_order(customer: Customer, catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product(stock=50)
    body, key = order_body((product, 1), payment_method="tok_slow"), unique_key()
    with ThreadPoolExecutor(8) as pool:
        attempts = [pool.submit(place, customer, body, key) for _ in range(8)]
        answers = [attempt.result() for attempt in attempts]
    for answer in answers:
        if answer.status == 409:
            answer.problem(409, "request-in-progress")
    order_ids = {answer.expect(201, 202).id for answer in answers if answer.status != 409}
    [order_id] = order_ids
    order = customer.shop.settled(order_id, "confirmed")
    assert [listed.id for listed in customer.shop.orders().expect(200).items] == [order.id]
    assert place(customer, body, key).expect(201).id == order.id
    assert available(anyone, product) == 49


# Reading


def test_orders_are_listed_newest_first_over_pages(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=9)
    bought = [buy(customer, (product, 1)) for _ in range(5)]
    for limit in (1, 2, 5, 100):
        read = pages(customer.shop.orders, limit=limit)
        assert [order for page in read for order in page] == list(reversed(bought))


def test_orders_are_filtered_by_status(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=9)
    confirmed = [buy(customer, (product, 1)) for _ in range(2)]
    cancelled = buy(customer, (product, 1))
    customer.shop.cancel(cancelled.id).expect(200, 202)
    customer.shop.settled(cancelled.id, "cancelled")
    listed = [order.id for page in pages(customer.shop.orders, status="confirmed", limit=1) for order in page]
    assert listed == [order.id for order in reversed(confirmed)]
    page = customer.shop.orders(status="cancelled").expect(200)
    assert [order.id for order in page.items] == [cancelled.id]
    assert customer.shop.orders(status="delivered").expect(200).items == []
    cursor = customer.shop.orders(status="confirmed", limit=1).expect(200).next_cursor
    customer.shop.orders(cursor=cursor).problem(400, "invalid-cursor")
    customer.shop.orders(cursor=cursor, status="cancelled").problem(400, "invalid-cursor")


def test_an_admin_lists_everyones_orders(
    customer: Customer, stranger: Customer, catalogue: Catalogue, admin: Storefront
) -> None:
    product = catalogue.product(stock=9)
    bought = [buy(customer, (product, 1)), buy(stranger, (product, 1))]
    mine = {order.id for order in bought}
    for status in (None, "confirmed"):
        query = {} if status is None else {"status": status}
        seen: list[Order] = []
        for page in pages(admin.orders, limit=100, everyone="true", **query):
            seen += page
            if mine <= {order.id for order in seen}:
                break
        assert [order for order in seen if order.id in mine] == list(reversed(bought))
        assert status is None or {order.status for order in seen} == {status}
    cursor = admin.orders(everyone="true", limit=1).expect(200).next_cursor
    admin.orders(cursor=cursor).problem(400, "invalid-cursor")


def test_everyones_orders_are_for_admins(customer: Customer, anyone: Storefront) -> None:
    customer.shop.orders(everyone="true").problem(403, "forbidden")
    anyone.orders(everyone="true").problem(401, "unauthenticated")
    customer.shop.orders(everyone="perhaps").invalid("everyone")
    assert customer.shop.orders(everyone="false").expect(200).items == []


@pytest.mark.parametrize("status", ["lost", "CONFIRMED", "", "confirmed\0"])
def test_a_status_that_is_none_is_422(customer: Customer, status: str) -> None:
    customer.shop.orders(status=status).invalid("status")


def test_an_admin_may_read_any_order(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    assert catalogue.admin.order(order.id).expect(200) == order


# Cancel, ship, deliver


def test_a_cancelled_order_gives_back_money_and_stock(
    customer: Customer, catalogue: Catalogue, anyone: Storefront
) -> None:
    product = catalogue.product(stock=5, price_minor=700)
    order = buy(customer, (product, 2))
    answer = customer.shop.cancel(order.id)
    assert answer.expect(200, 202).id == order.id
    cancelled = customer.shop.settled(order.id, "cancelled")
    assert cancelled.path_taken == [*CONFIRMED, "cancelled"]
    assert available(anyone, product) == 5
    assert order.payment_id is not None
    payment = customer.shop.payment(order.payment_id).expect(200)
    assert payment.status == "refunded"
    assert (payment.captured.amount_minor, payment.refunded.amount_minor) == (1400, 1400)
    assert customer.shop.cancel(order.id).expect(200) == cancelled
    assert available(anyone, product) == 5


def test_an_order_is_shipped_and_delivered(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    shipped = catalogue.admin.ship(order.id).expect(200)
    assert (shipped.id, shipped.status) == (order.id, "shipped")
    assert customer.shop.order(order.id).expect(200) == shipped
    delivered = catalogue.admin.deliver(order.id).expect(200)
    assert delivered.path_taken == [*CONFIRMED, "shipped", "delivered"]
    moments = [event.at for event in delivered.history]
    assert moments == sorted(moments)
    assert delivered.created_at <= moments[-1]


@pytest.fixture(params=["confirmed", "shipped", "delivered", "cancelled", "rejected"])
def order_in_status(request: pytest.FixtureRequest, customer: Customer, catalogue: Catalogue) -> Order:
    """An order in each status that lasts."""
    product = catalogue.product(stock=5)
    status: OrderStatus = request.param
    if status == "rejected":
        body = order_body((product, 1), payment_method="tok_declined")
        refused = place(customer, body).problem(402, "payment-declined")
        return customer.shop.order(refused.facts["order_id"]).expect(200)
    order = buy(customer, (product, 1))
    if status == "cancelled":
        customer.shop.cancel(order.id).expect(200, 202)
    if status in {"shipped", "delivered"}:
        catalogue.admin.ship(order.id).expect(200)
    if status == "delivered":
        catalogue.admin.deliver(order.id).expect(200)
    return customer.shop.settled(order.id, status)


LEGAL = {
    "confirmed": {"cancel", "ship"},
    "shipped": {"deliver"},
    "delivered": set[str](),
    "cancelled": {"cancel"},
    "rejected": set[str](),
}


def test_no_transition_but_the_legal_ones(customer: Customer, admin: Storefront, order_in_status: Order) -> None:
    calls = {"cancel": customer.shop.cancel, "ship": admin.ship, "deliver": admin.deliver}
    for name in set(calls) - LEGAL[order_in_status.status]:
        calls[name](order_in_status.id).problem(409, "illegal-transition")
    assert customer.shop.order(order_in_status.id).expect(200) == order_in_status


def test_a_customer_ships_nothing(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    customer.shop.ship(order.id).problem(403, "forbidden")
    customer.shop.deliver(order.id).problem(403, "forbidden")
    assert customer.shop.order(order.id).expect(200) == order


def test_an_order_cancelled_in_flight_ends_cancelled_and_costs_nothing(
    customer: Customer, catalogue: Catalogue, anyone: Storefront
) -> None:
    product = catalogue.product(stock=5, price_minor=700)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(place, customer, order_body((product, 3), payment_method="tok_slow"))
        while not (listed := customer.shop.orders().expect(200).items):
            assert not pending.done()
        order = listed[0]
        customer.shop.cancel(order.id).expect(200, 202)
        assert pending.result().status < 500
    cancelled = customer.shop.settled(order.id, "cancelled")
    assert cancelled.path_taken[0] == "pending"
    assert available(anyone, product) == 5
    for payment in customer.shop.payments(order_id=order.id).expect(200).items:
        assert payment.captured == payment.refunded
        assert payment.status in {"voided", "refunded"}
