"""What a committed dashboard asks of Prometheus, read from its JSON as Grafana reads it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.migrations import ROOT

FOLDER = ROOT / "k8s" / "monitoring" / "dashboards"
Document = Mapping[str, Any]
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel, a variable or an event; `instant` asks for the newest value only."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    legend: str
    instant: bool
    empty: str = ""
    """What the panel shows where the query finds nothing."""
    is_event: bool = False

    def __str__(self) -> str:
        return f"{self.dashboard}, {self.panel}, {self.ref}"


def documents(folder: Path = FOLDER) -> list[Document]:
    """All dashboards that are committed."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def panels(document: Document) -> list[Document]:
    """The panels of a dashboard that show something, in their order."""
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def queries_of(document: Document, panel: Document) -> list[Query]:
    """What one panel asks."""
    return [
        Query(
            document["uid"],
            panel["title"],
            target["refId"],
            target["expr"],
            target.get("legendFormat", ""),
            bool(target.get("instant")),
            panel["fieldConfig"]["defaults"].get("noValue", ""),
        )
        for target in panel["targets"]
    ]


def events_of(document: Document) -> list[Query]:
    """What the lines through all panels are asked by; the legend is their title."""
    return [
        Query(
            document["uid"],
            f"event {each['name']}",
            "A",
            each["expr"],
            each["titleFormat"],
            instant=False,
            is_event=True,
        )
        for each in document["annotations"]["list"]
    ]


def variables_of(document: Document) -> dict[str, tuple[str, str]]:
    """The variables by name: the label, and the selector of the series whose values of it are offered."""
    found: dict[str, tuple[str, str]] = {}
    for each in document["templating"].get("list", []):
        parts = LABEL_VALUES.fullmatch(each["query"])
        assert parts is not None, each["query"]
        found[each["name"]] = (parts["label"], parts["selector"])
    return found


def chosen_in(document: Document) -> dict[str, str]:
    """The variables' values before anybody chooses."""
    return {each["name"]: each["current"]["value"] for each in document["templating"].get("list", [])}


def filled(expr: str, values: Mapping[str, str], step_s: float, scraped_every_s: float) -> str:
    """An expression with its variables replaced.

    `$__rate_interval` is the larger of four scrapes, and a step and a scrape, as Grafana has it:
    https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/
    """
    window_s = max(4 * scraped_every_s, step_s + scraped_every_s)
    expr = expr.replace("$__rate_interval", f"{window_s:.0f}s")
    for name, value in values.items():
        expr = re.sub(rf"\${name}\b", value, expr)
    return expr


def named(legend: str, labels: Mapping[str, str]) -> str:
    """A series' name by its legend: `{{pod}}` stands for the label."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), legend)


def all_queries_of(document: Document) -> list[Query]:
    """What all panels and events of a dashboard ask."""
    return [query for panel in panels(document) for query in queries_of(document, panel)] + events_of(document)
