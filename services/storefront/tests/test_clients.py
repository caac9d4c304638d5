"""What becomes of the storefront's calls: an answer, a refusal, or not known; each counted once."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from chassis.app import Application
from services.storefront.clients import Refused, Services, Shop, Unreachable
from services.storefront.settings import StorefrontSettings

NOT_FOUND = b'{"type": "https://souk.example/problems/product-not-found", "status": 404}'


def answer(status: int, body: bytes, content_type: str = "application/json", *, timing: str = "") -> bytes:
    """The bytes of a whole answer."""
    head = f"HTTP/1.1 {status} Answer\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}{timing}\r\n".encode() + body


@asynccontextmanager
async def shop_before(served: bytes | None) -> AsyncGenerator[tuple[Shop, Application]]:
    """A shop whose product service answers each request with these bytes and closes, or never where there are none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if served is None:
            await reader.read()
        else:
            writer.write(served)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = StorefrontSettings(product_url=f"http://127.0.0.1:{port}")
    application = Application("storefront", settings, None)
    services = Services(application, settings)
    try:
        yield Shop(services, None), application
    finally:
        await services.aclose()
        for pool in services.pools.values():
            await pool.aclose()
        server.close()


def counted(application: Application) -> dict[str, float]:
    """How many calls of the product service had which outcome, but for those that none had."""
    registry = application.telemetry.registry
    found = (
        (outcome, registry.get_sample_value("souk_peer_requests_total", {"peer": "product", "outcome": outcome}))
        for outcome in ("answered", "refused", "failed", "timeout", "unreachable")
    )
    return {outcome: count for outcome, count in found if count}


async def test_an_answer_is_its_json_and_what_it_told_of_itself() -> None:
    timing = 'server-timing: replica;desc="product-1:8002", retries;desc="2"\r\n'
    async with shop_before(answer(200, b'{"items": []}', timing=timing)) as (shop, application):
        assert await shop.get("product", "/api/v1/products", q="kettle", category=None) == {"items": []}
        assert counted(application) == {"answered": 1}
    (told,) = shop.told
    assert (told.service, told.replica, told.retries) == ("product", "product-1:8002", 2)


async def test_a_definite_no_is_refused_by_its_code() -> None:
    async with shop_before(answer(404, NOT_FOUND, "application/problem+json")) as (shop, application):
        with pytest.raises(Refused) as refused:
            await shop.get("product", "/api/v1/products/1")
        assert counted(application) == {"refused": 1}
    assert (refused.value.status, refused.value.code) == (404, "product-not-found")


@pytest.mark.parametrize(
    ("served", "outcome"),
    [
        (answer(503, b"{}"), "failed"),
        (answer(200, b"{no json"), "failed"),
        (b"220 mail.example ESMTP\r\n", "unreachable"),
        (b"", "unreachable"),
        (None, "timeout"),
    ],
    ids=["unavailable", "nonsense", "another protocol", "closing", "hanging"],
)
async def test_where_nothing_is_known_that_is_what_is_said(served: bytes | None, outcome: str) -> None:
    async with shop_before(served) as (shop, application):
        with pytest.raises(Unreachable):
            await shop.call("product", "POST", "/api/v1/products", {}, timeout_s=0.3)
        assert counted(application) == {outcome: 1}
