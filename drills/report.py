"""The report of a drill: one page that needs nothing beside it, and the same as JSON.

A page shows what was counted or it is not written: what it plots is summed up again and compared with the requests
that were sent.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from drills import plots
from drills.evidence import Evidence, Exchange, Harm, Table

FEWEST_BINS = 20
MOST_BINS = 120
PERCENTS = (50, 95, 99)
MOST_SHOWN = 200
"""Violations on the page; all of them are in the JSON."""
MOST_REASONS = 8
MOST_KINDS_OF_HARM = 4
MOST_HARMS_OPEN = 10
SOLD = frozenset({"confirmed", "shipped", "delivered"})
FINAL = SOLD | {"rejected", "cancelled"}
AT_ONCE = "at once"

HOW_TO_READ = """\
`make drills` wrote this page; the command in each section runs that drill alone, and draws by chance what it drew here.
*Failed* are requests whose answer was none that the client hoped for, by kind; the client then repeated them.
*Recovery* is the time from the end of the last harm to the last request that failed. A drill fails where a promise is
broken, where something that a client was told is not so, or where the audit finds a violation."""

Summary = dict[str, Any]


class Incomplete(Exception):
    """The report would not show each request exactly once."""


@dataclass(frozen=True, slots=True)
class Call:
    """All requests of one kind. Percentiles are nearest-rank and in milliseconds."""

    call: str
    sent: int
    failed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class OverTime:
    """What is plotted: the drill in bins of equal length. A request is in the bin in which it ended, that is, in which
    its answer was complete or given up; a bin in which none ended has no percentiles.
    """

    bin_s: float
    requests: list[int]
    failures: list[int]
    p50_ms: list[float | None]
    p95_ms: list[float | None]
    p99_ms: list[float | None]

    @property
    def seconds(self) -> float:
        """From the beginning of the first bin to the end of the last."""
        return self.bin_s * len(self.requests)


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of at least one value: the least value that `percent` of them do not exceed."""
    return ascending[math.ceil(percent / 100 * len(ascending)) - 1]


def calls(exchanges: Iterable[Exchange]) -> list[Call]:
    """The requests by call, the most frequent first."""
    of_call: defaultdict[str, list[Exchange]] = defaultdict(list)
    for exchange in exchanges:
        of_call[exchange.call].append(exchange)
    found: list[Call] = []
    for call, sent in of_call.items():
        ascending = sorted(exchange.seconds for exchange in sent)
        failed = sum(exchange.failure is not None for exchange in sent)
        times_ms = [_milliseconds(percentile(ascending, percent)) for percent in (*PERCENTS, 100)]
        found.append(Call(call, len(sent), failed, *times_ms))
    return sorted(found, key=lambda each: (-each.sent, each.call))


def over_time(evidence: Evidence) -> OverTime:
    """The drill in bins: one a second, but no fewer than 20 and no more than 120."""
    ends = [evidence.seconds, *(each.ended_at_s for each in evidence.exchanges), *(h.ended_s for h in evidence.harms)]
    seconds = max(ends) if max(ends) > 0 else 1.0
    count = min(MOST_BINS, max(FEWEST_BINS, round(seconds)))
    bin_s = seconds / count
    bins: list[list[Exchange]] = [[] for _ in range(count)]
    for exchange in evidence.exchanges:
        if 0 <= exchange.ended_at_s <= seconds:
            bins[min(int(exchange.ended_at_s / bin_s), count - 1)].append(exchange)
    ascending = [sorted(exchange.seconds for exchange in each) for each in bins]
    p50_ms, p95_ms, p99_ms = (
        [_milliseconds(percentile(each, percent)) if each else None for each in ascending] for percent in PERCENTS
    )
    return OverTime(
        bin_s,
        [len(each) for each in bins],
        [sum(exchange.failure is not None for exchange in each) for each in bins],
        p50_ms,
        p95_ms,
        p99_ms,
    )


