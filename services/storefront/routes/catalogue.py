"""The shelves: search, categories, filters, and a product."""

import asyncio
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from services.storefront import formats
from services.storefront.clients import Refused, Unreachable
from services.storefront.pages import PICTURES, AnyVisit, NoSuchPage, Visit, with_query

routes = APIRouter()

SHOWN = 20
"""Products on a page."""
MOST_PAGES = 5
"""Pages that one answer may hold, so that a reload or the way back shows what was there: the API's limit of 100."""
CURRENCY = "USD"
"""In which prices are typed; products say theirs themselves."""
LONGEST_SLUG = 200
LONGEST_CURSOR = 4_000
"""No category and no cursor of the API is longer: what is goes no further than to a look for nothing."""
SORTS = {
    "": "Best match, or newest",
    "newest": "Newest first",
    "price": "Price, low to high",
    "-price": "Price, high to low",
    "name": "Name",
}


async def cart_count(visit: Visit) -> None:
    """Note how many things are in the cart of whoever is signed in; unknown where the order service does not say."""
    if not visit.session.signed_in:
        return
    try:
        cart = await visit.shop.get("order", "/api/v1/cart")
    except (Refused, Unreachable):
        return  # a page about something else does without the number
    visit.cart_count = sum(line["quantity"] for line in cart["items"])


def _pages(request: Request) -> int:
    text = request.query_params.get("pages", "1")
    return min(max(int(text), 1), MOST_PAGES) if text.isascii() and text.isdigit() and len(text) < 4 else 1


def _prices(request: Request) -> tuple[dict[str, int | None], dict[str, str]]:
    """The price bounds in minor units by the API's names, and what is wrong with those that are none."""
    bounds: dict[str, int | None] = {"min_price": None, "max_price": None}
    errors: dict[str, str] = {}
    for name in bounds:
        text = request.query_params.get(name, "").strip()
        if text:
            try:
                bounds[name] = formats.in_minor(text, CURRENCY)
            except ValueError as error:
                errors[name] = str(error)
    return bounds, errors


@routes.get("/")
async def shelves(request: Request, visit: AnyVisit) -> Response:
    """The products that a search and filters leave; `part=results` is the list alone, for a script that goes on."""
    query = request.query_params
    bounds, errors = _prices(request)
    words = query.get("q", "").strip()[:200]
    sort = query.get("sort", "")
    cursor = query.get("cursor", "")[:LONGEST_CURSOR]
    wanted: dict[str, Any] = {
        "q": words or None,
        "category": query.get("category", "")[:LONGEST_SLUG] or None,
        "in_stock": "true" if query.get("in_stock") else None,
        "sort": sort if sort in SORTS and sort else None,
        **bounds,
    }
    pages = _pages(request)
    try:
        found, categories, _ = await asyncio.gather(
            visit.shop.get("product", "/api/v1/products", limit=SHOWN * pages, cursor=cursor or None, **wanted),
            visit.shop.get("product", "/api/v1/categories"),
            cart_count(visit),
        )
    except Refused as refused:
        if refused.status not in {400, 422}:
            raise
        if refused.code == "invalid-cursor":
            return visit.go_to(with_query("/", **{name: query.get(name) for name in query if name != "cursor"}))
        errors |= refused.errors()
        found = dict[str, Any](items=[], next_cursor=None)
        categories = await visit.shop.get("product", "/api/v1/categories")
    typed = {name: query.get(name, "") for name in ("q", "category", "min_price", "max_price", "in_stock", "sort")}

    def address(**changes: object) -> str:
        return with_query("/", **(typed | changes))

    return visit.page(
        "_results.html" if query.get("part") == "results" else "shop.html",
        products=found["items"],
        next_cursor=found["next_cursor"],
        categories=categories,
        typed=typed,
        filtered=any(typed.values()),
        errors=errors,
        address=address,
        sorts=SORTS,
        pages=pages,
        cursor=cursor,
    )


@routes.get("/products/{product_id}")
async def product(product_id: UUID, visit: AnyVisit) -> Response:
    """A product."""
    try:
        found, _ = await asyncio.gather(visit.shop.get("product", f"/api/v1/products/{product_id}"), cart_count(visit))
    except Refused as refused:
        if refused.status != 404:
            raise
        raise NoSuchPage from None
    return visit.page("product.html", product=found, quantity=1, problem=None)


@routes.get("/pictures/{product_id}")
async def picture(product_id: UUID, request: Request, visit: AnyVisit) -> Response:
    """Where a product's picture is, for pages that know no more of it than its id."""
    target = request.app.state.assets.url("product.svg")
    try:
        found = await visit.shop.get("product", f"/api/v1/products/{product_id}")
        if (found["image_url"] or "").startswith(PICTURES):
            target = found["image_url"]
    except Refused:
        pass  # a product that is gone has left its picture behind in no place that is known
    headers = {"Location": target, "Cache-Control": "private, max-age=300"}
    return visit.answer(Response(status_code=302, headers=headers))
