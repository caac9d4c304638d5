"""The import: what lands, what is rejected under which number, what stays, and in how much memory."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from uuid import uuid4

import psutil
import pytest

from services.product import product_import
from services.product.product_import import MAX_LINE_BYTES
from services.product.repository import ImportCounts
from services.product.schemas import ImportLine
from services.product.tests.conftest import ADMIN, Json, Shop, ndjson, unique
from services.product.tests.test_routes import fields, problem

COLUMNS = ["sku", "name", "category", "price_minor", "currency"]


def line(shop: Shop, **members: Any) -> Json:
    """The smallest line that lands."""
    return {
        "sku": unique(),
        "name": "Kettle",
        "category": shop.category,
        "price_minor": 1999,
        "currency": "USD",
        **members,
    }


def csv_of(columns: list[str], *records: list[str]) -> bytes:
    """A body of CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows((columns, *records))
    return text.getvalue().encode()


async def imported(
    shop: Shop, content: bytes, content_type: str = "application/x-ndjson"
) -> tuple[int, int, list[int]]:
    """Import and return how many were created, how many updated, and the numbers of the rejected lines."""
    answer = await shop.bring_in(content, content_type)
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert all(rejected["detail"] for rejected in report["rejected"])
    return report["created"], report["updated"], [rejected["line"] for rejected in report["rejected"]]


async def by_sku(shop: Shop) -> dict[str, Json]:
    """The products of the test's category."""
    page = await shop.read("/api/v1/products", category=shop.category, limit=100)
    return {product["sku"]: product for product in page["items"]}


async def test_a_line_creates_updates_and_brings_back(shop: Shop) -> None:
    full = line(shop, description="d", tags=["a", "b"], image_url="/i", attributes={"k": [1, {"n": None}]}, on_hand=7)
    assert await imported(shop, ndjson(full)) == (1, 0, [])
    created = (await by_sku(shop))[full["sku"]]
    assert created["available"] == 7
    assert {name: created[name] for name in ("description", "tags", "image_url", "attributes")} == {
        name: full[name] for name in ("description", "tags", "image_url", "attributes")
    }
    least = line(shop, sku=full["sku"], name="Renamed", description=None)
    for version, retire in ((2, False), (4, True)):
        if retire:
            await shop.retire(created["id"])
        assert await imported(shop, ndjson(least)) == (0, 1, [])
        updated = (await by_sku(shop))[full["sku"]]
        assert updated == created | {"name": "Renamed", "version": version, "updated_at": updated["updated_at"]}


async def test_bad_lines_are_reported_and_spoil_no_good_one(shop: Shop) -> None:
    good = [line(shop) for _ in range(3)]
    content = ndjson(
        good[0],
        "{",
        "",
        b'{"sku":"\xff"}',
        good[1],
        line(shop, surprise=1),
        line(shop, price_minor="5"),
        line(shop, attributes={"n": 2**60}),
        "[]",
        "null",
        " ",
        line(shop, name="x" * MAX_LINE_BYTES),
        good[2],
    )
    assert await imported(shop, content) == (3, 0, [2, 4, 6, 7, 8, 9, 10, 12])
    assert set(await by_sku(shop)) == {each["sku"] for each in good}


async def test_of_one_sku_the_later_wins_also_across_batches(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_import, "BATCH_LINES", 4)
    sku = unique()
    lines = [line(shop, sku=sku, name=f"n{n}", **({"on_hand": n} if n % 2 else {})) for n in range(11)]
    assert await imported(shop, ndjson(*lines)) == (1, 10, [])
    product = (await by_sku(shop))[sku]
    assert (product["name"], product["available"], product["version"]) == ("n10", 9, 11)
    received = await shop.service.database.fetchval(
        "SELECT sum(delta) FROM stock_movements WHERE product_id = $1", product["id"]
    )
    assert received == 9


async def test_on_hand_is_never_set_below_what_is_reserved(shop: Shop) -> None:
    product = await shop.product(5)
    await shop.reserve(uuid4(), (product["id"], 3))
    low = line(shop, sku=product["sku"], name="Low", on_hand=2)
    assert await imported(shop, ndjson(line(shop), low, line(shop))) == (2, 0, [2])
    assert (await by_sku(shop))[product["sku"]]["name"] == product["name"], "a rejected line changes nothing"
    assert await imported(shop, ndjson(low | {"on_hand": 3})) == (0, 1, [])
    assert await shop.stock(product["id"]) == (3, 3)


