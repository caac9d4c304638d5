"""Every page: without barriers in light and dark, as narrow as a phone, light, still, and asking nobody else."""

import re
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Response, expect

from tests.browser.conftest import Come
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import MOST_SHIFT, PASSWORD, Visitor

MOST_BYTES = 100_000
SMALLEST_TARGET_PX = 24
"""WCAG 2.2, 2.5.8."""
SMALL_TARGETS = """
(least) => [...document.querySelectorAll("button, input:not([type=hidden]), select, textarea, summary, nav a")]
  .filter((element) => element.checkVisibility() && element.getClientRects().length)
  .map((element) => [(element.closest("label") ?? element).getBoundingClientRect(), element.outerHTML.slice(0, 120)])
  .filter(([box]) => box.height < least || box.width < least)
  .map(([box, html]) => `${Math.round(box.width)}x${Math.round(box.height)} ${html}`)
"""
ANYBODY_S = ("/", "/?q=kettle", "/?q=nothing-of-that-name", "/sign-in", "/register", "/cart", "/no-such-page")
ONE_S_OWN = ("/cart", "/checkout", "/orders", "/account", "order", "address", "product")
STAFF_S = ("/admin", "/admin/products/new", "/admin/import", "/admin/orders", "product", "order")
Scheme = Literal["light", "dark"]


async def look(visitor: Visitor, path: str) -> None:
    """Open a page and see that nothing is in anybody's way there."""
    await visitor.go(path)
    await expect(visitor.page.locator("main")).to_be_visible()
    await visitor.page.wait_for_load_state("networkidle")
    assert await visitor.barriers() == [], path
    assert await visitor.scrolls_sideways() <= 0, path
    assert await visitor.shift() <= MOST_SHIFT, path
    small = await visitor.page.evaluate(SMALL_TARGETS, SMALLEST_TARGET_PX)
    assert small == [], path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_the_pages_of_anybody(come: Come, scheme: Scheme, width: int) -> None:
    visitor = await come(color_scheme=scheme, viewport={"width": width, "height": 800})
    for path in ANYBODY_S:
        await look(visitor, path)
    product = await visitor.page.context.request.get(f"{visitor.origin}/api/v1/products?limit=1")
    await look(visitor, f"/products/{(await product.json())['items'][0]['id']}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_the_pages_of_somebody_who_is_signed_in(
    come: Come, shopkeeper: Shopkeeper, scheme: Scheme, width: int
) -> None:
    visitor = await come(color_scheme=scheme, viewport={"width": width, "height": 800})
    kettle = await shopkeeper.product(
        name="Enamel kettle of two litres", description="For tea.", attributes={"colour": "blue"}
    )
    await visitor.register()
    await visitor.put_in_cart(kettle["id"])
    await visitor.fill_checkout()
    await visitor.send("/checkout")
    await expect(visitor.page).to_have_url(re.compile("/orders/"))
    order = visitor.path
    await visitor.put_in_cart(kettle["id"], 2)
    await visitor.go("/account")
    address = await visitor.page.locator("a[href^='/account/addresses/']").first.get_attribute("href") or ""
    own = {"order": order, "address": address, "product": f"/products/{kettle['id']}"}
    for path in ONE_S_OWN:
        await look(visitor, own.get(path, path))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
async def test_the_pages_of_staff(come: Come, shopkeeper: Shopkeeper, scheme: Scheme, width: int) -> None:
    buyer = await come()
    kettle = await shopkeeper.product()
    await buyer.register()
    order = await buyer.buy(kettle["id"])
    visitor = await come(color_scheme=scheme, viewport={"width": width, "height": 800})
    await visitor.sign_in(shopkeeper.email, shopkeeper.password)
    own = {"order": f"/admin{order}", "product": f"/admin/products/{kettle['id']}"}
    for path in STAFF_S:
        await look(visitor, own.get(path, path))


