"""A dashboard as a page, drawn from what Prometheus answered: each panel where and as Grafana shows it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from drills import plots
from drills.evidence import Harm
from drills.report import html_page, html_table
from monitoring.prometheus import Series
from monitoring.queries import Document, named, panels
from monitoring.units import shown

Found = Mapping[tuple[int, str], Sequence[Series]]
"""What was answered to each query, by the id of its panel and its own."""
COLOURS = 10
"""How many lines of a plot have a colour of their own; then they begin again, dashed."""
SIGNS = {"green": "✓", "orange": "!", "red": "✗", "blue": ""}
"""So that nothing is said by colour alone."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is looked at, in seconds since 1970, and how far the points of a line are apart."""

    since: float
    until: float
    step_s: float

    @property
    def seconds(self) -> float:
        return self.until - self.since

    @property
    def bins(self) -> int:
        return math.floor(self.seconds / self.step_s) + 1


def page(
    document: Document,
    found: Found,
    events: Sequence[Harm],
    window: Window,
    values: Mapping[str, str],
    others: Sequence[tuple[str, str]],
    note: str,
) -> str:
    """The page of one dashboard; `others` are the names and titles of all, `values` what its variables stand for."""
    links = "".join(
        f'<li><a href="{escape(name)}"{_current(title == document["title"])}>{escape(title)}</a></li>'
        for name, title in others
    )
    chosen = "".join(f"<li>{escape(name)}: <strong>{escape(value)}</strong></li>" for name, value in values.items())
    head = (
        f'<div class="head"><h1>{escape(document["title"])}</h1><ul class="links">{links}</ul>'
        f"<p>{escape(document['description'])}</p>"
        f'<ul class="chosen">{chosen}<li>{escape(note)}</li></ul>{_events(events)}</div>'
    )
    drawn = "".join(
        _row(each) if each["type"] == "row" else _panel(each, found, events, window) for each in document["panels"]
    )
    return html_page(document["title"], [head, f'<div class="board">{drawn}</div>'], STYLE)


def events_in(found: Iterable[tuple[str, Sequence[Series]]], window: Window) -> list[Harm]:
    """What the events' queries found, each run of moments with a value above 0 as one; by their beginnings."""
    runs: list[Harm] = []
    for title, series in found:
        for each in series:
            moments = [at for at, value in each.points if value > 0]
            begun: float | None = None
            for number, at in enumerate(moments):
                begun = at if begun is None else begun
                if number + 1 == len(moments) or moments[number + 1] - at > window.step_s * 1.5:
                    runs.append(Harm(named(title, each.labels), begun - window.since, at - window.since))
                    begun = None
    return sorted(runs, key=lambda run: (run.began_s, run.what))


def _current(here: bool) -> str:
    return ' aria-current="page"' if here else ""


def _events(events: Sequence[Harm]) -> str:
    """The events by the numbers that they have in the plots."""
    if not events:
        return ""
    listed = "".join(f"<li>{escape(event.what)}, {plots.span(event)}</li>" for event in events)
    return f'<ol class="events">{listed}</ol>'


def _row(row: Document) -> str:
    return f'<h2 style="{_place(row["gridPos"])}">{escape(row["title"])}</h2>'


def _place(position: Mapping[str, int]) -> str:
    return (
        f"grid-column: {position['x'] + 1} / span {position['w']}; grid-row: {position['y'] + 1} / span {position['h']}"
    )


def _panel(panel: Document, found: Found, events: Sequence[Harm], window: Window) -> str:
    answered = [(target, found[panel["id"], target["refId"]]) for target in panel["targets"]]
    defaults: Document = panel["fieldConfig"]["defaults"]
    if any(series.known for _, each in answered for series in each):
        draw = {"stat": _single, "timeseries": _lines, "bargauge": _bars, "table": _rows}[panel["type"]]
        body = draw(panel, answered, events, window)
    else:
        body = f'<p class="empty">{escape(defaults["noValue"])}</p>'
    about = f"<details><summary>i</summary><p>{escape(panel['description'])}</p></details>"
    return (
        f'<article class="panel {panel["type"]}" id="panel-{panel["id"]}" style="{_place(panel["gridPos"])}">'
        f"<h3>{escape(panel['title'])}</h3>{about}{body}</article>"
    )


Answered = Sequence[tuple[Document, Sequence[Series]]]


def _by_name(answered: Answered) -> dict[str, Series]:
    """The series that have values, by the names that their legends give them."""
    return {
        named(target.get("legendFormat", ""), each.labels): each
        for target, series in answered
        for each in series
        if each.known
    }


