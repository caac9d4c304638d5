"""Importing products: what lands, what is rejected and under which line number, in NDJSON and in CSV."""

import csv
import io
import json
from collections.abc import Iterator

import pytest

from tests.contract.client import ImportReport, Json, Product, Storefront
from tests.contract.shopping import Catalogue, ndjson, short, unique_sku

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


def line(catalogue: Catalogue, **members: object) -> Json:
    """Give the smallest line that lands."""
    return {
        "sku": unique_sku(),
        "name": "Kettle",
        "category": catalogue.category,
        "price_minor": 1999,
        "currency": "USD",
        **members,
    }


def without(body: Json, *members: str) -> Json:
    """Leave members away."""
    return {name: value for name, value in body.items() if name not in members}


def csv_of(columns: list[str], *records: dict[str, str]) -> str:
    """Write CSV as RFC 4180 tells."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def by_sku(anyone: Storefront, catalogue: Catalogue) -> dict[str, Product]:
    """Read the products of the test's category."""
    page = anyone.products(category=catalogue.category, limit=100).expect(200)
    return {product.sku: product for product in page.items}


def rejected_lines(report: ImportReport) -> list[int]:
    """Give the numbers of the rejected lines, ascending."""
    return sorted(rejected.line for rejected in report.rejected)


# NDJSON


def test_a_line_carries_every_member(catalogue: Catalogue, anyone: Storefront) -> None:
    full = line(
        catalogue,
        description="Boils water.",
        tags=["kitchen", "tea"],
        image_url="https://example.com/kettle.svg",
        attributes={"colour": "blue"},
        on_hand=7,
    )
    report = catalogue.admin.import_products(ndjson(full)).expect(200)
    assert (report.created, report.updated, report.rejected) == (1, 0, [])
    product = by_sku(anyone, catalogue)[full["sku"]]
    assert product.price.amount_minor == 1999
    assert product.price.currency == "USD"
    assert product.available == 7
    same = {"sku", "name", "description", "category", "tags", "image_url", "attributes"}
    assert product.model_dump(include=same) == {name: full[name] for name in same}


def test_a_last_line_needs_no_line_feed(catalogue: Catalogue, anyone: Storefront) -> None:
    lines = [line(catalogue), line(catalogue)]
    assert catalogue.admin.import_products(ndjson(*lines).rstrip("\n")).expect(200).created == 2
    assert set(by_sku(anyone, catalogue)) == {body["sku"] for body in lines}


def test_what_a_line_leaves_out_stays(catalogue: Catalogue, anyone: Storefront) -> None:
    first = line(catalogue, description="Kept.", tags=["kept"], attributes={"kept": "yes"}, on_hand=4)
    again = without({**first, "name": "Renamed"}, "description", "tags", "attributes", "on_hand")
    assert catalogue.admin.import_products(ndjson(first)).expect(200).created == 1
    before = by_sku(anyone, catalogue)[first["sku"]]
    report = catalogue.admin.import_products(ndjson(again)).expect(200)
    assert (report.created, report.updated, report.rejected) == (0, 1, [])
    after = by_sku(anyone, catalogue)[first["sku"]]
    assert after.name == "Renamed"
    untouched = set(Product.model_fields) - {"name", "version", "updated_at"}
    assert after.model_dump(include=untouched) == before.model_dump(include=untouched)


def test_a_line_that_changes_nothing_counts_as_updated(catalogue: Catalogue) -> None:
    body = line(catalogue, on_hand=1)
    catalogue.admin.import_products(ndjson(body)).expect(200)
    report = catalogue.admin.import_products(ndjson(body)).expect(200)
    assert (report.created, report.updated, report.rejected) == (0, 1, [])


def test_on_hand_sets_the_stock(catalogue: Catalogue, anyone: Storefront) -> None:
    product = catalogue.product(stock=9)
    for on_hand in (3, 0, 12):
        body = line(catalogue, sku=product.sku, on_hand=on_hand)
        assert catalogue.admin.import_products(ndjson(body)).expect(200).updated == 1
        assert anyone.product(product.id).expect(200).available == on_hand


def test_of_one_sku_twice_the_later_wins(catalogue: Catalogue, anyone: Storefront) -> None:
    first = line(catalogue, name="First", price_minor=1, on_hand=1)
    later = {**first, "name": "Later", "price_minor": 2, "on_hand": 2}
    report = catalogue.admin.import_products(ndjson(first, line(catalogue), later)).expect(200)
    assert report.created == 2
    assert report.rejected == []
    product = by_sku(anyone, catalogue)[first["sku"]]
    assert (product.name, product.price.amount_minor, product.available) == ("Later", 2, 2)


