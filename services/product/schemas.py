"""The product service's wire shapes."""

import math
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from chassis.schemas import AmountMinor, Answer, Body, Currency, Id, Money, Quantity, Text, Time, storable

MAX_UNITS = 10**9
MAX_ATTRIBUTES_BYTES = 20_000
"""Of the attributes of one product as JSON: a page of 100 products stays a few megabytes at most."""
MAX_INTEGER = 2**53
"""Beyond it JavaScript, and so the storefront, loses digits."""
MAX_DEPTH = 5


def _check(value: JsonValue, depth: int) -> None:
    match value:
        case str():
            storable(value)
        case bool() | None:
            pass
        case int():
            if abs(value) > MAX_INTEGER:
                raise ValueError("must not contain integers beyond 2^53")
        case float():
            if not math.isfinite(value):
                raise ValueError("must contain finite numbers only")
        case list() | dict():
            if depth == MAX_DEPTH:
                raise ValueError(f"must not nest deeper than {MAX_DEPTH}")
            for inner in value if isinstance(value, list) else (*value.keys(), *value.values()):
                _check(inner, depth + 1)


def _attributes(attributes: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _check(attributes, 0)
    if len(orjson.dumps(attributes)) > MAX_ATTRIBUTES_BYTES:
        raise ValueError(f"must not exceed {MAX_ATTRIBUTES_BYTES} bytes as JSON")
    return attributes


Sku = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")]
Name = Annotated[Text, Field(min_length=1, max_length=200)]
Description = Annotated[Text, Field(max_length=10_000)]
Slug = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z0-9-]+$")]
Tags = Annotated[list[Annotated[Text, Field(min_length=1, max_length=50)]], Field(max_length=20)]
ImageUrl = Annotated[str, Field(max_length=2_000, pattern=r"^(https?://[^\s\x00]+|/[^\s\x00]*)$")]
"""An http or https URL, or a path on this origin."""
Attributes = Annotated[dict[str, JsonValue], Field(max_length=50), AfterValidator(_attributes)]
Units = Annotated[int, Field(ge=0, le=MAX_UNITS)]

HeldStatus = Literal["held", "committed"]
Sort = Literal["relevance", "newest", "price", "-price", "name"]
CategoryFilter = Annotated[Text, Field(max_length=200)]
"""Any text: what is no slug is a category without products."""
Words = Annotated[Text, Field(min_length=1, max_length=200)]


class ProductQuery(BaseModel):
    """Which products, in which order, which page. Parameters that there are not are passed over."""

    model_config = ConfigDict(frozen=True)

    q: Words | None = None
    category: CategoryFilter | None = None
    min_price: AmountMinor | None = None
    max_price: AmountMinor | None = None
    in_stock: bool = False
    sort: Sort | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: str | None = None


class NewProduct(Body):
    """A product; its stock begins at 0."""

    sku: Sku
    name: Name
    description: Description | None = None
    category: Slug
    tags: Tags = Field(default_factory=list)
    price: Money
    image_url: ImageUrl | None = None
    attributes: Attributes = Field(default_factory=dict)


def _absent() -> Any:
    """The default of a field that a PATCH leaves out and that may not be null, so none is documented."""
    return None


class ProductChange(Body):
    """What changes of a product: only the fields that are there. Description and image may be taken away by null."""

    name: Name = Field(default_factory=_absent)
    description: Description | None = Field(default_factory=_absent)
    category: Slug = Field(default_factory=_absent)
    tags: Tags = Field(default_factory=_absent)
    price: Money = Field(default_factory=_absent)
    image_url: ImageUrl | None = Field(default_factory=_absent)
    attributes: Attributes = Field(default_factory=_absent)


class ImportLine(Body):
    """A product of an import. What is left out, or null, stays unchanged."""

    sku: Sku
    name: Name
    category: Slug
    price_minor: AmountMinor
    currency: Currency
    description: Description | None = None
    tags: Tags | None = None
    image_url: ImageUrl | None = None
    attributes: Attributes | None = None
    on_hand: Units | None = None


def _not_zero(delta: int) -> int:
    if delta == 0:
        raise ValueError("must not be 0")
    return delta


class StockMovement(Body):
    """Units that came in, or by a negative delta went out."""

    delta: Annotated[int, Field(ge=-MAX_UNITS, le=MAX_UNITS), AfterValidator(_not_zero)]
    reason: Annotated[Text, Field(min_length=1, max_length=200)]


class Wanted(Body):
    """A product and how many of it."""

    product_id: Id
    quantity: Quantity


def _each_once(items: list[Wanted]) -> list[Wanted]:
    if len({item.product_id for item in items}) < len(items):
        raise ValueError("must name each product once")
    return items


class Items(Body):
    """Products of one order, each once."""

    items: Annotated[list[Wanted], Field(min_length=1, max_length=100), AfterValidator(_each_once)]


class Product(Answer):
    """A product of the catalogue; `available` is what is on hand and not reserved."""

    id: UUID
    sku: str
    name: str
    description: str | None
    category: str
    tags: list[str]
    price: Money
    image_url: str | None
    attributes: dict[str, JsonValue]
    available: int
    version: int
    created_at: Time
    updated_at: Time


class Category(Answer):
    """A category that has products."""

    slug: str
    name: str
    product_count: int


class StockLevel(Answer):
    """Units of one product."""

    on_hand: int
    reserved: int
    available: int


class RejectedLine(Answer):
    """A line of an import that did not land, and why; lines count from 1."""

    line: int
    detail: str


class ImportReport(Answer):
    """What an import did."""

    created: int
    updated: int
    rejected: list[RejectedLine]


class Quote(Answer):
    """What a product costs now, and how many can be had."""

    product_id: UUID
    sku: str
    name: str
    unit_price: Money
    available: int


class Quotes(Answer):
    """The quotes of those products that the catalogue has."""

    items: list[Quote]


class Reservation(Answer):
    """Units that an order holds until `expires_at`, or has taken for good."""

    order_id: UUID
    status: HeldStatus
    expires_at: Time
