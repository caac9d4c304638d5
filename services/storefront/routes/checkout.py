"""From the cart to an order: once, however often the form is sent.

The form carries an idempotency key made when it was shown, and the total that was seen. The key is kept until there is
an answer to it, so a double click, a reload, a lost connection or the way back asks for the same order. After a
definite no the page is shown anew, with a new key and one button to go on.
"""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from services.storefront import carts
from services.storefront.clients import CHECKOUT, CHECKOUT_TIMEOUT_S, Refused, Unreachable
from services.storefront.forms import ADDRESS, Form, address_of, form_of
from services.storefront.pages import SignedIn, Visit

routes = APIRouter(prefix="/checkout")

PAYMENT_METHODS = {
    "tok_visa": "Visa",
    "tok_mastercard": "Mastercard",
    "tok_slow": "A bank that takes its time",
    "tok_timeout": "A bank whose answer gets lost",
    "tok_declined": "A card that is declined",
    "tok_insufficient_funds": "A card without enough money",
    "tok_expired_card": "A card that has expired",
}
"""Those of the embedded provider; the last five are there to see what becomes of them."""
IN_PROGRESS_S = 6
"""How long the second of two forms with one key waits for the answer to the first, which the order service gives within
5 s.
"""
CHANGED = "The price, or what is in your cart, has changed meanwhile. Nothing was ordered: this is the new total."
CHANGED_AFTER = (
    "What is in your cart has changed since you sent this order, whose answer did not come. It may have been placed:"
    " look at your orders before you send this one."
)
DECLINED = {
    "insufficient_funds": "There is not enough money on this card.",
    "expired_card": "This card has expired.",
}


async def _shown(visit: Visit, form: Form, status: int = 200, **values: Any) -> Response:
    """The page of the checkout, or the cart's where there is nothing to order."""
    cart, book = await asyncio.gather(
        carts.cart_of(visit), visit.shop.get("user", "/api/v1/users/me/addresses", limit=100)
    )
    if not cart["items"]:
        return visit.go_to("/cart")
    given: dict[str, Any] = {"errors": {}, "problem": None, "key": str(uuid4())}
    given.update(values)
    return visit.page(
        "checkout.html",
        status,
        cart=cart,
        marked=[line for line in cart["items"] if line["problem"]],
        addresses=book["items"],
        methods=PAYMENT_METHODS,
        values=form,
        **given,
    )


@routes.get("")
async def checkout(visit: SignedIn) -> Response:
    """Where it goes, and how it is paid."""
    return await _shown(visit, Form())


@routes.post("")
async def place(request: Request, visit: SignedIn) -> Response:
    """Order what is in the cart."""
    form = await form_of(request)
    key = form.key()
    if key is None:
        return await _shown(
            visit, form, 422, problem="This page was not complete. Nothing was ordered: look at it again."
        )
    try:
        cart = await carts.cart_of(visit)
        seen = form["total"]
        if cart["items"] and seen and seen != str(cart["total"]["amount_minor"]):
            return await _shown(visit, form, 409, problem=CHANGED_AFTER if form["sent"] else CHANGED)
        return await _ordered(visit, form, key)
    except Unreachable as unreachable:
        return _not_known(visit, form, key, unreachable.service)


async def _ordered(visit: Visit, form: Form, key: str) -> Response:
    wanted: dict[str, Any] = {"payment_method": form["payment_method"]}
    chosen = form["address_id"]
    if chosen and chosen != "new":
        wanted["address_id"] = chosen
    else:
        wanted["address"] = address_of(form)
    waited_s = 0
    while True:
        try:
            answer = await visit.shop.call(
                "order",
                "POST",
                "/api/v1/orders",
                wanted,
                headers={"Idempotency-Key": key},
                policy=CHECKOUT,
                timeout_s=CHECKOUT_TIMEOUT_S,
            )
            break
        except Refused as refused:
            if refused.code != "request-in-progress" or waited_s == IN_PROGRESS_S:
                return await _not_ordered(visit, form, key, refused)
            waited_s += 1
            await asyncio.sleep(1)
    if form["keep_address"] and "address" in wanted:
        with suppress(Refused, Unreachable):  # the order is placed, which is what was asked for first
            await visit.shop.call("user", "POST", "/api/v1/users/me/addresses", wanted["address"])
    return visit.go_to(f"/orders/{answer.document['id']}?placed=yes")


async def _not_ordered(visit: Visit, form: Form, key: str, refused: Refused) -> Response:
    match refused.code:
        case "payment-declined":
            why = DECLINED.get(refused.document.get("decline_code", ""), "Your bank has declined this payment.")
            problem = f"{why} Nothing was charged, and your cart is as it was. Choose another way to pay."
            return await _shown(visit, form, 402, problem=problem)
        case "insufficient-stock":
            problem = "Somebody was quicker: there are not as many left as you want. Nothing was charged."
            return await _shown(visit, form, 409, problem=problem)
        case "request-in-progress":
            return _not_known(visit, form, key, "order")
        case "idempotency-key-reused":
            problem = "This order was sent before with other details. See your orders, or look at it again and send it."
            return await _shown(visit, form, 409, problem=problem)
        case "invalid-request":
            errors = refused.errors()
            if not set(errors) & {*ADDRESS, "payment_method", "address_id"}:
                problem = "There is nothing in your cart that can be ordered. Your orders show what was."
                return await _shown(visit, form, 422, problem=problem)
            return await _shown(visit, form, 422, errors=errors, key=key)
        case _:
            raise refused


def _not_known(visit: Visit, form: Form, key: str, service: str) -> Response:
    """A page with the form as it was sent, key and all, and one button to send it again."""
    return visit.page("again.html", 503, values=form, key=key, service=service)