def summary(evidence: Evidence) -> Summary:
    """All but the single exchanges, as JSON has it; raises Incomplete."""
    by_call, bins = calls(evidence.exchanges), over_time(evidence)
    failed = evidence.failures.total()
    for what, shown, counted in (
        ("requests written down", len(evidence.exchanges), evidence.sent),
        ("requests over time", sum(bins.requests), evidence.sent),
        ("requests by call", sum(each.sent for each in by_call), evidence.sent),
        ("failures over time", sum(bins.failures), failed),
        ("failures by call", sum(each.failed for each in by_call), failed),
    ):
        if shown != counted:
            raise Incomplete(f"{evidence.name}: {shown} {what}, and {counted} were counted")
    return {
        "name": evidence.name,
        "title": evidence.title,
        "passed": not evidence.broken,
        "broken": evidence.broken,
        "sent": evidence.sent,
        "failures": dict(evidence.failures.most_common()),
        "orders": dict(evidence.orders.most_common()),
        "recovered_s": evidence.recovered_s,
        "harms": [asdict(each) for each in evidence.harms],
        "promises": [asdict(each) for each in evidence.promises],
        "violations": list(evidence.violations),
        "tables": [
            {"title": each.title, "columns": list(each.columns), "rows": [list(row) for row in each.rows]}
            for each in evidence.tables
        ],
        "calls": [asdict(each) for each in by_call],
        "over_time": asdict(bins),
        "command": evidence.command,
        "seed": evidence.seed,
        "began_at": evidence.began_at,
        "seconds": evidence.seconds,
        "machine": evidence.machine,
        "versions": evidence.versions,
    }


def write(evidence: Evidence, folder: Path) -> Path:
    """Write `<name>.html` and `<name>.json` and return the page's path.

    Raises Incomplete, and then no report of this name is left, not even of an earlier run.
    """
    page, data = folder / f"{evidence.name}.html", folder / f"{evidence.name}.json"
    page.unlink(missing_ok=True)
    data.unlink(missing_ok=True)
    found = summary(evidence)
    folder.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(html_page(f"{evidence.name}: {_verdict(found)}", _sections(evidence, found)), encoding="utf-8")
    return page


