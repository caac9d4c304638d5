import csv
import random
from collections.abc import AsyncIterator

import pytest

from services.product.conditional import entity_tag, matches
from services.product.domain import category_name, sort_key
from services.product.product_import import MAX_LINE_BYTES, Record, join_quoted, split_lines

LINES = b'a,"b\r\nc",d\r\ne,"f ""g""\n\n",h\ni 5" j,k\n"l"\n'


@pytest.mark.parametrize(
    ("slug", "name"), [("kitchen", "Kitchen"), ("home-kitchen", "Home kitchen"), ("4k-tvs", "4k tvs"), ("--", "--")]
)
def test_a_category_is_named_after_its_slug(slug: str, name: str) -> None:
    assert category_name(slug) == name


def test_names_sort_without_their_case() -> None:
    assert sort_key("STRASSE") == sort_key("Straße")


def test_a_tag_is_strong_and_tells_the_version() -> None:
    assert entity_tag(b"a") != entity_tag(b"b")
    assert entity_tag(b"a", 3).startswith('"3-')


@pytest.mark.parametrize(
    ("if_none_match", "expected"),
    [
        *((header, True) for header in ('"a"', 'W/"a"', '"b", "a"', '"b",W/"a"', "*", ' "a" ')),
        *((header, False) for header in ('"b"', "a", "", '"a', '"aa"', '"*"')),
    ],
)
def test_if_none_match_compares_weakly(if_none_match: str, expected: bool) -> None:
    assert matches(if_none_match, '"a"') is expected


async def records(content: bytes, size: int, *, quoted: bool) -> list[Record]:
    """The records of a body that comes in chunks of `size` bytes."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), size):
            yield content[start : start + size]

    lines = split_lines(chunks())
    return [record async for record in (join_quoted(lines) if quoted else lines)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_lines_are_the_same_however_the_body_is_cut(size: int) -> None:
    expected = [(1, b'a,"b'), (2, b'c",d'), (3, b'e,"f ""g""'), (4, b""), (5, b'",h'), (6, b'i 5" j,k'), (7, b'"l"')]
    assert await records(LINES, size, quoted=False) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_a_record_is_numbered_by_its_first_line(size: int) -> None:
    expected = [(1, b'a,"b\nc",d'), (3, b'e,"f ""g""\n\n",h'), (6, b'i 5" j,k'), (7, b'"l"')]
    assert await records(LINES, size, quoted=True) == expected


async def test_records_are_those_that_the_csv_module_reads() -> None:
    letters = random.Random(7)  # noqa: S311 (the same on each run)
    rows = [["".join(letters.choices('ab",\n |', k=letters.randrange(9))) for _ in range(3)] for _ in range(500)]
    text = "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in rows)
    found = await records(text.encode(), 13, quoted=True)
    assert [next(csv.reader([(record.content or b"").decode()], strict=True)) for record in found] == rows


@pytest.mark.parametrize("size", [1_000, 65_536, 10**6])
@pytest.mark.parametrize("quoted", [False, True])
async def test_a_line_may_have_64_kibibytes_and_a_longer_one_spoils_no_other(size: int, quoted: bool) -> None:
    content = b"\n".join([b"a" * MAX_LINE_BYTES, b"b" * (MAX_LINE_BYTES + 1), b"c" * 300_000, b"d"])
    found = await records(content, size, quoted=quoted)
    assert [(record.number, record.content is None) for record in found] == [
        (1, False),
        (2, True),
        (3, True),
        (4, False),
    ]


async def test_a_quote_that_is_never_closed_takes_no_more_than_a_line_may_have() -> None:
    content = b'"never closed\n' + b"a,b\n" * 20_000
    found = await records(content, 4_096, quoted=True)
    assert found[0] == (1, None)
    assert all(len(record.content or b"") <= MAX_LINE_BYTES for record in found)
    assert found[-1] == (20_001, b"a,b")
