"""The import: a stream of product lines, taken in by batches in constant memory.

In memory are one batch, one line that is not complete yet, and the report, never the body. The report ends with line
MOST_REJECTED of those that it rejects, and the import with it: a file of another kind is not worth a million reasons.
"""

import asyncio
import csv
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from chassis.problems import InvalidRequest, UnsupportedMediaType
from services.product.repository import ImportCounts
from services.product.schemas import ImportLine

NDJSON = "application/x-ndjson"
CSV = "text/csv"
MAX_BODY_BYTES = 64 * 2**20
MAX_LINE_BYTES = 64 * 2**10
BATCH_LINES = 500
"""Lines that land at once; validating them holds the event loop for some milliseconds."""
BATCH_BYTES = 4 * 2**20
"""Content that lands at once, however few lines hold it: 500 of the longest would be 32 MiB."""
MOST_REJECTED = 100_000
MAX_DETAIL_CHARACTERS = 300
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

REQUIRED = frozenset(name for name, field in ImportLine.model_fields.items() if field.is_required())
INTEGER = re.compile(r"-?[0-9]{1,18}")
# A quote opens a cell only where the cell begins, and a pair of quotes within it stands for one (RFC 4180, 2.5 to 2.7).
OPENING = re.compile(rb'(?:^|,)"')
CLOSING = re.compile(rb'(?:[^"]|"")*+"')

Land = Callable[[Mapping[str, ImportLine]], Awaitable[ImportCounts]]
"""Brings lines into the catalogue, by SKU, in one transaction."""

_LINE = TypeAdapter(ImportLine)


class Record(NamedTuple):
    """A line of NDJSON, or a record of CSV, which may take several lines. There is no content where it was too long.

    `number` is that of its first line, counted from 1.
    """

    number: int
    content: bytes | None


class RejectedRecord(ValueError):
    """Why a record cannot land."""


class Report:
    """What an import has done so far."""

    def __init__(self) -> None:
        self.created = 0
        self.updated = 0
        self.rejected: list[tuple[int, str]] = []

    @property
    def full(self) -> bool:
        """Whether no more reasons are taken down."""
        return len(self.rejected) >= MOST_REJECTED

    def counts(self) -> dict[str, int]:
        """Lines by what became of them."""
        return {"created": self.created, "updated": self.updated, "rejected": len(self.rejected)}

    def json(self) -> bytes:
        """The report as JSON, its lines in their order."""
        rejected = [{"line": number, "detail": detail} for number, detail in sorted(self.rejected)]
        return orjson.dumps({**self.counts(), "rejected": rejected})


async def import_products(content_type: str, chunks: AsyncIterable[bytes], land: Land) -> Report:
    """Land every good line of a body, and report the bad ones.

    What has landed stays when a later batch fails or the body breaks off: the same body may be sent again. Raises
    UnsupportedMediaType, and InvalidRequest where the header of a CSV is wrong.
    """
    media_type, _, parameters = content_type.lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if media_type.strip() not in {NDJSON, CSV} or ("charset=" in charset and "charset=utf-8" not in charset):
        raise UnsupportedMediaType(f"an import is {NDJSON} or {CSV}, in UTF-8")
    parse, records = _ndjson_line, split_lines(chunks)
    if media_type.strip() == CSV:
        records = join_quoted(records)
        parse = _csv_parser(await anext(records, None))
    report, batch, lines, size = Report(), _Batch(), 0, 0
    async for number, content in records:
        if report.full:
            continue  # but read to its end, since a client that is still sending would not read the answer
        try:
            if content is None:
                raise RejectedRecord(f"is longer than {MAX_LINE_BYTES} bytes")
            if not content.isspace() and content:
                batch.add(number, parse(content))
        except RejectedRecord as reason:
            report.rejected.append((number, str(reason)[:MAX_DETAIL_CHARACTERS]))
        lines += 1
        size += len(content or b"")
        if lines >= BATCH_LINES or size >= BATCH_BYTES:
            await batch.land(land, report)
            batch, lines, size = _Batch(), 0, 0
            await asyncio.sleep(0)  # a batch of bad lines waits for nothing
    await batch.land(land, report)
    return report


class _Batch:
    """Lines that land together: of one SKU the first in one transaction, the second in the next; so the later wins."""

    def __init__(self) -> None:
        self._rounds: list[dict[str, tuple[int, ImportLine]]] = []
        self._seen: dict[str, int] = {}

    def add(self, number: int, line: ImportLine) -> None:
        nth = self._seen.get(line.sku, 0)
        self._seen[line.sku] = nth + 1
        if nth == len(self._rounds):
            self._rounds.append({})
        self._rounds[nth][line.sku] = (number, line)

    async def land(self, land: Land, report: Report) -> None:
        for lines in self._rounds:
            counts = await land({sku: line for sku, (_, line) in lines.items()})
            report.created += counts.created
            report.updated += counts.updated
            report.rejected += [(lines[sku][0], "on_hand: is less than what is reserved") for sku in counts.short]


