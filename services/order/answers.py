"""The answer to `POST /api/v1/orders`: made once, stored with the order's outcome, and given again for the same key."""

from dataclasses import replace
from typing import Any

from chassis.idempotency import StoredAnswer
from services.order.domain import Order, Status, refusal_of
from services.order.schemas import order_json

PLACED_AT = "/api/v1/orders"


def location_of(order: Order) -> str:
    """The path at which the order is read."""
    return f"{PLACED_AT}/{order.id}"


def answer_to(order: Order, refusal: dict[str, Any] | None = None) -> StoredAnswer:
    """201 for a confirmed order; 402 or 409 for one that was refused; 202 for one whose outcome is not known yet."""
    if order.status is Status.CONFIRMED:
        return StoredAnswer(201, order_json(order), location_of(order))
    if order.unfinished:
        # Whichever step the saga is at, to the buyer it is pending until there is an outcome.
        return StoredAnswer(202, order_json(replace(order, status=Status.PENDING)), location_of(order))
    problem = refusal_of(order, refusal)
    return StoredAnswer(problem.status, problem.body(PLACED_AT))
