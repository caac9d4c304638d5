"""HTTP in and out of the order service: no SQL, no rules."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse

from chassis.app import STREAM
from chassis.audit import ndjson
from chassis.auth import Admin, Auditor, Principal, Shopper
from chassis.database import Autocommit
from chassis.idempotency import RequiredKey, fingerprint
from chassis.pagination import Cursor, Limit, decode_cursor, encode_cursor
from chassis.problems import (
    Forbidden,
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    IllegalTransition,
    InsufficientStock,
    InvalidCursor,
    RequestInProgress,
    Unauthenticated,
    documented,
)
from chassis.schemas import JsonBytes, Page
from services.order import repository
from services.order.answers import location_of
from services.order.cancellation import cancel
from services.order.carts import Carts
from services.order.checkout import Checkout
from services.order.domain import OrderNotFound, PaymentDeclined, ProductNotFound, Status, Superseded, moved
from services.order.events import StatusFeed
from services.order.repository import Orders
from services.order.saga import Saga, now
from services.order.schemas import CartAnswer, CartQuantity, NewOrder, OrderAnswer, order_json
from services.order.settings import OrderSettings

cart = APIRouter(prefix="/api/v1/cart", tags=["cart"], responses=documented(Unauthenticated))
orders = APIRouter(prefix="/api/v1/orders", tags=["orders"], responses=documented(Unauthenticated))
internal = APIRouter(prefix="/internal/v1", tags=["between services"], responses=documented(Unauthenticated, Forbidden))


async def _carts(request: Request) -> Carts:
    return request.app.state.carts


async def _orders(request: Request) -> Orders:
    return request.app.state.orders


async def _saga(request: Request) -> Saga:
    return request.app.state.saga


async def _settings(request: Request) -> OrderSettings:
    return request.app.state.settings


TheCarts = Annotated[Carts, Depends(_carts)]
TheOrders = Annotated[Orders, Depends(_orders)]
TheSaga = Annotated[Saga, Depends(_saga)]
TheSettings = Annotated[OrderSettings, Depends(_settings)]


@cart.get("")
async def get_cart(principal: Shopper, carts: TheCarts) -> CartAnswer:
    """The caller's cart, priced live; what is gone or short is marked."""
    return await carts.get(principal.user_id)


@cart.put("/items/{product_id}", responses=documented(ProductNotFound))
async def put_cart_item(product_id: UUID, item: CartQuantity, principal: Shopper, carts: TheCarts) -> CartAnswer:
    """Set how many of a product the cart holds."""
    return await carts.put(principal.user_id, product_id, item.quantity)


@cart.delete("/items/{product_id}", status_code=204)
async def delete_cart_item(product_id: UUID, principal: Shopper, database: Autocommit) -> None:
    """Take a product out of the cart; one that is not there is no error."""
    await repository.remove_item(database, principal.user_id, product_id)


@cart.delete("", status_code=204)
async def delete_cart(principal: Shopper, database: Autocommit) -> None:
    """Empty the cart."""
    await repository.empty_cart(database, principal.user_id)


ORDER: dict[int | str, dict[str, Any]] = {200: {"model": OrderAnswer}}
PLACED: dict[int | str, dict[str, Any]] = {
    201: {"model": OrderAnswer, "description": "Confirmed; `Location` is where the order is read"},
    202: {"model": OrderAnswer, "description": "The outcome is not known yet; poll `Location`"},
    **documented(
        IdempotencyKeyMissing,
        IdempotencyKeyInvalid,
        PaymentDeclined,
        InsufficientStock,
        RequestInProgress,
        IllegalTransition,
        IdempotencyKeyReused,
    ),
}


@orders.post("", status_code=201, response_model=None, responses=PLACED)
async def place_order(
    wanted: NewOrder,
    principal: Shopper,
    key: RequiredKey,
    request: Request,
) -> Response:
    """Order the items, or the cart where there are none; once for one `Idempotency-Key`."""
    checkout: Checkout = request.app.state.checkout
    outcome = await checkout.place(principal.user_id, wanted, key, fingerprint(await request.json()))
    return outcome.answer.response(replayed=outcome.replayed)


async def _whose(principal: Shopper, everyone: bool = False) -> UUID | None:
    if not everyone:
        return principal.user_id
    if principal.role != "admin":
        raise Forbidden
    return None


Whose = Annotated[UUID | None, Depends(_whose)]
"""Whose orders are listed: the caller's, or with `everyone=true` all of them, which only an admin may see."""


