"""A product, a list and a search are read by an index: what PostgreSQL plans, over many products, for the very
statements that are served.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest

from bench.grown import MATERIALS, QUALITIES, at, bring_products, identifier
from chassis.pagination import encode_cursor
from services.product import repository
from services.product.repository import KEYS, NEAR, Catalogue, Search, Stock
from tests.databases import Databases
from tests.plans import Noting, plan_of, plan_without_running, to_fill

PRODUCTS = 30_000
SEED = 7
CATEGORY = "lighting"
"""One product in twenty."""
COMMON = MATERIALS[0]
"""One product in twenty."""
TWO_COMMON = f"{QUALITIES[0]} {COMMON}"
KEY = {"newest": "age", "price": "price", "-price": "price", "name": "name"}
"""What a sort's index is named for."""
SORTS = tuple(KEY)


@pytest.fixture(scope="module")
async def database(postgres: Databases) -> AsyncIterator[Noting]:
    """Many products."""
    async with to_fill(postgres, "product") as (database, connection):
        await bring_products(connection, PRODUCTS, SEED)
        yield database


@pytest.fixture
def catalogue(database: Noting) -> Catalogue:
    return Catalogue(database)


@pytest.fixture(scope="module")
async def rare(database: Noting) -> tuple[str, int]:
    """A word of few products, and of how many."""
    row = await database.fetchrow(
        "SELECT split_part(name, ' ', 4), count(*) FROM products GROUP BY 1 HAVING count(*) > 5 ORDER BY 1 LIMIT 1"
    )
    assert row is not None
    return row[0], row[1]


def search(sort: Any, **asked: Any) -> Search:
    """All products, but for what is asked."""
    return replace(Search(None, None, None, None, in_stock=False, sort=sort), **asked)


