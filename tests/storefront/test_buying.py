"""From the shelves to an order, by links and forms alone; once, whatever is sent twice."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.storefront.basket import MOST_LINES
from tests.contract.client import Product, Storefront
from tests.contract.shopping import PASSWORD, Catalogue, Customer, unique_email, unique_word
from tests.storefront.reader import Form, Page, Reader

ADDRESS = {
    "name": "Ada Example",
    "line1": "1 Market Square",
    "postal_code": "12345",
    "city": "Springfield",
    "country": "us",
}


def put_into_the_cart(reader: Reader, product: Product, quantity: int = 1) -> Page:
    page = reader.get(f"/products/{product.id}")
    return reader.send(page.form(f"/cart/items/{product.id}/add"), quantity=str(quantity))


def checkout(reader: Reader) -> Form:
    page = reader.get("/checkout")
    assert page.path == "/checkout", page.text
    return page.form("/checkout")


def orders(customer: Customer) -> list[Any]:
    return customer.shop.orders(limit=100).expect(200).items


def test_a_visitor_finds_something_registers_on_the_way_and_buys_it(reader: Reader, catalogue: Catalogue) -> None:
    word = unique_word()
    product = catalogue.product(stock=5, price_minor=4800, name=f"Kettle {word}")
    found = reader.get("/", params={"q": word})
    assert f"/products/{product.id}" in found.links
    cart = put_into_the_cart(reader, product, 2)
    assert (cart.path, "$96.00" in cart.text) == ("/cart", True)
    sign_in = reader.get("/checkout")
    assert sign_in.path == "/sign-in"
    [register] = [link for link in sign_in.links if link.startswith("/register")]
    form = reader.get(register).form("/register")
    page = reader.send(form, name="Ada", email=unique_email(), password=PASSWORD)
    assert page.path == "/checkout"
    assert "$96.00" in page.text
    order = reader.send(page.form("/checkout"), payment_method="tok_visa", **ADDRESS)
    assert order.path.startswith("/orders/")
    assert "Thank you" in order.text
    assert "Paid: $96.00" in order.text
    assert "There is nothing in your cart" in reader.get("/cart").text
    assert order.path in reader.get("/orders").links
    cancelled = reader.send(order.form(f"{order.path}/cancel"))
    assert "Cancelled" in cancelled.text
    assert "$96.00 came back" in reader.get(order.path).text


def test_a_form_that_is_sent_many_times_at_once_is_one_order(
    signed_in: Reader, customer: Customer, catalogue: Catalogue
) -> None:
    put_into_the_cart(signed_in, catalogue.product(stock=9))
    form = checkout(signed_in)
    cookies = dict(signed_in.client.cookies)

    def send(_: int) -> Page:
        reader = Reader(str(signed_in.client.base_url))
        reader.client.cookies.update(cookies)
        with reader.client:
            return reader.send(form, payment_method="tok_slow", **ADDRESS)

    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(send, range(8)))
    again = [reader for reader in pages if reader.status == 503]
    assert len(orders(customer)) == 1
    led_to = {page.path for page in pages if page.status == 200}
    assert led_to == {f"/orders/{orders(customer)[0].id}"}
    for page in again:  # its twin was under way: the same key, behind one button
        assert page.form("/checkout").fields["key"] == form.fields["key"]
        assert signed_in.send(page.form("/checkout")).path in led_to


@pytest.mark.parametrize("key", ["", "ключ", "a\nb", "k" * 256])
def test_a_key_that_no_page_made_orders_nothing(
    signed_in: Reader, customer: Customer, catalogue: Catalogue, key: str
) -> None:
    put_into_the_cart(signed_in, catalogue.product(stock=9))
    page = signed_in.send(checkout(signed_in), key=key, payment_method="tok_visa", **ADDRESS)
    assert (page.status, "Nothing was ordered" in page.text) == (422, True)
    assert orders(customer) == []
    assert signed_in.send(page.form("/checkout"), payment_method="tok_visa").path.startswith("/orders/")


def test_the_way_back_after_an_order_leads_to_that_order(
    signed_in: Reader, customer: Customer, catalogue: Catalogue
) -> None:
    put_into_the_cart(signed_in, catalogue.product(stock=9))
    form = checkout(signed_in)
    first = signed_in.send(form, payment_method="tok_visa", **ADDRESS)
    assert signed_in.send(form, payment_method="tok_visa", **ADDRESS).path == first.path
    assert len(orders(customer)) == 1


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("tok_declined", "Your bank has declined"),
        ("tok_insufficient_funds", "not enough money"),
        ("tok_expired_card", "has expired"),
    ],
)
def test_a_declined_payment_keeps_the_cart_and_goes_on_with_another_way_to_pay(
    signed_in: Reader, catalogue: Catalogue, method: str, said: str
) -> None:
    put_into_the_cart(signed_in, catalogue.product(stock=9))
    form = checkout(signed_in)
    page = signed_in.send(form, payment_method=method, **ADDRESS)
    assert page.status == 402
    assert said in page.text
    again = page.form("/checkout")
    assert again.fields["key"] != form.fields["key"]
    assert {name: again.fields[name] for name in ADDRESS} == ADDRESS
    assert signed_in.send(again, payment_method="tok_visa").path.startswith("/orders/")


def test_a_price_that_changed_is_shown_and_nothing_is_ordered(
    signed_in: Reader, customer: Customer, catalogue: Catalogue, admin: Storefront
) -> None:
    product = catalogue.product(stock=9, price_minor=1000)
    put_into_the_cart(signed_in, product)
    form = checkout(signed_in)
    admin.change_product(product.id, {"price": {"amount_minor": 1500, "currency": "USD"}}).expect(200)
    page = signed_in.send(form, payment_method="tok_visa", **ADDRESS)
    assert page.status == 409
    assert "has changed meanwhile" in page.text
    assert "$15.00" in page.text
    assert orders(customer) == []
    assert signed_in.send(page.form("/checkout"), payment_method="tok_visa").path.startswith("/orders/")


def test_what_is_short_is_said_and_one_button_takes_what_there_is(
    signed_in: Reader, customer: Customer, catalogue: Catalogue
) -> None:
    few, enough = catalogue.product(stock=2), catalogue.product(stock=9)
    put_into_the_cart(signed_in, few, 5)
    put_into_the_cart(signed_in, enough)
    cart = signed_in.get("/cart")
    assert "Only 2 left" in cart.text
    signed_in.send(cart.form("/cart/without-marked"))
    assert signed_in.send(checkout(signed_in), payment_method="tok_visa", **ADDRESS).path.startswith("/orders/")
    [order] = orders(customer)
    assert {line.product_id: line.quantity for line in order.lines} == {few.id: 2, enough.id: 1}


def test_the_cart_of_a_visitor_comes_along_and_is_added_to_what_was_there(
    reader: Reader, customer: Customer, catalogue: Catalogue
) -> None:
    known, new, gone = (catalogue.product(stock=99) for _ in range(3))
    customer.shop.put_in_cart(known.id, 98).expect(200)
    for product, quantity in ((known, 3), (new, 2), (gone, 1)):
        put_into_the_cart(reader, product, quantity)
    catalogue.admin.retire_product(gone.id).empty(204)
    assert "No longer sold" in reader.get("/cart").text
    reader.sign_in(customer.email, customer.password)
    held = {item.product_id: item.quantity for item in customer.shop.cart().expect(200).items}
    assert held == {known.id: 99, new.id: 2}
    assert "souk_cart" not in reader.client.cookies


def test_a_visitor_s_cart_that_is_full_says_so(reader: Reader, catalogue: Catalogue) -> None:
    for _ in range(MOST_LINES):
        assert put_into_the_cart(reader, catalogue.product(stock=9)).path == "/cart"
    page = put_into_the_cart(reader, catalogue.product(stock=9))
    assert (page.status, "Your cart is full" in page.text) == (422, True)
    assert len([link for link in reader.get("/cart").links if link.startswith("/products/")]) == MOST_LINES


def test_an_account_s_cart_that_is_full_takes_nothing_more_and_keeps_nobody_out(
    reader: Reader, customer: Customer, catalogue: Catalogue
) -> None:
    products = [catalogue.product(stock=9) for _ in range(102)]
    for product in products[:100]:
        customer.shop.put_in_cart(product.id, 1).expect(200)
    put_into_the_cart(reader, products[99], 2)
    put_into_the_cart(reader, products[100])
    assert reader.sign_in(customer.email, customer.password).path == "/"
    assert reader.get("/account").path == "/account"
    held = {item.product_id: item.quantity for item in customer.shop.cart().expect(200).items}
    assert held == {product.id: 1 for product in products[:99]} | {products[99].id: 3}
    page = put_into_the_cart(reader, products[101])
    assert (page.status, "Your cart is full" in page.text) == (422, True)
    customer.shop.take_from_cart(products[0].id).empty(204)
    reader.send(reader.get("/account").form("/sign-out"))
    reader.sign_in(customer.email, customer.password)
    assert products[100].id in {item.product_id for item in customer.shop.cart().expect(200).items}
    assert "souk_cart" not in reader.client.cookies


@pytest.mark.parametrize("quantity", ["0", "100", "-1", "two", "1.5", "", "٣"])
def test_a_quantity_that_cannot_be_meant_changes_nothing(reader: Reader, catalogue: Catalogue, quantity: str) -> None:
    product = catalogue.product(stock=9)
    form = reader.get(f"/products/{product.id}").form(f"/cart/items/{product.id}/add")
    page = reader.send(form, quantity=quantity)
    assert page.status == 422
    assert "From 1 to 99" in page.text
    assert "There is nothing in your cart" in reader.get("/cart").text


@pytest.mark.parametrize(("field", "value"), [("country", "XX"), ("postal_code", "1" * 21), ("name", ""), ("city", "")])
def test_an_address_that_cannot_be_is_named_by_its_field_and_keeps_the_key(
    signed_in: Reader, customer: Customer, catalogue: Catalogue, field: str, value: str
) -> None:
    put_into_the_cart(signed_in, catalogue.product(stock=9))
    form = checkout(signed_in)
    page = signed_in.send(form, payment_method="tok_visa", **ADDRESS | {field: value})
    assert page.status == 422
    [wrong] = [given for tag, given in page.tags if tag == "input" and given.get("aria-invalid") == "true"]
    assert wrong["name"] == field
    assert page.form("/checkout").fields["key"] == form.fields["key"]
    assert orders(customer) == []