async def split_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[Record]:
    """Split a stream at its line feeds."""
    number, too_long = 1, False
    pending = bytearray()
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if too_long:
                too_long = False
            else:
                pending += chunk[start:end]
                yield _line(number, pending)
            pending.clear()
            number += 1
            start = end + 1
        if not too_long:
            pending += chunk[start:]
            if len(pending) > MAX_LINE_BYTES + 1:  # one more, since a carriage return may end it
                too_long = True
                pending.clear()
                yield Record(number, None)
    if pending:
        yield _line(number, pending)


def _line(number: int, pending: bytearray) -> Record:
    content = bytes(pending).removesuffix(b"\r")
    if number == 1:
        content = content.removeprefix(BYTE_ORDER_MARK)
    return Record(number, content if len(content) <= MAX_LINE_BYTES else None)


async def join_quoted(lines: AsyncIterator[Record]) -> AsyncIterator[Record]:
    """Join lines of CSV to records: a cell in quotes may hold line ends."""
    first, parts, length, quoted = 1, list[bytes](), 0, False
    async for number, content in lines:
        if not parts:
            first = number
        parts.append(content or b"")
        length += len(parts[-1]) + 1
        too_long = content is None or length > MAX_LINE_BYTES + 1
        quoted = not too_long and _ends_quoted(parts[-1], quoted=quoted)
        if not quoted:
            yield Record(first, None if too_long else b"\n".join(parts))
            parts, length = [], 0
    if parts:
        yield Record(first, b"\n".join(parts))


def _ends_quoted(line: bytes, *, quoted: bool) -> bool:
    """Whether a cell in quotes goes on in the next line; `quoted` says whether one goes on in this."""
    position = 0
    while True:
        if quoted:
            closing = CLOSING.match(line, position)
            if closing is None:
                return True
            position = closing.end()
        opening = OPENING.search(line, position)
        if opening is None:
            return False
        position, quoted = opening.end(), True


def _ndjson_line(content: bytes) -> ImportLine:
    try:
        return _LINE.validate_json(content)
    except ValidationError as error:
        raise RejectedRecord(_reason(error)) from None


def _csv_parser(header: Record | None) -> Callable[[bytes], ImportLine]:
    """What reads the records under this header; raises InvalidRequest where it names other columns than there are."""
    try:
        columns = _cells((header.content if header else None) or b"")
    except RejectedRecord as reason:
        raise InvalidRequest.field("header", str(reason)) from None
    for column in columns:
        if column not in ImportLine.model_fields:
            raise InvalidRequest.field("header", f"names the column {column[:64]!r}, which there is not")
        if columns.count(column) > 1:
            raise InvalidRequest.field("header", f"names the column {column} twice")
    if missing := REQUIRED.difference(columns):
        raise InvalidRequest.field("header", f"lacks {', '.join(sorted(missing))}")

    def parse(content: bytes) -> ImportLine:
        cells = _cells(content)
        if len(cells) != len(columns):
            raise RejectedRecord(f"has {len(cells)} cells for {len(columns)} columns")
        values = {column: _value(column, cell) for column, cell in zip(columns, cells, strict=True) if cell}
        try:
            return _LINE.validate_python(values)
        except ValidationError as error:
            raise RejectedRecord(_reason(error)) from None

    return parse


def _cells(content: bytes) -> list[str]:
    try:
        return next(csv.reader([content.decode()], strict=True))
    except UnicodeDecodeError:
        raise RejectedRecord("is not UTF-8") from None
    except csv.Error as error:
        raise RejectedRecord(f"is not CSV: {error}") from None


def _value(column: str, cell: str) -> Any:
    """A cell as JSON would have it; what cannot be one stays text, for the model to refuse."""
    match column:
        case "price_minor" | "on_hand":
            return int(cell) if INTEGER.fullmatch(cell) else cell
        case "tags":
            return cell.split("|")
        case "attributes":
            try:
                return orjson.loads(cell)
            except orjson.JSONDecodeError:
                raise RejectedRecord("attributes: is not JSON") from None
        case _:
            return cell


def _reason(error: ValidationError) -> str:
    reasons: list[str] = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        field = ".".join(map(str, fault["loc"]))
        reason = fault["msg"].removeprefix("Value error, ")
        reasons.append(f"{field}: {reason}" if field else reason)
    return "; ".join(reasons)
