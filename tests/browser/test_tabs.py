"""Several tabs of one browser, and a sign-in that runs out while somebody shops."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

from playwright.async_api import Browser, async_playwright, expect

from drills.platform import Platform
from tests.browser import chromium
from tests.browser.conftest import Come, Stop
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import Visitor


async def test_a_token_that_ran_out_is_renewed_unseen(visitor: Visitor) -> None:
    await visitor.register()
    await visitor.context.clear_cookies(name="souk_access")
    await visitor.go_and_settle("/orders")
    await expect(visitor.page).to_have_url(re.compile("/orders$"))
    await expect(visitor.page.locator("h1")).to_have_text("Your orders")


async def test_tabs_that_come_at_once_after_a_long_time_stay_signed_in_all(visitor: Visitor) -> None:
    await visitor.register()
    tabs = [visitor.page, *[await visitor.another_tab("/") for _ in range(3)]]
    await visitor.context.clear_cookies(name="souk_access")
    await asyncio.gather(*(tab.goto(f"{visitor.origin}/account", wait_until="commit") for tab in tabs))
    for tab in tabs:
        await expect(tab.locator("h1")).to_have_text("Your account")
    await visitor.context.clear_cookies(name="souk_access")
    await visitor.go_and_settle("/account")
    await expect(visitor.page.locator("h1")).to_have_text("Your account")


async def test_what_a_page_asks_for_at_once_after_a_long_time_does_not_sign_out(
    visitor: Visitor, shopkeeper: Shopkeeper
) -> None:
    paths = ["/?part=results", *[f"/pictures/{(await shopkeeper.product())['id']}" for _ in range(5)]]
    await visitor.register()
    await visitor.go("/")
    await visitor.context.clear_cookies(name="souk_access")
    asked = "paths => Promise.all(paths.map(async path => (await fetch(path, {cache: 'no-store'})).status))"
    assert await visitor.page.evaluate(asked, paths) == [200] * 6
    await visitor.go_and_settle("/account")
    await expect(visitor.page.locator("h1")).to_have_text("Your account")


async def test_a_browser_on_another_machine_without_https_is_renewed_too(browser: Browser, platform: Platform) -> None:
    assert browser.is_connected()  # so there is one here
    origin = platform.origin.replace("127.0.0.1", "shop.example")
    async with async_playwright() as playwright:
        elsewhere = await chromium.launched(playwright, "--host-resolver-rules=MAP shop.example 127.0.0.1")
        async with elsewhere:
            context = await elsewhere.new_context()
            visitor = Visitor(context, await context.new_page(), origin)
            visitor.listen()
            await visitor.register()
            assert not await visitor.page.evaluate("isSecureContext || 'locks' in navigator")
            await context.clear_cookies(name="souk_access")
            await visitor.go_and_settle("/account")
            await expect(visitor.page.locator("h1")).to_have_text("Your account")
            unasked = "Cross-Origin-Opener-Policy"  # which the browser says it passes over there
            assert [complaint for complaint in visitor.complaints if unasked not in complaint] == []


async def test_two_tabs_fill_one_cart(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle, lamp = await shopkeeper.product(), await shopkeeper.product(price_minor=500)
    other = await visitor.another_tab(f"/products/{lamp['id']}")
    await visitor.put_in_cart(kettle["id"])
    await other.locator(f"form[action='/cart/items/{lamp['id']}/add'] button").click()
    await expect(other.locator("#cart-count")).to_have_text(re.compile("2$"))
    await visitor.go("/cart")
    await expect(visitor.page.locator(".lines .line")).to_have_count(2)


async def test_who_signs_out_in_one_tab_is_asked_to_sign_in_in_the_other(visitor: Visitor) -> None:
    await visitor.register()
    other = await visitor.another_tab("/account")
    await visitor.go("/account")
    await visitor.send("/sign-out")
    await expect(visitor.page.get_by_role("link", name="Sign in")).to_be_visible()
    await other.reload()
    await expect(other).to_have_url(re.compile("/sign-in"))


async def test_back_and_forward_show_what_was_there(visitor: Visitor) -> None:
    await visitor.go("/?q=kettle")
    found = await visitor.page.locator("#grid .card").count()
    await visitor.page.locator("#grid .card a").first.click()
    await expect(visitor.page).to_have_url(re.compile("/products/"))
    product = visitor.path
    await visitor.page.go_back()
    await expect(visitor.page.locator("#grid .card")).to_have_count(found)
    await expect(visitor.page.locator("#q")).to_have_value("kettle")
    await visitor.page.go_forward()
    await expect(visitor.page).to_have_url(re.compile(product))


async def test_a_browser_whose_clock_is_late_is_renewed_and_not_led_in_a_circle(come: Come) -> None:
    visitor = await come()
    await visitor.page.clock.install(time=datetime.now(UTC) - timedelta(hours=2))
    await visitor.register()
    await visitor.context.clear_cookies(name="souk_access")
    await visitor.go_and_settle("/orders")
    await expect(visitor.page.locator("h1")).to_have_text("Your orders")


async def test_a_browser_whose_clock_is_ahead_does_not_renew_without_an_end(come: Come) -> None:
    visitor = await come()
    renewals: list[str] = []
    visitor.page.on("request", lambda request: renewals.append(request.url) if request.method == "POST" else None)
    await visitor.page.clock.install(time=datetime.now(UTC) + timedelta(hours=2))
    await visitor.register()
    await visitor.go("/account")
    renewals.clear()
    for _ in range(60):
        await visitor.page.clock.run_for(1000)
    assert len(renewals) <= 1
    await visitor.go("/account")
    await expect(visitor.page.locator("h1")).to_have_text("Your account")


async def test_who_signed_in_sees_what_became_of_it_while_the_user_service_is_stopped(
    visitor: Visitor, stopped: Stop
) -> None:
    await visitor.register()
    await visitor.context.clear_cookies(name="souk_access")
    async with stopped("user"):
        await visitor.go("/orders")
        await expect(visitor.page.locator("#renew-status")).to_contain_text("does not answer")
    await visitor.page.locator("#renew button").click()
    await expect(visitor.page.locator("h1")).to_have_text("Your orders")
