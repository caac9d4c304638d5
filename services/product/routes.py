"""The product service over HTTP. Valid reads of the catalogue are answered before they come here, by `read_cache`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from chassis.audit import ndjson
from chassis.auth import Admin, Auditor, OrderService
from chassis.context import context
from chassis.database import Autocommit
from chassis.problems import (
    Forbidden,
    IllegalTransition,
    InsufficientStock,
    InvalidCursor,
    InvalidRequest,
    PreconditionFailed,
    Problem,
    Unauthenticated,
    UnsupportedMediaType,
    documented,
)
from chassis.schemas import Id, JsonBytes, Page
from services.product import pictures
from services.product.conditional import NO_CACHE, if_match, matches
from services.product.domain import PictureNotFound, ProductNotFound, ReservationNotFound, SkuTaken
from services.product.metrics import Metrics
from services.product.product_import import CSV, NDJSON, import_products
from services.product.reads import Reads, Representation, represent
from services.product.repository import AUDIT, Catalogue, Held, Stock
from services.product.schemas import (
    Category,
    ImportReport,
    Items,
    NewProduct,
    Product,
    ProductChange,
    ProductQuery,
    Quotes,
    Reservation,
    StockLevel,
    StockMovement,
)

IMPORT_PATH = "/api/v1/products/import"

catalogue_routes = APIRouter(prefix="/api/v1", tags=["catalogue"])
admin_routes = APIRouter(prefix="/api/v1/products", tags=["admin"])
internal_routes = APIRouter(prefix="/internal/v1", tags=["internal"])

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not changed since `If-None-Match` (no body)"}}
ADMINS = (Unauthenticated, Forbidden)


def answers(status: int, model: type[Any], *problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route whose JSON is made by the database, in the shape of `model`."""
    return {status: {"model": model}, **documented(*problems)}


def _catalogue(request: Request) -> Catalogue:
    return request.app.state.catalogue


def _stock(request: Request) -> Stock:
    return request.app.state.stock


def _metrics(request: Request) -> Metrics:
    return request.app.state.metrics


def _reads(request: Request) -> Reads:
    return request.app.state.reads


def _json(made: Representation, status: int = 200) -> JsonBytes:
    return JsonBytes(made.body, status, {"ETag": made.tag, "Cache-Control": NO_CACHE})


def _unless_known(request: Request, made: Representation) -> Response:
    """The answer, or 304 where the client has it."""
    if matches(request.headers.get("if-none-match", ""), made.tag):
        return Response(status_code=304, headers={"ETag": made.tag, "Cache-Control": NO_CACHE})
    return _json(made)


@catalogue_routes.get("/products", responses=answers(200, Page[Product], InvalidCursor, InvalidRequest) | NOT_MODIFIED)
async def list_products(query: Annotated[ProductQuery, Query()], request: Request) -> Response:
    """Search the catalogue. All words of `q` must occur; prices are minor units, both bounds included."""
    return _unless_known(request, await _reads(request).products(query))


@catalogue_routes.get("/categories", responses=answers(200, list[Category]) | NOT_MODIFIED)
async def list_categories(request: Request) -> Response:
    """List the categories that have products."""
    return _unless_known(request, await _reads(request).categories())


@catalogue_routes.get("/products/{product_id}", responses=answers(200, Product, ProductNotFound) | NOT_MODIFIED)
async def read_product(product_id: Id, request: Request) -> Response:
    """Read one product."""
    return _unless_known(request, await _reads(request).product(product_id))


@catalogue_routes.get(
    "/products/pictures/{name}.svg",
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {}}}, **NOT_MODIFIED, **documented(PictureNotFound)},
)
async def read_picture(name: str, request: Request) -> Response:
    """Read a picture of the demo catalogue."""
    found = pictures.find(name)
    if found is None:
        raise PictureNotFound
    headers = pictures.HEADERS | {"ETag": found.tag}
    if matches(request.headers.get("if-none-match", ""), found.tag):
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type="image/svg+xml")


@admin_routes.post("", status_code=201, responses=answers(201, Product, *ADMINS, SkuTaken))
async def create_product(new: NewProduct, request: Request, _: Admin) -> JsonBytes:
    """Create a product; its stock begins at 0."""
    product = await _catalogue(request).add(new)
    answer = _json(represent(product.body, product.version), 201)
    answer.headers["Location"] = f"/api/v1/products/{product.id}"
    return answer


