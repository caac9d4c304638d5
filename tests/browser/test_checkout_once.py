"""However a checkout is sent, it is one order; and what went wrong is said, and nothing is lost."""

import asyncio
import re

from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Stop
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import PASSWORD, Visitor


async def at_the_checkout(visitor: Visitor, shopkeeper: Shopkeeper, method: str = "tok_visa") -> str:
    """A customer who has only to press the button, and the product that they want."""
    kettle = await shopkeeper.product(stock=5)
    await visitor.register()
    await visitor.put_in_cart(kettle["id"])
    await visitor.fill_checkout(method)
    return kettle["id"]


async def lose_the_answers(page: Page) -> asyncio.Event:
    """Let each form of the checkout reach the shop, and its answer get lost, until the event is set."""
    enough = asyncio.Event()

    async def lose(route: Route) -> None:
        if route.request.method != "POST" or enough.is_set():
            await route.continue_()
            return
        await route.fetch(max_redirects=0)
        await route.abort("connectionreset")

    await page.route("**/checkout", lose)
    return enough


async def ordered(visitor: Visitor, shopkeeper: Shopkeeper) -> int:
    """How many orders the customer has."""
    return len(await shopkeeper.orders_of(visitor.email, PASSWORD))


async def test_a_double_click_is_one_order(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    await at_the_checkout(visitor, shopkeeper, "tok_slow")
    await visitor.page.locator("#buy").dblclick()
    await expect(visitor.page).to_have_url(re.compile("/orders/"), timeout=20_000)
    assert await ordered(visitor, shopkeeper) == 1


async def test_a_form_that_is_sent_by_two_tabs_is_one_order(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    await at_the_checkout(visitor, shopkeeper)
    sent = await visitor.page.evaluate(
        """async () => {
            const body = new URLSearchParams(new FormData(document.querySelector("#checkout")));
            const send = () => fetch("/checkout", {method: "POST", body});
            return (await Promise.all([send(), send(), send()])).map((answer) => answer.url);
        }"""
    )
    assert any("/orders/" in url for url in sent)
    assert await ordered(visitor, shopkeeper) == 1


async def test_a_reload_while_it_is_sent_is_one_order(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    await at_the_checkout(visitor, shopkeeper, "tok_slow")
    async with visitor.page.expect_request(lambda request: request.method == "POST"):
        await visitor.page.locator("#buy").click(no_wait_after=True)
    await visitor.page.reload()
    await expect(visitor.page.locator("#checkout-status")).to_contain_text("it is one order")
    await visitor.page.locator("#buy").click()
    await expect(visitor.page).to_have_url(re.compile("/orders/"), timeout=20_000)
    assert await ordered(visitor, shopkeeper) == 1


async def test_going_back_and_sending_it_again_is_the_same_order(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    await at_the_checkout(visitor, shopkeeper)
    await visitor.send("/checkout")
    await expect(visitor.page).to_have_url(re.compile("/orders/"))
    path = visitor.path
    await visitor.page.go_back()
    if await visitor.page.locator("#buy").is_visible():
        await visitor.page.locator("#buy").click()
        await expect(visitor.page).to_have_url(re.compile(f"{path}|/cart"))
    assert await ordered(visitor, shopkeeper) == 1


async def test_a_connection_that_is_lost_in_the_middle_loses_nothing(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    await at_the_checkout(visitor, shopkeeper)
    await visitor.context.set_offline(True)
    await visitor.page.locator("#buy").click(no_wait_after=True)
    await expect(visitor.page.locator("#checkout-status")).to_contain_text("no connection")
    await expect(visitor.page.locator("[name=line1]")).to_have_value("12 St James Square")
    assert await ordered(visitor, shopkeeper) == 0
    await visitor.context.set_offline(False)
    await visitor.page.locator("#buy").click()
    await expect(visitor.page).to_have_url(re.compile("/orders/"))
    assert await ordered(visitor, shopkeeper) == 1


async def test_an_order_that_was_sent_in_vain_is_not_shown_to_whoever_comes_next(
    visitor: Visitor, shopkeeper: Shopkeeper
) -> None:
    kettle = await shopkeeper.product()
    await visitor.register()
    await visitor.put_in_cart(kettle["id"])
    await visitor.fill_checkout()
    await visitor.context.set_offline(True)
    await visitor.send("/checkout")
    await expect(visitor.page.locator("#buy")).to_have_text("Send it again")
    await visitor.context.set_offline(False)
    await visitor.go("/account")
    await visitor.send("/sign-out")
    await expect(visitor.page.get_by_role("link", name="Sign in")).to_be_visible()
    visitor.email = f"grace-{visitor.email}"
    await visitor.register()
    await visitor.put_in_cart(kettle["id"])
    await visitor.go("/checkout")
    await expect(visitor.page.locator("main [name=line1]")).to_have_value("")
    await expect(visitor.page.locator("#buy")).to_have_text("Buy now")


async def test_an_answer_that_is_lost_is_asked_for_again_and_is_the_same_order(
    visitor: Visitor, shopkeeper: Shopkeeper
) -> None:
    await at_the_checkout(visitor, shopkeeper)
    enough = await lose_the_answers(visitor.page)
    await visitor.page.locator("#buy").click(no_wait_after=True)
    await expect(visitor.page.locator("#buy")).to_have_text("Send it again")
    assert await ordered(visitor, shopkeeper) == 1
    enough.set()
    await visitor.page.locator("#buy").click()
    await expect(visitor.page).to_have_url(re.compile("/orders/"), timeout=20_000)
    assert await ordered(visitor, shopkeeper) == 1


async def test_a_price_that_changed_is_shown_before_anything_is_ordered(
    visitor: Visitor, shopkeeper: Shopkeeper
) -> None:
    product_id = await at_the_checkout(visitor, shopkeeper)
    await shopkeeper.reprice(product_id, 2499)
    await visitor.send("/checkout")
    await expect(visitor.page.get_by_role("alert")).to_contain_text("Nothing was ordered")
    await expect(visitor.page.locator(".sum .total data")).to_have_attribute("value", "2499")
    assert await ordered(visitor, shopkeeper) == 0
    await visitor.send("/checkout")
    await expect(visitor.page).to_have_url(re.compile("/orders/"))
    (order,) = await shopkeeper.orders_of(visitor.email, PASSWORD)
    assert order["total"]["amount_minor"] == 2499


async def test_a_product_that_somebody_else_was_quicker_to_buy(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    lamp = await shopkeeper.product(name="A lamp that stays", stock=5, price_minor=500)
    product_id = await at_the_checkout(visitor, shopkeeper)
    await visitor.put_in_cart(lamp["id"])
    await visitor.fill_checkout()
    await shopkeeper.move_stock(product_id, -5)
    await visitor.send("/checkout")
    await expect(visitor.page.get_by_role("alert").first).to_contain_text(re.compile("had|quicker|changed"))
    assert "confirmed" not in {each["status"] for each in await shopkeeper.orders_of(visitor.email, PASSWORD)}
    await visitor.send("/cart/without-marked")
    await visitor.fill_checkout()
    await visitor.send("/checkout")
    await expect(visitor.page).to_have_url(re.compile("/orders/"))
    newest, *_ = await shopkeeper.orders_of(visitor.email, PASSWORD)
    assert [line["product_id"] for line in newest["lines"]] == [lamp["id"]]


async def test_an_order_service_that_is_stopped_loses_nothing_and_one_button_goes_on(
    visitor: Visitor, shopkeeper: Shopkeeper, stopped: Stop
) -> None:
    await at_the_checkout(visitor, shopkeeper)
    key = await visitor.page.locator("#checkout [name=key]").input_value()
    async with stopped("order"):
        await visitor.page.locator("#buy").click()
        await expect(visitor.page.get_by_role("alert")).to_contain_text("order service", timeout=20_000)
        assert await visitor.page.locator("#checkout [name=key]").input_value() == key
    await visitor.page.locator("#buy").click()
    await expect(visitor.page).to_have_url(re.compile("/orders/"), timeout=20_000)
    (order,) = await shopkeeper.orders_of(visitor.email, PASSWORD)
    assert order["address"]["line1"] == "12 St James Square"


async def test_a_payment_service_that_is_stopped_leaves_an_order_that_comes_to_an_end(
    visitor: Visitor, shopkeeper: Shopkeeper, stopped: Stop
) -> None:
    await at_the_checkout(visitor, shopkeeper)
    async with stopped("payment"):
        await visitor.page.locator("#buy").click()
        await expect(visitor.page).to_have_url(re.compile("/orders/"), timeout=30_000)
    await visitor.page.reload()
    await expect(visitor.page.locator("#order .badge")).to_contain_text("Confirmed", timeout=60_000)
    assert await ordered(visitor, shopkeeper) == 1


async def test_an_order_whose_answer_was_lost_is_not_made_twice_by_a_cart_that_changed(
    visitor: Visitor, shopkeeper: Shopkeeper
) -> None:
    lamp = await shopkeeper.product(price_minor=500)
    await at_the_checkout(visitor, shopkeeper)
    lost = await lose_the_answers(visitor.page)
    await visitor.page.locator("#buy").click(no_wait_after=True)
    await expect(visitor.page.locator("#buy")).to_have_text("Send it again")
    other = await visitor.another_tab(f"/products/{lamp['id']}")
    await other.locator(f"form[action='/cart/items/{lamp['id']}/add'] button").click()
    await expect(other.locator("#cart-count")).to_have_text(re.compile("1$"))
    lost.set()
    await visitor.page.locator("#buy").click()
    await expect(visitor.page.get_by_role("alert")).to_contain_text("It may have been placed")
    assert await ordered(visitor, shopkeeper) == 1
