"""`python -m bench.growth [--write] [--sizes N ...]`: what reads take when there is a thousand times as much to read.

A shop of each size on a PostgreSQL of its own, all of them running at once: each read is measured at every size in
turn, so that a slow moment of the machine meets them all. One connection asks for one thing after the other, so what is
timed is work and not waiting. The product service keeps no answers (`READ_CACHE_BYTES=0`): every read is a first one.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from random import Random
from statistics import median, quantiles
from urllib.parse import urlencode

import asyncpg

from bench import load, measure
from bench.grown import (
    MATERIALS,
    PASSWORD,
    QUALITIES,
    THINGS,
    at,
    bring_orders,
    bring_products,
    bring_users,
    identifier,
)
from bench.shop import Shop
from chassis.database import Connection
from chassis.pagination import encode_cursor
from local.postgres import EmbeddedPostgres
from services.product.repository import Search

PAGE = measure.ROOT / "docs" / "growth.md"
SIZES = (10**3, 10**4, 10**5, 10**6)
ORDERS_OF_A_CUSTOMER = 10
"""On average: a shop of so many products has as many orders, and a tenth as many users."""
CUSTOMERS = 20
"""Whose histories are read."""
SHOWN = 20
"""Rows on a page."""
SAMPLE = 1000
REQUESTS = 200
ROUNDS = 5
ROUND_S = 4.0
PROMISED = 1.3
INTRODUCTION = f"""\
# Growth

What a read takes when there is a thousand times as much to read. A shop of *n* has *n* products with their stock, *n*
orders and *n* / {ORDERS_OF_A_CUSTOMER} users, drawn from a seed (`bench/grown.py` tells how unevenly) and brought in
by COPY; each runs on a PostgreSQL of its own, set up as that of `make run` but for the waits for the disk, and all are
asked in turns. The services are on one core; PostgreSQL and the load, one connection, on another. No answer comes from
the product service's memory.

A figure is the p50 / p95 in milliseconds of {REQUESTS} requests, or of as many as {ROUND_S:.0f} seconds take: the
median of {ROUNDS} rounds after one that does not count. The ratio is that of the largest shop's p95 to the smallest
one's.

The tests of the services' `test_plans.py` show which index each of these reads.
"""


@dataclass(frozen=True, slots=True)
class Grown:
    """A shop of one size that runs."""

    size: int
    shop: Shop
    seed: int

    def draws(self) -> Random:
        """The same draws for each read of each run."""
        return Random(f"{self.seed} reads")  # noqa: S311 - so that a run can be repeated

    def rows(self, service: str, statement: str) -> list[list[str]]:
        """What a service's database answers, as text."""
        return [line.split("|") for line in self.shop.postgres.execute(statement, service).splitlines()]


Requests = Callable[[Grown], Iterator[load.Request]]


def _products(**parameters: object) -> load.Request:
    return load.request("GET", f"/api/v1/products?{urlencode(parameters)}")


def first_page(_grown: Grown) -> Iterator[load.Request]:
    """The newest products."""
    return repeat(_products())


