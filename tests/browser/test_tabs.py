"""Several tabs of one browser, and a sign-in that runs out while somebody shops."""

import asyncio
import re

from playwright.async_api import expect

from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import Visitor


async def test_a_token_that_ran_out_is_renewed_unseen(visitor: Visitor) -> None:
    await visitor.register()
    await visitor.context.clear_cookies(name="souk_access")
    await visitor.go("/orders")
    await expect(visitor.page).to_have_url(re.compile("/orders$"))
    await expect(visitor.page.locator("h1")).to_have_text("Your orders")


async def test_tabs_that_come_at_once_after_a_long_time_stay_signed_in_all(visitor: Visitor) -> None:
    await visitor.register()
    tabs = [visitor.page, *[await visitor.another_tab("/") for _ in range(3)]]
    await visitor.context.clear_cookies(name="souk_access")
    await asyncio.gather(*(tab.goto(f"{visitor.origin}/account") for tab in tabs))
    for tab in tabs:
        await expect(tab.locator("h1")).to_have_text("Your account")
    await visitor.context.clear_cookies(name="souk_access")
    await visitor.go("/account")
    await expect(visitor.page.locator("h1")).to_have_text("Your account")


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