def summaries(folder: Path) -> list[Summary]:
    """All reports of a folder, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def index(folder: Path) -> Path:
    """Write `index.html` over all reports of the folder and return its path."""
    found = summaries(folder)
    failed = sum(not each["passed"] for each in found)
    columns = ("drill", "verdict", "requests", "failed", "orders", "recovery")
    rows = [
        (
            f'<a href="{escape(each["name"])}.html">{escape(each["name"])}</a>',
            html_mark(each["passed"], "passed", "failed"),
            f"{each['sent']:,}",
            f"{sum(each['failures'].values()):,}",
            f"{sum(each['orders'].values()):,}",
            escape(_recovery(each["recovered_s"], each["harms"])),
        )
        for each in found
    ]
    verdict = f"{len(found) - failed} of {len(found)} passed" if found else "no drill was run"
    body = [
        html_banner(verdict, good=bool(found) and not failed),
        f"<section>{html_table('All drills', columns, rows, numbers=(2, 3, 4))}</section>",
    ]
    path = folder / "index.html"
    path.write_text(html_page(f"Drills: {verdict}", body), encoding="utf-8")
    return path


def markdown(folder: Path) -> str:
    """The page docs/drills.md: all reports of the folder in a table, and then what each of them promised."""
    found = summaries(folder)
    failed = sum(not each["passed"] for each in found)
    columns = ("drill", "harm done", "requests", "failed", "orders", "recovery", "oracle and audit")
    rows = [
        (
            f"[{each['name']}](#{each['name']})",
            _harm_in_words(each["harms"]),
            f"{each['sent']:,}",
            _counts(each["failures"]),
            _counts(each["orders"]),
            _recovery(each["recovered_s"], each["harms"]),
            "clean" if not each["violations"] else f"{len(each['violations'])} violations",
        )
        for each in found
    ]
    sections = [
        f"## {each['name']}\n\n{each['title']} **{_verdict(each)}** in {each['seconds']:.0f} s.\n\n"
        f"`{each['command']}`, {each['began_at']}\n\n"
        + _markdown_table(
            ("promise", "measured", "kept"),
            [(each["text"], each["measured"], "yes" if each["kept"] else "no") for each in each["promises"]],
        )
        + "".join(
            f"\n{table['title']}:\n\n{_markdown_table(table['columns'], table['rows'])}" for table in each["tables"]
        )
        for each in found
    ]
    machine, versions = (found[0]["machine"], found[0]["versions"]) if found else ("", "")
    return "\n".join(
        (
            "# Drills",
            "",
            f"What befell the platform, and what came of it: {len(found) - failed} of {len(found)} drills passed.",
            "",
            HOW_TO_READ,
            "",
            f"- Machine: {machine}",
            f"- Versions: {versions}",
            "",
            _markdown_table(columns, rows, numbers=(2,)),
            *sections,
        )
    )


def _markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    ruler = ["---:" if number in {*numbers} else "---" for number in range(len(columns))]
    lines = (columns, ruler, *rows)
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def _sections(evidence: Evidence, found: Summary) -> list[str]:
    bins = over_time(evidence)
    sections = [_top(evidence), _figures(evidence)]
    if evidence.exchanges:
        sections.append(_over_time_plots(evidence, bins))
    if evidence.orders:
        sections.append(_orders(evidence))
    if evidence.promises:
        sections.append(_promises(evidence))
    sections.append(_violations(evidence))
    sections += [_own_table(each) for each in evidence.tables]
    if evidence.harms:
        sections.append(_harm_table(_in_order(evidence.harms)))
    if evidence.exchanges:
        sections += [_call_table(calls(evidence.exchanges)), _bin_table(bins)]
    sections.append(_small_print(evidence, found))
    return sections


def _top(evidence: Evidence) -> str:
    reasons = evidence.broken
    shown = "".join(f"<li>{escape(each)}</li>" for each in reasons[:MOST_REASONS])
    if len(reasons) > MOST_REASONS:
        shown += f"<li>and {len(reasons) - MOST_REASONS:,} more</li>"
    listed = f"<ul>{shown}</ul>" if shown else ""
    return html_banner("FAILED" if reasons else "PASSED", good=not reasons, name=evidence.name) + (
        f'<div class="lead">{listed}<p>{escape(evidence.title)}</p></div>'
    )


def _figures(evidence: Evidence) -> str:
    failed = evidence.failures.total()
    violations = len(evidence.violations)
    judged = [each for each in evidence.promises if each.judged]
    if evidence.exchanges or violations:
        books = html_mark(not violations, "agree", f"{violations:,} violation{'s' if violations != 1 else ''}")
    else:
        books = "not compared"
    if not evidence.harms:
        recovery_note = ""
    elif evidence.recovered_s is None:
        recovery_note = "no request failed after the last harm"
    else:
        recovery_note = "from the end of the last harm to the last failure"
    tiles = (
        ("requests sent", f"{evidence.sent:,}", f"in {evidence.seconds:,.1f} s"),
        (
            "requests failed",
            f"{failed:,}",
            f"{failed / evidence.sent:.2%} of all: {_counts(evidence.failures)}" if failed else "",
        ),
        ("orders", f"{evidence.orders.total():,}", _counts(evidence.orders) if evidence.orders else ""),
        ("recovery", escape(_recovery(evidence.recovered_s, evidence.harms)), recovery_note),
        ("audit and clients' log", books, "what clients were told against what the services hold"),
        (
            "promises kept",
            f"{sum(each.kept for each in judged)} of {len(judged)}" if judged else "none to judge",
            f"{len(evidence.promises) - len(judged)} more shown only" if len(evidence.promises) > len(judged) else "",
        ),
    )
    return html_figures(tiles)


def _over_time_plots(evidence: Evidence, bins: OverTime) -> str:
    def a_second(counts: Sequence[int]) -> list[float | None]:
        return [count / bins.bin_s for count in counts]

    requests = [
        plots.Line("requests", "requests", a_second(bins.requests), filled=True),
        plots.Line("failed", "failures", a_second(bins.failures), filled=True),
    ]
    latency = [
        plots.Line("p50", "p50", bins.p50_ms),
        plots.Line("p95", "p95", bins.p95_ms),
        plots.Line("p99", "p99", bins.p99_ms),
    ]
    highest = max((value for value in bins.p99_ms if value is not None), default=0.0)
    harms = _in_order(evidence.harms)
    harm = f" Harm: {_harm_in_words([asdict(each) for each in evidence.harms])}."
    return (
        "<section><h2>Requests a second</h2>"
        + plots.over_time(
            "requests-over-time",
            "Requests and failures a second over the time of the drill",
            f"{sum(bins.requests):,} requests, {sum(bins.failures):,} of them failed, each in the second in which it"
            f" ended; at most {max(bins.requests) / bins.bin_s:,.0f} a second.{harm}",
            lines=requests,
            scale=plots.linear(requests[0].points),
            seconds=bins.seconds,
            harms=harms,
        )
        + "</section><section><h2>Latency in milliseconds</h2>"
        + plots.over_time(
            "latency-over-time",
            "Latency percentiles over the time of the drill",
            "50th, 95th and 99th percentile of the requests that ended in each bin, on a logarithmic scale; the 99th"
            f" is at most {highest:,.0f} ms.{harm}",
            lines=latency,
            scale=plots.logarithmic([value for line in latency for value in line.points]),
            seconds=bins.seconds,
            harms=harms,
        )
        + '<p class="note">Logarithmic. A request without an answer counts as long as it was waited for.</p></section>'
    )


def _orders(evidence: Evidence) -> str:
    styles = {
        status: "sold" if status in SOLD else "closed" if status in FINAL else "open" for status in evidence.orders
    }
    return "<section><h2>Orders by outcome</h2>" + (
        plots.bars(
            "orders-by-outcome",
            "Orders by the status in which they ended",
            f"{evidence.orders.total():,} orders: {_counts(evidence.orders)}.",
            evidence.orders,
            styles,
        )
        + "</section>"
    )


def _promises(evidence: Evidence) -> str:
    rows = [
        (
            escape(each.text),
            escape(each.measured),
            html_mark(each.kept, "yes", "no"),
            "judged" if each.judged else "shown only",
        )
        for each in evidence.promises
    ]
    return f"<section>{html_table('Promises', ('promise', 'measured', 'kept', 'in this run'), rows)}</section>"


def _violations(evidence: Evidence) -> str:
    count = len(evidence.violations)
    if not count:
        return "<section><h2>Violations</h2><p>None.</p></section>"
    shown = "".join(f"<li>{escape(each)}</li>" for each in evidence.violations[:MOST_SHOWN])
    rest = f"<p>And {count - MOST_SHOWN:,} more, in the JSON.</p>" if count > MOST_SHOWN else ""
    return f'<section><h2>Violations</h2><ol class="violations">{shown}</ol>{rest}</section>'


def _own_table(table: Table) -> str:
    rows = [[escape(cell) for cell in row] for row in table.rows]
    return f"<section>{html_table(table.title, table.columns, rows)}</section>"


def _harm_table(harms: Sequence[Harm]) -> str:
    rows = [
        (str(number), escape(each.what), f"{each.began_s:.1f}", f"{each.ended_s:.1f}")
        for number, each in enumerate(harms, 1)
    ]
    table = html_table("Harm done", ("no.", "what", "from, s", "to, s"), rows, numbers=(2, 3))
    if len(harms) <= MOST_HARMS_OPEN:
        return f"<section>{table}</section>"
    return f"<details><summary>Harm done, {len(harms)} times</summary>{table}</details>"


def _call_table(found: Sequence[Call]) -> str:
    columns = ("call", "sent", "failed", "p50, ms", "p95, ms", "p99, ms", "max, ms")
    rows = [
        (
            f"<code>{escape(each.call)}</code>",
            f"{each.sent:,}",
            f"{each.failed:,}",
            *(f"{value:,.1f}" for value in (each.p50_ms, each.p95_ms, each.p99_ms, each.max_ms)),
        )
        for each in found
    ]
    return (
        f"<section>{html_table('Calls', columns, rows, numbers=range(1, 7))}"
        '<p class="note">Percentiles are nearest-rank: the least value that so many per cent do not exceed.</p>'
        "</section>"
    )


def _bin_table(bins: OverTime) -> str:
    columns = ("from, s", "requests", "failed", "p50, ms", "p95, ms", "p99, ms")
    rows = [
        (
            f"{number * bins.bin_s:,.1f}",
            f"{requests:,}",
            f"{failures:,}",
            *("" if value is None else f"{value:,.1f}" for value in latencies),
        )
        for number, (requests, failures, *latencies) in enumerate(
            zip(bins.requests, bins.failures, bins.p50_ms, bins.p95_ms, bins.p99_ms, strict=True)
        )
    ]
    title = f"What is plotted, in bins of {bins.bin_s:.2f} s"
    return f"<details><summary>{title}</summary>{html_table(title, columns, rows, numbers=range(6))}</details>"


def _small_print(evidence: Evidence, found: Summary) -> str:
    lines = (
        ("command", f"<code>{escape(evidence.command)}</code>"),
        ("seed", str(evidence.seed)),
        ("began", escape(evidence.began_at)),
        ("took", f"{evidence.seconds:,.1f} s"),
        ("machine", escape(evidence.machine)),
        ("versions", escape(evidence.versions)),
        ("data", f'<a href="{escape(found["name"])}.json">{escape(found["name"])}.json</a>'),
    )
    return html_small_print(lines)


def html_banner(verdict: str, *, good: bool, name: str = "drills") -> str:
    """The head of a page: what it is about, and what came of it."""
    return (
        f'<header class="{"good" if good else "bad"}"><p class="name">{escape(name)}</p>'
        f"<h1>{html_mark(good, verdict, verdict)}</h1></header>"
    )


def html_figures(tiles: Iterable[tuple[str, str, str]]) -> str:
    """Key figures: the name, the value, which is HTML already, and a note."""
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd><strong>{value}</strong><small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )
    return f'<section><h2 class="hidden">Key figures</h2><dl class="figures">{shown}</dl></section>'


def html_small_print(lines: Iterable[tuple[str, str]]) -> str:
    """The end of a page: what one has to know to repeat it; the values are HTML already."""
    shown = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in lines)
    return f'<footer><h2 class="hidden">Small print</h2><dl>{shown}</dl></footer>'


def html_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table whose cells are HTML already; the columns counted in `numbers` are set to the right."""
    right = frozenset(numbers)
    head = "".join(
        f'<th scope="col"{_right(number in right)}>{escape(column)}</th>' for number, column in enumerate(columns)
    )
    body = "".join(
        f"<tr>{''.join(f'<td{_right(number in right)}>{cell}</td>' for number, cell in enumerate(row))}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _right(wanted: bool) -> str:
    return ' class="number"' if wanted else ""


def html_mark(good: bool, yes: str, no: str) -> str:
    """A sign and a word, so that nothing is said by colour alone."""
    sign, word, style = ("✓", yes, "good") if good else ("✗", no, "bad")
    return f'<span class="{style}"><span aria-hidden="true">{sign}</span> {escape(word)}</span>'


def _verdict(found: Summary) -> str:
    return "passed" if found["passed"] else "FAILED"


def _recovery(recovered_s: float | None, harms: Sequence[object]) -> str:
    """Seconds to the last failure; `at once` where none came after the harm."""
    if not harms:
        return "no harm"
    return AT_ONCE if recovered_s is None else f"{recovered_s:.1f} s"


def _counts(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count:,})" for name, count in ordered) or "none"


