"""All of the purchase by keyboard, and what a screen reader is told on the way."""

import re

from playwright.async_api import Page, expect

from tests.browser.conftest import Come
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import ADDRESS, PASSWORD, Visitor

MOST_STEPS = 120


async def tab_to(page: Page, selector: str) -> None:
    """Press the tabulator until an element has the focus, which is seen wherever it is."""
    for _ in range(MOST_STEPS):
        await page.keyboard.press("Tab")
        seen = await page.evaluate(
            """(selector) => {
                const focused = document.activeElement;
                if (!focused || focused === document.body) return "";
                const style = getComputedStyle(focused);
                const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
                if (!ring && style.boxShadow === "none") return `no focus to be seen: ${focused.outerHTML.slice(0, 200)}`;
                return focused.matches(selector) ? "there" : "";
            }""",
            selector,
        )
        assert not seen.startswith("no focus"), seen
        if seen == "there":
            return
    raise AssertionError(f"{selector} is not reached by the tabulator")


async def test_the_purchase_by_keyboard_alone(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    kettle = await shopkeeper.product(name="A kettle by keyboard", stock=5)
    page = visitor.page
    await visitor.go("/")
    await tab_to(page, "#q")
    await page.keyboard.type("kettle by keyboard")
    await page.keyboard.press("Enter")
    await expect(page.locator(f"#grid a[href='/products/{kettle['id']}']")).to_be_visible()
    await tab_to(page, f"#grid a[href='/products/{kettle['id']}']")
    await page.keyboard.press("Enter")
    await expect(page.locator("h1")).to_have_text("A kettle by keyboard")
    await tab_to(page, f"form[action='/cart/items/{kettle['id']}/add'] button")
    await page.keyboard.press("Enter")
    await expect(page.locator("#cart-count")).to_have_text(re.compile("1$"))
    await visitor.go("/cart")
    await tab_to(page, "a[href='/checkout']")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/sign-in"))
    await tab_to(page, "main a[href^='/register']")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/register"))
    for name, value in (("name", "Ada Lovelace"), ("email", visitor.email), ("password", PASSWORD)):
        await tab_to(page, f"main [name={name}]")
        await page.keyboard.type(value)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/checkout"))
    for name in ("name", "line1", "postal_code", "city", "country"):
        await tab_to(page, f"main [name={name}]")
        await page.keyboard.type(ADDRESS[name])
    await tab_to(page, "main [name=payment_method]")
    await page.keyboard.press("ArrowDown")
    await tab_to(page, "#buy")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/orders/"))
    await expect(page.locator("#order .badge")).to_contain_text("Confirmed")


async def test_the_skip_link_leads_past_the_head(visitor: Visitor) -> None:
    await visitor.go("/")
    await visitor.page.keyboard.press("Tab")
    await expect(visitor.page.locator("a.skip")).to_be_focused()
    await expect(visitor.page.locator("a.skip")).to_be_in_viewport()
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.locator("main")).to_be_focused()


async def test_names_and_landmarks_are_what_a_screen_reader_needs(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    await visitor.go("/")
    for role in ("banner", "main", "contentinfo", "search"):
        await expect(visitor.page.get_by_role(role)).to_have_count(1)
    await expect(visitor.page.get_by_role("heading", level=1)).to_have_count(1)
    kettle = await shopkeeper.product(name="A named kettle")
    await visitor.put_in_cart(kettle["id"])
    await visitor.go("/cart")
    await expect(visitor.page.get_by_role("spinbutton", name="How many: A named kettle")).to_have_value("1")
    await expect(visitor.page.get_by_role("button", name="Remove A named kettle")).to_be_visible()


async def test_what_a_search_found_is_told(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    await shopkeeper.product(name="Astrolabe")
    await visitor.go("/")
    await visitor.page.locator("#q").press_sequentially("astrolabe")
    await expect(visitor.page.get_by_role("status").filter(has_text="1 product for")).to_be_attached()


async def test_who_wants_no_motion_gets_none(come: Come) -> None:
    visitor = await come(reduced_motion="reduce")
    await visitor.go("/")
    moving = await visitor.page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((element) => {
            const style = getComputedStyle(element);
            const seconds = (text) => Math.max(...text.split(",").map((part) => parseFloat(part)));
            return seconds(style.transitionDuration) > 0.05 || seconds(style.animationDuration) > 0.05;
        }).map((element) => element.outerHTML.slice(0, 100))"""
    )
    assert moving == []
