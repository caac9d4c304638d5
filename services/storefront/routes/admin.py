"""The admin's corner: products, stock, an import, orders to ship, refunds."""

import re
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

from services.storefront import formats
from services.storefront.clients import Refused
from services.storefront.forms import Form, form_of
from services.storefront.pages import STATUSES, AdminVisit, NoSuchPage, Visit, with_query
from services.storefront.routes.catalogue import CURRENCY
from services.storefront.routes.orders import shown

routes = APIRouter(prefix="/admin")

SHOWN = 50
IMPORT_TIMEOUT_S = 120.0
DELTA = re.compile(r"[+-]?[0-9]{1,9}")
PIECE_BYTES = 64 * 1024
MEDIA_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson", "jsonl": "application/x-ndjson"}


@routes.get("")
async def products(request: Request, visit: AdminVisit) -> Response:
    """The products, newest first or by words."""
    query = request.query_params
    page = await visit.shop.get(
        "product", "/api/v1/products", limit=SHOWN, q=query.get("q") or None, cursor=query.get("cursor") or None
    )
    return visit.page(
        "admin/products.html",
        products=page["items"],
        more=with_query("/admin", q=query.get("q"), cursor=page["next_cursor"]) if page["next_cursor"] else None,
        words=query.get("q", ""),
        done=query.get("done", ""),
    )


def _product_of(form: Form) -> tuple[dict[str, Any], dict[str, str]]:
    """What the form says of a product, and what is wrong with it that the API cannot know."""
    errors: dict[str, str] = {}
    product: dict[str, Any] = {
        "name": form["name"],
        "description": form["description"] or None,
        "category": form["category"],
        "tags": [tag.strip() for tag in form["tags"].split(",") if tag.strip()],
        "image_url": form["image_url"] or None,
    }
    try:
        product["price"] = {"amount_minor": formats.in_minor(form["price"], CURRENCY), "currency": CURRENCY}
    except ValueError as error:
        errors["price"] = str(error)
    try:
        product["attributes"] = {
            name.strip(): value.strip()
            for name, value in (line.split(":", 1) for line in form["attributes"].splitlines() if line.strip())
        }
    except ValueError:
        errors["attributes"] = "must be lines such as colour: blue"
    return product, errors


@routes.get("/products/new")
async def new_product(visit: AdminVisit) -> Response:
    """The form of a product that there is not yet."""
    return visit.page("admin/product.html", product=None, values=Form(), errors={}, problem=None, done="")


@routes.post("/products/new")
async def create(request: Request, visit: AdminVisit) -> Response:
    """A new product."""
    form = await form_of(request)
    product, errors = _product_of(form)
    if not errors:
        try:
            answer = await visit.shop.call("product", "POST", "/api/v1/products", product | {"sku": form["sku"]})
            return visit.go_to(f"/admin/products/{answer.document['id']}?done=created")
        except Refused as refused:
            errors = refused.errors()
            if refused.code == "sku-taken":
                errors = {"sku": "belongs to a product already"}
            if not errors:
                raise
    return visit.page("admin/product.html", 422, product=None, values=form, errors=errors, problem=None, done="")


async def _product_page(visit: Visit, product_id: UUID, status: int = 200, **values: Any) -> Response:
    try:
        found = await visit.shop.get("product", f"/api/v1/products/{product_id}")
    except Refused as refused:
        if refused.status != 404:
            raise
        raise NoSuchPage from None
    shown_values = Form(
        {
            "name": found["name"],
            "description": found["description"] or "",
            "category": found["category"],
            "tags": ", ".join(found["tags"]),
            "price": f"{formats.in_major(found['price'])}",
            "image_url": found["image_url"] or "",
            "attributes": "\n".join(f"{name}: {value}" for name, value in found["attributes"].items()),
            "version": str(found["version"]),
        }
    )
    given: dict[str, Any] = {"values": shown_values, "errors": {}, "problem": None, "done": ""}
    given.update(values)
    return visit.page("admin/product.html", status, product=found, **given)


@routes.get("/products/{product_id}")
async def product(product_id: UUID, request: Request, visit: AdminVisit) -> Response:
    """A product, to be changed."""
    return await _product_page(visit, product_id, done=request.query_params.get("done", ""))


@routes.post("/products/{product_id}")
async def change(product_id: UUID, request: Request, visit: AdminVisit) -> Response:
    """Change a product, unless somebody else has meanwhile."""
    form = await form_of(request)
    changes, errors = _product_of(form)
    if errors:
        return await _product_page(visit, product_id, 422, values=form, errors=errors)
    current = await _tag_of(visit, product_id, form["version"])
    if current is None:
        problem = "Somebody else has changed this product meanwhile. This is how it is now; nothing of yours was saved."
        return await _product_page(visit, product_id, 409, problem=problem)
    try:
        headers = {"If-Match": current}
        await visit.shop.call("product", "PATCH", f"/api/v1/products/{product_id}", changes, headers=headers)
    except Refused as refused:
        if refused.status == 412:
            problem = "Somebody else has changed this product meanwhile. This is how it is now; nothing was saved."
            return await _product_page(visit, product_id, 409, problem=problem)
        if not refused.errors():
            raise
        return await _product_page(visit, product_id, 422, values=form, errors=refused.errors())
    return visit.go_to(f"/admin/products/{product_id}?done=saved")


async def _tag_of(visit: Visit, product_id: UUID, version: str) -> str | None:
    """The `ETag` of the product if it still has this version."""
    answer = await visit.shop.call("product", "GET", f"/api/v1/products/{product_id}")
    return answer.headers["etag"] if str(answer.document["version"]) == version else None


