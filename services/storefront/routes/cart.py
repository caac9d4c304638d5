"""The cart."""

import asyncio
from uuid import UUID

from fastapi import APIRouter, Request, Response

from services.storefront import carts
from services.storefront.clients import Refused
from services.storefront.forms import form_of
from services.storefront.pages import AnyVisit, NoSuchPage, safe_next

routes = APIRouter(prefix="/cart")

FULL = "Your cart is full, and nothing was put into it. Buy what is there, or take something out."


@routes.get("")
async def show(request: Request, visit: AnyVisit) -> Response:
    """The cart, priced now; `added` names what was just put into it."""
    cart = await carts.cart_of(visit)
    return visit.page("cart.html", cart=cart, added=request.query_params.get("added", ""), problem=None)


@routes.post("/items/{product_id}/add")
async def add(product_id: UUID, request: Request, visit: AnyVisit) -> Response:
    """Put more of a product into the cart."""
    quantity = (await form_of(request)).quantity()
    problem = "How many? From 1 to 99 of one product can be in the cart."
    try:
        if quantity is not None:
            await carts.add(visit, product_id, quantity)
            return visit.go_to(f"/cart?added={product_id}#line-{product_id}")
    except carts.CartFull:
        problem = FULL
    except Refused as refused:
        if refused.status != 404:
            raise
        raise NoSuchPage from None
    product = await visit.shop.get("product", f"/api/v1/products/{product_id}")
    return visit.page("product.html", 422, product=product, quantity=quantity or 1, problem=problem)


@routes.post("/items/{product_id}")
async def change(product_id: UUID, request: Request, visit: AnyVisit) -> Response:
    """Let the cart hold so many of a product; 0, or the button `remove`, takes it out."""
    form = await form_of(request)
    quantity = 0 if form["remove"] else form.quantity(least=0)
    problem = "From 0 to 99 of one product can be in the cart. Nothing was changed."
    try:
        if quantity is not None:
            await carts.put(visit, product_id, quantity)
            return visit.go_to(safe_next(form["next"] or "/cart"))
    except carts.CartFull:
        problem = FULL
    except Refused as refused:
        if refused.status != 404:
            raise
        return visit.go_to("/cart")
    cart = await carts.cart_of(visit)
    return visit.page("cart.html", 422, cart=cart, added="", problem=problem)


@routes.post("/without-marked")
async def without_marked(visit: AnyVisit) -> Response:
    """Take out what is gone, and lower what is short to what there is: one button to go on."""
    cart = await carts.cart_of(visit)
    marked = {UUID(line["product_id"]): line["available"] for line in cart["items"] if line["problem"]}
    if visit.session.signed_in:
        await asyncio.gather(*(carts.put(visit, product_id, available) for product_id, available in marked.items()))
    else:
        visit.keep_basket(
            {
                product_id: min(quantity, marked.get(product_id, quantity))
                for product_id, quantity in visit.basket.items()
                if marked.get(product_id, quantity)
            }
        )
    return visit.go_to("/cart")
