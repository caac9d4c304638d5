"""The edge of local mode: routes by path prefix, rewrites nothing, and lets nothing internal through."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.context import Context, current
from chassis.problems import NotFound, ProblemResponse

ROUTES = {
    "/api/v1/auth": "user",
    "/api/v1/users": "user",
    "/api/v1/products": "product",
    "/api/v1/categories": "product",
    "/api/v1/payments": "payment",
    "/api/v1/cart": "order",
    "/api/v1/orders": "order",
    "/docs/user": "user",
    "/docs/product": "product",
    "/docs/payment": "payment",
    "/docs/order": "order",
    "/docs": "user",
}
"""Path prefixes and the services that answer them. A prefix ends at a slash: `/api/v1/users` is not
`/api/v1/users-of`.
"""
STOREFRONT = "storefront"
"""Who answers every other path, but for those that begin with one of NOT_PAGES."""
NOT_PAGES = ("api", "docs", "internal", "livez", "readyz", "metrics")
"""What is never a page: below the first two only ROUTES is public, and the others are for the inside."""


def routed(path: str) -> str | None:
    """Return the service that answers a path, or none where the edge routes it to nobody."""
    if not path.startswith("/"):
        return None  # `OPTIONS *` asks about the whole server, and the shop has no such page
    parts = path.split("/", 4)
    service = ROUTES.get("/".join(parts[: 3 if path.startswith("/docs") else 4]))
    return STOREFRONT if service is None and parts[1] not in NOT_PAGES else service


async def answer_itself(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what the edge routes to nobody."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    context = Context(request_id=headers.get("x-request-id"), traceparent=headers.get("traceparent"))
    token = current.set(context)
    answer = ProblemResponse(NotFound(), scope["path"])
    current.reset(token)
    answer.headers["X-Request-Id"] = context.request_id
    await answer(scope, receive, send)


class Edge:
    """An ASGI application in front of the services, with the storefront or without."""

    def __init__(self, services: Mapping[str, ASGIApp]) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        service = self._services.get(routed(scope["path"]) or "", answer_itself)
        await service(scope, receive, send)
