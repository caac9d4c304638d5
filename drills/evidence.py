"""What a drill has to show for itself: what was sent and what came back, the harm done, and the promises checked.

Times are seconds since the drill began, by the monotonic clock of the process that ran it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

REFUSED_FOR_NOW = "503"
"""The kind of failure that says of itself that nothing happened and the request may be repeated."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request of a shopper and what came back."""

    sent_at_s: float
    seconds: float
    call: str
    """The method and the path's template, such as `GET /api/v1/orders/{id}`."""
    status: int | None
    """None where no answer came."""
    failure: str | None = None
    """None where the answer was one of those hoped for; else its kind: a status such as `503`, or `no answer`."""
    retry_after: bool = False
    """Whether the answer carried `Retry-After`."""

    @property
    def ended_at_s(self) -> float:
        """When the answer was complete, or given up."""
        return self.sent_at_s + self.seconds


@dataclass(frozen=True, slots=True)
class Harm:
    """Something that the drill did to the platform. One at a moment, such as a kill, ends when it begins."""

    what: str
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that must hold, and what was measured.

    A promise about time is `judged` in a full run only: a short one shares its machine with other tests.
    """

    text: str
    measured: str
    kept: bool
    judged: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that belong to one drill alone, such as the crash points one by one."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(slots=True)
class Evidence:
    """All of it, as the report shows it."""

    name: str
    title: str
    """The drill in one sentence: what it does, and what must hold."""
    command: str
    seed: int
    began_at: str
    """RFC 3339."""
    seconds: float
    machine: str
    versions: str
    sent: int
    """Requests, as the shoppers' connections counted them when they were written."""
    exchanges: list[Exchange] = field(default_factory=list[Exchange])
    harms: list[Harm] = field(default_factory=list[Harm])
    orders: Counter[str] = field(default_factory=Counter[str])
    """How many orders ended in which status, as the order service believes."""
    promises: list[Promise] = field(default_factory=list[Promise])
    violations: list[str] = field(default_factory=list[str])
    """What was told to a client and is not so, and what the audit found."""
    tables: list[Table] = field(default_factory=list[Table])
    recovered_s: float | None = None
    """From the end of the last harm to the last request that failed; none where nothing failed after it."""

    @property
    def failures(self) -> Counter[str]:
        """Failed requests by kind."""
        return Counter(exchange.failure for exchange in self.exchanges if exchange.failure is not None)

    @property
    def broken(self) -> list[str]:
        """Why the drill failed, a line each; empty where it passed.

        A storm that hit nothing proves nothing, and neither does one whose requests were not all written down.
        """
        found = [*self.violations]
        found += [f"{each.text}: {each.measured}" for each in self.promises if each.judged and not each.kept]
        if not self.harms:
            found.append("no harm was done")
        if len(self.exchanges) != self.sent:
            found.append(f"{self.sent} requests were sent and {len(self.exchanges)} written down")
        if not self.exchanges:
            found.append("no request was sent")
        return found