@routes.post("/products/{product_id}/stock")
async def stock(product_id: UUID, request: Request, visit: AdminVisit) -> Response:
    """A movement of stock."""
    form = await form_of(request)
    if not DELTA.fullmatch(form["delta"]):
        return await _product_page(visit, product_id, 422, errors={"delta": "must be a number, such as 20 or -3"})
    movement = {"delta": int(form["delta"]), "reason": form["reason"]}
    try:
        await visit.shop.call("product", "POST", f"/api/v1/products/{product_id}/stock", movement)
    except Refused as refused:
        errors = refused.errors()
        if refused.status == 409:
            errors = {"delta": "would leave less than what is reserved for orders"}
        if not errors:
            raise
        return await _product_page(visit, product_id, 422, errors=errors)
    return visit.go_to(f"/admin/products/{product_id}?done=stock")


@routes.post("/products/{product_id}/retire")
async def retire(product_id: UUID, visit: AdminVisit) -> Response:
    """Take a product off the shelves."""
    await visit.shop.call("product", "DELETE", f"/api/v1/products/{product_id}")
    return visit.go_to("/admin?done=retired")


@routes.get("/import")
async def import_page(visit: AdminVisit) -> Response:
    """Where a file of products is sent from."""
    return visit.page("admin/import.html", report=None, problem=None)


@routes.post("/import")
async def import_products(request: Request, visit: AdminVisit) -> Response:
    """Pass a file of products on, piece by piece, and show what became of its lines."""
    async with request.form(max_files=1, max_fields=4) as sent:
        file = sent.get("file")
        ending = (file.filename or "").rpartition(".")[2].lower() if isinstance(file, UploadFile) else ""
        if not isinstance(file, UploadFile) or ending not in MEDIA_TYPES:
            problem = "Choose a file whose name ends in .csv, .ndjson or .jsonl."
            return visit.page("admin/import.html", 422, report=None, problem=problem)

        async def pieces() -> AsyncGenerator[bytes, None]:
            while piece := await file.read(PIECE_BYTES):
                yield piece

        headers = {"Authorization": f"Bearer {visit.shop.access_token}", "Content-Type": MEDIA_TYPES[ending]}
        async with visit.services.stream(
            "product", "POST", "/api/v1/products/import", headers, pieces(), read_timeout_s=IMPORT_TIMEOUT_S
        ) as answer:
            report = orjson.loads(await answer.aread() or b"{}")
    if answer.status_code != 200:
        problem = f"The file was not taken: {report.get('detail') or report.get('title') or answer.status_code}."
        return visit.page("admin/import.html", 422, report=None, problem=problem)
    return visit.page("admin/import.html", report=report, problem=None)


@routes.get("/orders")
async def orders(request: Request, visit: AdminVisit) -> Response:
    """Everybody's orders of one status, newest first; at first those to ship."""
    query = request.query_params
    status = query.get("status", "confirmed")
    page = await visit.shop.get(
        "order",
        "/api/v1/orders",
        everyone="true",
        limit=SHOWN,
        status=status if status in STATUSES else None,
        cursor=query.get("cursor") or None,
    )
    more = with_query("/admin/orders", status=status, cursor=page["next_cursor"]) if page["next_cursor"] else None
    return visit.page("admin/orders.html", orders=page["items"], more=more, status=status)


@routes.get("/orders/{order_id}")
async def order(order_id: UUID, visit: AdminVisit) -> Response:
    """Somebody's order, with what an admin may do with it."""
    return await shown(visit, order_id, "admin/order.html", errors={})


@routes.post("/orders/{order_id}/{step}")
async def move(order_id: UUID, step: str, visit: AdminVisit) -> Response:
    """Ship, deliver or cancel an order."""
    if step not in {"ship", "deliver", "cancel"}:
        raise NoSuchPage
    try:
        await visit.shop.call("order", "POST", f"/api/v1/orders/{order_id}/{step}")
    except Refused as refused:
        if refused.code != "illegal-transition":
            raise
        problem = "This order has moved on meanwhile, and that can no longer be done."
        return await shown(visit, order_id, "admin/order.html", 409, errors={}, problem=problem)
    return visit.go_to(f"/admin/orders/{order_id}")


@routes.post("/orders/{order_id}/payments/{payment_id}/refund")
async def refund(order_id: UUID, payment_id: UUID, request: Request, visit: AdminVisit) -> Response:
    """Pay some or all of it back; the form's key makes it once."""
    form = await form_of(request)
    wanted: dict[str, Any] = {"reason": form["reason"]}
    errors: dict[str, str] = {}
    if form["amount"]:
        try:
            wanted["amount_minor"] = formats.in_minor(form["amount"], CURRENCY)
        except ValueError as error:
            errors["amount"] = str(error)
    if not errors:
        try:
            key = form.key()
            headers = {"Idempotency-Key": key} if key else {}
            await visit.shop.call("payment", "POST", f"/api/v1/payments/{payment_id}/refund", wanted, headers=headers)
            return visit.go_to(f"/admin/orders/{order_id}")
        except Refused as refused:
            errors = {name.replace("amount_minor", "amount"): text for name, text in refused.errors().items()}
            if refused.code == "refund-exceeds-captured":
                errors = {"amount": "is more than what is left of this payment"}
            elif refused.code == "idempotency-key-reused":
                errors = {"amount": "was not paid back, as some other was meanwhile: look at what is left"}
            if not errors:
                raise
    return await shown(visit, order_id, "admin/order.html", 422, errors=errors)
