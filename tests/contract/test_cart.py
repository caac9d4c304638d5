"""The cart: priced live, marked where something is gone or short."""

from typing import Any
from uuid import uuid4

import pytest

from tests.contract.client import Cart, CartItem
from tests.contract.shopping import Catalogue, Customer, buy


def only(cart: Cart) -> CartItem:
    """Give the single line of a cart."""
    [line] = cart.items
    return line


def total_minor(cart: Cart) -> int:
    """Give the total; a cart without a line that can be bought may have none."""
    return cart.total.amount_minor if cart.total else 0


def test_a_new_cart_is_empty(customer: Customer) -> None:
    cart = customer.shop.cart().expect(200)
    assert cart.items == []
    assert total_minor(cart) == 0


def test_a_line_is_priced_and_totalled(customer: Customer, catalogue: Catalogue) -> None:
    kettle = catalogue.product(name="Kettle", stock=5, price_minor=1999)
    cup = catalogue.product(name="Cup", stock=9, price_minor=350)
    customer.shop.put_in_cart(kettle.id, 2).expect(200)
    cart = customer.shop.put_in_cart(cup.id, 3).expect(200)
    assert cart == customer.shop.cart().expect(200)
    lines = {line.product_id: line for line in cart.items}
    line = lines[kettle.id]
    assert (line.name, line.quantity, line.available, line.problem) == ("Kettle", 2, 5, None)
    assert line.unit_price is not None
    assert line.unit_price.amount_minor == 1999
    assert line.line_total is not None
    assert line.line_total.amount_minor == 3998
    assert cart.total is not None
    assert (cart.total.amount_minor, cart.total.currency) == (3998 + 1050, "USD")


def test_putting_sets_the_quantity(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=99)
    for quantity in (5, 1, 99, 99):
        cart = customer.shop.put_in_cart(product.id, quantity).expect(200)
        assert only(cart).quantity == quantity


@pytest.mark.parametrize("quantity", [0, 100, -1, 10**12, 10**30, 1.5, "1", True, None, [], {}])
def test_a_quantity_out_of_range_is_422(customer: Customer, catalogue: Catalogue, quantity: Any) -> None:
    product = catalogue.product(stock=5)
    customer.shop.put_in_cart(product.id, 2).expect(200)
    customer.shop.put_in_cart(product.id, quantity).invalid("quantity")
    assert only(customer.shop.cart().expect(200)).quantity == 2


def test_a_product_that_does_not_exist_is_404(customer: Customer, catalogue: Catalogue) -> None:
    retired = catalogue.product(stock=1)
    catalogue.admin.retire_product(retired.id).empty(204)
    for product_id in (uuid4(), retired.id):
        customer.shop.put_in_cart(product_id, 1).problem(404, "not-found")
    assert customer.shop.cart().expect(200).items == []


def test_asking_for_more_than_there_is_marks_the_line_short(customer: Customer, catalogue: Catalogue) -> None:
    kettle = catalogue.product(stock=1, price_minor=1000)
    cup = catalogue.product(stock=2, price_minor=300)
    customer.shop.put_in_cart(cup.id, 2).expect(200)
    cart = customer.shop.put_in_cart(kettle.id, 2).expect(200)
    marks = {line.product_id: (line.problem, line.available, line.quantity) for line in cart.items}
    assert marks == {kettle.id: ("short", 1, 2), cup.id: (None, 2, 2)}
    assert total_minor(cart) == 600
    cart = customer.shop.put_in_cart(kettle.id, 1).expect(200)
    assert {line.problem for line in cart.items} == {None}
    assert total_minor(cart) == 1600


def test_a_line_becomes_short_when_others_buy(customer: Customer, stranger: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=3)
    assert only(customer.shop.put_in_cart(product.id, 2).expect(200)).problem is None
    buy(stranger, (product, 2))
    line = only(customer.shop.cart().expect(200))
    assert (line.problem, line.available, line.quantity) == ("short", 1, 2)


def test_a_retired_product_is_marked_gone_and_not_dropped(customer: Customer, catalogue: Catalogue) -> None:
    kettle = catalogue.product(stock=5, price_minor=1000)
    cup = catalogue.product(stock=5, price_minor=300)
    customer.shop.put_in_cart(kettle.id, 1).expect(200)
    customer.shop.put_in_cart(cup.id, 1).expect(200)
    catalogue.admin.retire_product(kettle.id).empty(204)
    cart = customer.shop.cart().expect(200)
    lines = {line.product_id: line for line in cart.items}
    assert (lines[kettle.id].problem, lines[kettle.id].available) == ("gone", 0)
    assert lines[cup.id].problem is None
    assert total_minor(cart) == 300
    customer.shop.take_from_cart(kettle.id).empty(204)
    assert only(customer.shop.cart().expect(200)).product_id == cup.id


def test_prices_are_live(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5, price_minor=1000)
    customer.shop.put_in_cart(product.id, 2).expect(200)
    change = {"name": "Renamed", "price": {"amount_minor": 900, "currency": "USD"}}
    catalogue.admin.change_product(product.id, change).expect(200)
    cart = customer.shop.cart().expect(200)
    assert only(cart).name == "Renamed"
    assert total_minor(cart) == 1800


def test_a_line_is_taken_out_and_may_be_taken_out_again(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    customer.shop.put_in_cart(product.id, 2).expect(200)
    for _ in range(2):
        customer.shop.take_from_cart(product.id).empty(204)
    customer.shop.take_from_cart(uuid4()).empty(204)
    assert customer.shop.cart().expect(200).items == []


def test_a_cart_is_emptied(customer: Customer, catalogue: Catalogue) -> None:
    for _ in range(2):
        customer.shop.put_in_cart(catalogue.product(stock=5).id, 2).expect(200)
    for _ in range(2):
        customer.shop.empty_cart().empty(204)
    assert customer.shop.cart().expect(200).items == []


def test_a_cart_is_its_customers_own(customer: Customer, stranger: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    customer.shop.put_in_cart(product.id, 2).expect(200)
    assert stranger.shop.cart().expect(200).items == []
    stranger.shop.take_from_cart(product.id).empty(204)
    stranger.shop.empty_cart().empty(204)
    assert only(customer.shop.cart().expect(200)).quantity == 2


def test_a_cart_is_kept_over_sessions(customer: Customer, catalogue: Catalogue) -> None:
    product = catalogue.product(stock=5)
    customer.shop.put_in_cart(product.id, 2).expect(200)
    tokens = customer.shop.bearing(None).log_in(customer.email, customer.password).expect(200)
    cart = customer.shop.bearing(tokens.access_token).cart().expect(200)
    assert only(cart).product_id == product.id
