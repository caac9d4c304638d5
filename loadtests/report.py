"""The report of a run: one page that needs nothing beside it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from drills import plots
from drills.evidence import Harm
from drills.report import html_banner, html_figures, html_mark, html_page, html_small_print, html_table
from loadtests.findings import BUSY_CPU, Bin, Call, Findings, Latencies, Verdict, binned, latencies
from loadtests.record import Sample
from loadtests.shape import Shape

MOST_FAILURES = 20
MOST_CALLS_PLOTTED = 8
PERCENTILES: dict[str, Callable[[Latencies], float]] = {
    "p50": lambda found: found.p50_ms,
    "p95": lambda found: found.p95_ms,
    "p99": lambda found: found.p99_ms,
}
STYLE = """
.line.offered { stroke: var(--quiet); stroke-dasharray: 3 4; } .line.machine { stroke: var(--quiet); }
.line.naive { stroke: var(--quiet); stroke-dasharray: 3 4; } .mark.most { stroke: var(--red); stroke-dasharray: 4 4; }
details h3 { font-size: 14px; margin: 12px 0 0; font-family: ui-monospace, monospace; font-weight: 400; }
"""


@dataclass(frozen=True, slots=True)
class About:
    """What a run was, for whoever repeats it."""

    name: str
    """The shape's."""
    shape: Shape
    command: str
    seed: int
    loop: str
    """How shoppers came, in words."""
    target: str
    began_at: str
    """RFC 3339."""
    machine: str
    versions: str
    audit: str
    """What the audit said last; why there is none where there is none."""


def write(folder: Path, about: About, findings: Findings) -> Path:
    """Write `report.html` beside the run's `requests.csv` and return the page's path."""
    page = folder / "report.html"
    page.write_text(html_page(f"{about.name}: {findings.verdict}", sections(about, findings), STYLE), encoding="utf-8")
    return page


def sections(about: About, findings: Findings) -> list[str]:
    """The page, from the verdict to the small print."""
    found = [_top(about, findings), _figures(about, findings)]
    if findings.measured:
        found += [_rate(about, findings), _latency(about, findings)]
    found.append(_limits(findings))
    if findings.measured:
        found += [_calls(findings.calls), _calls_over_time(about, findings)]
    found.append(_failures(findings))
    if findings.rows.orders:
        found.append(_orders(findings))
    if findings.rows.samples:
        found.append(_generator(about, findings))
    return [*found, _how_to_read(about), _small_print(about)]


def _top(about: About, findings: Findings) -> str:
    verdict = findings.verdict
    shown = "".join(f"<li>{escape(reason)}</li>" for reason in findings.reasons)
    listed = f"<ul>{shown}</ul>" if shown else ""
    return html_banner(verdict.upper(), good=verdict is Verdict.PASSED, name=about.name) + (
        f'<div class="lead">{listed}<p>{escape(about.shape.title)}</p></div>'
    )


def _figures(about: About, findings: Findings) -> str:
    measured, failed = len(findings.measured), findings.failures.total()
    seconds = sum(each.seconds for each in findings.bins if each.begins_s >= about.shape.warm_up_s) or 1.0
    kinds = ", ".join(f"{kind} ({count:,})" for kind, count in findings.failures.most_common())
    shoppers = len({request.arrival for request in findings.rows.requests})
    tiles = [
        ("requests", f"{measured:,}", f"{measured / seconds:,.1f} a second, the warm-up left out"),
        ("failed", f"{failed:,}", f"{failed / measured:.2%}: {kinds}" if failed else ""),
        ("shoppers", f"{shoppers:,}", about.loop),
    ]
    for percent, value in _overall(findings):
        tiles.append((f"{percent} of all", f"{value:,.0f} ms", "from when each request should have been sent"))
    if about.shape.find_knee:
        tiles.append(_knee_tile(findings))
    tiles.append(("audit", html_mark(not findings.violations, about.audit, "not clean"), ""))
    return html_figures(tiles)


def _overall(findings: Findings) -> list[tuple[str, float]]:
    if not findings.measured:
        return []
    found = latencies(request.latency_s for request in findings.measured)
    return [("p50", found.p50_ms), ("p99", found.p99_ms)]


def _knee_tile(findings: Findings) -> tuple[str, str, str]:
    knee = findings.knee
    if knee is None:
        highest = max((each.arrival_rate for each in findings.bins), default=0.0)
        return "knee", f"above {highest:,.0f} shoppers/s", "not reached: the shop followed to the end"
    return (
        "knee",
        f"{knee.arrival_rate:,.0f} shoppers/s",
        f"{knee.request_rate:,.0f} requests a second; after it {knee.why} (unloaded {knee.unloaded_p95_ms:,.0f} ms)",
    )


