"""Each list reads an index: what PostgreSQL plans, over many products, for the very statements that are served."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import orjson
import pytest

from services.product import repository
from services.product.repository import KEYS, Catalogue, Search
from services.product.tests.conftest import make_service
from tests.databases import Databases

ROWS = 8_000
FILL = f"""
WITH category AS (
    INSERT INTO categories SELECT 'c' || n, 'C' FROM generate_series(0, 19) n
), p AS (
    INSERT INTO products (sku, name, name_folded, category, price_minor, currency, description, created_at)
    SELECT 's' || n, 'Name ' || n, 'name ' || md5(n::text), 'c' || n % 20, n * 7919 % 10000, 'USD',
        'common words and the rare number' || n % 400, now() - make_interval(secs => n * 7919 % 10007)
    FROM generate_series(1, {ROWS}) n
    RETURNING id
)
INSERT INTO stock SELECT id, 1 FROM p
"""


@pytest.fixture(scope="module")
def filled_url(postgres: Databases) -> Iterator[str]:
    """A database with many products."""
    url = postgres.clone("product")
    yield url
    postgres.drop(url)


@pytest.fixture(scope="module")
async def catalogue(filled_url: str) -> AsyncIterator[Catalogue]:
    """The catalogue over it, with statistics as autovacuum would make them."""
    database = make_service(filled_url, database_pool_size=1).database
    await database.execute(FILL)
    await database.execute("VACUUM ANALYZE")
    yield Catalogue(database)
    await database.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def indexes(
    filled_url: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, search: Search, *, second_page: bool
) -> tuple[set[str], float]:
    """The indexes of products that a page's statement reads, and the most rows of products that it looks at.

    `plan_cache_mode` makes the plan that is kept for a prepared statement, which knows no value of a parameter.
    """
    asked: list[tuple[Any, ...]] = []
    fetchrow = catalogue._database.fetchrow  # pyright: ignore[reportPrivateUsage]

    async def listen(query: str, *args: Any) -> Any:
        asked.append((query, *args))
        return await fetchrow(query, *args)

    monkeypatch.setattr(catalogue._database, "fetchrow", listen)  # pyright: ignore[reportPrivateUsage]
    first = orjson.loads(await catalogue.page(search, 20, None))
    assert len(first["items"]) == 20
    if second_page:
        await catalogue.page(search, 20, first["next_cursor"])
    query, *args = asked[-1]
    connection = await asyncpg.connect(filled_url)
    try:
        await connection.execute("SET jit = off; SET plan_cache_mode = force_generic_plan")
        [row] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *args)
    finally:
        await connection.close()
    plan = orjson.loads(row[0])[0]["Plan"]
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"]
    used = [node for node in nodes(plan) if str(node.get("Index Name", "")).startswith("products_")]
    return {node["Index Name"] for node in used}, max(node["Actual Rows"] for node in used)


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("category", [None, "c7"])
@pytest.mark.parametrize("sort", [sort for sort in KEYS if sort != "relevance"])
async def test_a_page_reads_no_more_of_its_sorts_index_than_it_shows(
    filled_url: str,
    catalogue: Catalogue,
    monkeypatch: pytest.MonkeyPatch,
    sort: Any,
    category: str | None,
    second_page: bool,
) -> None:
    search = Search(None, category, None, None, False, sort)
    used, rows = await indexes(filled_url, catalogue, monkeypatch, search, second_page=second_page)
    key = {"newest": "age", "price": "price", "-price": "price", "name": "name"}[sort]
    assert used == {f"products_by_category_and_{key}" if category else f"products_by_{key}"}
    assert rows <= 21


@pytest.mark.parametrize("second_page", [False, True])
@pytest.mark.parametrize("sort", KEYS)
async def test_a_search_reads_the_index_of_words(
    filled_url: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, sort: Any, second_page: bool
) -> None:
    search = Search("number7 words", None, None, None, False, sort)
    used, rows = await indexes(filled_url, catalogue, monkeypatch, search, second_page=second_page)
    assert used == {"products_by_word"}
    assert rows == ROWS / 400


async def test_what_expires_is_found_by_an_index(filled_url: str, catalogue: Catalogue) -> None:
    await catalogue._database.execute(  # pyright: ignore[reportPrivateUsage]
        """
        INSERT INTO reservations (order_id, items, status, expires_at)
        SELECT uuidv7(), '[]', CASE WHEN n % 100 = 0 THEN 'held' ELSE 'committed' END, now()
        FROM generate_series(1, 5000) n
        """
    )
    connection = await asyncpg.connect(filled_url)
    try:
        await connection.execute("ANALYZE reservations")
        [row] = await connection.fetch(f"EXPLAIN (FORMAT JSON) {repository.EXPIRE}", 100)
    finally:
        await connection.close()
    plan = orjson.loads(row[0])[0]["Plan"]
    assert "reservations_held" in {node.get("Index Name") for node in nodes(plan)}


async def test_what_is_held_is_found_by_indexes(filled_url: str, catalogue: Catalogue) -> None:
    await catalogue._database.execute(  # pyright: ignore[reportPrivateUsage]
        """
        INSERT INTO reservations (order_id, items, status, expires_at)
        SELECT uuidv7(), jsonb_build_array(jsonb_build_object('product_id', product_id, 'quantity', 1)),
            CASE WHEN n % 100 = 0 THEN 'held' ELSE 'committed' END, now()
        FROM (SELECT product_id, row_number() OVER () AS n FROM stock) s
        """
    )
    connection = await asyncpg.connect(filled_url)
    try:
        await connection.execute("ANALYZE reservations")
        [row] = await connection.fetch(f"EXPLAIN (FORMAT JSON) {repository.HELD}")
    finally:
        await connection.close()
    plan = orjson.loads(row[0])[0]["Plan"]
    assert {"reservations_held", "stock_pkey"} <= {node.get("Index Name") for node in nodes(plan)}
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"]