async def test_forms_with_something_wrong_in_them_have_no_barriers(visitor: Visitor) -> None:
    await visitor.go("/register")
    await visitor.page.locator("form[action='/register']").evaluate("form => form.setAttribute('novalidate', '')")
    await visitor.fill(name="", email="nobody", password="short")
    await visitor.send("/register")
    await expect(visitor.page.get_by_role("alert")).to_be_focused()
    await expect(visitor.page.locator("main [aria-invalid=true]")).to_have_count(3)
    for wrong in await visitor.page.locator("main [aria-invalid=true]").all():
        described = (await wrong.get_attribute("aria-describedby") or "").split()
        assert described
        assert await visitor.page.locator(f"#{described[0]}").is_visible()
    assert await visitor.barriers() == []


async def test_the_first_page_weighs_at_most_a_hundred_kilobytes(come: Come) -> None:
    visitor = await come()
    answers: list[Response] = []
    visitor.page.on("response", lambda answer: answers.append(answer))
    await visitor.go("/")
    await visitor.page.wait_for_load_state("networkidle")
    weights = {answer.url: (await answer.request.sizes())["responseBodySize"] for answer in answers}
    heads = sum([(await answer.request.sizes())["responseHeadersSize"] for answer in answers])
    total = sum(weights.values()) + heads
    assert total <= MOST_BYTES, (total, weights)
    assert {urlsplit(url).netloc for url in weights} == {urlsplit(visitor.origin).netloc}


async def test_what_is_static_is_kept_for_ever_and_pages_are_asked_for_anew(visitor: Visitor) -> None:
    answers: list[Response] = []
    visitor.page.on("response", lambda answer: answers.append(answer))
    await visitor.go("/")
    await visitor.page.wait_for_load_state("networkidle")
    static = [answer for answer in answers if "/static/" in answer.url]
    assert static
    for answer in static:
        assert re.search(r"\.[0-9a-f]{8,}\.(css|js|svg)$", urlsplit(answer.url).path), answer.url
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    page = await visitor.context.request.get(f"{visitor.origin}/")
    assert "no-cache" in page.headers["cache-control"]
    again = await visitor.context.request.get(f"{visitor.origin}/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status == 304


async def test_the_policy_lets_nothing_of_others_in(visitor: Visitor) -> None:
    answer = await visitor.context.request.get(f"{visitor.origin}/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    for kind in ("script-src", "style-src", "img-src", "connect-src", "form-action"):
        assert policy[kind] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    await visitor.go("/")
    inline = "document.querySelectorAll('script:not([src]), style, [style], [onclick], [onerror], [onload]').length"
    assert await visitor.page.evaluate(inline) == 0


@pytest.mark.parametrize(
    ("locale", "price", "date"),
    [
        ("en-GB", "US$1,234.50", r"\d{1,2} [A-Z][a-z]+ \d{4}"),
        ("de-DE", "1.234,50", r"\d\d\.\d\d\.\d{4}"),
        ("ja-JP", "1,234.50", r"\d{4}/\d\d/\d\d"),
    ],
)
async def test_prices_and_dates_are_the_browser_s(
    come: Come, shopkeeper: Shopkeeper, locale: str, price: str, date: str
) -> None:
    kettle = await shopkeeper.product(price_minor=123_450)
    visitor = await come(locale=locale)
    await visitor.go(f"/products/{kettle['id']}")
    await expect(visitor.page.locator("data.price")).to_contain_text(price)
    await visitor.register()
    await visitor.buy(kettle["id"])
    await expect(visitor.page.locator("main time").first).to_have_text(re.compile(date))
    assert await visitor.shift() <= MOST_SHIFT


async def test_an_account_belongs_to_whoever_opened_it(come: Come, shopkeeper: Shopkeeper) -> None:
    buyer, stranger = await come(), await come()
    kettle = await shopkeeper.product()
    await buyer.register()
    order = await buyer.buy(kettle["id"])
    await stranger.register()
    assert await stranger.go(order) == 404
    assert await stranger.go("/admin") == 403
    assert await stranger.go(f"/admin{order}") == 403
    assert PASSWORD not in await stranger.page.content()
