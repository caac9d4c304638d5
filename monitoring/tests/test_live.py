"""Every expression of every dashboard, asked of a real Prometheus that has scraped the real platform under load."""

from pathlib import Path

from drills.platform import NotHere
from monitoring.dashboards.balancing import NO_PAGES
from monitoring.dashboards.panels import ONLY_IN_A_CLUSTER
from monitoring.dashboards.postgres import NO_STATEMENTS
from monitoring.faults import faults
from monitoring.prometheus import Prometheus
from monitoring.queries import Document, documents, panels
from monitoring.watched import SCRAPED_EVERY_S, watch
from tests.promtool import not_here

SECONDS = 80.0
"""Some rules are evaluated once a minute, and what lies on the shelves is counted as often."""
MAY_BE_EMPTY = frozenset({NO_PAGES, ONLY_IN_A_CLUSTER, NO_STATEMENTS})
"""Its shoppers call the API; the cluster's own test opens pages too."""


SPOILT = {"souk_of_nobody": "no data", '{job="souk"}': " series", "sum(": "parse error"}
"""Expressions that no panel may have, and what is found wrong with them."""


def spoilt() -> Document:
    """The dashboard of the shop with these expressions in its first panels."""
    document, *_ = (each for each in documents() if each["uid"] == "souk-shop")
    for panel, expression in zip(panels(document), SPOILT, strict=False):
        panel["targets"][0]["expr"] = expression
    return document


async def test_every_expression_of_every_panel_variable_and_event_has_an_answer_under_load(tmp_path: Path) -> None:
    wrong: list[str] = []
    found: list[str] = []
    asked = 0

    async def look(url: str, since: float) -> None:
        nonlocal wrong, found, asked
        prometheus = Prometheus(url)
        wrong, asked = await faults(
            prometheus, documents(), since=since, scraped_every_s=SCRAPED_EVERY_S, may_be_empty=MAY_BE_EMPTY
        )
        found, _ = await faults(prometheus, [spoilt()], since=since, scraped_every_s=SCRAPED_EVERY_S)
        await prometheus.aclose()

    try:
        evidence = await watch(tmp_path, SECONDS, look)
    except NotHere as missing:
        not_here(missing)
    assert asked > 100
    assert wrong == []
    for expression, fault in SPOILT.items():
        (line,) = (line for line in found if line.endswith(f": {expression}"))
        assert fault in line
    assert evidence.violations == []
