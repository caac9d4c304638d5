"""What a generator writes down, a line of CSV for each thing, and how it is read again.

Generators print these lines to standard output; whoever started them keeps them, so that a run that is interrupted, or
whose generator is killed, has all that was printed until then. Times are seconds since the beginning of the warm-up, by
the monotonic clock of the process that measured.
"""

import csv
import io
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeAlias, get_type_hints

NO_ANSWER = "no answer"
WRONG = "wrong answer"
NEVER_SENT = "never sent"
"""Due before the end, and still waiting for its turn then: left out, it would be an omission like any other."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it should have been sent, when it was, and when its answer was complete or given up."""

    due_s: float
    sent_s: float
    ended_s: float
    journey: str
    arrival: int
    call: str
    """The method and the path's template, such as `GET /api/v1/orders/{id}`."""
    status: int
    """0 where no answer came."""
    failure: str = ""
    """Its kind: a status as `503`, `no answer`, `never sent`, `wrong answer`, maybe a 200; empty if all was right."""
    detail: str = ""

    @property
    def latency_s(self) -> float:
        """From when it should have been sent: what a shopper waits who comes when shoppers come."""
        return self.ended_s - self.due_s

    @property
    def service_s(self) -> float:
        """From when it was sent: what a generator sees that waits for the shop before it sends the next one."""
        return self.ended_s - self.sent_s


@dataclass(frozen=True, slots=True)
class Order:
    """What a shopper was told of an order."""

    at_s: float
    order_id: str
    status: str
    """`confirmed`, `cancelled`, `declined` or `short`."""
    total_minor: int
    hot_units: int
    """Units of the one product that everyone wants, where there is one."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of one generator process."""

    at_s: float
    generator: str
    cpu: float
    """Cores used by the process: at 1 its event loop has nothing left."""
    machine_cpu: float
    """The share of the machine's cores that was used, by whomever."""
    lag_s: float
    """How late the event loop was at most for something that was due."""
    in_shop: int
    """Shoppers on their way."""
    waiting: int
    """Arrivals that found as many in the shop as this process may have, and waited."""


@dataclass(frozen=True, slots=True)
class End:
    """The last line of a generator that ended in order: how many requests it counted, apart from writing them down."""

    requests: int
    arrivals: int


Row: TypeAlias = Request | Order | Sample | End
KINDS: dict[str, type[Row]] = {"request": Request, "order": Order, "sample": Sample, "end": End}
NAMES = {kind: name for name, kind in KINDS.items()}
_READERS = {
    kind: [get_type_hints(kind)[each.name] for each in fields(kind)]  # `int`, `float` or `str` reads the cell
    for kind in KINDS.values()
}


def line(row: Row) -> str:
    """A row as one line of CSV, without its end."""
    cells = [_cell(getattr(row, each.name)) for each in fields(row)]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow([NAMES[type(row)], *cells])
    return text.getvalue()


def _cell(value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return " ".join(value.split()) if isinstance(value, str) else str(value)


def parsed(text: str) -> Row | None:
    """The row of a line; none of one that is anything else, or was cut off in the middle."""
    try:
        name, *cells = next(csv.reader([text], strict=True), ()) or ("",)
        kind = KINDS.get(name)
        if kind is None or len(cells) != len(_READERS[kind]):
            return None
        return kind(*(read(cell) for read, cell in zip(_READERS[kind], cells, strict=True)))
    except (ValueError, csv.Error):
        return None


@dataclass(slots=True)
class Rows:
    """All that the generators of a run printed."""

    requests: list[Request] = field(default_factory=list[Request])
    orders: list[Order] = field(default_factory=list[Order])
    samples: list[Sample] = field(default_factory=list[Sample])
    end: End | None = None

    def add(self, row: Row) -> None:
        """Take in a row."""
        match row:
            case Request():
                self.requests.append(row)
            case Order():
                self.orders.append(row)
            case Sample():
                self.samples.append(row)
            case End():
                self.end = row


def read(lines: Iterable[str]) -> Rows:
    """The rows of all lines that are rows."""
    rows = Rows()
    for text in lines:
        row = parsed(text.rstrip("\n"))
        if row is not None:
            rows.add(row)
    return rows


@contextmanager
def kept(path: Path, rows: Rows) -> Generator[Callable[[Row], None]]:
    """Take in rows as they come, and write the requests among them at once, so that they are there at any moment."""
    with path.open("w", encoding="utf-8", newline="", buffering=1) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([each.name for each in fields(Request)])

        def keep(row: Row) -> None:
            rows.add(row)
            if isinstance(row, Request):
                writer.writerow([_cell(getattr(row, each.name)) for each in fields(row)])

        yield keep
