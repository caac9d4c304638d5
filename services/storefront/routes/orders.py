"""Orders: what there are, and one with its status as it changes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import httpx2
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from chassis.app import STREAM
from services.storefront.clients import Refused
from services.storefront.pages import SECURITY, STATUSES, NoSuchPage, SignedIn, Visit
from services.storefront.routes.catalogue import cart_count

routes = APIRouter(prefix="/orders")

CANCELLABLE = frozenset({"pending", "reserved", "authorised", "confirmed"})
SHOWN = 20


@routes.get("")
async def orders(request: Request, visit: SignedIn) -> Response:
    """The orders of whoever is signed in, newest first."""
    status = request.query_params.get("status", "")
    page, _ = await asyncio.gather(
        visit.shop.get(
            "order",
            "/api/v1/orders",
            limit=SHOWN,
            status=status if status in STATUSES else None,
            cursor=request.query_params.get("cursor") or None,
        ),
        cart_count(visit),
    )
    return visit.page("orders.html", orders=page["items"], next_cursor=page["next_cursor"], status=status)


async def shown(visit: Visit, order_id: UUID, template: str, status: int = 200, **values: Any) -> Response:
    """An order's page."""
    try:
        found, payments, _ = await asyncio.gather(
            visit.shop.get("order", f"/api/v1/orders/{order_id}"),
            visit.shop.get("payment", "/api/v1/payments", order_id=order_id),
            cart_count(visit),
        )
    except Refused as refused:
        if refused.status != 404:
            raise
        raise NoSuchPage from None
    given: dict[str, Any] = {"problem": None, "placed": False}
    given.update(values)
    return visit.page(
        template,
        status,
        order=found,
        payments=payments["items"],
        cancellable=found["status"] in CANCELLABLE,
        final=found["status"] in {"delivered", "rejected", "cancelled"},
        **given,
    )


@routes.get("/{order_id}")
async def order(order_id: UUID, request: Request, visit: SignedIn) -> Response:
    """An order; `part=order` is its inside alone, for a script that was told of a change."""
    query = request.query_params
    template = "_order.html" if query.get("part") == "order" else "order.html"
    return await shown(visit, order_id, template, placed=query.get("placed") == "yes")


@routes.post("/{order_id}/cancel")
async def cancel(order_id: UUID, visit: SignedIn) -> Response:
    """Cancel an order: what was paid goes back."""
    try:
        await visit.shop.call("order", "POST", f"/api/v1/orders/{order_id}/cancel")
    except Refused as refused:
        if refused.status == 404:
            raise NoSuchPage from None
        if refused.code != "illegal-transition":
            raise
        problem = "It is too late to cancel this order: it is on its way."
        return await shown(visit, order_id, "order.html", 409, problem=problem)
    return visit.go_to(f"/orders/{order_id}")


@routes.get("/{order_id}/events")
async def events(order_id: UUID, request: Request, visit: SignedIn) -> Response:
    """The status as it changes (server-sent events), as the order service tells it, under the browser's cookie."""
    headers = {"Authorization": f"Bearer {visit.shop.access_token}", "Accept": "text/event-stream"}
    last = request.headers.get("last-event-id")
    if last is not None and last.isascii() and len(last) < 20:
        headers["Last-Event-ID"] = last
    opened = visit.services.stream("order", "GET", f"/api/v1/orders/{order_id}/events", headers)
    answer = await opened.__aenter__()
    if answer.status_code != 200:
        await opened.__aexit__(None, None, None)
        return visit.answer(Response(status_code=404 if answer.status_code == 404 else 503))
    request.scope[STREAM] = True
    stopping: asyncio.Event = request.app.stopping

    async def pieces() -> AsyncGenerator[bytes, None]:
        stop = asyncio.ensure_future(stopping.wait())
        source = answer.aiter_bytes()
        piece: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                piece = asyncio.ensure_future(anext(source, None))
                await asyncio.wait({piece, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    return
                content = piece.result()
                if content is None:
                    return
                yield content
        except httpx2.TransportError:
            return  # the replica that told it is gone: the browser opens another stream where this one ended
        finally:
            stop.cancel()
            if piece is not None:
                piece.cancel()
                await asyncio.gather(piece, return_exceptions=True)
            await opened.__aexit__(None, None, None)

    headers = SECURITY | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return visit.answer(StreamingResponse(pieces(), media_type="text/event-stream", headers=headers))
