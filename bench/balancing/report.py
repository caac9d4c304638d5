"""The figures of a run as a line of a table, and the table kept in a file for whoever reads it afterwards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from bench.balancing import measure
from bench.balancing.run import LATE_S, Result
from deploy.terminal import Failed

KEPT, ANEW = CONNECTIONS = ("kept", "anew")
HEAD = (
    f"{'':33}  {'three equal pods':>26} |{'one of them slow':>26} |{'one dies':>19} |{'one is added':>25}",
    f"{'who':10}  {'how':17}  {'':4}  {'spread':>6} {'p50':>5} {'p99':>5} {'failed':>7} |"
    f"{'share':>6} {'p50':>5} {'p99':>5} {'failed':>7} |{'p99':>5} {'failed':>7} {'for':>5} |"
    f"{'p99':>5} {'failed':>7} {'first':>5} {'fair':>5}",
)
NEVER = "never"


@dataclass(frozen=True, slots=True)
class Situation:
    """What callers got in one of the four situations."""

    requests: int
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True, slots=True)
class Row:
    """One way by one kind of connection."""

    who: str
    how: str
    connections: str
    equal: Situation
    spread: float
    slow: Situation
    slow_share: float
    dead: Situation
    harmed_s: float
    added: Situation
    first_s: float | None
    fair_s: float | None
    cores: float
    latest_s: float


def row(who: str, how: str, connections: str, result: Result) -> Row:
    """The figures of a result."""
    pods = len(result.added_pods)
    return Row(
        who,
        how,
        connections,
        equal=_situation(result.equal),
        spread=measure.spread(result.equal, result.pods),
        slow=_situation(result.slow),
        slow_share=measure.share(result.slow, result.slow_pod),
        dead=_situation(result.dead),
        harmed_s=measure.harmed_for(result.dead, result.died_at, LATE_S),
        added=_situation(result.added),
        first_s=measure.first_after(result.added, result.new_pod, result.ready_at),
        fair_s=measure.fair_after(result.added, result.new_pod, pods, result.ready_at),
        cores=result.cores,
        latest_s=result.latest_s,
    )


def _situation(answers: Sequence[measure.Answer]) -> Situation:
    return Situation(
        len(answers),
        measure.percentile(answers, 50) * 1000,
        measure.percentile(answers, 99) * 1000,
        measure.failures(answers),
    )


def line(found: Row) -> str:
    """A line of the table below HEAD."""
    equal, slow, dead, added = found.equal, found.slow, found.dead, found.added
    return (
        f"{found.who:10}  {found.how:17}  {found.connections:4}  "
        f"{found.spread:6.2f} {equal.p50_ms:5.0f} {equal.p99_ms:5.0f} {equal.failed:7} |"
        f"{_share(found.slow_share)} {slow.p50_ms:5.0f} {slow.p99_ms:5.0f} {slow.failed:7} |"
        f"{dead.p99_ms:5.0f} {dead.failed:7} {found.harmed_s:5.1f} |"
        f"{added.p99_ms:5.0f} {added.failed:7} {_seconds(found.first_s)} {_seconds(found.fair_s)}"
    )


def _share(share: float) -> str:
    return f"{'-':>6}" if math.isnan(share) else f"{share * 100:5.0f}%"


def _seconds(seconds: float | None) -> str:
    return f"{NEVER:>5}" if seconds is None else f"{seconds:5.1f}"


def write(rows: Sequence[Row], path: Path) -> None:
    """Keep a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TABLE.dump_json(list(rows), indent=1))


def read(path: Path) -> list[Row]:
    """A table that was kept; raises Failed where none is."""
    try:
        return TABLE.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise Failed(f"{path} is not there: nothing was measured yet") from None


TABLE = TypeAdapter(list[Row])