def _single(panel: Document, answered: Answered, _events: Sequence[Harm], _window: Window) -> str:
    defaults: Document = panel["fieldConfig"]["defaults"]
    items = [
        f"<li><span>{escape(name)}</span>{_coloured(each.newest, defaults)}</li>"
        for name, each in sorted(_by_name(answered).items())
    ]
    return f'<ul class="values{" alone" if len(items) == 1 else ""}">{"".join(items)}</ul>'


def _coloured(value: float, config: Document) -> str:
    colour = _colour(value, config["thresholds"]["steps"])
    sign = f'<span aria-hidden="true">{SIGNS[colour]}</span>' if SIGNS[colour] else ""
    return f'<strong class="{colour}">{sign}{escape(shown(value, config["unit"], config.get("decimals")))}</strong>'


def _colour(value: float, steps: Sequence[Mapping[str, Any]]) -> str:
    """The colour of the last step that a value has reached."""
    return [step["color"] for step in steps if step.get("value") is None or value >= step["value"]][-1]


def _lines(panel: Document, answered: Answered, events: Sequence[Harm], window: Window) -> str:
    defaults: Document = panel["fieldConfig"]["defaults"]
    custom: Document = defaults["custom"]
    unit: str = defaults["unit"]
    lines: list[plots.Line] = []
    below = [0.0] * window.bins
    stacked = custom["stacking"]["mode"] == "normal"
    for number, (name, series) in enumerate(_by_name(answered).items()):
        points = _in_bins(series, window)
        if stacked:
            below = [under + (value or 0.0) for under, value in zip(below, points, strict=True)]
            points = [None if value is None else top for value, top in zip(points, below, strict=True)]
        style = f"c{number % COLOURS}{'' if number < COLOURS else ' again'}"
        lines.append(plots.Line(name, style, points, filled=stacked))
    values = [value for line in lines for value in line.points if value is not None]
    marks = [plots.Mark(step["value"], step["color"]) for step in defaults["thresholds"]["steps"][1:]]
    dashed = custom["thresholdsStyle"]["mode"] == "dashed"
    return plots.over_time(
        f"plot-{panel['id']}",
        panel["title"],
        panel["description"],
        lines=lines[::-1] if stacked else lines,
        scale=_scale(values, unit, custom.get("axisSoftMin", 0.0), custom.get("axisSoftMax")),
        seconds=window.seconds,
        harms=events,
        marks=[mark for mark in marks if dashed],
        text=lambda value: shown(value, unit),
        happened="event",
    )


def _in_bins(series: Series, window: Window) -> list[float | None]:
    """A value for each step of the window, none where there is no number."""
    points: list[float | None] = [None] * window.bins
    for at, value in series.points:
        if math.isfinite(value):
            points[round((at - window.since) / window.step_s)] = value
    return points


def _scale(values: Sequence[float], unit: str, least: float, most: float | None) -> plots.Scale:
    """From `least` to `most`, further where the values are, with ticks that are round in their unit."""
    low, high = min(least, *values), max(values) if most is None else max(most, *values)
    one = _round_unit(high, unit)
    if low == 0 and most is None:
        plain = plots.linear([high / one])
        return plots.Scale(0, plain.high * one, [tick * one for tick in plain.ticks])
    return plots.between(low, high if high > low else low + 1)


def _round_unit(value: float, unit: str) -> float:
    """Of what a scale has round numbers: mebibytes or minutes, say."""
    if unit == "bytes":
        return 2.0 ** (10 * math.floor(math.log2(max(value, 1)) / 10))
    return 60.0 if unit == "s" and value > 180 else 1.0


def _bars(panel: Document, answered: Answered, _events: Sequence[Harm], _window: Window) -> str:
    defaults: Document = panel["fieldConfig"]["defaults"]
    newest = {name: series.newest for name, series in _by_name(answered).items() if math.isfinite(series.newest)}
    return plots.bars(
        f"plot-{panel['id']}",
        panel["title"],
        panel["description"],
        newest,
        {name: _colour(value, defaults["thresholds"]["steps"]) for name, value in newest.items()},
        text=lambda value: shown(value, defaults["unit"], defaults.get("decimals")),
    )


def _rows(panel: Document, answered: Answered, _events: Sequence[Harm], _window: Window) -> str:
    """The answers merged by their labels, as Grafana's transformation `merge` does."""
    (organised,) = (each["options"] for each in panel["transformations"] if each["id"] == "organize")
    names: Mapping[str, str] = organised["renameByName"]
    keys = [name for name, _ in sorted(organised["indexByName"].items(), key=lambda item: item[1]) if name not in names]
    configs = {
        each["matcher"]["options"]: {one["id"]: one["value"] for one in each["properties"]}
        for each in panel["fieldConfig"]["overrides"]
    }
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for target, series in answered:
        column = names[f"Value #{target['refId']}"]
        for each in series:
            row = cells.setdefault(tuple(each.labels.get(key, "") for key in keys), {})
            row[column] = _coloured(each.newest, configs[column]) if math.isfinite(each.newest) else ""
    columns = [*keys, *names.values()]
    rows = [
        [*(escape(label) for label in labels), *(row.get(column, "") for column in names.values())]
        for labels, row in sorted(cells.items())
    ]
    return html_table(panel["title"], columns, rows, numbers=range(len(keys), len(columns)))


