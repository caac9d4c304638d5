"""Every expression of every dashboard, asked of a real Prometheus that has scraped the real platform under load."""

from pathlib import Path

from drills.platform import NotHere
from monitoring.dashboards.panels import ONLY_IN_A_CLUSTER
from monitoring.dashboards.postgres import NO_STATEMENTS
from monitoring.faults import faults
from monitoring.prometheus import Prometheus
from monitoring.queries import documents
from monitoring.watched import SCRAPED_EVERY_S, watch
from tests.promtool import not_here

SECONDS = 80.0
"""Some rules are evaluated once a minute, and what lies on the shelves is counted as often."""
MAY_BE_EMPTY = frozenset({ONLY_IN_A_CLUSTER, NO_STATEMENTS})


async def test_every_expression_of_every_panel_variable_and_event_has_an_answer_under_load(tmp_path: Path) -> None:
    wrong: list[str] = []
    asked = 0

    async def look(url: str, since: float) -> None:
        nonlocal wrong, asked
        prometheus = Prometheus(url)
        wrong, asked = await faults(
            prometheus, documents(), since=since, scraped_every_s=SCRAPED_EVERY_S, may_be_empty=MAY_BE_EMPTY
        )
        await prometheus.aclose()

    try:
        evidence = await watch(tmp_path, SECONDS, look)
    except NotHere as missing:
        not_here(missing)
    assert asked > 100
    assert wrong == []
    assert evidence.violations == []