async def test_csv_is_read_in_any_order_of_columns(shop: Shop) -> None:
    product = await shop.product(4, description="Kept.", tags=["kept"], attributes={"kept": 1})
    columns = ["on_hand", "tags", "attributes", "description", *COLUMNS]
    content = csv_of(
        columns,
        ["7", "a|b c", '{"k": "v"}', 'Two\nlines, "quoted"', "a" + product["sku"], "New", shop.category, "5", "EUR"],
        ["", "", "", "", product["sku"], "Renamed", shop.category, "6", "USD"],
    )
    assert await imported(shop, b"\xef\xbb\xbf" + content, "text/csv; charset=UTF-8") == (1, 1, [])
    found = await by_sku(shop)
    new, kept = found["a" + product["sku"]], found[product["sku"]]
    assert (new["tags"], new["attributes"], new["available"]) == (["a", "b c"], {"k": "v"}, 7)
    assert new["description"] == 'Two\nlines, "quoted"'
    assert (kept["name"], kept["description"], kept["tags"], kept["available"]) == ("Renamed", "Kept.", ["kept"], 4)


async def test_bad_records_of_csv_are_numbered_by_their_first_line(shop: Shop) -> None:
    good = [unique(), "Good\n\nname", shop.category, "5", "USD"]
    content = csv_of(
        COLUMNS,
        good,  # lines 2 to 4
        [unique(), "a\nb", shop.category, "cheap", "USD"],  # 5 and 6
        [unique(), "five cells are needed"],  # 7
        [unique(), "x", shop.category, "", "USD"],  # 8
    )
    content += b'x,"a"b,c,5,USD\n' + b"x,\xff,c,5,USD\n" + b'x,"never closed,c,5,USD\n'  # 9 to 11
    assert await imported(shop, content, "text/csv") == (1, 0, [5, 7, 8, 9, 10, 11])
    assert set(await by_sku(shop)) == {good[0]}


@pytest.mark.parametrize(
    "header",
    ["", "sku,name", "sku,name,category,price_minor,currency,colour", "sku,sku,name,category,price_minor,currency"],
)
async def test_a_csv_with_another_header_is_refused_whole(shop: Shop, header: str) -> None:
    assert fields(await shop.bring_in(header.encode() + b"\nx\n", "text/csv")) == {"header"}


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "text/csv; charset=latin-1", ""])
async def test_another_content_type_is_415(shop: Shop, content_type: str) -> None:
    problem(await shop.bring_in(b"", content_type), 415, "unsupported-media-type")


async def test_an_empty_import_does_nothing(shop: Shop) -> None:
    assert await imported(shop, b"") == (0, 0, [])


async def test_a_body_over_64_mebibytes_is_413_with_or_without_its_length(shop: Shop) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b" " * (2**20 - 1) + b"\n"

    problem(await shop.bring_in(chunks()), 413, "content-too-large")
    headers = ADMIN | {"Content-Type": "application/x-ndjson", "Content-Length": str(2**26 + 1)}
    answer = await shop.send("POST", "/api/v1/products/import", content=chunks(), headers=headers)
    problem(answer, 413, "content-too-large")


async def test_a_body_of_another_kind_fills_no_memory(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product_import, "MOST_REJECTED", 1_000)
    created, _, rejected = await imported(shop, b"x\n" * 1_000_000 + ndjson(line(shop)))
    assert created == 0
    assert rejected == list(range(1, 1_001))


async def test_two_imports_of_the_same_at_once_both_land(own_shop: Callable[..., Shop]) -> None:
    replicas = [own_shop(database_acquire_timeout_s=60) for _ in range(2)]
    lines = [line(replicas[0], on_hand=n) for n in range(300)]
    reports = await asyncio.gather(
        *(imported(replica, ndjson(*order)) for replica, order in zip(replicas, (lines, lines[::-1]), strict=True))
    )
    assert sum(created for created, _, _ in reports) == 300
    assert sum(updated for _, updated, _ in reports) == 300
    assert [rejected for _, _, rejected in reports] == [[], []]


async def test_memory_does_not_grow_with_the_body(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop()

    async def chunks(count: int) -> AsyncIterator[bytes]:
        for start in range(0, count, 20):
            lines = ndjson(*(line(shop, sku=f"sku-{n}") for n in range(start, start + 20)))
            yield lines.replace(b"\n", b" " * 6_000 + b"\n")

    process = psutil.Process()
    assert (await shop.bring_in(chunks(1_000))).json()["created"] == 1_000
    before = process.memory_info().rss
    assert (await shop.bring_in(chunks(10_000))).json() == {"created": 9_000, "updated": 1_000, "rejected": []}
    assert process.memory_info().rss - before < 20 * 2**20, "of a body of 60 MiB"


async def test_a_batch_lands_at_its_size_however_few_its_lines(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [ndjson(line(shop, description="d" * 1000)) for _ in range(6)]
    monkeypatch.setattr(product_import, "BATCH_BYTES", 2 * len(lines[0]) - 10)
    landed: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for content in lines:
            yield content.rstrip(b"\n") + b"\n"

    async def land(batch: Mapping[str, ImportLine]) -> ImportCounts:
        landed.append(len(batch))
        return ImportCounts(len(batch), 0, frozenset())

    report = await product_import.import_products("application/x-ndjson", chunks(), land)
    assert (report.created, landed) == (6, [2, 2, 2])
