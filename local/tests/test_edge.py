"""What the edge of local mode makes of a request's target. tests/contract asks whichever edge the shop has."""

import pytest
from starlette.types import Message, Scope

from local.edge import NOT_PAGES, STOREFRONT, Edge, routed


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/", STOREFRONT),
        ("/products/1", STOREFRONT),
        ("/apiary", STOREFRONT),
        ("/metrics-of", STOREFRONT),
        ("/api/v1/products/1", "product"),
        ("/docs", "user"),
        ("/docs/order/openapi.json", "order"),
        ("/api/v1/nothing", None),
        ("/docs/nothing", None),
        *((f"/{name}", None) for name in NOT_PAGES if name != "docs"),
        *((f"/{name}/below", None) for name in NOT_PAGES),
        ("*", None),
        ("", None),
    ],
)
def test_a_path_is_one_services_the_storefronts_or_nobodys(path: str, service: str | None) -> None:
    assert routed(path) == service


async def test_a_request_about_the_whole_server_is_a_problem_and_no_crash() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "OPTIONS", "path": "*", "query_string": b"", "headers": []}
    await Edge({})(scope, receive, send)
    assert sent[0]["status"] == 404
    assert (b"content-type", b"application/problem+json") in sent[0]["headers"]
