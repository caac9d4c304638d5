"""What is drawn for the shops that have grown, and what is made of their latencies."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import httpx2
import orjson
import pytest

from bench.grown import OF_A_SERIES, at, identifier, orders, products, stock
from bench.growth import READS, SIZES, Grown, Latency, grown_shop, heading, line

SEED = 7
SIZE = 4000
SHOWN = {
    "product list, first page": {20},
    "product list, a page of the older half": {20},
    "search for a word of one product in 25": {20},
    "order history, any page of a long one": {20},
    "order history, three orders": {3},
}
"""How many rows each page of some reads has."""


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    """The smallest shop that is measured."""
    with ExitStack() as stack:
        shop = grown_shop(SIZES[0], tmp_path_factory.mktemp("growth") / "shop", SEED, stack)
        stack.enter_context(shop.shop.running("user", "product", "order"))
        yield shop


def answers(grown: Grown, read: str, count: int) -> Iterator[Any]:
    """What the first requests of a read are answered."""
    service, requests = READS[read]
    for request in islice(requests(grown), count):
        first, *fields = request.wire.decode().strip().split("\r\n")
        headers = dict(field.split(": ", 1) for field in fields)
        yield httpx2.get(grown.shop.url(service) + first.split()[1], headers=headers).raise_for_status().json()


@pytest.mark.parametrize("read", READS)
def test_each_read_is_asked_for_something_that_is_there(grown: Grown, read: str) -> None:
    found = list(answers(grown, read, 10))
    if read == "product detail":
        assert all(answer["sku"].startswith("GROWN-") for answer in found)
        return
    counts = {len(answer["items"]) for answer in found}
    assert counts == SHOWN.get(read, counts)
    assert 1 <= max(counts) <= 20


def test_the_same_seed_draws_the_same_shop_and_another_seed_another() -> None:
    first, again, other = (list(products(SIZE, seed)) for seed in (SEED, SEED, SEED + 1))
    assert first == again
    assert [product.name for product in first] != [product.name for product in other]
    bought = tuple(first[:100])
    assert list(orders(100, 10, bought, SEED)) == list(orders(100, 10, bought, SEED))


def test_ids_are_in_the_order_of_the_rows_and_of_their_times() -> None:
    ids = [identifier(number) for number in range(SIZE)]
    assert ids == sorted(set(ids))
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}
    assert [each.int >> 80 for each in ids[:3]] == [int(at(number).timestamp() * 1000) for number in range(3)]


def test_every_product_has_its_stock() -> None:
    assert [product.id for product in products(SIZE, SEED)] == [product_id for product_id, _ in stock(SIZE, SEED)]


def test_a_series_is_as_large_in_a_shop_of_any_size() -> None:
    for size in (SIZE // 4, SIZE):
        names = {product.name.rpartition(" ")[2] for product in products(size, SEED)}
        assert OF_A_SERIES - 1 <= size / len(names) <= OF_A_SERIES + 1


def test_orders_are_spread_unevenly_and_add_up() -> None:
    customers = 400
    placed = list(orders(SIZE, customers, tuple(products(100, SEED)), SEED))
    counts = [0] * customers
    numbers = {identifier(number): number for number in range(customers)}
    for order in placed:
        counts[numbers[order.user_id]] += 1
        lines = orjson.loads(order.lines)
        assert order.total_minor == sum(line["quantity"] * line["unit_price_minor"] for line in lines)
    assert sum(counts[: customers // 20]) > 0.3 * SIZE
    assert sum(counts[customers // 2 :]) < 0.3 * SIZE


def test_percentiles_are_of_the_requests_themselves() -> None:
    latency = Latency.of([number / 1000 for number in range(1, 102)])
    assert (round(latency.p50_ms, 6), round(latency.p95_ms, 6)) == (51, 96)


def test_a_line_compares_the_largest_shop_with_the_smallest() -> None:
    assert heading((1000, 10_000)).splitlines()[0] == (
        "| read | 1,000 | 10,000 | p95, largest to smallest | promise | kept |"
    )
    assert line("detail", [Latency(1.0, 2.0), Latency(1.1, 2.6)]) == (
        "| detail | 1.0 / 2.0 | 1.1 / 2.6 | 1.30 | <= 1.3 | yes |"
    )
    assert line("detail", [Latency(1.0, 2.0), Latency(1.1, 2.7)]).endswith("| 1.35 | <= 1.3 | no |")