def deep_page(grown: Grown) -> Iterator[load.Request]:
    """Pages of the older half, newest first."""
    draws = grown.draws()
    scope = Search(None, None, None, None, in_stock=False, sort="newest").scope()
    while True:
        last_shown = draws.randrange(SHOWN, grown.size // 2)
        yield _products(cursor=encode_cursor((at(last_shown), identifier(last_shown)), scope))


def deep_page_by_price(grown: Grown) -> Iterator[load.Request]:
    """Pages anywhere in the list, cheapest first."""
    draws = grown.draws()
    scope = Search(None, None, None, None, in_stock=False, sort="price").scope()
    positions = _sample(grown, "price_minor, id")
    while True:
        price_minor, product_id = draws.choice(positions)
        yield _products(sort="price", cursor=encode_cursor((int(price_minor), product_id), scope))


def _sample(grown: Grown, columns: str) -> list[list[str]]:
    """These columns of some products, the same in each run."""
    return grown.rows(
        "product", f"SELECT {columns} FROM products ORDER BY hashtext(id::text || '{grown.seed}') LIMIT {SAMPLE}"
    )


def filtered(grown: Grown) -> Iterator[load.Request]:
    """The newest of a category, in stock and neither cheap nor dear: about half of it."""
    draws = grown.draws()
    while True:
        yield _products(
            category=draws.choice(tuple(THINGS)),
            min_price=draws.randrange(1000, 1500),
            max_price=draws.randrange(3500, 5000),
            in_stock="true",
        )


def rare_word(grown: Grown) -> Iterator[load.Request]:
    """Names of series: some eight products each, in a shop of any size."""
    draws = grown.draws()
    names = _sample(grown, "split_part(name, ' ', 4)")
    while True:
        [name] = draws.choice(names)
        yield _products(q=name)


def rare_word_newest(grown: Grown) -> Iterator[load.Request]:
    """The same, not by relevance."""
    draws = grown.draws()
    names = _sample(grown, "split_part(name, ' ', 4)")
    while True:
        [name] = draws.choice(names)
        yield _products(q=name, sort="newest")


def common_word(grown: Grown) -> Iterator[load.Request]:
    """Qualities and materials: each in the names of one product in 25, or in 20."""
    draws = grown.draws()
    while True:
        yield _products(q=draws.choice(QUALITIES + MATERIALS))


def two_words(grown: Grown) -> Iterator[load.Request]:
    """A quality and a material: together in one product of 500."""
    draws = grown.draws()
    while True:
        yield _products(q=f"{draws.choice(QUALITIES)} {draws.choice(MATERIALS)}")


def detail(grown: Grown) -> Iterator[load.Request]:
    """Any product by its id."""
    draws = grown.draws()
    while True:
        yield load.request("GET", f"/api/v1/products/{identifier(draws.randrange(grown.size))}")


def long_history(grown: Grown) -> Iterator[load.Request]:
    """Any page of the histories of those who ordered most: twenty orders."""
    draws = grown.draws()
    histories = _histories(grown, f"> {SHOWN}")
    while True:
        customer, orders = draws.choice(histories)
        shown = draws.randrange(len(orders) - SHOWN + 1)
        query = {"cursor": encode_cursor([orders[shown - 1]], {"list": "orders", "status": None})} if shown else {}
        yield load.request("GET", f"/api/v1/orders?{urlencode(query)}", headers=customer)


def short_history(grown: Grown) -> Iterator[load.Request]:
    """The whole of the histories of those who ordered three times."""
    draws = grown.draws()
    histories = _histories(grown, "= 3")
    while True:
        customer, _ = draws.choice(histories)
        yield load.request("GET", "/api/v1/orders", headers=customer)


def _histories(grown: Grown, orders: str) -> list[tuple[Mapping[str, str], list[str]]]:
    """Customers with so many orders, those with the most first: `Authorization`, and the orders, newest first."""
    found = grown.rows(
        "order",
        "SELECT user_id, string_agg(id::text, ',' ORDER BY id DESC) FROM orders"
        f" GROUP BY user_id HAVING count(*) {orders} ORDER BY count(*) DESC, user_id LIMIT {CUSTOMERS}",
    )
    ids = ", ".join(f"'{user_id}'" for user_id, _ in found)
    emails = dict(grown.rows("user", f"SELECT id, email FROM users WHERE id IN ({ids})"))
    return [(grown.shop.sign_in(emails[user_id], PASSWORD), text.split(",")) for user_id, text in found]


READS: Mapping[str, tuple[str, Requests]] = {
    "product list, first page": ("product", first_page),
    "product list, a page of the older half": ("product", deep_page),
    "product list by price, any page": ("product", deep_page_by_price),
    "product list by category, price and stock": ("product", filtered),
    "search for a word of eight products": ("product", rare_word),
    "search for a word of eight products, newest first": ("product", rare_word_newest),
    "search for a word of one product in 25": ("product", common_word),
    "search for two such words": ("product", two_words),
    "product detail": ("product", detail),
    "order history, any page of a long one": ("order", long_history),
    "order history, three orders": ("order", short_history),
}
"""Each read by its name: which service answers it, and what is asked."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of some requests, in milliseconds."""

    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, latencies_s: Sequence[float]) -> "Latency":
        """That of these requests, at least two."""
        hundredths = quantiles(latencies_s, n=100, method="inclusive")
        return cls(hundredths[49] * 1000, hundredths[94] * 1000)