@orders.get("", responses={200: {"model": Page[OrderAnswer]}, **documented(InvalidCursor, Forbidden)})
async def list_orders(
    whose: Whose,
    orders: TheOrders,
    status: Status | None = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> JsonBytes:
    """The caller's orders, newest first; an admin's `everyone=true` lists all customers'.

    A page of everyone's orders of one `status` may hold fewer than `limit`, and goes on while there is a `next_cursor`.
    """
    query = {"list": "orders of everyone" if whose is None else "orders", "status": status}
    before = _position(decode_cursor(cursor, query)) if cursor else None
    if whose is None:
        found, last = await orders.page_of_everyone(status, before, limit)
    else:
        found = await orders.page(whose, status, before, limit + 1)
        last = found[limit - 1].id if len(found) > limit else None
    after = b"null" if last is None else b'"%b"' % encode_cursor([last], query).encode("ascii")
    documents = b",".join([order_json(order) for order in found[:limit]])
    return JsonBytes(b'{"items":[%b],"next_cursor":%b}' % (documents, after))


def _position(position: list[Any]) -> UUID:
    try:
        (order_id,) = position
        return UUID(order_id)
    except (ValueError, TypeError, AttributeError):
        raise InvalidCursor from None


@orders.get("/{order_id}", responses={**ORDER, **documented(OrderNotFound)})
async def get_order(order_id: UUID, principal: Shopper, orders: TheOrders) -> JsonBytes:
    """One order; an admin may read anybody's."""
    return JsonBytes(order_json(await orders.get_for(order_id, principal.user_id, any_user=principal.is_admin)))


@orders.post(
    "/{order_id}/cancel",
    response_model=None,
    responses={
        200: {"model": OrderAnswer, "description": "Cancelled"},
        202: {"model": OrderAnswer, "description": "Being cancelled; poll the order"},
        **documented(OrderNotFound, IllegalTransition),
    },
)
async def cancel_order(
    order_id: UUID, principal: Shopper, orders: TheOrders, saga: TheSaga, settings: TheSettings
) -> Response:
    """Cancel before shipping: what was captured is refunded, the stock goes back."""
    order = await cancel(orders, saga, order_id, principal, settings.checkout_budget_s)
    ended = order.status is Status.CANCELLED
    return JsonBytes(order_json(order), 200 if ended else 202, {"Location": location_of(order)})


@orders.post("/{order_id}/ship", responses={**ORDER, **documented(Forbidden, OrderNotFound, IllegalTransition)})
async def ship_order(order_id: UUID, principal: Admin, orders: TheOrders) -> JsonBytes:
    """Note that a confirmed order was shipped."""
    return await _moved(orders, order_id, principal, Status.SHIPPED)


@orders.post("/{order_id}/deliver", responses={**ORDER, **documented(Forbidden, OrderNotFound, IllegalTransition)})
async def deliver_order(order_id: UUID, principal: Admin, orders: TheOrders) -> JsonBytes:
    """Note that a shipped order was delivered."""
    return await _moved(orders, order_id, principal, Status.DELIVERED)


async def _moved(orders: Orders, order_id: UUID, principal: Principal, to: Status) -> JsonBytes:
    """Have an admin move the order on."""
    while True:
        order = await orders.get_for(order_id, principal.user_id, any_user=True)
        try:
            return JsonBytes(order_json(await orders.settle(order, moved(order, to, now()), None)))
        except Superseded:
            continue  # changed since it was read: decide again on what it is now


@orders.get(
    "/{order_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "The status as it changes",
        },
        **documented(OrderNotFound),
    },
)
async def follow_order(
    order_id: UUID, principal: Shopper, orders: TheOrders, request: Request, last_event_id: Annotated[int, Header()] = 0
) -> StreamingResponse:
    """The order's status as it changes, as server-sent events; ends after a final status."""
    feed: StatusFeed = request.app.state.feed
    order = await orders.get_for(order_id, principal.user_id, any_user=principal.is_admin)
    feed.admit(principal.user_id)
    request.scope[STREAM] = True
    events = feed.follow(order, principal.user_id, max(0, last_event_id))
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@internal.get("/audit", response_class=StreamingResponse)
async def audit(_: Auditor, database: Autocommit) -> StreamingResponse:
    """What this service believes: its orders, an NDJSON line each, as of one moment."""
    return await ndjson(database, repository.AUDIT)
