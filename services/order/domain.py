"""Orders: what they are, which statuses follow which, what they cost. Pure: nothing here asks a clock, a database or
a peer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from chassis.problems import IllegalTransition, InsufficientStock, NotFound, Problem


class OrderNotFound(NotFound):
    """No such order, or not the caller's."""

    title = "There is no such order"


class ProductNotFound(NotFound):
    """No such product in the catalogue."""

    title = "There is no such product"


class PaymentDeclined(Problem):
    """The provider declined the payment; `decline_code` says why."""

    status, code, title = 402, "payment-declined", "The payment was declined"


class Superseded(Exception):
    """Somebody else changed the order since it was read: read it again, then decide again."""


class Status(StrEnum):
    """Where an order stands."""

    PENDING = "pending"
    RESERVED = "reserved"
    AUTHORISED = "authorised"
    CONFIRMED = "confirmed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


FOLLOWS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RESERVED, Status.REJECTED, Status.CANCELLED}),
    Status.RESERVED: frozenset({Status.AUTHORISED, Status.REJECTED, Status.CANCELLED}),
    Status.AUTHORISED: frozenset({Status.CONFIRMED, Status.CANCELLED}),
    Status.CONFIRMED: frozenset({Status.SHIPPED, Status.CANCELLED}),
    Status.SHIPPED: frozenset({Status.DELIVERED}),
    Status.DELIVERED: frozenset(),
    Status.REJECTED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""Which status may follow which."""

FINAL = frozenset(status for status, following in FOLLOWS.items() if not following)
IN_FLIGHT = frozenset({Status.PENDING, Status.RESERVED, Status.AUTHORISED})
"""The checkout is still at work on such an order."""
CANCELLABLE = IN_FLIGHT | {Status.CONFIRMED}

CANCELLED_BY_CUSTOMER = "cancelled_by_customer"
OUT_OF_STOCK = "insufficient_stock"


@dataclass(frozen=True, slots=True)
class Line:
    """One product of an order, as it was named and priced when the order was placed."""

    product_id: UUID
    sku: str
    name: str
    quantity: int
    unit_price_minor: int

    @property
    def total_minor(self) -> int:
        """The line's price in minor units."""
        return self.unit_price_minor * self.quantity


@dataclass(frozen=True, slots=True)
class Entry:
    """A status that the order passed, and when."""

    status: Status
    at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Undo:
    """The decision to take back what the order has done so far, and how it ends then.

    `refusal` is the problem that the buyer is told, by its code and facts; none when the buyer cancelled.
    """

    to: Status
    reason: str
    refusal: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An order as one replica read it. `version` rises with every change, so that of two changes at once one is
    refused.
    """

    id: UUID
    user_id: UUID
    status: Status
    lines: tuple[Line, ...]
    currency: str
    address: dict[str, Any]
    payment_method: str
    from_cart: bool
    traceparent: str | None
    """None for an order of a release that kept the trace's id alone."""
    created_at: datetime
    history: tuple[Entry, ...] = field(default=())
    payment_id: UUID | None = None
    undo: Undo | None = None
    version: int = 1
    attempts: int = 0

    @property
    def total_minor(self) -> int:
        """What the order costs, in minor units; no tax or shipping is added."""
        return total_minor(self.lines)

    @property
    def reason(self) -> str | None:
        """Why the order ended as it did, where there is more to say than its status."""
        return self.history[-1].reason if self.history else None

    @property
    def unfinished(self) -> bool:
        """Whether the saga has something to do: forward to confirmed, or back."""
        return self.undo is not None or self.status in IN_FLIGHT


def total_minor(lines: Sequence[Line]) -> int:
    """The sum of the lines in minor units."""
    return sum(line.total_minor for line in lines)


def moved(order: Order, to: Status, at: datetime, reason: str | None = None) -> Order:
    """Return the order in its next status; raises IllegalTransition. One that is being taken back goes nowhere else."""
    if to not in FOLLOWS[order.status] or (order.undo is not None and order.undo.to is not to):
        raise IllegalTransition(
            f"an order that is {order.status} cannot become {to}", order_id=str(order.id), order_status=order.status
        )
    return replace(order, status=to, history=(*order.history, Entry(to, at, reason)), undo=None)


def decided_to_undo(order: Order, undo: Undo) -> Order:
    """Return the order with the decision to take it back; raises IllegalTransition where it cannot be."""
    if order.undo is not None or undo.to not in FOLLOWS[order.status]:
        raise IllegalTransition(
            f"an order that is {order.status} cannot become {undo.to}",
            order_id=str(order.id),
            order_status=order.status,
        )
    return replace(order, undo=undo)


def refusal_of(order: Order, refusal: dict[str, Any] | None) -> Problem:
    """The problem with which a checkout ended that did not confirm its order."""
    if refusal is None:
        return IllegalTransition("the order was cancelled while it was being placed", order_id=str(order.id))
    if refusal["code"] == PaymentDeclined.code:
        return PaymentDeclined(decline_code=refusal["decline_code"], order_id=str(order.id))
    return InsufficientStock(items=refusal["items"], order_id=str(order.id))
