"""A typed client of the storefront API, as a stranger would write it from the API's page.

Each call returns an `Answer`. The test says what it expects of it: `expect(201)` gives the parsed body and
fails on any other status, `problem(409, "sku-taken")` gives the problem document and checks everything that the
conventions promise of every problem. What the conventions promise of every answer is checked on every answer.
"""

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
from pydantic import UUID7, AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

T = TypeVar("T")

Json = dict[str, Any]
Service = Literal["user", "product", "payment", "order"]
SERVICES: tuple[Service, ...] = ("user", "product", "payment", "order")

REQUEST_TIMEOUT_S = 30.0
ATTEMPTS_WHEN_UNAVAILABLE = 5


def _in_utc(moment: datetime) -> datetime:
    if moment.utcoffset() != timedelta(0):
        raise ValueError("times are in UTC")
    return moment


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
TraceId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
OrderStatus = Literal["pending", "reserved", "authorised", "confirmed", "shipped", "delivered", "rejected", "cancelled"]
PaymentStatus = Literal["authorised", "captured", "partially_refunded", "refunded", "voided", "declined"]


class Shape(BaseModel):
    """A wire shape. Types are strict as JSON has them; fields may be added to the API, so more are no error."""

    model_config = ConfigDict(strict=True, frozen=True)


class Money(Shape):
    """An amount in minor units of an ISO 4217 currency."""

    amount_minor: int
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class FieldError(Shape):
    """One reason of a 422; `field` is a dotted path."""

    field: str
    detail: str


class Problem(Shape):
    """RFC 9457, with the facts that some problems add."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    trace_id: TraceId
    errors: list[FieldError] = []

    @property
    def code(self) -> str:
        """The last segment of `type`."""
        return self.type.rsplit("/", 1)[-1]

    @property
    def facts(self) -> Json:
        """What this problem says beyond the members that every problem has."""
        return self.model_extra or {}

    @property
    def fields(self) -> set[str]:
        """The fields that a 422 names."""
        return {error.field for error in self.errors}


class User(Shape):
    """A user."""

    id: UUID7
    email: str
    name: str
    role: Literal["customer", "admin"]
    created_at: Time


class Tokens(Shape):
    """The answer of the token call; `expires_in` in seconds."""

    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str


class Jwk(Shape):
    """A public Ed25519 key, RFC 8037. A private part must never be in it."""

    model_config = ConfigDict(extra="allow")

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: str
    alg: Literal["EdDSA"]


class Jwks(Shape):
    """RFC 7517, section 5."""

    keys: Annotated[list[Jwk], Field(min_length=1)]


class Address(Shape):
    """A postal address, as it stands in an order."""

    name: str
    line1: str
    line2: str | None = None
    city: str
    region: str | None = None
    postal_code: str
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class SavedAddress(Address):
    """An address of the address book."""

    id: UUID7


class Product(Shape):
    """A product of the catalogue."""

    id: UUID7
    sku: str
    name: str
    description: str | None
    category: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    tags: list[str]
    price: Money
    image_url: str | None
    attributes: dict[str, Any]
    available: Annotated[int, Field(ge=0)]
    version: int
    created_at: Time
    updated_at: Time


class Category(Shape):
    """A category that has products."""

    slug: str
    name: Annotated[str, Field(min_length=1)]
    product_count: Annotated[int, Field(ge=1)]


class Stock(Shape):
    """The stock of one product, in units."""

    on_hand: int
    reserved: int
    available: int


class RejectedLine(Shape):
    """A line of an import that did not land."""

    line: int
    detail: Annotated[str, Field(min_length=1)]


class ImportReport(Shape):
    """What an import did."""

    created: int
    updated: int
    rejected: list[RejectedLine]


class CartItem(Shape):
    """A line of the cart. Name and price of a product that is gone may be unknown."""

    product_id: UUID7
    name: str | None
    quantity: int
    unit_price: Money | None
    line_total: Money | None
    available: int
    problem: Literal["gone", "short"] | None


class Cart(Shape):
    """The cart. Without a line that can be bought its total has no currency of its own, and may be null."""

    items: list[CartItem]
    total: Money | None


class OrderLine(Shape):
    """A line as it was bought; a product that was made up by the buyer has the id that it was given."""

    product_id: UUID
    sku: str
    name: str
    quantity: int
    unit_price: Money
    line_total: Money


class OrderEvent(Shape):
    """An entry of an order's history, and the data of a frame of its event stream."""

    status: OrderStatus
    at: Time
    reason: str | None = None