def _events(about: About, findings: Findings) -> list[Harm]:
    """What is marked in the plots: the warm-up, and the knee."""
    found = [Harm("warm-up", 0, about.shape.warm_up_s)] if about.shape.warm_up_s else []
    if findings.knee is not None:
        found.append(
            Harm(f"knee, {findings.knee.arrival_rate:,.0f} shoppers/s", findings.knee.at_s, findings.knee.at_s)
        )
    return found


def _seconds(bins: Sequence[Bin]) -> float:
    return bins[-1].begins_s + bins[-1].seconds


def _rate(about: About, findings: Findings) -> str:
    bins = findings.bins
    lines = [
        plots.Line("requests", "requests", [each.sent / each.seconds for each in bins], filled=True),
        plots.Line("failed", "failures", [each.failed / each.seconds for each in bins], filled=True),
        plots.Line("shoppers offered", "offered", [each.arrival_rate for each in bins]),
    ]
    return (
        "<section><h2>Requests a second</h2>"
        + plots.over_time(
            "rate",
            "Requests, failures and arriving shoppers a second over the run",
            f"{sum(each.sent for each in bins):,} requests, {sum(each.failed for each in bins):,} of them failed, each"
            " in the second in which it was due.",
            lines=lines,
            scale=plots.linear([value for line in lines for value in line.points]),
            seconds=_seconds(bins),
            harms=_events(about, findings),
            happened="warm-up, knee",
        )
        + "</section>"
    )


def _percentiles(bins: Sequence[Bin]) -> list[plots.Line]:
    """A line for each percentile, from when requests were due."""
    return [
        plots.Line(name, name, [None if each.latency is None else of(each.latency) for each in bins])
        for name, of in PERCENTILES.items()
    ]


def _latency(about: About, findings: Findings) -> str:
    bins = findings.bins
    lines = _percentiles(bins)
    naive = [None if each.service is None else each.service.p99_ms for each in bins]
    lines.append(plots.Line("p99 from when it was sent", "naive", naive))
    return (
        "<section><h2>Latency in milliseconds</h2>"
        + plots.over_time(
            "latency",
            "Latency percentiles over the run",
            "50th, 95th and 99th percentile of the requests that were due in each bin, from when they were due, and the"
            " 99th from when they were sent, on a logarithmic scale.",
            lines=lines,
            scale=plots.logarithmic([value for line in lines for value in line.points]),
            seconds=_seconds(bins),
            harms=_events(about, findings),
            happened="warm-up, knee",
        )
        + '<p class="note">Logarithmic. A request without an answer counts as long as it was waited for.</p></section>'
    )


def _limits(findings: Findings) -> str:
    rows = [
        (escape(each.text), escape(each.measured), html_mark(each.kept, "yes", "no")) for each in findings.judgements
    ]
    note = '<p class="note">Judged before the knee only.</p>' if findings.knee is not None else ""
    return f"<section>{html_table('Limits', ('limit', 'measured', 'kept'), rows)}{note}</section>"


def _calls(calls: Sequence[Call]) -> str:
    columns = ("call", "sent", "failed", "p50, ms", "p95, ms", "p99, ms", "max, ms", "p99 from sent, ms")
    rows = [
        (
            f"<code>{escape(each.call)}</code>",
            f"{each.sent:,}",
            f"{each.failed:,}",
            *(
                f"{value:,.1f}"
                for value in (
                    each.latency.p50_ms, each.latency.p95_ms, each.latency.p99_ms, each.latency.max_ms,
                    each.service.p99_ms,
                )
            ),
        )
        for each in calls
    ]  # fmt: skip
    bars = plots.bars(
        "p95-by-call",
        "95th percentile of the latency by call",
        ", ".join(f"{each.call} {each.latency.p95_ms:,.0f} ms" for each in calls),
        {each.call: each.latency.p95_ms for each in calls},
        {},
        lambda value: f"{value:,.0f} ms",
    )
    return (
        f"<section>{html_table('By endpoint', columns, rows, numbers=range(1, 8))}"
        '<p class="note">Nearest-rank percentiles, from when each request should have been sent; the last column from'
        " when it was.</p></section>"
        f"<section><h2>p95 by endpoint</h2>{bars}</section>"
    )


def _calls_over_time(about: About, findings: Findings) -> str:
    drawn = ""
    for number, call in enumerate(findings.calls[:MOST_CALLS_PLOTTED]):
        requests = [request for request in findings.rows.requests if request.call == call.call]
        bins = binned(requests, about.shape, _seconds(findings.bins), most=len(findings.bins))
        lines = _percentiles(bins)
        drawn += f"<h3>{escape(call.call)}</h3>" + plots.over_time(
            f"call-{number}",
            f"Latency percentiles of {call.call} over the run",
            f"{call.sent:,} requests, {call.failed:,} of them failed.",
            lines=lines,
            scale=plots.logarithmic([value for line in lines for value in line.points]),
            seconds=_seconds(bins),
            harms=_events(about, findings),
            happened="warm-up, knee",
        )
    return f"<details><summary>Latency by endpoint over time, in milliseconds</summary>{drawn}</details>"


