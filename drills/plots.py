"""Plots as inline SVG: lines over time with the harm marked, and bars of counts.

A plotting library is 30 MB of dependencies and draws text into pictures of one width. Two kinds of plot are less code
than its configuration: places are percentages of the plot and texts have a size of their own, so a plot stays
readable from a telephone to a printed page, and its colours are the page's custom properties.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from drills.evidence import Harm

INNER = 1000
"""The side of the square in which curves are drawn; the browser stretches it to the plot."""
NARROWEST_PX = 270
"""The width of a plot on a screen of 360 px: numbers of harms must not collide there."""
WIDE_PX = 640
"""The width from which the style sheet shows what the harms were beside their numbers."""
CHARACTER_PX = 6.5
NUMBER_PX = 18
MINUTES_FROM_S = 600.0
"""From this length on the time is written in minutes."""

Text = Callable[[float], str]
"""How a value is written."""


def plain(value: float) -> str:
    """Write a number without a unit."""
    return f"{value:,g}"


@dataclass(frozen=True, slots=True)
class Line:
    """A series: one point for each bin of time, none where there is nothing to show."""

    name: str
    style: str
    """The class that gives the line its colour and its dashes."""
    points: Sequence[float | None]
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A horizontal line at a value that means something, such as a threshold."""

    value: float
    style: str


@dataclass(frozen=True, slots=True)
class Scale:
    """The vertical axis: from `low` at the bottom to `high` at the top."""

    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool = False

    def height(self, value: float) -> float:
        """Where a value stands, from 0 at the bottom to 1 at the top."""
        if self.logarithmic:
            return math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(values: Sequence[float | None], unit: int = 5) -> Scale:
    """From nought to a round number above all values, in about `unit` steps."""
    step = _round_step(max((value for value in values if value is not None), default=0) or 1, unit)
    highest = max((value for value in values if value is not None), default=0) or 1
    count = math.ceil(highest / step)
    return Scale(0, count * step, [number * step for number in range(count + 1)])


def between(low: float, high: float, unit: int = 5) -> Scale:
    """From one value to another that is above it, with ticks at round numbers, some `unit` of them."""
    step = _round_step(high - low, unit)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Scale(low, high, [number * step for number in range(first, last + 1)])