def _harm_in_words(harms: Sequence[Summary]) -> str:
    kinds = Counter[str](each["what"] for each in harms).most_common()
    named = [what if count == 1 else f"{what} ({count})" for what, count in kinds[:MOST_KINDS_OF_HARM]]
    if len(kinds) > MOST_KINDS_OF_HARM:
        named.append(f"{sum(count for _, count in kinds[MOST_KINDS_OF_HARM:])} of other kinds")
    return ", ".join(named) or "none"


def _in_order(harms: Iterable[Harm]) -> list[Harm]:
    """As they are numbered on the page."""
    return sorted(harms, key=lambda harm: harm.began_s)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def html_page(title: str, sections: Iterable[str], more_style: str = "") -> str:
    """A page that asks for nothing: its own policy forbids all but the styles inside it."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"
        f"<title>{escape(title)}</title><style>{STYLE}{more_style}</style></head>\n<body><main>\n{''.join(sections)}"
        "\n</main></body></html>\n"
    )


STYLE = """
:root { color-scheme: light dark;
  --page: #f4f5f7; --card: #fff; --text: #1c2127; --quiet: #59636e; --rule: #dde1e6;
  --good: #187a3b; --bad: #b3261e; --on: #fff; --blue: #1d63c1; --red: #c62828; --harm: #c77700; --teal: #0b7a75; }
@media (prefers-color-scheme: dark) { :root {
  --page: #101418; --card: #181d23; --text: #e7ebef; --quiet: #9ba6b2; --rule: #2d353e;
  --good: #4cc674; --bad: #ff7a70; --on: #101418; --blue: #6aaeff; --red: #ff7a70; --harm: #e9a23b; --teal: #4fd0c7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 16px; }
section, header, footer, details { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 16px 20px; margin: 0 0 16px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between; gap: 0 24px;
  border-radius: 10px 10px 0 0; margin: 0; color: var(--on); }
header.good { background: var(--good); border-color: var(--good); }
header.bad { background: var(--bad); border-color: var(--bad); }
header span { color: inherit; }
header .name { margin: 0; font-size: 20px; order: 2; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 40px; line-height: 1.2; letter-spacing: .02em; }
h2, caption { font-size: 17px; font-weight: 600; margin: 0 0 8px; text-align: left; }
.lead { background: var(--card); border: 1px solid var(--rule); border-top: 0; border-radius: 0 0 10px 10px;
  padding: 14px 20px; margin: 0 0 16px; overflow-wrap: anywhere; }
.lead p, section > p { margin: 0; }
.lead ul { margin: 0 0 10px; padding-left: 20px; font-weight: 600; color: var(--bad); }
.good { color: var(--good); } .bad { color: var(--bad); }
header.good, header.bad { color: var(--on); } header .good, header .bad { color: inherit; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 16px 20px; margin: 0; }
dt, small, .note, .quiet { color: var(--quiet); } dt { font-size: 13px; } dd { margin: 0; overflow-wrap: anywhere; }
.figures strong { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
small { font-size: 13px; display: block; } section > .note { margin: 8px 0 0; font-size: 13px; }
.hidden { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0; padding: 0; font-size: 13px; }
.legend svg { vertical-align: -1px; }
.plot { padding: 30px 14px 26px 48px; } .plot > svg { display: block; height: 220px; overflow: visible; }
.bars > svg { display: block; overflow: visible; }
svg text { fill: var(--quiet); font-size: 12px; } svg .label { font-size: 14px; fill: var(--text); }
svg .strong { font-weight: 600; } svg .quiet { fill: var(--quiet); }
svg text.harm { fill: var(--harm); font-weight: 600; stroke: none; }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; vector-effect: non-scaling-stroke; }
.area { stroke: none; fill-opacity: .16; }
.line.requests, .line.p50 { stroke: var(--blue); } .area.requests { fill: var(--blue); }
.line.failures { stroke: var(--red); stroke-dasharray: 5 4; } .area.failures { fill: var(--red); fill-opacity: .35; }
.line.p95 { stroke: var(--teal); stroke-dasharray: 8 5; }
.line.p99 { stroke: var(--red); stroke-dasharray: 1 5; stroke-width: 2.5; }
rect.harm { fill: var(--harm); fill-opacity: .14; }
line.harm { stroke: var(--harm); stroke-dasharray: 2 3; stroke-opacity: .7; }
.what { display: none; } .track { fill: var(--rule); fill-opacity: .5; } .bar { fill: var(--quiet); }
.bar.sold { fill: var(--good); } .bar.open { fill: var(--bad); }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 2px solid var(--blue); outline-offset: 4px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--quiet); font-size: 13px; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
td code, td .good, td .bad { white-space: nowrap; } a { color: var(--blue); }
.violations { margin: 0; padding-left: 24px; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; } details table { margin-top: 12px; }
footer { font-size: 13px; } footer dl { display: grid; grid-template-columns: auto 1fr; gap: 4px 16px; margin: 0; }
@media (min-width: 760px) { .what { display: inline; } }
@media (max-width: 480px) { main { padding: 8px; } section, header, footer, details, .lead { padding: 12px; }
  .plot { padding-left: 40px; padding-right: 8px; } .figures { grid-template-columns: 1fr 1fr; } }
@media print { :root { color-scheme: light; } body { background: none; font-size: 12px; }
  section, details { break-inside: avoid; } * { print-color-adjust: exact; } .scroll { overflow: visible; } }
"""
