"""Reading and buying without JavaScript: forms and links alone."""

import re

from playwright.async_api import expect

from tests.browser.conftest import Come
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import PASSWORD


async def test_the_purchase_works_without_javascript(come: Come, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product(name="A kettle without scripts", stock=5)
    visitor = await come(java_script_enabled=False)
    page = visitor.page
    await visitor.go("/")
    await page.locator("#q").fill("a kettle without scripts")
    await page.locator("form[role=search] button").click()
    await page.locator(f"#grid a[href='/products/{kettle['id']}']").click()
    await visitor.fill(quantity="2")
    await visitor.send(f"/cart/items/{kettle['id']}/add")
    await expect(page).to_have_url(re.compile("/cart"))
    await expect(page.locator(".sum data.price")).to_have_attribute("value", str(2 * 1999))
    await page.locator(".sum a[href='/checkout']").click()
    await page.get_by_role("link", name="Open an account").click()
    await visitor.fill(name="Ada Lovelace", email=visitor.email, password=PASSWORD)
    await visitor.send("/register")
    await visitor.fill_checkout("tok_declined")
    await visitor.send("/checkout")
    await expect(page.get_by_role("alert")).to_contain_text("Nothing was charged")
    await visitor.choose("payment_method", "tok_visa")
    await visitor.send("/checkout")
    await expect(page).to_have_url(re.compile("/orders/"))
    await expect(page.locator("#order .badge")).to_contain_text("Confirmed")
    await visitor.send(f"{visitor.path}/cancel")
    await expect(page.locator("#order .badge")).to_contain_text("Cancelled")


async def test_pages_are_turned_without_javascript(come: Come) -> None:
    visitor = await come(java_script_enabled=False)
    await visitor.go("/")
    first = await visitor.page.locator("#grid .card a").first.get_attribute("href")
    await visitor.page.locator("#more").click()
    await expect(visitor.page).to_have_url(re.compile("cursor="))
    assert await visitor.page.locator("#grid .card a").first.get_attribute("href") != first
    await visitor.page.go_back()
    assert await visitor.page.locator("#grid .card a").first.get_attribute("href") == first


async def test_who_was_away_for_long_goes_on_by_a_button(come: Come) -> None:
    visitor = await come(java_script_enabled=False)
    await visitor.register()
    await visitor.context.clear_cookies(name="souk_access")
    await visitor.go("/orders")
    await visitor.page.locator("main form button").first.click()
    await expect(visitor.page).to_have_url(re.compile("/orders$"))