def test_good_lines_land_among_bad_ones(catalogue: Catalogue, anyone: Storefront) -> None:
    good = [line(catalogue, name=f"Good {n}") for n in range(3)]
    content = ndjson(
        good[0],
        "{ this is no JSON",
        without(line(catalogue), "price_minor"),
        good[1],
        line(catalogue, price_minor="cheap"),
        "[]",
        line(catalogue, sku="not a sku"),
        good[2],
        line(catalogue, category="Not A Slug"),
    )
    report = catalogue.admin.import_products(content).expect(200)
    assert (report.created, report.updated) == (3, 0)
    assert rejected_lines(report) == [2, 3, 5, 6, 7, 9]
    assert set(by_sku(anyone, catalogue)) == {body["sku"] for body in good}


@pytest.mark.parametrize("missing", ["sku", "name", "category", "price_minor", "currency"])
def test_a_line_needs_its_members_even_for_a_known_sku(catalogue: Catalogue, anyone: Storefront, missing: str) -> None:
    product = catalogue.product()
    body = without(line(catalogue, sku=product.sku), missing)
    report = catalogue.admin.import_products(ndjson(body)).expect(200)
    assert (report.created, report.updated, rejected_lines(report)) == (0, 0, [1])
    assert missing in report.rejected[0].detail
    assert anyone.product(product.id).expect(200) == product


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("sku", "x" * 65),
        ("sku", ""),
        ("sku", 1),
        ("name", "x" * 201),
        ("name", "NUL \0"),
        ("description", "x" * 10_001),
        ("tags", [f"tag-{n}" for n in range(21)]),
        ("tags", ["x" * 51]),
        ("attributes", {f"key-{n}": "value" for n in range(51)}),
        ("attributes", "none"),
        ("image_url", "https://example.com/".ljust(2_001, "x")),
        ("price_minor", -1),
        ("price_minor", 19.99),
        ("price_minor", 10**30),
        ("currency", "US"),
        ("on_hand", -1),
        ("on_hand", "many"),
        ("on_hand", 10**30),
    ],
    ids=short,
)
def test_a_line_that_cannot_be_is_rejected(
    catalogue: Catalogue, anyone: Storefront, member: str, value: object
) -> None:
    good = line(catalogue)
    report = catalogue.admin.import_products(ndjson(line(catalogue, **{member: value}), good)).expect(200)
    assert (report.created, report.updated, rejected_lines(report)) == (1, 0, [1])
    assert set(by_sku(anyone, catalogue)) == {good["sku"]}


def test_a_line_of_64_kibibytes_is_taken_and_a_longer_one_rejected(catalogue: Catalogue, anyone: Storefront) -> None:
    def padded(length: int) -> tuple[str, str]:
        body = line(catalogue)
        return json.dumps(body).ljust(length), body["sku"]

    taken, taken_sku = padded(64 * KIBIBYTE - 1)
    too_long, _ = padded(64 * KIBIBYTE + 1)
    much_too_long, _ = padded(300 * KIBIBYTE)
    after = line(catalogue)
    report = catalogue.admin.import_products(ndjson(taken, too_long, much_too_long, after)).expect(200)
    assert (report.created, rejected_lines(report)) == (2, [2, 3])
    assert set(by_sku(anyone, catalogue)) == {taken_sku, after["sku"]}


def test_a_line_that_is_no_utf_8_is_rejected(catalogue: Catalogue) -> None:
    content = b'{"sku": "\xff\xfe"}\n' + ndjson(line(catalogue)).encode()
    report = catalogue.admin.import_products(content).expect(200)
    assert (report.created, rejected_lines(report)) == (1, [1])


def test_an_import_may_be_larger_than_other_bodies(catalogue: Catalogue) -> None:
    lines = [line(catalogue, description="d" * 10_000) for _ in range(130)]
    content = ndjson(*lines).encode()
    assert len(content) > MEBIBYTE

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(content), 10_007):
            yield content[start : start + 10_007]

    report = catalogue.admin.import_products(chunks()).expect(200)
    assert (report.created, report.updated, report.rejected) == (130, 0, [])