async def cursor(catalogue: Catalogue, asked: Search, limit: int, *, second_page: bool) -> str | None:
    """Where the page begins, the first or the second."""
    return orjson.loads(await catalogue.page(asked, limit, None))["next_cursor"] if second_page else None


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("category", [None, CATEGORY])
@pytest.mark.parametrize("sort", SORTS)
async def test_a_page_reads_no_more_of_its_sorts_index_than_it_shows(
    database: Noting, catalogue: Catalogue, sort: str, category: str | None, second_page: bool
) -> None:
    asked = search(sort, category=category)
    begin = await cursor(catalogue, asked, 20, second_page=second_page)
    plan = await plan_of(database, catalogue.page(asked, 20, begin))
    by = f"products_by_category_and_{KEY[sort]}" if category else f"products_by_{KEY[sort]}"
    assert plan.indexes == {by, "stock_pkey"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("products") <= 21
    assert plan.rows_looked_at("stock") <= 21


@pytest.mark.parametrize("share", [0.5, 0.99])
async def test_a_deep_page_reads_no_more_than_the_first(database: Noting, catalogue: Catalogue, share: float) -> None:
    asked = search("newest")
    last_shown = round(PRODUCTS * (1 - share))
    begin = encode_cursor((at(last_shown), identifier(last_shown)), asked.scope())
    plan = await plan_of(database, catalogue.page(asked, 20, begin))
    assert plan.indexes == {"products_by_age", "stock_pkey"}
    assert plan.rows_looked_at("products") == 21


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("sort", SORTS)
async def test_filters_that_many_pass_are_checked_along_the_sort(
    database: Noting, catalogue: Catalogue, sort: str, second_page: bool
) -> None:
    asked = search(sort, category=CATEGORY, min_price=1500, max_price=4000, in_stock=True)
    begin = await cursor(catalogue, asked, 20, second_page=second_page)
    plan = await plan_of(database, catalogue.page(asked, 20, begin))
    assert f"products_by_category_and_{KEY[sort]}" in plan.indexes
    assert not plan.whole_tables
    assert plan.rows_looked_at("products") <= 150


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("sort", ["newest", "name"])
async def test_prices_that_few_have_are_found_by_their_index(
    database: Noting, catalogue: Catalogue, sort: str, second_page: bool
) -> None:
    asked = search(sort, min_price=18_000, max_price=20_000)
    begin = await cursor(catalogue, asked, 3, second_page=second_page)
    plan = await plan_of(database, catalogue.page(asked, 20, begin))
    assert "products_by_price" in plan.indexes
    assert not plan.whole_tables
    assert plan.rows_looked_at("products") <= NEAR + 200


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("sort", KEYS)
async def test_a_search_for_a_rare_word_reads_what_has_it(
    database: Noting, catalogue: Catalogue, rare: tuple[str, int], sort: str, second_page: bool
) -> None:
    word, count = rare
    asked = search(sort, q=word)
    begin = await cursor(catalogue, asked, 3, second_page=second_page)
    for limit in (3, 20):
        plan = await plan_of(database, catalogue.page(asked, limit, begin))
        assert "products_by_word" in plan.indexes
        assert not plan.whole_tables
        # What was found is read a second time, to be shown.
        assert plan.rows_looked_at("products") <= 2 * count + (0 if sort == "relevance" else NEAR)


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("sort", SORTS)
async def test_a_search_for_a_common_word_goes_along_the_sort(
    database: Noting, catalogue: Catalogue, sort: str, second_page: bool
) -> None:
    asked = search(sort, q=COMMON)
    begin = await cursor(catalogue, asked, 20, second_page=second_page)
    plan = await plan_of(database, catalogue.page(asked, 20, begin))
    assert plan.indexes == {f"products_by_{KEY[sort]}", "products_pkey", "stock_pkey"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("products") <= NEAR + 21


@pytest.mark.parametrize("in_stock", [False, True])
@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("words", [COMMON, TWO_COMMON], ids=["common word", "two common words"])
async def test_what_is_ranked_is_found_by_its_words_and_only_what_is_shown_is_looked_up(
    database: Noting, catalogue: Catalogue, words: str, second_page: bool, in_stock: bool
) -> None:
    asked = search("relevance", q=words, in_stock=in_stock)
    begin = await cursor(catalogue, asked, 20, second_page=second_page)
    plan = await plan_of(database, catalogue.page(asked, 20, begin))
    assert plan.indexes == {"products_by_word", "products_pkey", "stock_pkey"}
    assert not plan.whole_tables
    assert in_stock or plan.rows_looked_at("stock") <= 21


async def test_a_page_is_the_same_along_its_sort_and_by_the_filters_indexes(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = [
        search(sort, q=words, category=category, min_price=1500, in_stock=True)
        for sort in SORTS
        for words in (COMMON, TWO_COMMON)
        for category in (None, CATEGORY)
    ]

    async def pages(asked: Search) -> list[str]:
        first = await catalogue.page(asked, 20, None)
        after = orjson.loads(first)["next_cursor"]
        return [first] if after is None else [first, await catalogue.page(asked, 20, after)]

    found: list[list[list[str]]] = []
    for near in (1, PRODUCTS):
        monkeypatch.setattr(repository, "NEAR", near)
        repository._page_statement.cache_clear()  # pyright: ignore[reportPrivateUsage]
        found.append([await pages(asked) for asked in searches])
    repository._page_statement.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert found[0] == found[1]
    assert any(len(each) == 2 for each in found[0])


async def test_a_product_is_found_by_its_id(database: Noting, catalogue: Catalogue) -> None:
    plan = await plan_of(database, catalogue.product(identifier(PRODUCTS // 2)))
    assert plan.indexes == {"products_pkey", "stock_pkey"}
    assert plan.rows_looked_at("products") == plan.rows_looked_at("stock") == 1


async def test_what_is_quoted_is_found_by_its_ids(database: Noting) -> None:
    wanted: list[UUID] = [identifier(number) for number in range(0, PRODUCTS, PRODUCTS // 10)]
    plan = await plan_of(database, Stock(database, 900).quotes(wanted))
    assert plan.indexes == {"products_pkey", "stock_pkey"}
    assert not plan.whole_tables
    assert plan.rows_looked_at("products") == plan.rows_looked_at("stock") == len(wanted)


async def test_what_expires_is_found_by_an_index(database: Noting) -> None:
    await database.execute(
        """
        INSERT INTO reservations (order_id, items, status, expires_at)
        SELECT uuidv7(), '[]', CASE WHEN n % 100 = 0 THEN 'held' ELSE 'committed' END, now()
        FROM generate_series(1, 5000) n
        """
    )
    await database.execute("ANALYZE reservations")
    plan = await plan_without_running(database, repository.EXPIRE, 100)
    assert "reservations_held" in plan.indexes


async def test_what_is_held_is_found_by_indexes(database: Noting) -> None:
    await database.execute(
        """
        INSERT INTO reservations (order_id, items, status, expires_at)
        SELECT uuidv7(), jsonb_build_array(jsonb_build_object('product_id', product_id, 'quantity', 1)),
            CASE WHEN n % 100 = 0 THEN 'held' ELSE 'committed' END, now()
        FROM (SELECT product_id, row_number() OVER () AS n FROM stock LIMIT 8000) s
        """
    )
    await database.execute("ANALYZE reservations")
    plan = await plan_without_running(database, repository.HELD)
    assert {"reservations_held", "stock_pkey"} <= plan.indexes
    assert not plan.whole_tables