def measured(service: str, requests: Requests, shops: Sequence[Grown]) -> list[Latency]:
    """Of one read at each size, in turns: the medians of the rounds."""
    asked = [requests(grown) for grown in shops]
    _warm, *counted = [
        [_round(grown.shop.ports[service], each) for grown, each in zip(shops, asked, strict=True)]
        for _ in range(1 + ROUNDS)
    ]
    return [
        Latency(median(each.p50_ms for each in column), median(each.p95_ms for each in column))
        for column in zip(*counted, strict=True)
    ]


def _round(port: int, requests: Iterator[load.Request]) -> Latency:
    sent = load.run(port, load.within(islice(requests, REQUESTS), ROUND_S), connections=1)
    return Latency.of(sent.latencies_s)


def heading(sizes: Sequence[int]) -> str:
    """The head of the table."""
    columns = ["read", *(f"{size:,}" for size in sizes), "p95, largest to smallest", "promise", "kept"]
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def line(read: str, latencies: Sequence[Latency]) -> str:
    """A line of the table."""
    ratio = latencies[-1].p95_ms / latencies[0].p95_ms
    cells = [f"{each.p50_ms:.1f} / {each.p95_ms:.1f}" for each in latencies]
    kept = "yes" if ratio <= PROMISED else "no"
    return f"| {' | '.join([read, *cells, f'{ratio:.2f}', f'<= {PROMISED}', kept])} |"


async def bring(shop: Shop, size: int, seed: int) -> None:
    """Fill a shop's databases, which are migrated and empty."""
    customers = size // ORDERS_OF_A_CUSTOMER
    async with _connected(shop, "user") as connection:
        await bring_users(connection, customers)
    async with _connected(shop, "product") as connection:
        await bring_products(connection, size, seed)
    async with _connected(shop, "order") as connection:
        await bring_orders(connection, size, customers, seed)
    shop.postgres.execute("CHECKPOINT")


@asynccontextmanager
async def _connected(shop: Shop, service: str) -> AsyncGenerator[Connection]:
    connection = await asyncpg.connect(shop.postgres.url(service))
    try:
        yield connection
    finally:
        await connection.close()


def grown_shop(size: int, folder: Path, seed: int, stack: ExitStack) -> Grown:
    """A shop of this size, filled but not running; its PostgreSQL ends with `stack`."""
    folder.mkdir()
    postgres = EmbeddedPostgres(folder / "postgres", durable=False)
    stack.callback(postgres.stop)
    postgres.start()
    shop = Shop(folder, postgres)
    for service in ("user", "product", "order"):
        shop.migrate(service)
    asyncio.run(bring(shop, size, seed))
    if postgres.pid is not None:
        measure.pin(postgres.pid, measure.LOAD_CORE)  # with every connection that it takes from now on
    return Grown(size, shop, seed)


def main() -> None:
    """Bring the shops in, measure, print the table, and keep it if so asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="What reads take as the shop grows.")
    parser.add_argument("--write", action="store_true", help="keep the table in docs/growth.md")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="N", help="other sizes, from 1000 on")
    parser.add_argument("--seed", type=int, default=7, help="what the shops are drawn from")
    options = parser.parse_args()
    sizes: tuple[int, ...] = tuple(sorted(options.sizes))
    if sizes[0] < SIZES[0]:
        parser.error(f"a shop of less than {SIZES[0]} has no long history")
    if options.write and sizes != SIZES:
        parser.error("--write keeps the table of all sizes, so it takes no others")
    if measure.SERVER_CORE == measure.LOAD_CORE:
        sys.exit("the benchmark needs Linux and two cores: one for the servers, one for the load")

    with tempfile.TemporaryDirectory(prefix="souk-bench-") as folder, ExitStack() as stack:
        shops: list[Grown] = []
        for size in sizes:
            print(f"bringing in {size:,} products and as many orders", file=sys.stderr, flush=True)
            shops.append(grown_shop(size, Path(folder, str(size)), options.seed, stack))
        measure.pin(0, measure.LOAD_CORE)
        for grown in shops:
            stack.enter_context(grown.shop.running("user", "product", "order", READ_CACHE_BYTES="0"))
        page = [INTRODUCTION, measure.surroundings("make bench-growth", shops[-1].shop.postgres), heading(sizes)]
        print("\n".join(page[1:]), flush=True)
        for read, (service, requests) in READS.items():
            page.append(line(read, measured(service, requests, shops)))
            print(page[-1], flush=True)
    if options.write:
        PAGE.write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