def logarithmic(values: Sequence[float | None]) -> Scale:
    """Whole powers of ten around all values above nought."""
    found = [value for value in values if value] or [1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    high = max(high, low + 1)
    return Scale(10.0**low, 10.0**high, [10.0**power for power in range(low, high + 1)], logarithmic=True)


def over_time(
    name: str,
    title: str,
    description: str,
    *,
    lines: Sequence[Line],
    scale: Scale,
    seconds: float,
    harms: Sequence[Harm],
    marks: Sequence[Mark] = (),
    text: Text = plain,
    happened: str = "harm",
) -> str:
    """Lines over the time of a drill, each point in the middle of its bin; harm is a band, or a line where it was one
    moment, numbered in their order. `name` is unique on its page, `text` writes the values beside the scale, and
    `happened` is what the legend calls a harm.
    """
    parts = [
        *_horizontal_lines(scale, text),
        *_time_axis(seconds),
        *_marks(marks, scale),
        *_harms(harms, seconds),
    ]
    curves = [curve for line in lines for curve in _curves(line, scale)]
    parts.append(
        f'<svg class="curves" viewBox="0 0 {INNER} {INNER}" preserveAspectRatio="none" width="100%" height="100%">'
        f"{''.join(curves)}</svg>"
    )
    return (
        f'<ul class="legend" aria-hidden="true">{"".join(_legend(line) for line in lines)}'
        f"{_legend_of_harm(happened) if harms else ''}</ul>"
        f'<div class="plot">{_image(name, title, description, parts)}</div>'
    )


def bars(
    name: str,
    title: str,
    description: str,
    counts: Mapping[str, float],
    styles: Mapping[str, str],
    text: Text | None = None,
) -> str:
    """A bar for each count, the most first, with its name and number above it; with `text`, which writes them, they are
    values that have no sum.
    """
    total, most = sum(counts.values()), max(counts.values(), default=0) or 1
    parts: list[str] = []
    for row, (label, count) in enumerate(sorted(counts.items(), key=lambda item: (-item[1], item[0]))):
        top = row * 40
        number = f"{count:,}" if text is None else text(count)
        share = f'<tspan class="quiet"> {_share(count, total)}</tspan>' if text is None else ""
        parts.append(
            f'<text class="label" x="0" y="{top + 13}"><tspan class="strong">{escape(number)}</tspan> {escape(label)}'
            f"{share}</text>"
            f'<rect class="track" x="0" y="{top + 20}" width="100%" height="10" rx="3"/>'
            f'<rect class="bar {styles.get(label, "")}" x="0" y="{top + 20}" width="{_percent(count / most)}"'
            ' height="10" rx="3"/>'
        )
    return f'<div class="bars">{_image(name, title, description, parts, height_px=max(40 * len(counts) - 8, 1))}</div>'


def _image(name: str, title: str, description: str, parts: Sequence[str], height_px: int | None = None) -> str:
    height = "" if height_px is None else f' height="{height_px}"'
    return (
        f'<svg id="{name}" role="img" aria-labelledby="{name}-title {name}-description" width="100%"{height}>'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>{"".join(parts)}</svg>'
    )


def _curves(line: Line, scale: Scale) -> list[str]:
    """One path for each run of points without a gap, so that a gap is not drawn as if it had been measured."""
    step = INNER / len(line.points)
    runs: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(line.points):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(((number + 0.5) * step, INNER * (1 - scale.height(value))))
    drawn: list[str] = []
    for run in runs:
        if not run:
            continue
        path = " ".join(f"{'L' if number else 'M'}{x:.2f},{y:.2f}" for number, (x, y) in enumerate(run))
        if line.filled:
            closed = f"{path} V{INNER} H{run[0][0]:.2f} Z"
            drawn.append(f'<path class="area {line.style}" d="{closed}"/>')
        # A run of one point has no length: its round cap makes it a dot.
        drawn.append(f'<path class="line {line.style}" d="{path}{" h0" if len(run) == 1 else ""}"/>')
    return drawn


def _horizontal_lines(scale: Scale, text: Text) -> list[str]:
    drawn: list[str] = []
    for tick in scale.ticks:
        y = _percent(1 - scale.height(tick))
        drawn.append(
            f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            f'<text class="tick" x="-6" y="{y}" dy="4" text-anchor="end">{escape(text(tick))}</text>'
        )
    return drawn


def _marks(marks: Sequence[Mark], scale: Scale) -> list[str]:
    """The marks that the scale has a place for."""
    drawn: list[str] = []
    for mark in marks:
        if scale.low <= mark.value <= scale.high:
            y = _percent(1 - scale.height(mark.value))
            drawn.append(f'<line class="mark {mark.style}" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
    return drawn


def _time_axis(seconds: float) -> list[str]:
    unit_s, unit = (60.0, "min") if seconds >= MINUTES_FROM_S else (1.0, "s")
    step = _round_step(seconds / unit_s, 5)
    drawn: list[str] = []
    for number in range(math.floor(seconds / unit_s / step) + 1):
        x = _percent(number * step * unit_s / seconds)
        drawn.append(
            f'<line class="grid" x1="{x}" x2="{x}" y1="100%" y2="100%" transform="translate(0 5)"/>'
            f'<text class="tick" x="{x}" y="100%" dy="18" text-anchor="middle">{number * step:,g} {unit}</text>'
        )
    return drawn


def _harms(harms: Sequence[Harm], seconds: float) -> list[str]:
    """Bands and lines, numbered in their order; a number is left out where it would stand on the one before."""
    drawn: list[str] = []
    free_from = 0.0
    for number, harm in enumerate(harms, 1):
        begin, end = harm.began_s / seconds, harm.ended_s / seconds
        text = escape(f"{number}: {harm.what}, {span(harm)}")
        if end > begin:
            drawn.append(
                f'<rect class="harm" x="{_percent(begin)}" width="{_percent(end - begin)}" y="0" height="100%">'
                f"<title>{text}</title></rect>"
            )
        drawn.append(
            f'<line class="harm" x1="{_percent(begin)}" x2="{_percent(begin)}" y1="0" y2="100%">'
            f"<title>{text}</title></line>"
        )
        if begin < free_from:
            continue
        following = next((each.began_s for each in harms[number:] if each.began_s > harm.began_s), seconds) / seconds
        fits = NUMBER_PX + CHARACTER_PX * len(harm.what) <= (following - begin) * WIDE_PX
        what = f'<tspan class="what"> {escape(harm.what)}</tspan>' if fits else ""
        drawn.append(f'<text class="harm" x="{_percent(begin)}" y="-6">{number}{what}</text>')
        free_from = begin + NUMBER_PX / NARROWEST_PX
    return drawn


def span(harm: Harm) -> str:
    """When a harm was done, in words."""
    if harm.ended_s <= harm.began_s:
        return f"at {harm.began_s:.1f} s"
    return f"from {harm.began_s:.1f} to {harm.ended_s:.1f} s"


def _legend(line: Line) -> str:
    area = f'<rect class="area {line.style}" width="28" height="12"/>' if line.filled else ""
    return (
        f'<li><svg width="28" height="12">{area}<path class="line {line.style}" d="M1,6 H27"/></svg>'
        f" {escape(line.name)}</li>"
    )


def _legend_of_harm(happened: str) -> str:
    return (
        '<li><svg width="28" height="12"><rect class="harm" width="28" height="12"/>'
        '<line class="harm" x1="1" x2="1" y1="0" y2="12"/></svg>'
        f" {escape(happened)}</li>"
    )


def _round_step(length: float, parts: int) -> float:
    """The least of 1, 2 and 5 times a power of ten that divides a length into about `parts`, at most."""
    least = length / parts
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= least * 0.999)


def _percent(part: float) -> str:
    return f"{part * 100:.3f}%"


def _share(count: float, total: float) -> str:
    return f"{count / total:.0%}" if total else ""
