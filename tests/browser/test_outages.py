"""A part of the shop is really stopped: what a customer sees, and how it goes on."""

import re

import pytest
from playwright.async_api import expect

from drills.platform import Platform
from local.edge import STOREFRONT
from tests.browser.conftest import Stop
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import Visitor


async def test_shelves_without_the_product_service_say_so_and_one_button_goes_on(
    visitor: Visitor, stopped: Stop
) -> None:
    async with stopped("product"):
        assert await visitor.go("/") == 503
        await expect(visitor.page.locator("main")).to_contain_text("does not answer")
        assert await visitor.barriers() == []
    await visitor.page.locator("main a.button").click()
    await expect(visitor.page.locator("#grid .card").first).to_be_visible(timeout=15_000)


async def test_signing_in_without_the_user_service_says_so_and_works_afterwards(
    visitor: Visitor, stopped: Stop
) -> None:
    await visitor.register()
    await visitor.context.clear_cookies()
    async with stopped("user"):
        await visitor.go("/sign-in")
        await visitor.fill(email=visitor.email, password="correct horse battery staple")
        await visitor.send("/sign-in")
        await expect(visitor.page.locator("main")).to_contain_text("does not answer")
    await visitor.page.locator("main a.button").click()
    await visitor.sign_in(visitor.email, "correct horse battery staple")


async def test_who_is_signed_in_still_sees_the_shelves_without_the_user_service(
    visitor: Visitor, stopped: Stop
) -> None:
    await visitor.register()
    async with stopped("user"):
        assert await visitor.go("/") == 200
        await expect(visitor.page.locator("#grid .card").first).to_be_visible()


async def test_the_shelves_are_there_without_the_order_service(visitor: Visitor, stopped: Stop) -> None:
    await visitor.register()
    async with stopped("order"):
        assert await visitor.go("/") == 200
        await expect(visitor.page.locator("#grid .card").first).to_be_visible()
        assert await visitor.go("/cart") == 503


async def test_a_visitor_s_cart_outlives_every_service(visitor: Visitor, shopkeeper: Shopkeeper, stopped: Stop) -> None:
    kettle = await shopkeeper.product()
    await visitor.put_in_cart(kettle["id"], 3)
    async with stopped("product"):
        assert await visitor.go("/cart") == 503
    await visitor.go("/cart")
    await expect(visitor.page.locator(".line input[name=quantity]")).to_have_value("3", timeout=15_000)


async def test_a_storefront_that_is_killed_is_not_noticed(visitor: Visitor, platform: Platform) -> None:
    first, _ = platform.of(STOREFRONT)
    first.kill()
    try:
        for _ in range(6):
            assert await visitor.go("/") == 200
    finally:
        await platform.restart(first)


@pytest.mark.parametrize("token", ["good", "ended"])
async def test_an_order_s_page_goes_on_when_its_stream_was_cut(
    visitor: Visitor, shopkeeper: Shopkeeper, platform: Platform, token: str
) -> None:
    kettle = await shopkeeper.product()
    await visitor.register()
    path = await visitor.buy(kettle["id"])
    await expect(visitor.page.locator("#order .badge")).to_contain_text("Confirmed")
    if token == "ended":
        await visitor.context.clear_cookies(name="souk_access")
    for replica in platform.of(STOREFRONT):
        replica.kill()
    for replica in platform.of(STOREFRONT):
        await platform.restart(replica)
    await shopkeeper.call("POST", f"/api/v1{path}/ship", 200)
    await expect(visitor.page.locator("#order .badge")).to_contain_text("On its way", timeout=30_000)
    visitor.complaints.clear()  # the browser tells of the stream that was cut


@pytest.mark.parametrize(
    "path", ["/nothing-here", "/products/01890a5d-ac96-774b-bcce-b302099a8057", "/products/not-an-id"]
)
async def test_what_is_not_there_is_said_kindly(visitor: Visitor, path: str) -> None:
    assert await visitor.go(path) == 404
    await expect(visitor.page.locator("h1")).to_have_text(re.compile("Nothing here"))
    await visitor.page.locator("main a.button").click()
    await expect(visitor.page.locator("#grid .card").first).to_be_visible()
