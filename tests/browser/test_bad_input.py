"""What a shop gets to show: scripts, names without an end, pictures that are not there, nothing at all."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import expect

from drills.platform import Platform
from local.edge import STOREFRONT
from local.shop import migrate
from tests.browser.conftest import Come, one_more
from tests.browser.shopkeeper import Shopkeeper
from tests.browser.visitor import Visitor

SCRIPT = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
NAMES = {
    "script": SCRIPT,
    "long": "Kettle" * 33 + "!!",
    "right-to-left": "إبريق شاي نحاسي مصنوع يدويا",
    "both ways": "Kettle (إبريق) 2 l\u202e evil",
    "one long word of emoji": "🫖" * 100,
    "braces": "{{ 7 * 7 }} {% raw %} ${7*7} &amp; &lt;b&gt;",
}


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("width", [320, 1280])
async def test_a_name_is_shown_as_it_is_and_runs_nothing(
    come: Come, shopkeeper: Shopkeeper, what: str, width: int
) -> None:
    name = NAMES[what]
    product = await shopkeeper.product(
        name=name, description=name, tags=[name[:40]], attributes={name[:40]: name}, price_minor=100
    )
    visitor = await come(viewport={"width": width, "height": 800})
    await visitor.go(f"/products/{product['id']}")
    await expect(visitor.page.locator("h1")).to_have_text(name.replace("\u202e", "\u202e"))
    assert await visitor.scrolls_sideways() <= 0
    await visitor.go(f"/?category={product['category']}")
    await expect(visitor.page.locator("#grid .card .name")).to_have_text(name)
    assert await visitor.scrolls_sideways() <= 0
    assert await visitor.barriers() == []
    await visitor.put_in_cart(product["id"])
    await visitor.go("/cart")
    await expect(visitor.page.locator(".line a")).to_have_text(name)
    assert await visitor.scrolls_sideways() <= 0
    assert "run" not in await visitor.page.title()


@pytest.mark.parametrize(
    "image_url", ["/api/v1/products/pictures/no-such-picture.svg", "https://elsewhere.example/kettle.png", None]
)
async def test_a_picture_that_cannot_be_had_is_a_drawn_one(
    visitor: Visitor, shopkeeper: Shopkeeper, image_url: str | None
) -> None:
    product = await shopkeeper.product(image_url=image_url)
    for path in (f"/?category={product['category']}", f"/products/{product['id']}"):
        await visitor.go(path)
        picture = visitor.page.locator("main .frame img").first
        await expect(picture).to_be_visible()
        await visitor.page.wait_for_function("document.querySelector('main .frame img').naturalWidth > 0")


async def test_a_price_of_nothing_is_a_price(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    product = await shopkeeper.product(price_minor=0)
    await visitor.go(f"/products/{product['id']}")
    await expect(visitor.page.locator("data.price")).to_have_attribute("value", "0")
    await expect(visitor.page.locator("data.price")).to_contain_text("0.00")


async def test_a_category_of_nothing_says_so(visitor: Visitor) -> None:
    assert await visitor.go("/?category=no-such-category") == 200
    await expect(visitor.page.locator("main")).to_contain_text("Nothing matches")
    assert await visitor.barriers() == []


async def test_a_shop_without_products_says_so(visitor: Visitor, platform: Platform) -> None:
    name = "souk_empty"
    await asyncio.to_thread(platform.postgres.create_database, name)
    url = platform.postgres.url(name)
    await asyncio.to_thread(migrate, {"product": url}, ["product"])
    async with (
        one_more(platform, "product", DATABASE_URL=url) as empty,
        one_more(platform, STOREFRONT, PRODUCT_URL=empty) as visitor.origin,
    ):
        assert await visitor.go("/") == 200
        await expect(visitor.page.locator("main")).to_contain_text("The shelves are empty")
        assert await visitor.barriers() == []
        assert await visitor.scrolls_sideways() <= 0


@pytest.mark.parametrize(
    "query",
    [
        "q=%00", "q=" + "a" * 300, "category=" + "a" * 60_000,
        "cursor=" + "a" * 60_000, "min_price=abc", "min_price=-1", "min_price=1e99", "max_price=99999999999999999999",
        "cursor=nonsense", "sort=nonsense", "category=%27%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "pages=-1",
        "pages=1e9", "part=nonsense",
    ],
)  # fmt: skip
async def test_a_query_of_nonsense_is_answered_with_a_page(visitor: Visitor, query: str) -> None:
    assert await visitor.go(f"/?{query}") < 500
    await expect(visitor.page.locator("main")).to_be_visible()


@pytest.mark.parametrize("quantity", ["0", "-1", "100", "1e3", "", "two"])
async def test_a_quantity_that_cannot_be_is_refused_and_said(
    visitor: Visitor, shopkeeper: Shopkeeper, quantity: str
) -> None:
    product = await shopkeeper.product()
    await visitor.go(f"/products/{product['id']}")
    answer: dict[str, Any] = await visitor.page.evaluate(
        """async ([path, quantity]) => {
            const answer = await fetch(path, {method: "POST", body: new URLSearchParams({quantity})});
            return {status: answer.status};
        }""",
        [f"/cart/items/{product['id']}/add", quantity],
    )
    assert answer["status"] < 500
    await visitor.go("/cart")
    shown = visitor.page.locator(".line input[name=quantity]")
    if await shown.count():
        assert 1 <= int(await shown.input_value()) <= 99


async def test_a_form_of_another_site_changes_nothing(visitor: Visitor, shopkeeper: Shopkeeper) -> None:
    product = await shopkeeper.product()
    await visitor.go("/")
    answer = await visitor.context.request.post(
        f"{visitor.origin}/cart/items/{product['id']}/add",
        form={"quantity": "1"},
        headers={"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"},
    )
    assert answer.status == 403
    await visitor.go("/cart")
    await expect(visitor.page.locator(".empty")).to_be_visible()


@pytest.mark.parametrize("cookie", ["souk_cart", "souk_access", "souk_refresh", "souk_until"])
@pytest.mark.parametrize("value", ["nonsense", "AAAA", "%00", "x" * 3000])
async def test_a_damaged_cookie_is_no_error(visitor: Visitor, cookie: str, value: str) -> None:
    await visitor.context.add_cookies([{"name": cookie, "value": value, "url": visitor.origin}])
    for path in ("/", "/cart", "/orders"):
        await visitor.go_and_settle(path)
        await expect(visitor.page.locator("main h1")).to_be_attached()
        await expect(visitor.page.locator("main")).not_to_contain_text("Our mistake")


@pytest.mark.parametrize("target", ["/%09%5Celsewhere.example/", "/%0A/elsewhere.example/", "%5C%5Celsewhere.example/"])
async def test_a_link_to_this_shop_leads_to_no_other(visitor: Visitor, target: str) -> None:
    await visitor.go_and_settle(f"/session/renew?next={target}")
    await expect(visitor.page).to_have_url(f"{visitor.origin}/")
