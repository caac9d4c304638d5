"""The cart that a page shows: of the account where somebody is signed in, else the basket of the browser."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from services.storefront import basket
from services.storefront.clients import Refused, Unreachable
from services.storefront.pages import Visit


class CartFull(Exception):
    """The cart takes no further product."""


async def cart_of(visit: Visit) -> dict[str, Any]:
    """The cart, priced now, in the shape of `GET /api/v1/cart`."""
    if visit.session.signed_in:
        cart = await visit.shop.get("order", "/api/v1/cart")
    else:
        products = await asyncio.gather(*(_product(visit, product_id) for product_id in visit.basket))
        cart = priced(visit.basket, dict(zip(visit.basket, products, strict=True)))
    visit.cart_count = sum(line["quantity"] for line in cart["items"])
    return cart


async def _product(visit: Visit, product_id: UUID) -> dict[str, Any] | None:
    try:
        return await visit.shop.get("product", f"/api/v1/products/{product_id}")
    except Refused:
        return None


def priced(wanted: basket.Basket, products: Mapping[UUID, Mapping[str, Any] | None]) -> dict[str, Any]:
    """A basket as a cart: a product that is gone or short is marked and left out of the total, as the API does it."""
    lines: list[dict[str, Any]] = []
    total, currency = 0, "USD"
    for product_id, quantity in wanted.items():
        product = products[product_id]
        if product is None:
            price = {"amount_minor": 0, "currency": currency}
            lines.append(_line(product_id, "No longer here", quantity, price, 0, "gone"))
            continue
        currency = product["price"]["currency"]
        problem = "short" if product["available"] < quantity else None
        lines.append(_line(product_id, product["name"], quantity, product["price"], product["available"], problem))
        if problem is None:
            total += quantity * product["price"]["amount_minor"]
    return {"items": lines, "total": {"amount_minor": total, "currency": currency}}


def _line(
    product_id: UUID, name: str, quantity: int, price: Mapping[str, Any], available: int, problem: str | None
) -> dict[str, Any]:
    return {
        "product_id": str(product_id),
        "name": name,
        "quantity": quantity,
        "unit_price": price,
        "line_total": {"amount_minor": quantity * price["amount_minor"], "currency": price["currency"]},
        "available": available,
        "problem": problem,
    }


async def add(visit: Visit, product_id: UUID, quantity: int) -> None:
    """Put so many more of a product into the cart. Raises Refused where there is no such product, CartFull."""
    if not visit.session.signed_in:
        await visit.shop.get("product", f"/api/v1/products/{product_id}")
        changed = basket.added(visit.basket, product_id, quantity)
        if product_id not in changed:
            raise CartFull
        visit.keep_basket(changed)
        return
    cart = await visit.shop.get("order", "/api/v1/cart")
    held = next((line["quantity"] for line in cart["items"] if line["product_id"] == str(product_id)), 0)
    await put(visit, product_id, min(held + quantity, basket.MOST_OF_ONE))


async def put(visit: Visit, product_id: UUID, quantity: int) -> None:
    """Let the cart hold exactly so many of a product, none with 0. Raises Refused as `add` does, CartFull."""
    if not visit.session.signed_in:
        visit.keep_basket(basket.changed_to(visit.basket, product_id, quantity))
    elif quantity:
        try:
            await visit.shop.call("order", "PUT", f"/api/v1/cart/items/{product_id}", {"quantity": quantity})
        except Refused as refused:
            if "product_id" in refused.errors():
                raise CartFull from None
            raise
    else:
        await visit.shop.call("order", "DELETE", f"/api/v1/cart/items/{product_id}")


async def merge(visit: Visit) -> None:
    """Put the browser's basket into the cart of whoever has just signed in, and forget it. All lines go at once.

    A line whose product is gone is left behind. One that finds the cart full, or nobody who answers, stays in the
    basket and is merged the next time. Raises Unreachable, after which all of the basket is still there.
    """
    if not visit.basket:
        return
    cart = await visit.shop.get("order", "/api/v1/cart")
    held = {line["product_id"]: line["quantity"] for line in cart["items"]}
    settled = await asyncio.gather(
        *(
            _settled(visit, product_id, min(held.get(str(product_id), 0) + quantity, basket.MOST_OF_ONE))
            for product_id, quantity in visit.basket.items()
        )
    )
    visit.keep_basket(
        {line: quantity for (line, quantity), done in zip(visit.basket.items(), settled, strict=True) if not done}
    )


async def _settled(visit: Visit, product_id: UUID, quantity: int) -> bool:
    try:
        await put(visit, product_id, quantity)
    except (CartFull, Unreachable):
        return False
    except Refused as refused:
        if refused.status != 404:
            raise
    return True
