"""The kinds of panels that there are, and what all of one kind have alike.

Grafana has more kinds and more options; with these few, whoever knows one dashboard can read the others, and
`monitoring.preview` can draw them. Colours mean the same everywhere: green is well, orange is to be looked at, red is
to be mended, blue says nothing of good or bad.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Required, TypedDict, TypeVar, Unpack

from grafana_foundation_sdk.builders import bargauge, stat, table, timeseries
from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = common.DataSourceRef(type_val="prometheus", uid="prometheus")
"""The data source, by the uid that it is provisioned with."""

SHARE = "percentunit"
SECONDS = "s"
BYTES = "bytes"
COUNT = "short"
REQUESTS_A_SECOND = "reqps"
A_SECOND = "suffix:/s"
A_MINUTE = "suffix:/min"
"""Units, as Grafana names them."""

GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"
Steps = tuple[tuple[float | None, str], ...]
"""From which value on which colour; the first begins below everything."""
NEUTRAL: Steps = ((None, BLUE),)
MUST_BE_NOUGHT: Steps = ((None, GREEN), (1, RED))
MUST_BE_ONE: Steps = ((None, RED), (1, GREEN))

Panel = Builder[dashboard.Panel]
P = TypeVar("P", stat.Panel, timeseries.Panel, bargauge.Panel, table.Panel)


def rising(orange: float, red: float) -> Steps:
    """For what is bad when there is much of it."""
    return ((None, GREEN), (orange, ORANGE), (red, RED))


def falling(orange: float, red: float) -> Steps:
    """For what is bad when there is little of it: red below `red`, orange below `orange`."""
    return ((None, RED), (red, ORANGE), (orange, GREEN))


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and how each of its series is called: `{{pod}}` stands for a label."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: an expression with one value for each row, or less."""

    name: str
    expr: str
    unit: str
    steps: Steps = NEUTRAL
    decimals: int | None = None


class Look(TypedDict, total=False):
    """What a panel may say of itself; `width` is of 24 columns, `height` in rows of 38 pixels."""

    unit: Required[str]
    width: int
    height: int
    steps: Steps
    decimals: int
    least: float
    most: float
    empty: str
    """What stands there where nothing was found, and whether that is well."""


NOTHING = "no data: is Prometheus scraping?"
ONLY_IN_A_CLUSTER = "known in a cluster only"
"""Said of what the kubelets measure, and processes on a machine have nobody to measure."""


def single(id_: int, title: str, description: str, *queries: Query, **look: Unpack[Look]) -> Panel:
    """The newest value of each series, large, coloured by its thresholds."""
    panel = (
        stat.Panel()
        .reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .text_mode(_text_mode(queries))
        .orientation(common.VizOrientation.HORIZONTAL)
        .justify_mode(common.BigValueJustifyMode.AUTO)
    )
    return _asked(_dressed(panel, id_, title, description, look, height=6), queries, instant=True)


def lines(
    id_: int, title: str, description: str, *queries: Query, stacked: bool = False, **look: Unpack[Look]
) -> Panel:
    """Series over time, with the thresholds as dashed lines."""
    stacking = common.StackingMode.NORMAL if stacked else common.StackingMode.NONE
    marked = len(look.get("steps", NEUTRAL)) > 1
    style = common.GraphThresholdsStyleMode.DASHED if marked else common.GraphThresholdsStyleMode.OFF
    panel = (
        timeseries.Panel()
        .line_width(2)
        .fill_opacity(25 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .stacking(looks.StackingConfig().mode(stacking).group("A"))
        .thresholds_style(looks.GraphThresholdsStyleConfig().mode(style))
        .legend(
            looks.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(looks.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .color_scheme(dashboards.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        # Soft, so that an outage is not cut off below.
        .axis_soft_min(look.pop("least", 0))
    )
    if "most" in look:
        panel = panel.axis_soft_max(look.pop("most"))
    return _asked(_dressed(panel, id_, title, description, look, height=8), queries, instant=False)


def bars(id_: int, title: str, description: str, *queries: Query, **look: Unpack[Look]) -> Panel:
    """A bar for the newest value of each series, the longest first where the expression sorts them."""
    panel = (
        bargauge.Panel()
        .reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
    )
    look.setdefault("least", 0)
    return _asked(_dressed(panel, id_, title, description, look, height=8), queries, instant=True)


def rows(
    id_: int,
    title: str,
    description: str,
    keys: Sequence[str],
    columns: Sequence[Column],
    *,
    width: int = 24,
    height: int = 9,
    empty: str = NOTHING,
) -> Panel:
    """A row for each combination of the labels `keys`.

    Grafana merges the columns' answers where all their labels are alike, and a recording rule's name is a label too: so
    each expression is reduced to the keys.
    """
    panel = table.Panel().show_header(True)
    _dressed(panel, id_, title, description, Look(unit=COUNT, width=width, empty=empty), height=height)
    names: dict[str, str] = {}
    for ref, column in zip(string.ascii_uppercase, columns, strict=False):
        reduced = f"max by ({', '.join(keys)}) ({column.expr})"
        panel.with_target(_query(reduced, ref).instant().format(PromQueryFormat.TABLE))
        names[f"Value #{ref}"] = column.name
        properties = [
            dashboard.DynamicConfigValue(id_val="unit", value=column.unit),
            dashboard.DynamicConfigValue(id_val="thresholds", value=_thresholds(column.steps).build()),
        ]
        if column.decimals is not None:
            properties.append(dashboard.DynamicConfigValue(id_val="decimals", value=column.decimals))
        if len(column.steps) > 1:
            coloured = {"type": common.TableCellDisplayMode.COLOR_TEXT.value}
            properties.append(dashboard.DynamicConfigValue(id_val="custom.cellOptions", value=coloured))
        panel.override_by_name(column.name, properties)
    order = [*keys, *names]
    return panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={})).with_transformation(
        dashboard.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: number for number, name in enumerate(order)},
                "renameByName": names,
            },
        )
    )


def _dressed(panel: P, id_: int, title: str, description: str, look: Look, *, height: int) -> P:
    panel = (
        panel.id(id_)
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .span(look.get("width", 12))
        .height(look.get("height", height))
        .unit(look["unit"])
        .thresholds(_thresholds(look.get("steps", NEUTRAL)))
        .no_value(look.get("empty", NOTHING))
    )
    if "decimals" in look:
        panel = panel.decimals(look["decimals"])
    if "least" in look:
        panel = panel.min(look["least"])
    if "most" in look:
        panel = panel.max(look["most"])
    return panel


def _asked(panel: P, queries: Sequence[Query], *, instant: bool) -> P:
    for ref, query in zip(string.ascii_uppercase, queries, strict=False):
        asked = _query(query.expr, ref).legend_format(query.legend)
        panel = panel.with_target(asked.instant() if instant else asked.range())
    return panel


def _query(expr: str, ref: str) -> Dataquery:
    return Dataquery().expr(expr).ref_id(ref).datasource(PROMETHEUS)


def _thresholds(steps: Steps) -> dashboards.ThresholdsConfig:
    found = [dashboard.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboards.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(found)


def _text_mode(queries: Sequence[Query]) -> common.BigValueTextMode:
    """A value alone needs no name: the title is its name."""
    named = any(query.legend for query in queries)
    return common.BigValueTextMode.VALUE_AND_NAME if named else common.BigValueTextMode.VALUE
