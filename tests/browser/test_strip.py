"""The platform, visible: which replica answered, how long it took, and what a killed one looks like."""

import re

import httpx2
import pytest
from playwright.async_api import expect

from drills.platform import Platform
from local.edge import STOREFRONT
from tests.browser.conftest import Come, one_more
from tests.browser.visitor import Visitor


async def test_each_answer_says_which_replicas_gave_it(visitor: Visitor) -> None:
    answer = await visitor.context.request.get(f"{visitor.origin}/")
    fields = [header["value"] for header in answer.headers_array if header["name"].lower() == "server-timing"]
    timing = ", ".join(fields)
    for pattern in (
        r"app;dur=\d",
        r'replica;desc="[^"]+"',
        r'trace;desc="[0-9a-f]{32}"',
        r'product;dur=[\d.]+;desc="\S+ 0"',
    ):
        assert re.search(pattern, timing), timing


async def test_the_strip_shows_each_request_and_draws_the_last_minute(visitor: Visitor) -> None:
    await visitor.go("/")
    await visitor.page.locator("#strip summary").click()
    await expect(visitor.page.locator("#strip-now")).to_contain_text("product")
    await expect(visitor.page.locator("#strip-now")).to_contain_text(re.compile("trace [0-9a-f]{32}"))
    await expect(visitor.page.locator("#strip-minute figure").first).to_be_visible()
    assert await visitor.barriers() == []
    await visitor.go("/cart")
    await expect(visitor.page.locator("#strip-now")).to_contain_text("storefront")
    await expect(visitor.page.locator("#strip-minute")).to_contain_text("product")


async def bars(visitor: Visitor) -> dict[str, int]:
    """How many bars the strip has drawn for each replica."""
    found: dict[str, int] = {}
    for figure in await visitor.page.locator("#strip-minute figure").all():
        caption = await figure.locator("figcaption").inner_text()
        found[caption.partition(":")[0]] = await figure.locator("rect").count()
    return found


async def test_the_pulse_shows_that_requests_are_spread(visitor: Visitor, platform: Platform) -> None:
    await visitor.go("/")
    await visitor.page.locator("#strip summary").click()
    await visitor.page.locator("#strip-pulse").check()
    for replica in (*platform.of("product"), *platform.of(STOREFRONT)):
        figure = visitor.page.locator(
            "#strip-minute figure", has_text=re.compile(rf"^{replica.service} \S+:{replica.port}: ")
        )
        await expect(figure.locator("rect").nth(1)).to_be_attached(timeout=20_000)


@pytest.mark.parametrize("service", ["product", STOREFRONT])
async def test_a_killed_replica_is_seen_and_the_shop_goes_on(
    visitor: Visitor, platform: Platform, service: str
) -> None:
    await visitor.go("/")
    await visitor.page.locator("#strip summary").click()
    await visitor.page.locator("#strip-pulse").check()
    first, _ = platform.of(service)
    first.kill()
    try:
        before = sum((await bars(visitor)).values())
        await visitor.page.wait_for_function(
            "before => document.querySelectorAll('#strip-minute rect').length >= before + 8", arg=before, timeout=20_000
        )
    finally:
        await platform.restart(first)


async def test_outside_demo_settings_there_is_no_strip_no_module_and_no_header(come: Come, platform: Platform) -> None:
    async with one_more(platform, STOREFRONT, SERVER_TIMING="no") as origin:
        visitor = await come()
        visitor.origin = origin
        await visitor.go("/")
        await expect(visitor.page.locator("#strip")).to_have_count(0)
        assert "strip" not in await visitor.page.content()
        async with httpx2.AsyncClient() as client:
            assert "server-timing" not in (await client.get(origin)).headers
