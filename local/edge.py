"""The edge of local mode: routes by path prefix, rewrites nothing, and lets nothing internal through."""

from collections.abc import Mapping

from starlette.responses import RedirectResponse
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


def routed(path: str) -> str | None:
    """Return the service that answers a path, or none where the edge routes it to nobody."""
    return ROUTES.get("/".join(path.split("/", 4)[: 3 if path.startswith("/docs") else 4]))


async def answer_itself(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what the edge routes to nobody: the root leads to the documentation, anything else is not found."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    context = Context(request_id=headers.get("x-request-id"), traceparent=headers.get("traceparent"))
    token = current.set(context)
    answer = RedirectResponse("/docs") if scope["path"] == "/" else ProblemResponse(NotFound(), scope["path"])
    current.reset(token)
    answer.headers["X-Request-Id"] = context.request_id
    await answer(scope, receive, send)


class Edge:
    """An ASGI application in front of the four services."""

    def __init__(self, services: Mapping[str, ASGIApp]) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        service = routed(scope["path"])
        if service is None:
            await answer_itself(scope, receive, send)
        else:
            await self._services[service](scope, receive, send)
