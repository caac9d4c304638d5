"""A shop of processes that can be stopped, its admin, and people in front of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import pytest
from playwright.async_api import Browser, async_playwright

from drills.edge import ReverseProxy
from drills.platform import NotHere, Platform, Replica, Topology
from local.edge import STOREFRONT
from local.ports import free_ports
from local.seed import seed
from tests.browser import chromium
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import OBSERVE_SHIFTS, Visitor
from tests.promtool import not_here

REPLICAS = {"user": 1, "product": 2, "payment": 1, "order": 1, STOREFRONT: 2}

TIMEOUT_MS = 10_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need a browser."""
    for item in items:
        if "/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium, once for a worker; each visitor has a profile of their own."""
    try:
        chromium.program()
    except NotHere as missing:
        not_here(missing)
    async with async_playwright() as playwright:
        running = await chromium.launched(playwright)
        yield running
        await running.close()


@pytest.fixture(scope="session")
async def platform(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:  # noqa: ARG001 - nothing is started where there is no browser
    """The shop as processes behind an edge, with the demo catalogue."""
    demo = {service: {"SERVER_TIMING": "yes"} for service in REPLICAS}
    running = Platform(tmp_path_factory.mktemp("platform"), Topology(replicas=REPLICAS, environment=demo))
    try:
        await running.start()
        async with running.reached() as urls:
            network = ReverseProxy({service: [urls[service]] for service in ("user", "product")})
            try:
                await seed({"user": network, "product": network}, *running.admin, lambda _: None)
            finally:
                await network.aclose()
        yield running
    finally:
        await running.stop()


@pytest.fixture(scope="session")
async def shopkeeper(platform: Platform) -> AsyncIterator[Shopkeeper]:
    """The admin."""
    admin = Shopkeeper(platform.origin, *platform.admin)
    yield admin
    await admin.aclose()


class Stop(Protocol):
    """Stops all replicas of a service for as long as the block lasts."""

    def __call__(self, service: str) -> AbstractAsyncContextManager[None]: ...


@pytest.fixture
def stopped(platform: Platform) -> Stop:
    """What really stops a service: its processes are killed, and started again afterwards."""

    @asynccontextmanager
    async def stop(service: str) -> AsyncGenerator[None]:
        for replica in platform.of(service):
            replica.kill()
        try:
            yield
        finally:
            for replica in platform.of(service):
                await platform.restart(replica)

    return stop


@asynccontextmanager
async def one_more(platform: Platform, service: str, **settings: str) -> AsyncGenerator[str]:
    """One more process of a service, which the edge knows nothing of, with settings of its own: its origin."""
    like, *_ = platform.of(service)
    port = free_ports(1)
    environment = {**like.environment, "PORT": str(port), **settings}
    replica = Replica(
        service, len(platform.of(service)) + 1, port, platform.folder / f"{service}-apart.log", environment
    )
    replica.start()
    try:
        await platform.ready(replica)
        yield replica.url
    finally:
        await asyncio.to_thread(replica.end)


Come = Callable[..., Awaitable[Visitor]]
"""Somebody comes: `await come(viewport={"width": 320, "height": 640})`, with what Playwright's new_context() takes."""


@pytest.fixture
async def come(browser: Browser, platform: Platform) -> AsyncIterator[Come]:
    """Let people come, each with a browser profile of their own; afterwards nothing was complained of."""
    visitors: list[Visitor] = []
    async with AsyncExitStack() as stack:

        async def come(**options: Any) -> Visitor:
            given: dict[str, Any] = {"locale": "en-GB", "timezone_id": "Europe/London", **options}
            context = await browser.new_context(**given)
            stack.push_async_callback(context.close)
            context.set_default_timeout(TIMEOUT_MS)
            await context.add_init_script(OBSERVE_SHIFTS)
            visitor = Visitor(context, await context.new_page(), platform.origin)
            visitor.listen()
            visitors.append(visitor)
            return visitor

        yield come
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


@pytest.fixture
async def visitor(come: Come) -> Visitor:
    """Somebody who has just come."""
    return await come()
