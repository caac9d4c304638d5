"""The committed dashboards: what the code makes, with all that a reader needs."""

import itertools
import re

import pytest

from chassis.migrations import ROOT
from monitoring.dashboards import BOARDS
from monitoring.dashboards.__main__ import FOLDER
from monitoring.prometheus import RULES
from monitoring.queries import (
    Document,
    all_queries_of,
    documents,
    events_of,
    filled,
    named,
    panels,
    queries_of,
    variables_of,
)
from monitoring.units import shown

DASHBOARDS = documents()


def test_what_is_committed_is_what_the_code_makes() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert committed == {board.file_name: board.json() for board in BOARDS}, "run make dashboards"


def test_the_dashboards_keep_their_addresses() -> None:
    assert {each["uid"]: each["title"] for each in DASHBOARDS} == {
        "souk-shop": "Souk: Shop",
        "souk-service": "Souk: Service",
        "souk-balancing": "Souk: Load balancing",
        "souk-postgres": "Souk: PostgreSQL",
        "souk-load": "Souk: Load test and drills",
    }


@pytest.mark.parametrize("document", DASHBOARDS, ids=lambda each: each["uid"])
def test_a_dashboard_cannot_be_edited_and_links_to_the_others(document: Document) -> None:
    assert document["editable"] is False
    (link,) = document["links"]
    assert (link["type"], link["tags"], link["keepTime"]) == ("dashboards", ["souk"], True)
    assert "souk" in document["tags"]


@pytest.mark.parametrize("document", DASHBOARDS, ids=lambda each: each["uid"])
def test_a_panel_says_what_it_shows_in_which_unit_what_to_do_and_what_nothing_means(document: Document) -> None:
    for panel in panels(document):
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) > 5, panel["title"]
        assert panel["description"].rstrip().endswith("."), panel["title"]
        assert shown(1, defaults["unit"]), panel["title"]
        assert defaults["noValue"], panel["title"]
        assert defaults["thresholds"]["steps"][0].get("value") is None, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}, panel["title"]


@pytest.mark.parametrize("document", DASHBOARDS, ids=lambda each: each["uid"])
def test_panels_have_ids_of_their_own_and_do_not_lie_on_each_other(document: Document) -> None:
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    cells: list[tuple[int, int]] = []
    for panel in document["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells += itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    assert len(set(cells)) == len(cells)


def test_the_five_signals_are_on_top_of_the_first_dashboard() -> None:
    (shop,) = (each for each in DASHBOARDS if each["uid"] == "souk-shop")
    top = [panel["title"] for panel in shop["panels"] if panel["gridPos"]["y"] == 0]
    assert top == ["Success rate", "Response time, p99", "Availability", "Load", "Error rate"]


def test_the_drills_dashboard_draws_what_a_drill_does() -> None:
    (load,) = (each for each in DASHBOARDS if each["uid"] == "souk-load")
    assert [event.panel for event in events_of(load)] == [
        "event not scraped",
        "event started",
        "event left out",
        "event sagas taken up",
    ]


def test_every_variable_in_an_expression_is_one_of_its_dashboard() -> None:
    for document in DASHBOARDS:
        for query in all_queries_of(document):
            used = set(re.findall(r"\$([a-z]\w*)", query.expr))
            assert used <= variables_of(document).keys(), str(query)


def test_every_label_of_a_legend_is_one_that_the_expression_keeps() -> None:
    for query in itertools.chain.from_iterable(map(all_queries_of, DASHBOARDS)):
        labels = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        kept = {label for group in re.findall(r"by \(([^)]*)\)", query.expr) for label in re.split(r",\s*", group)}
        # A recording rule's own labels are in its definition, and `up` has those of its target.
        if labels and kept:
            assert labels <= kept | {"service", "pod"}, str(query)


def test_every_alert_that_a_panel_names_exists() -> None:
    if not RULES.is_dir():
        pytest.skip(f"{RULES.relative_to(ROOT)} is missing")
    alerts = set(re.findall(r"^\s*- alert: (\w+)", "".join(path.read_text() for path in RULES.glob("*.yml")), re.M))
    text = " ".join(panel["description"] for each in DASHBOARDS for panel in panels(each))
    assert set(re.findall(r"\bSouk[A-Z]\w+", text)) <= alerts


def test_variables_are_replaced_and_a_rate_looks_back_four_scrapes_at_least() -> None:
    expr = 'rate(a{service="$service"}[$__rate_interval])'
    assert filled(expr, {"service": "order"}, step_s=2, scraped_every_s=15) == 'rate(a{service="order"}[60s])'
    assert filled(expr, {"service": "user"}, step_s=120, scraped_every_s=15) == 'rate(a{service="user"}[135s])'


def test_a_legend_names_a_series_by_its_labels() -> None:
    assert named("{{service}} to {{peer}}", {"service": "order", "peer": "user"}) == "order to user"
    assert named("p95", {"service": "order"}) == "p95"


def test_a_variable_s_values_are_those_of_a_label() -> None:
    (service,) = (each for each in DASHBOARDS if each["uid"] == "souk-service")
    assert variables_of(service) == {"service": ("service", 'up{job="souk"}')}
    assert any("$service" in query.expr for panel in panels(service) for query in queries_of(service, panel))