def test_an_import_over_64_mebibytes_is_413(catalogue: Catalogue) -> None:
    blank = b" " * (32 * KIBIBYTE - 1) + b"\n"

    def chunks() -> Iterator[bytes]:
        for _ in range(64 * MEBIBYTE // len(blank) + 1):
            yield blank

    catalogue.admin.import_products(chunks()).problem(413, "content-too-large")


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_415(catalogue: Catalogue, anyone: Storefront, content_type: str) -> None:
    answer = catalogue.admin.import_products(ndjson(line(catalogue)), content_type)
    answer.problem(415, "unsupported-media-type")
    assert by_sku(anyone, catalogue) == {}


# CSV


def test_csv_carries_every_member_in_any_order_of_columns(catalogue: Catalogue, anyone: Storefront) -> None:
    sku = unique_sku()
    record = {
        "on_hand": "7",
        "attributes": '{"colour": "blue", "size": "1 l"}',
        "image_url": "https://example.com/kettle.svg",
        "currency": "EUR",
        "price_minor": "1999",
        "tags": "kitchen|tea time",
        "category": catalogue.category,
        "description": 'Says "hiss", then boils.',
        "name": "Kettle, enamelled",
        "sku": sku,
    }
    content = csv_of(list(record), record)
    report = catalogue.admin.import_products(content, "text/csv; charset=utf-8").expect(200)
    assert (report.created, report.updated, report.rejected) == (1, 0, [])
    product = by_sku(anyone, catalogue)[sku]
    assert (product.price.amount_minor, product.price.currency) == (1999, "EUR")
    assert product.available == 7
    assert product.tags == ["kitchen", "tea time"]
    assert product.attributes == {"colour": "blue", "size": "1 l"}
    assert product.name == record["name"]
    assert product.description == record["description"]
    assert product.image_url == record["image_url"]


REQUIRED_COLUMNS = ["sku", "name", "category", "price_minor", "currency"]


def record_of(catalogue: Catalogue, **cells: str) -> dict[str, str]:
    """Give the smallest record that lands."""
    return {
        "sku": unique_sku(),
        "name": "Kettle",
        "category": catalogue.category,
        "price_minor": "5",
        "currency": "USD",
        **cells,
    }


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_an_empty_cell_means_absent(catalogue: Catalogue, anyone: Storefront, line_end: str) -> None:
    product = catalogue.product(
        stock=3,
        description="Kept.",
        tags=["kept"],
        attributes={"kept": "yes"},
        image_url="https://example.com/k",
    )
    columns = [*REQUIRED_COLUMNS, "description", "tags", "attributes", "image_url", "on_hand"]
    content = csv_of(columns, record_of(catalogue, sku=product.sku, name="Renamed")).replace("\r\n", line_end)
    report = catalogue.admin.import_products(content, "text/csv").expect(200)
    assert (report.created, report.updated, report.rejected) == (0, 1, [])
    after = anyone.product(product.id).expect(200)
    assert (after.name, after.price.amount_minor) == ("Renamed", 5)
    kept = {"description", "tags", "attributes", "image_url"}
    assert after.model_dump(include=kept) == product.model_dump(include=kept)
    assert after.available == 3


def test_an_empty_cell_that_is_required_rejects_its_record(catalogue: Catalogue) -> None:
    content = csv_of(REQUIRED_COLUMNS, record_of(catalogue, price_minor=""), record_of(catalogue))
    report = catalogue.admin.import_products(content, "text/csv").expect(200)
    assert (report.created, rejected_lines(report)) == (1, [2])


def test_records_are_numbered_by_their_first_line(catalogue: Catalogue, anyone: Storefront) -> None:
    columns = [*REQUIRED_COLUMNS, "description"]
    spread = record_of(catalogue, description="first\nsecond\n\nfourth")
    content = csv_of(
        columns,
        spread,  # lines 2 to 5
        record_of(catalogue, price_minor="cheap"),  # line 6
        record_of(catalogue, price_minor="-1", description="a\nb\nc"),  # lines 7 to 9
        record_of(catalogue),  # line 10
        record_of(catalogue, sku="not a sku"),  # line 11
    )
    report = catalogue.admin.import_products(content, "text/csv").expect(200)
    assert (report.created, rejected_lines(report)) == (2, [6, 7, 11])
    assert by_sku(anyone, catalogue)[spread["sku"]].description == spread["description"]


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("attributes", "no JSON"),
        ("attributes", "[1]"),
        ("price_minor", "19.99"),
        ("price_minor", "-1"),
        ("on_hand", "many"),
        ("on_hand", "-1"),
        ("tags", "|".join(f"tag-{n}" for n in range(21))),
        ("tags", "x" * 51),
        ("name", "NUL \0"),
        ("category", "Not A Slug"),
    ],
    ids=short,
)
def test_a_record_that_cannot_be_is_rejected(catalogue: Catalogue, anyone: Storefront, column: str, cell: str) -> None:
    columns = [*REQUIRED_COLUMNS, *({column} - set(REQUIRED_COLUMNS))]
    good = record_of(catalogue)
    content = csv_of(columns, record_of(catalogue, **{column: cell}), good)
    report = catalogue.admin.import_products(content, "text/csv").expect(200)
    assert (report.created, rejected_lines(report)) == (1, [2])
    assert set(by_sku(anyone, catalogue)) == {good["sku"]}


def test_of_one_sku_twice_in_csv_the_later_wins(catalogue: Catalogue, anyone: Storefront) -> None:
    first = record_of(catalogue, name="First")
    content = csv_of(REQUIRED_COLUMNS, first, {**first, "name": "Later"})
    report = catalogue.admin.import_products(content, "text/csv").expect(200)
    assert (report.created, report.rejected) == (1, [])
    assert by_sku(anyone, catalogue)[first["sku"]].name == "Later"