class Order(Shape):
    """An order."""

    id: UUID7
    status: OrderStatus
    lines: list[OrderLine]
    total: Money
    address: Address
    payment_id: UUID7 | None
    reason: str | None = None
    history: list[OrderEvent]
    created_at: Time

    @property
    def path_taken(self) -> list[str]:
        """The statuses of the history in their order."""
        return [event.status for event in self.history]


class Payment(Shape):
    """A payment. The entries of its history have no documented shape."""

    id: UUID7
    order_id: UUID7
    amount: Money
    status: PaymentStatus
    captured: Money
    refunded: Money
    provider_reference: str | None
    history: list[Any]


class Page(Shape, Generic[T]):
    """One page of a list."""

    items: list[T]
    next_cursor: str | None


class Nothing(Shape):
    """An answer whose body the API's page does not describe."""


@dataclass(frozen=True)
class Frame:
    """One server-sent event."""

    id: str
    event: str
    data: OrderEvent


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A response with what its body has to be where it is a success."""

    response: httpx2.Response
    shape: TypeAdapter[T]

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self.response.status_code

    @property
    def headers(self) -> httpx2.Headers:
        """The response's headers."""
        return self.response.headers

    @property
    def replayed(self) -> bool:
        """Whether this is the stored answer of an earlier request with the same key."""
        return self.headers.get("idempotency-replayed") == "true"

    def expect(self, *statuses: int) -> T:
        """Parse the body of a success."""
        assert self.status in statuses, f"expected {statuses}, got {self.status}: {self.response.text[:2000]}"
        assert self.headers["content-type"].partition(";")[0] == "application/json"
        return self.shape.validate_json(self.response.content)

    def succeeds(self, status: int) -> None:
        """Check a success whose body has no meaning."""
        assert self.status == status, f"expected {status}, got {self.status}: {self.response.text[:2000]}"

    def empty(self, status: int) -> None:
        """Check a success without a body."""
        assert self.status == status, f"expected {status}, got {self.status}: {self.response.text[:2000]}"
        assert self.response.content == b""

    def problem(self, status: int, code: str) -> Problem:
        """Parse a refusal, and check what holds for every problem and for every answer of this status."""
        assert self.status == status, f"expected {status}, got {self.status}: {self.response.text[:2000]}"
        assert self.headers["content-type"].partition(";")[0] == "application/problem+json"
        problem = Problem.model_validate_json(self.response.content)
        assert problem.code == code
        assert problem.status == status
        assert problem.title
        assert int(problem.trace_id, 16) != 0
        if status == 401:
            assert self.headers["www-authenticate"]
        if status == 405:
            assert self.headers["allow"]
        if status in {429, 503} or code == "request-in-progress":
            assert int(self.headers["retry-after"]) >= 0
        return problem

    def invalid(self, *fields: str) -> Problem:
        """Parse a 422 that names `fields`."""
        problem = self.problem(422, "invalid-request")
        assert problem.errors, "a 422 says which field and why"
        assert all(error.detail for error in problem.errors)
        assert set(fields) <= problem.fields, f"{fields} not in {problem.fields}"
        return problem


