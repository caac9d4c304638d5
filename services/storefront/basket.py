"""The cart of a visitor who is not signed in: ids and quantities in a cookie, 17 bytes a line.

Prices are never in it; they are the product service's, each time the cart is shown.
"""

import base64
import binascii
from collections.abc import Mapping
from uuid import UUID

from fastapi import Request, Response

COOKIE = "souk_cart"
MOST_LINES = 40
"""Forty lines are 907 characters; a browser keeps cookies of 4,096."""
MOST_OF_ONE = 99
KEPT_S = 30 * 24 * 3600
LINE_BYTES = 17

Basket = Mapping[UUID, int]
"""How many of which product."""


def read(request: Request) -> dict[UUID, int]:
    """The basket in the browser's cookie; an empty one where the cookie is damaged."""
    try:
        content = base64.urlsafe_b64decode(request.cookies.get(COOKIE, ""))
    except (binascii.Error, ValueError):
        return {}
    if len(content) % LINE_BYTES or len(content) > LINE_BYTES * MOST_LINES:
        return {}
    lines = [content[start : start + LINE_BYTES] for start in range(0, len(content), LINE_BYTES)]
    return {UUID(bytes=line[:16]): line[16] for line in lines if 1 <= line[16] <= MOST_OF_ONE}


def write(response: Response, basket: Basket, *, secure: bool) -> None:
    """Put the basket into the browser, or take it out where it is empty."""
    if not basket:
        response.delete_cookie(COOKIE, secure=secure, httponly=True, samesite="lax")
        return
    content = b"".join(product_id.bytes + bytes([quantity]) for product_id, quantity in basket.items())
    value = base64.urlsafe_b64encode(content).decode("ascii")
    response.set_cookie(COOKIE, value, max_age=KEPT_S, secure=secure, httponly=True, samesite="lax")


def added(basket: Basket, product_id: UUID, quantity: int) -> dict[UUID, int]:
    """The basket with so many more of a product, at most MOST_OF_ONE; unchanged where it has no line left."""
    changed = dict(basket)
    if product_id in changed or len(changed) < MOST_LINES:
        changed[product_id] = min(changed.get(product_id, 0) + quantity, MOST_OF_ONE)
    return changed


def changed_to(basket: Basket, product_id: UUID, quantity: int) -> dict[UUID, int]:
    """The basket with exactly so many of a product; none of it with 0."""
    changed = {known: many for known, many in basket.items() if known != product_id or quantity}
    if quantity and (product_id in changed or len(changed) < MOST_LINES):
        changed[product_id] = min(quantity, MOST_OF_ONE)
    return changed
