"""A catalogue of a million products: found, filtered and walked through as one of twenty, and shown as well."""

import asyncio
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest
from playwright.async_api import Page, expect

from bench.grown import at, bring_products, identifier
from chassis.pagination import encode_cursor
from drills.platform import Platform
from local.edge import STOREFRONT
from local.shop import migrate
from services.product.repository import Search
from tests.browser.conftest import Come, one_more
from tests.browser.visitor import MOST_SHIFT, Visitor

PRODUCTS = 10**6
SEED = 7
CATEGORY = "lighting"
COMMON, RARER = "quilted", "quilted walnut lantern"
PAGES = 12
LEFT = 5
"""Products behind the last cursor."""
NEAR_THE_END = """
() => scrollBy(0, document.getElementById("more").getBoundingClientRect().top - innerHeight - 500)
"""
"""As far as somebody has read when the next products are asked for, before the end comes into view."""


@pytest.fixture(scope="module")
async def million(platform: Platform) -> AsyncIterator[str]:
    """The origin of a storefront in front of such a catalogue; accounts and orders are those of the platform."""
    name = "souk_million"
    await asyncio.to_thread(platform.postgres.create_database, name)
    url = platform.postgres.url(name)
    await asyncio.to_thread(migrate, {"product": url}, ["product"])
    connection = await asyncpg.connect(url)
    try:
        await bring_products(connection, PRODUCTS, SEED)
    finally:
        await connection.close()
    async with (
        one_more(platform, "product", DATABASE_URL=url) as product,
        one_more(platform, STOREFRONT, PRODUCT_URL=product) as origin,
    ):
        yield origin
    await asyncio.to_thread(platform.postgres.execute, f"DROP DATABASE {name}")  # so that nothing is vacuumed meanwhile


async def looks_right(visitor: Visitor) -> None:
    """Nothing is wider than the window, in anybody's way, or jumped."""
    assert await visitor.scrolls_sideways() <= 0
    assert await visitor.barriers() == []
    assert await visitor.shift() <= MOST_SHIFT


async def hrefs(page: Page) -> list[str]:
    """Where the cards on the shelves lead."""
    return await page.locator("#grid .card a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")


async def test_it_looks_right_and_all_of_it_is_found(come: Come, million: str) -> None:
    """One test, since to bring the catalogue in takes a minute."""
    for width in (320, 1280):
        visitor = await come(viewport={"width": width, "height": 800})
        visitor.origin = million
        await count_the_categories(visitor)
    await walk_on(visitor)
    await come_to_the_end(visitor)
    await search(visitor)
    await filter_and_sort(visitor)


async def count_the_categories(visitor: Visitor) -> None:
    """The shelves say of every product in which category it is."""
    assert await visitor.go("/") == 200
    counts = await visitor.page.locator(".categories a .quiet").all_inner_texts()
    assert all(re.fullmatch(r"\d{2},\d{3}", count) for count in counts)
    assert sum(int(count.replace(",", "")) for count in counts) == PRODUCTS
    await looks_right(visitor)


async def walk_on(visitor: Visitor) -> None:
    """Page after page comes as it is walked on, each product once; the way back leads to the same place."""
    await visitor.go("/")
    cards = visitor.page.locator("#grid .card")
    shown = first = await cards.count()
    for _ in range(PAGES - 1):
        await visitor.page.evaluate(NEAR_THE_END)
        await expect(cards.nth(shown)).to_be_attached()
        shown = await cards.count()
    assert shown >= first * PAGES
    await expect(visitor.page.locator("#shown")).to_have_text(re.compile(r"^\d{3} products and more$"))
    newest_first = [f"/products/{identifier(PRODUCTS - 1 - place)}" for place in range(shown)]
    assert (await hrefs(visitor.page))[:shown] == newest_first
    await looks_right(visitor)
    await cards.nth(shown - 1).locator("a").click()
    await expect(visitor.page).to_have_url(f"{visitor.origin}{newest_first[-1]}")
    await visitor.page.go_back()
    await expect(visitor.page.locator(f"#grid a[href='{newest_first[-1]}']")).to_be_in_viewport()


async def come_to_the_end(visitor: Visitor) -> None:
    """Behind the last product there is no other page."""
    scope = Search(None, None, None, None, in_stock=False, sort="newest").scope()
    await visitor.go(f"/?cursor={encode_cursor((at(LEFT), identifier(LEFT)), scope)}")
    assert await hrefs(visitor.page) == [f"/products/{identifier(place)}" for place in reversed(range(LEFT))]
    await expect(visitor.page.locator("#shown")).to_have_text(f"{LEFT} products")
    await expect(visitor.page.locator("#more")).to_have_count(0)


async def search(visitor: Visitor) -> None:
    """Words that a twenty-fifth of all products have, and words that a few have, are found as they are typed."""
    await visitor.go("/")
    for words in (COMMON, RARER):
        await visitor.page.locator("#q").fill(words)
        await expect(visitor.page.locator("#shown")).to_have_text(re.compile(f"“{words}”"))
        found = await visitor.page.locator("#grid .name").all_inner_texts()
        assert found
        assert all(word in name.lower() for name in found for word in words.split())


async def filter_and_sort(visitor: Visitor) -> None:
    """What is shown is what was asked for, in its order."""
    await visitor.go(f"/?category={CATEGORY}&sort=price&min_price=20&max_price=40&in_stock=yes")
    prices = [int(await each.get_attribute("value") or 0) for each in await visitor.page.locator("#grid .price").all()]
    assert prices
    assert prices == sorted(prices)
    assert 2000 <= prices[0] <= prices[-1] <= 4000
    await expect(visitor.page.locator("#grid .stock.none")).to_have_count(0)
    await looks_right(visitor)