def titles(documents: Iterable[Document]) -> list[tuple[str, str]]:
    """The pages of all dashboards, with their titles."""
    return [(f"{document['uid']}.html", document["title"]) for document in documents]


def panel_ids(document: Document) -> list[int]:
    """The ids of all panels."""
    return [panel["id"] for panel in panels(document)]


STYLE = (
    """
:root { --orange: #b45f06; --c0: #1d63c1; --c1: #b45f06; --c2: #187a3b; --c3: #8a3ffc; --c4: #b3261e; --c5: #0b7a75;
  --c6: #9f1853; --c7: #6b5a00; --c8: #3d4f9f; --c9: #59636e; }
@media (prefers-color-scheme: dark) { :root { --orange: #f0a04b; --c0: #6aaeff; --c1: #f0a04b; --c2: #4cc674;
  --c3: #c29bff; --c4: #ff7a70; --c5: #4fd0c7; --c6: #ff8fc2; --c7: #d9c34a; --c8: #9fb0ff; --c9: #9ba6b2; } }
main { max-width: 1600px; }
.head { margin: 0 0 12px; } .head p { margin: 4px 0; max-width: 75ch; }
h1 { font-size: 26px; } .links, .chosen { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px;
  margin: 6px 0;
  padding: 0; } .links [aria-current] { font-weight: 600; color: var(--text); text-decoration: none; }
.chosen { font-size: 13px; color: var(--quiet); } .chosen strong { color: var(--text); }
.events { margin: 6px 0; padding-left: 28px; font-size: 13px; columns: 30em 3; column-gap: 40px;
  overflow-wrap: anywhere; color: var(--harm); }
.board { display: grid; grid-template-columns: repeat(24, minmax(0, 1fr)); grid-auto-rows: 30px; gap: 8px; }
.board > h2 { margin: 0; align-self: end; border-bottom: 1px solid var(--rule); }
.panel { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: 8px 12px;
  overflow: hidden;
  display: flex; flex-direction: column; position: relative; }
.panel h3 { font-size: 14px; font-weight: 600; margin: 0 20px 2px 0; line-height: 1.3; }
.panel details { position: absolute; top: 6px; right: 8px; margin: 0; padding: 0; border: 0; background: none;
  font-size: 13px; z-index: 1; } .panel summary { list-style: none; color: var(--quiet); text-align: right; }
.panel details[open] { left: 8px; bottom: 8px; background: var(--card); overflow: auto; }
.empty { margin: auto; color: var(--quiet); text-align: center; }
.values { list-style: none; margin: auto 0; padding: 0; display: grid; gap: 2px; }
.values li { display: flex; justify-content: space-between; align-items: baseline; gap: 8px; }
.values li > span { font-size: 14px; } .values strong { font-size: 21px; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.values strong > span { font-size: 13px; margin-right: 5px; }
.values.alone li { justify-content: center; } .values.alone strong { font-size: 30px; }
strong.green { color: var(--good); } strong.orange { color: var(--orange); } strong.red { color: var(--bad); }
strong.blue { color: var(--blue); } td strong { font-weight: 500; } td strong > span { margin-right: 4px; }
.panel .plot { flex: 1; min-height: 0; padding: 16px 12px 24px 62px; } .panel .plot > svg { height: 100%; }
.panel .legend { font-size: 12px; gap: 0 12px; } .panel .what { display: none; } .panel .line { stroke-width: 1.7; }
.panel .scroll, .panel .bars { overflow: auto; } .panel .bars { padding-top: 4px; } .panel caption { display: none;
  } .panel th, .panel td { padding: 3px 12px 3px 0; }
.bar.green { fill: var(--good); } .bar.orange { fill: var(--orange); } .bar.red { fill: var(--bad); }
.bar.blue { fill: var(--blue); } svg .label { font-size: 13px; }
.mark { stroke-width: 1; stroke-dasharray: 6 4; } .mark.green { stroke: var(--good); }
.mark.orange { stroke: var(--orange); } .mark.red { stroke: var(--bad); }
"""
    + "".join(
        f".line.c{number} {{ stroke: var(--c{number}); }}"
        f" .area.c{number} {{ fill: var(--c{number}); fill-opacity: .35; }}\n"
        for number in range(COLOURS)
    )
    + """.line.again { stroke-dasharray: 5 4; }
@media (max-width: 900px) { .board { display: flex; flex-direction: column; } .panel { min-height: 120px; }
  .panel.timeseries { height: 300px; } }
"""
)
