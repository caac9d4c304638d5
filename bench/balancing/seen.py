"""What docs/labs/balancing.md says of its table, each sentence with the rows that would refute it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.balancing.report import ANEW, Row, Situation

GOES_ROUND = frozenset({"wrr", "round robin"})
LOOKS = frozenset({"p2c", "least connections", "two choices"})
"""Who asks how much is under way at a pod."""
REPEATS = frozenset({"nginx", "HAProxy", "chassis"})
"""Who sends a read to another pod where one died over it."""
KUBE_PROXY = "kube-proxy"
TAKES_UP = frozenset({"wrr", "p2c"})
"""Of Traefik's strategies those that give every pod something: a hash and the least time do not."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Something that is said of rows."""

    text: str
    of: Callable[[Row], bool]
    holds: Callable[[Row], bool]


def _failed(situation: Situation) -> float:
    return situation.failed / situation.requests


SENTENCES: Sequence[Sentence] = (
    Sentence(
        "with three equal pods no request fails, whoever chooses",
        lambda _: True,
        lambda row: row.equal.failed == 0,
    ),
    Sentence(
        "who goes round still has a fifth of all answers or more from a slow pod",
        lambda row: row.how in GOES_ROUND,
        lambda row: row.slow_share >= 1 / 5,
    ),
    Sentence(
        "who looks at what is under way has less than a quarter from it",
        lambda row: row.how in LOOKS,
        lambda row: row.slow_share < 1 / 4,
    ),
    Sentence(
        "where somebody goes round, requests fail at the slow pod",
        lambda row: row.how in GOES_ROUND,
        lambda row: row.slow.failed > 0,
    ),
    Sentence(
        "where somebody looks, fewer than one request in a hundred does",
        lambda row: row.how in LOOKS,
        lambda row: _failed(row.slow) < 0.01,
    ),
    Sentence(
        "a pod that dies costs requests where kube-proxy chooses for each",
        lambda row: row.who == KUBE_PROXY and row.connections == ANEW,
        lambda row: row.dead.failed > 0,
    ),
    Sentence(
        "it costs none where the request is sent to another pod",
        lambda row: row.who in REPEATS,
        lambda row: row.dead.failed == 0,
    ),
    Sentence(
        "whom the API server tells gives a new pod its share within two seconds",
        lambda row: (
            (row.who == KUBE_PROXY and row.connections == ANEW) or (row.who == "Traefik" and row.how in TAKES_UP)
        ),
        lambda row: row.fair_s is not None and row.fair_s < 2,
    ),
    Sentence(
        "HAProxy and the chassis, who ask by themselves, have given it its share by the end",
        lambda row: row.who in {"HAProxy", "chassis"},
        lambda row: row.fair_s is not None,
    ),
)


def judged(rows: Sequence[Row]) -> list[str]:
    """A line for each sentence: that it holds, or of which rows it does not."""
    lines: list[str] = []
    for sentence in SENTENCES:
        of = [row for row in rows if sentence.of(row)]
        against = [f"{row.who} {row.how} {row.connections}" for row in of if not sentence.holds(row)]
        verdict = "not measured" if not of else f"not of {', '.join(against)}" if against else "holds"
        lines.append(f"{verdict}: {sentence.text}")
    return lines