def _failures(findings: Findings) -> str:
    failed = [request for request in findings.rows.requests if request.failure]
    if not failed:
        return "<section><h2>Failures</h2><p>None, in the warm-up neither.</p></section>"
    kinds = Counter(request.failure for request in failed)
    rows = [
        (
            f"{request.due_s:,.1f}",
            escape(request.journey),
            f"<code>{escape(request.call)}</code>",
            escape(request.failure),
            escape(request.detail),
        )
        for request in failed[:MOST_FAILURES]
    ]
    bars = plots.bars(
        "failures-by-kind", "Failed requests by kind", f"{len(failed):,} failed.", kinds, dict.fromkeys(kinds, "open")
    )
    table = html_table("The first of them", ("due, s", "journey", "call", "kind", "what was wrong"), rows, numbers=(0,))
    return f"<section><h2>Failures, those of the warm-up too</h2>{bars}</section><section>{table}</section>"


def _orders(findings: Findings) -> str:
    counts = Counter(order.status for order in findings.rows.orders)
    styles = {"confirmed": "sold", "cancelled": "closed", "declined": "closed", "short": "closed"}
    return (
        "<section><h2>What shoppers were told of orders</h2>"
        + plots.bars("orders", "Orders by what shoppers were told", f"{counts.total():,} times.", counts, styles)
        + '<p class="note">An order that is confirmed and then cancelled is told twice.</p></section>'
    )


def _generator(about: About, findings: Findings) -> str:
    bins = len(findings.bins)
    seconds = _seconds(findings.bins)

    def most(value: Callable[[Sample], float]) -> list[float | None]:
        points: list[float | None] = [None] * bins
        for sample in findings.rows.samples:
            if 0 <= sample.at_s < seconds:
                place = min(int(sample.at_s / seconds * bins), bins - 1)
                points[place] = max(points[place] or 0.0, value(sample))
        return points

    lines = [
        plots.Line("busiest generator process, cores", "p50", most(lambda sample: sample.cpu)),
        plots.Line("the machine it runs on, share of all cores", "machine", most(lambda sample: sample.machine_cpu)),
        plots.Line("late, s", "failures", most(lambda sample: sample.lag_s)),
    ]
    samples = findings.rows.samples
    processes = len({sample.generator for sample in samples})
    waiting = sum(
        max(sample.waiting for sample in samples if sample.generator == name)
        for name in {sample.generator for sample in samples}
    )
    return (
        "<section><h2>The generator itself</h2>"
        + plots.over_time(
            "generator",
            "CPU and lateness of the generator over the run",
            f"{processes} processes; at {BUSY_CPU:.0%} of a core one is the bottleneck.",
            lines=lines,
            scale=plots.linear([*(value for line in lines for value in line.points), 1.0]),
            seconds=seconds,
            harms=_events(about, findings),
            marks=[plots.Mark(BUSY_CPU, "most")],
            happened="warm-up, knee",
        )
        + f'<p class="note">{processes} processes; at most {max(sample.in_shop for sample in samples):,} shoppers'
        f" at once in one of them; {waiting:,} came while it had as many as it may have, and waited: each of their"
        " requests counts from when it was due.</p></section>"
    )


def _how_to_read(about: About) -> str:
    closed = "closed" in about.loop
    text = (
        "A closed loop: as many users as there are come again and again, and one who waits for an answer asks for"
        " nothing meanwhile. A slow shop is asked less, so these percentiles are those of its users, not of people who"
        " arrive when they please: for those there is the open loop."
        if closed
        else "An open loop: shoppers arrive by a schedule that follows from the shape and the seed alone, and each"
        " request is timed from when it should have been sent. A shop that stalls keeps nobody from arriving, and"
        " everybody who arrives meanwhile is seen to wait."
    )
    return f"<section><h2>How to read this</h2><p>{text} docs/decisions/load.md gives the reasons.</p></section>"


def _small_print(about: About) -> str:
    return html_small_print(
        (
            ("command", f"<code>{escape(about.command)}</code>"),
            ("target", escape(about.target)),
            ("seed", str(about.seed)),
            ("began", escape(about.began_at)),
            ("measured", f"{about.shape.seconds:,.0f} s after a warm-up of {about.shape.warm_up_s:,.0f} s"),
            ("machine", escape(about.machine)),
            ("versions", escape(about.versions)),
            ("data", '<a href="requests.csv">requests.csv</a>, a line for each request'),
        )
    )
