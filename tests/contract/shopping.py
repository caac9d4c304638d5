"""What the tests shop with: a running shop, customers, products, and the bodies of orders.

Every e-mail, sku, category and word is made unique, so that tests share one running shop in any order and at
once.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

from tests.contract.client import Json, Order, Product, Storefront, Tokens

PASSWORD = "correct horse battery staple"

ADDRESS: Json = {
    "name": "Ada Example",
    "line1": "1 Market Square",
    "line2": "Second floor",
    "city": "Springfield",
    "region": "Upper Valley",
    "postal_code": "12345",
    "country": "US",
}


class Shop(Protocol):
    """A running shop: an edge and four services behind it, each a process of its own."""

    origin: str
    admin_email: str
    admin_password: str
    services: dict[str, str]


@dataclass(frozen=True)
class Customer:
    """A registered and logged-in customer."""

    id: UUID
    email: str
    password: str
    name: str
    tokens: Tokens
    shop: Storefront


@dataclass(frozen=True)
class Catalogue:
    """Products made for one test, in a category of its own unless the test says otherwise."""

    admin: Storefront
    category: str = field(default_factory=lambda: f"contract-{unique()}")

    def product(self, *, stock: int = 0, price_minor: int = 1999, currency: str = "USD", **members: Any) -> Product:
        """Create a product and receive `stock` units of it."""
        body: Json = {
            "sku": unique_sku(),
            "name": "Enamel kettle",
            "category": self.category,
            "price": {"amount_minor": price_minor, "currency": currency},
            **members,
        }
        product = self.admin.create_product(body).expect(201)
        if stock:
            self.admin.move_stock(product.id, delta=stock, reason="received").expect(200)
        return product


def unique() -> str:
    """Give a word that no other test uses."""
    return uuid4().hex


def unique_word() -> str:
    """Give a word of letters only, which a search takes as one word, that no other test uses."""
    return unique().translate(str.maketrans("0123456789", "ghijklmnop"))


def unique_email() -> str:
    """Give an e-mail that nobody has."""
    return f"{unique()}@example.com"


def unique_sku() -> str:
    """Give a sku that nothing has."""
    return f"SKU-{unique()}"


def unique_key() -> str:
    """Give an idempotency key that was never used."""
    return f"key-{unique()}"


def new_customer(anyone: Storefront, **members: str) -> Customer:
    """Register a customer and log in."""
    email = members.get("email", unique_email())
    password = members.get("password", PASSWORD)
    name = members.get("name", "Ada Example")
    user = anyone.register(email=email, password=password, name=name).expect(201)
    tokens = anyone.log_in(email, password).expect(200)
    return Customer(user.id, email, password, name, tokens, anyone.bearing(tokens.access_token))


def order_body(*lines: tuple[Product, int], payment_method: str = "tok_visa", **members: Any) -> Json:
    """Give the body of an order of `lines`; without lines, of the cart."""
    items: Json = {"items": [item(product, quantity) for product, quantity in lines]} if lines else {}
    return {**items, "address": ADDRESS, "payment_method": payment_method, **members}


def item(product: Product, quantity: Any) -> Json:
    """Give a line of an order's body."""
    return {"product_id": str(product.id), "quantity": quantity}


def buy(customer: Customer, *lines: tuple[Product, int]) -> Order:
    """Buy `lines`, which have to be confirmed at once."""
    return customer.shop.place_order(order_body(*lines), unique_key()).expect(201)


def ndjson(*lines: Json | str) -> str:
    """Give the lines of an import; a string is taken as it is."""
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)


def short(value: object) -> str:
    """Name a parameter of a test; a value that is long on purpose is cut."""
    return f"{value!r:.40}"