_USER = TypeAdapter(User)
_TOKENS = TypeAdapter(Tokens)
_JWKS = TypeAdapter(Jwks)
_SAVED_ADDRESS = TypeAdapter(SavedAddress)
_PRODUCT = TypeAdapter(Product)
_CATEGORIES = TypeAdapter(list[Category])
_STOCK = TypeAdapter(Stock)
_IMPORT_REPORT = TypeAdapter(ImportReport)
_CART = TypeAdapter(Cart)
_ORDER = TypeAdapter(Order)
_PAYMENT = TypeAdapter(Payment)
_NOTHING = TypeAdapter(Nothing)
_USERS = TypeAdapter(Page[User])
_SAVED_ADDRESSES = TypeAdapter(Page[SavedAddress])
_PRODUCTS = TypeAdapter(Page[Product])
_ORDERS = TypeAdapter(Page[Order])
_PAYMENTS = TypeAdapter(Page[Payment])
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass(frozen=True)
class Storefront:
    """One caller of the shop: anonymous, or with an access token."""

    wire: httpx2.Client
    access_token: str | None = None

    def bearing(self, access_token: str | None) -> "Storefront":
        """Give the same shop seen by the bearer of another token."""
        return Storefront(self.wire, access_token)

    def send(
        self,
        method: str,
        path: str,
        shape: TypeAdapter[T],
        *,
        headers: Mapping[str, str] | None = None,
        **request: Any,
    ) -> Answer[T]:
        """Send one request; repeat it, unchanged, where the shop is unavailable, as it asks for."""
        own = {"Authorization": f"Bearer {self.access_token}"} if self.access_token else {}
        attempt = 1
        while True:
            response = self.wire.request(method, path, headers={**own, **(headers or {})}, **request)
            answer = Answer(response, shape)
            if answer.status != 503 or attempt == ATTEMPTS_WHEN_UNAVAILABLE:
                break
            answer.problem(503, "unavailable")
            time.sleep(int(answer.headers["retry-after"]))
            attempt += 1
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["x-request-id"])
        return answer

    def call(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **request: Any) -> Answer[Any]:
        """Send what the typed calls below would not: another method, a damaged body, an id that is none."""
        return self.send(method, path, _ANYTHING, headers=headers, **request)

    # User

    def register(self, **body: Any) -> Answer[User]:
        """Create a customer: `email`, `password`, `name`."""
        return self.send("POST", "/api/v1/auth/register", _USER, json=body)

    def token(self, **form: str) -> Answer[Tokens]:
        """Send the token form as it is given."""
        return self.send("POST", "/api/v1/auth/token", _TOKENS, data=form)

    def log_in(self, email: str, password: str) -> Answer[Tokens]:
        """Exchange e-mail and password for tokens."""
        return self.token(grant_type="password", username=email, password=password)

    def refresh(self, refresh_token: str) -> Answer[Tokens]:
        """Exchange a refresh token for the next pair."""
        return self.token(grant_type="refresh_token", refresh_token=refresh_token)

    def revoke(self, **form: str) -> Answer[Any]:
        """RFC 7009; the answer's body has no meaning."""
        return self.call("POST", "/api/v1/auth/revoke", data=form)

    def jwks(self) -> Answer[Jwks]:
        """Read the public keys."""
        return self.send("GET", "/api/v1/auth/jwks", _JWKS)

    def me(self) -> Answer[User]:
        """Read the caller's profile."""
        return self.send("GET", "/api/v1/users/me", _USER)

    def change_me(self, **body: Any) -> Answer[User]:
        """Change the caller's name or password."""
        return self.send("PATCH", "/api/v1/users/me", _USER, json=body)

    def delete_me(self) -> Answer[Nothing]:
        """End the caller's account."""
        return self.send("DELETE", "/api/v1/users/me", _NOTHING)

    def addresses(self, **params: Any) -> Answer[Page[SavedAddress]]:
        """List the caller's address book."""
        return self.send("GET", "/api/v1/users/me/addresses", _SAVED_ADDRESSES, params=params)

    def add_address(self, body: Json) -> Answer[SavedAddress]:
        """Add to the caller's address book."""
        return self.send("POST", "/api/v1/users/me/addresses", _SAVED_ADDRESS, json=body)

    def replace_address(self, address_id: UUID | str, body: Json) -> Answer[SavedAddress]:
        """Replace an address of the caller's."""
        return self.send("PUT", f"/api/v1/users/me/addresses/{address_id}", _SAVED_ADDRESS, json=body)

    def delete_address(self, address_id: UUID | str) -> Answer[Nothing]:
        """Delete an address of the caller's."""
        return self.send("DELETE", f"/api/v1/users/me/addresses/{address_id}", _NOTHING)

    def users(self, **params: Any) -> Answer[Page[User]]:
        """List users; for admins."""
        return self.send("GET", "/api/v1/users", _USERS, params=params)

    # Product

    def products(self, headers: Mapping[str, str] | None = None, /, **params: Any) -> Answer[Page[Product]]:
        """Search the catalogue."""
        return self.send("GET", "/api/v1/products", _PRODUCTS, params=params, headers=headers)

    def product(self, product_id: UUID | str, headers: Mapping[str, str] | None = None) -> Answer[Product]:
        """Read one product."""
        return self.send("GET", f"/api/v1/products/{product_id}", _PRODUCT, headers=headers)

    def categories(self) -> Answer[list[Category]]:
        """List the categories that have products."""
        return self.send("GET", "/api/v1/categories", _CATEGORIES)

    def create_product(self, body: Json) -> Answer[Product]:
        """Create a product; for admins."""
        return self.send("POST", "/api/v1/products", _PRODUCT, json=body)

    def change_product(
        self, product_id: UUID | str, body: Json, headers: Mapping[str, str] | None = None
    ) -> Answer[Product]:
        """Change a product; for admins."""
        return self.send("PATCH", f"/api/v1/products/{product_id}", _PRODUCT, json=body, headers=headers)

    def retire_product(self, product_id: UUID | str, headers: Mapping[str, str] | None = None) -> Answer[Nothing]:
        """Retire a product; for admins."""
        return self.send("DELETE", f"/api/v1/products/{product_id}", _NOTHING, headers=headers)

    def move_stock(self, product_id: UUID | str, **body: Any) -> Answer[Stock]:
        """Add to or take from the stock on hand: `delta`, `reason`; for admins."""
        return self.send("POST", f"/api/v1/products/{product_id}/stock", _STOCK, json=body)

    def import_products(
        self, content: str | bytes | Iterable[bytes], content_type: str = "application/x-ndjson"
    ) -> Answer[ImportReport]:
        """Create and update products in bulk; for admins."""
        return self.send(
            "POST",
            "/api/v1/products/import",
            _IMPORT_REPORT,
            content=content,
            headers={"Content-Type": content_type},
        )

    # Cart and orders

    def cart(self) -> Answer[Cart]:
        """Read the caller's cart, priced live."""
        return self.send("GET", "/api/v1/cart", _CART)

    def empty_cart(self) -> Answer[Nothing]:
        """Empty the caller's cart."""
        return self.send("DELETE", "/api/v1/cart", _NOTHING)

    def put_in_cart(self, product_id: UUID | str, quantity: Any) -> Answer[Cart]:
        """Set the quantity of one product in the caller's cart."""
        return self.send("PUT", f"/api/v1/cart/items/{product_id}", _CART, json={"quantity": quantity})

    def take_from_cart(self, product_id: UUID | str) -> Answer[Nothing]:
        """Take one product out of the caller's cart."""
        return self.send("DELETE", f"/api/v1/cart/items/{product_id}", _NOTHING)

    def place_order(self, body: Json, key: str) -> Answer[Order]:
        """Order, under an idempotency key."""
        return self.send("POST", "/api/v1/orders", _ORDER, json=body, headers={"Idempotency-Key": key})

    def orders(self, **params: Any) -> Answer[Page[Order]]:
        """List the caller's orders."""
        return self.send("GET", "/api/v1/orders", _ORDERS, params=params)

    def order(self, order_id: UUID | str) -> Answer[Order]:
        """Read one order."""
        return self.send("GET", f"/api/v1/orders/{order_id}", _ORDER)

    def cancel(self, order_id: UUID | str) -> Answer[Order]:
        """Cancel an order that was not shipped."""
        return self.send("POST", f"/api/v1/orders/{order_id}/cancel", _ORDER)

    def ship(self, order_id: UUID | str) -> Answer[Order]:
        """Ship an order; for admins."""
        return self.send("POST", f"/api/v1/orders/{order_id}/ship", _ORDER)

    def deliver(self, order_id: UUID | str) -> Answer[Order]:
        """Say that an order has arrived; for admins."""
        return self.send("POST", f"/api/v1/orders/{order_id}/deliver", _ORDER)

    def settled(self, order_id: UUID | str, *statuses: OrderStatus, within_s: float = 60.0) -> Order:
        """Poll an order, as a 202 asks for, until it has one of `statuses`."""
        deadline = time.monotonic() + within_s
        while True:
            order = self.order(order_id).expect(200)
            if order.status in statuses:
                return order
            assert time.monotonic() < deadline, f"the order stays {order.status}"
            time.sleep(0.1)

    @contextmanager
    def event_lines(
        self, order_id: UUID | str, last_event_id: str | None = None
    ) -> Generator[Iterator[str], None, None]:
        """Open the event stream of an order, line by line, comments included."""
        headers = {"Authorization": f"Bearer {self.access_token}", "Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        with self.wire.stream("GET", f"/api/v1/orders/{order_id}/events", headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].partition(";")[0] == "text/event-stream"
            assert response.headers["x-request-id"]
            yield response.iter_lines()

    @contextmanager
    def events(self, order_id: UUID | str, last_event_id: str | None = None) -> Generator[Iterator[Frame], None, None]:
        """Open the event stream of an order, frame by frame; it ends when the shop closes it."""
        with self.event_lines(order_id, last_event_id) as lines:
            yield frames(lines)

    # Payment

    def payments(self, **params: Any) -> Answer[Page[Payment]]:
        """List the caller's payments."""
        return self.send("GET", "/api/v1/payments", _PAYMENTS, params=params)

    def payment(self, payment_id: UUID | str) -> Answer[Payment]:
        """Read one payment."""
        return self.send("GET", f"/api/v1/payments/{payment_id}", _PAYMENT)

    def refund(self, payment_id: UUID | str, key: str | None = None, **body: Any) -> Answer[Any]:
        """Refund a payment, whole or in part: `amount_minor`, `reason`; for admins."""
        headers = {"Idempotency-Key": key} if key is not None else None
        return self.call("POST", f"/api/v1/payments/{payment_id}/refund", json=body, headers=headers)


def frames(lines: Iterable[str]) -> Iterator[Frame]:
    """Parse server-sent events as the HTML standard tells, as far as the contract uses it."""
    values: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(":")
            values[name] = value.removeprefix(" ")
        elif values:
            yield Frame(values["id"], values["event"], OrderEvent.model_validate_json(values["data"]))
            values = {}


def pages(read: Callable[..., Answer[Page[T]]], **params: Any) -> list[list[T]]:
    """Read a list to its end; no page is longer than asked for, and no cursor comes twice."""
    read_pages: list[list[T]] = []
    seen: set[str] = set()
    cursor: str | None = None
    while True:
        page = read(**params, **({"cursor": cursor} if cursor else {})).expect(200)
        assert len(page.items) <= params.get("limit", 20)
        read_pages.append(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return read_pages
        assert cursor not in seen
        seen.add(cursor)


def path_of(location: str) -> str:
    """Give the path of a `Location`, which may be absolute."""
    return urlsplit(location).path
