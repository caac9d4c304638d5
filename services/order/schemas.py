"""The order service's wire shapes."""

from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import AfterValidator, Field

from chassis.schemas import Address, Answer, Body, Id, Money, Quantity, Time, rfc3339
from services.order import domain

PaymentMethod = Literal[
    "tok_visa",
    "tok_mastercard",
    "tok_declined",
    "tok_insufficient_funds",
    "tok_expired_card",
    "tok_slow",
    "tok_timeout",
]
Problem = Literal["gone", "short"]


class Wanted(Body):
    """A product and how many of it."""

    product_id: Id
    quantity: Quantity


class CartQuantity(Body):
    """How many of a product the cart shall hold."""

    quantity: Quantity


def _each_product_once(items: list[Wanted]) -> list[Wanted]:
    if len({item.product_id for item in items}) < len(items):
        raise ValueError("must name each product once")
    return items


Items = Annotated[list[Wanted], Field(min_length=1, max_length=100), AfterValidator(_each_product_once)]


class NewOrder(Body):
    """What is ordered, or the cart where `items` is absent; where it goes, by one of two ways; how it is paid."""

    items: Annotated[list[Wanted], Field(min_length=1, max_length=100), AfterValidator(_each_product_once)] | None = (
        None
    )
    address: Address | None = None
    address_id: Id | None = None
    payment_method: PaymentMethod


class CartLine(Answer):
    """A product in the cart at its price now; `problem` marks one that is gone or of which there are fewer."""

    product_id: UUID
    name: str
    quantity: int
    unit_price: Money
    line_total: Money
    available: int
    problem: Problem | None


class CartAnswer(Answer):
    """The cart; `total` leaves the marked products out."""

    items: list[CartLine]
    total: Money


class LineAnswer(Answer):
    """A line of an order, named and priced as when the order was placed."""

    product_id: UUID
    sku: str
    name: str
    quantity: int
    unit_price: Money
    line_total: Money


class EntryAnswer(Answer):
    """A status that the order passed."""

    status: domain.Status
    at: Time
    reason: str | None = None


class OrderAnswer(Answer):
    """An order."""

    id: UUID
    status: domain.Status
    lines: list[LineAnswer]
    total: Money
    address: Address
    payment_id: UUID | None
    reason: str | None = None
    history: list[EntryAnswer]
    created_at: Time


ADDRESS_FIELDS = tuple(Address.model_fields)


def order_json(order: domain.Order) -> bytes:
    """The order on the wire, as OrderAnswer says. Written by hand: what was validated when it was stored needs no
    models to be made of it, which would cost ten times as much.
    """

    def money(amount_minor: int) -> dict[str, Any]:
        return {"amount_minor": amount_minor, "currency": order.currency}

    document = {
        "id": order.id,
        "status": order.status,
        "lines": [
            {
                "product_id": line.product_id,
                "sku": line.sku,
                "name": line.name,
                "quantity": line.quantity,
                "unit_price": money(line.unit_price_minor),
                "line_total": money(line.total_minor),
            }
            for line in order.lines
        ],
        "total": money(order.total_minor),
        "address": {field: order.address.get(field) for field in ADDRESS_FIELDS},
        "payment_id": order.payment_id,
        "reason": order.reason,
        "history": [
            {"status": entry.status, "at": rfc3339(entry.at), "reason": entry.reason} for entry in order.history
        ],
        "created_at": rfc3339(order.created_at),
    }
    # asyncpg has a UUID of its own, which only `str` makes JSON of.
    return orjson.dumps(document, default=str)
