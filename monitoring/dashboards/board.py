"""A dashboard: its panels in rows, its variable, its events, and the links to all the others."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from monitoring.dashboards.panels import PROMETHEUS, Panel

TAG = "souk"
"""What each dashboard's links find the others by."""
REFRESHED_EVERY = "5s"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading; without a title they are the top of the dashboard. Grafana wraps them at 24 columns."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of the dashboard, of the values that Prometheus has for a label."""

    name: str
    query: str
    chosen: str


@dataclass(frozen=True, slots=True)
class Event:
    """A line through all panels, wherever the expression has a value above 0; labels stand in `title` as `{{pod}}`."""

    name: str
    expr: str
    title: str
    colour: str


class _Annotation(dashboard.AnnotationQuery):
    """The SDK's type lacks what the Prometheus data source reads beside the expression: the title, and the step."""

    title = ""

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "titleFormat": self.title, "step": "5s"}


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. The uid and the ids of its panels never change: links and runbooks lead to them."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    since: str = "now-30m"
    variable: Variable | None = None
    events: Sequence[Event] = ()

    @property
    def file_name(self) -> str:
        """Its file in k8s/monitoring/dashboards."""
        return f"{self.uid}.json"

    def json(self) -> str:
        """The dashboard as it is committed and provisioned."""
        return JSONEncoder(sort_keys=True, indent=2).encode(self._built()) + "\n"

    def _built(self) -> dashboard.Dashboard:
        builder = (
            dashboards.Dashboard(f"Souk: {self.title}")
            .uid(self.uid)
            .description(self.description)
            .tags([TAG])
            .readonly()
            .time(self.since, "now")
            .refresh(REFRESHED_EVERY)
            .timezone("browser")
            .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
            .link(
                dashboards.DashboardLink("Souk")
                .type(dashboard.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .as_dropdown(False)
                .keep_time(True)
            )
        )
        if self.variable is not None:
            builder = builder.with_variable(_choice(self.variable))
        for number, row in enumerate(self.rows):
            if row.title:
                # Above every panel's id, and by the row's place: no link leads to a row.
                builder = builder.with_row(dashboards.Row(row.title).id(1000 + number))
            for panel in row.panels:
                builder = builder.with_panel(panel)
        built = builder.build()
        built.annotations = dashboard.AnnotationContainer(list_val=[_annotation(event) for event in self.events])
        return built


def _choice(variable: Variable) -> dashboards.QueryVariable:
    return (
        dashboards.QueryVariable(variable.name)
        .label(variable.name)
        .datasource(PROMETHEUS)
        .query(variable.query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .current(dashboard.VariableOption(selected=True, text=variable.chosen, value=variable.chosen))
        .multi(False)
        .include_all(False)
    )


def _annotation(event: Event) -> _Annotation:
    made = _Annotation(name=event.name, datasource=PROMETHEUS, enable=True, icon_color=event.colour, expr=event.expr)
    made.title = event.title
    return made