@admin_routes.patch("/{product_id}", responses=answers(200, Product, *ADMINS, ProductNotFound, PreconditionFailed))
async def change_product(product_id: Id, change: ProductChange, request: Request, _: Admin) -> JsonBytes:
    """Change the fields that the body has. `If-Match` compares the version."""
    product = await _catalogue(request).change(product_id, change, if_match(request))
    return _json(represent(product.body, product.version))


@admin_routes.delete(
    "/{product_id}", status_code=204, responses=documented(*ADMINS, ProductNotFound, PreconditionFailed)
)
async def retire_product(product_id: Id, request: Request, _: Admin) -> None:
    """Take a product out of the catalogue. `If-Match` compares the version."""
    await _catalogue(request).retire(product_id, if_match(request))


@admin_routes.post("/{product_id}/stock", responses=documented(*ADMINS, ProductNotFound, InsufficientStock))
async def move_stock(product_id: Id, movement: StockMovement, request: Request, _: Admin) -> StockLevel:
    """Add to the units on hand, or take from those that are not reserved."""
    level = await _stock(request).move(product_id, movement.delta, movement.reason)
    return StockLevel(on_hand=level.on_hand, reserved=level.reserved, available=level.available)


@admin_routes.post(
    "/import",
    responses=answers(200, ImportReport, *ADMINS, UnsupportedMediaType, InvalidRequest),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {media_type: {"schema": {"type": "string"}} for media_type in (NDJSON, CSV)},
        }
    },
)
async def import_catalogue(request: Request, _: Admin) -> JsonBytes:
    """Create or update products by SKU, a line of NDJSON or a record of CSV each; the body is streamed."""
    content_type = request.headers.get("content-type", "")
    try:
        report = await import_products(content_type, request.stream(), _catalogue(request).land)
    except ClientDisconnect:
        raise InvalidRequest.field("body", "broke off; what had come by then has landed") from None
    for outcome, count in report.counts().items():
        _metrics(request).import_lines[outcome].inc(count)
    return JsonBytes(report.json())


@internal_routes.post("/quotes", responses=answers(200, Quotes, *ADMINS))
async def quote(wanted: Items, request: Request, _: OrderService) -> JsonBytes:
    """Names, prices and availability of those products that the catalogue has."""
    return JsonBytes(await _stock(request).quotes([item.product_id for item in wanted.items]))


@internal_routes.put("/reservations/{order_id}", responses=documented(*ADMINS, InsufficientStock, IllegalTransition))
async def reserve(order_id: Id, wanted: Items, request: Request, _: OrderService) -> Reservation:
    """Hold all the units for an order, or none. Idempotent by the order's id."""
    context().order_id = str(order_id)
    try:
        held = await _stock(request).reserve(order_id, wanted.items)
    except InsufficientStock:
        _metrics(request).reservations["refused"].inc()
        raise
    return _reservation(order_id, held, request)


@internal_routes.post(
    "/reservations/{order_id}/commit",
    responses=documented(*ADMINS, ReservationNotFound, InsufficientStock, IllegalTransition),
)
async def commit(order_id: Id, request: Request, _: OrderService) -> Reservation:
    """Take the reserved units out of the stock for good. Idempotent."""
    context().order_id = str(order_id)
    return _reservation(order_id, await _stock(request).commit(order_id), request)


@internal_routes.delete("/reservations/{order_id}", status_code=204, responses=documented(*ADMINS))
async def release(order_id: Id, request: Request, _: OrderService) -> None:
    """Give the units back, whether held or committed, and refuse any later reservation for this order. Idempotent."""
    context().order_id = str(order_id)
    if await _stock(request).release(order_id):
        _metrics(request).reservations["released"].inc()


@internal_routes.get(
    "/audit",
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}, **documented(*ADMINS)},
)
async def stream_audit(_: Auditor, database: Autocommit) -> StreamingResponse:
    """All stock and reservations of one moment, a JSON object a line."""
    return await ndjson(database, *AUDIT)


def _reservation(order_id: Id, held: Held, request: Request) -> Reservation:
    if held.changed:
        _metrics(request).reservations[held.status].inc()
    return Reservation(order_id=order_id, status=held.status, expires_at=held.expires_at)
