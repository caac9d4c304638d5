"""The pages of the dashboards, as a browser would read them."""

import json
from collections.abc import Sequence
from typing import Any

from drills.evidence import Harm
from drills.tests.page import Page, parse
from monitoring import pages
from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import (
    BYTES,
    COUNT,
    MUST_BE_ONE,
    SECONDS,
    SHARE,
    Column,
    Panel,
    Query,
    bars,
    falling,
    lines,
    rising,
    rows,
    single,
)
from monitoring.pages import Window
from monitoring.prometheus import Series

WINDOW = Window(since=1000, until=1010, step_s=2)


def drawn(panel: Panel, *answers: Sequence[Series], events: Sequence[Harm] = ()) -> Page:
    """The page of a dashboard with one panel, whose queries were answered so."""
    board = Board("souk-test", "Test", "For the tests.", [Row("", [panel])])
    document: dict[str, Any] = json.loads(board.json())
    (only,) = document["panels"]
    found = {(only["id"], target["refId"]): series for target, series in zip(only["targets"], answers, strict=True)}
    others = [("souk-test.html", document["title"]), ("souk-shop.html", "Souk: Shop")]
    return parse(pages.page(document, found, events, WINDOW, {"service": "order"}, others, "ten seconds"))


def series(*values: float, **labels: str) -> Series:
    return Series(labels, [(1000 + 2 * number, value) for number, value in enumerate(values)])


def texts(page: Page, tag: str, style: str | None = None, inside: str | None = None) -> list[str]:
    return [each.text for each in page.all(tag, style, inside)]


def test_a_page_names_its_dashboard_and_leads_to_the_others() -> None:
    page = drawn(single(1, "Up", "How many.", Query("up", ""), unit=COUNT), [series(1)])
    assert texts(page, "h1") == ["Souk: Test"]
    assert [link.attributes.get("href") for link in page.all("a")] == ["souk-test.html", "souk-shop.html"]
    assert "order" in texts(page, "strong", inside="chosen")


def test_a_page_asks_nothing_of_anybody() -> None:
    page = drawn(single(1, "Up", "How many.", Query("up", ""), unit=COUNT), [series(1)])
    assert not page.all("script")
    assert not page.all("link")
    policy = next(each for each in page.all("meta") if "http-equiv" in each.attributes)
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_a_single_value_has_the_colour_and_the_sign_of_its_step() -> None:
    panel = single(
        1, "Success", "Share.", Query("s", "{{service}}"), unit=SHARE, decimals=1, steps=falling(orange=0.999, red=0.99)
    )
    page = drawn(panel, [series(1, service="user"), series(0.995, service="order"), series(0.5, service="payment")])
    values = [(each.attributes["class"], each.text) for each in page.all("strong", inside="values")]
    assert values == [("orange", "!99.5%"), ("red", "✗50.0%"), ("green", "✓100.0%")]
    assert texts(page, "span", inside="values")[::2] == ["order", "payment", "user"]


def test_nothing_found_is_said_in_words() -> None:
    panel = single(1, "Alerts", "Count.", Query("a", ""), unit=COUNT, empty="nothing fires")
    assert texts(drawn(panel, []), "p", "empty") == ["nothing fires"]
    assert texts(drawn(panel, [series(float("nan"))]), "p", "empty") == ["nothing fires"]


def test_a_line_has_a_gap_where_there_was_no_value() -> None:
    panel = lines(1, "Latency", "Seconds.", Query("l", "{{pod}}"), unit=SECONDS)
    gap = Series({"pod": "order-1"}, [(1000, 0.1), (1002, 0.2), (1006, 0.1), (1008, float("nan"))])
    page = drawn(panel, [gap])
    assert len(page.all("path", "line c0", inside="curves")) == 2
    assert "100 ms" in texts(page, "text", "tick")


def test_thresholds_are_dashed_lines_where_the_scale_has_a_place_for_them() -> None:
    panel = lines(1, "Latency", "Seconds.", Query("l", "p99"), unit=SECONDS, steps=rising(orange=0.5, red=5))
    page = drawn(panel, [series(0.2, 0.9)])
    assert [each.attributes["class"] for each in page.all("line") if "mark" in each.classes] == ["mark orange"]


def test_stacked_lines_lie_on_each_other() -> None:
    panel = lines(1, "Orders", "Count.", Query("o", "{{outcome}}"), unit=COUNT, stacked=True)
    page = drawn(panel, [series(1, 1, outcome="confirmed"), series(3, 3, outcome="rejected")])
    (upper,) = page.all("path", "line c1", inside="curves")
    (lower,) = page.all("path", "line c0", inside="curves")
    assert upper.attributes["d"].startswith("M83.33,0.00")
    assert lower.attributes["d"].startswith("M83.33,750.00")


def test_a_scale_of_bytes_has_round_ticks() -> None:
    panel = lines(1, "Memory", "Bytes.", Query("m", "{{pod}}"), unit=BYTES)
    page = drawn(panel, [series(90 * 2**20, pod="order-1")])
    assert texts(page, "text", "tick")[:3] == ["0 B", "20 MiB", "40 MiB"]


def test_a_scale_reaches_as_far_as_its_values() -> None:
    panel = lines(1, "Success", "Share.", Query("s", "s"), unit=SHARE, least=0.95, most=1)
    assert texts(drawn(panel, [series(0.97)]), "text", "tick")[0] == "95%"
    assert texts(drawn(panel, [series(0.4)]), "text", "tick")[0] == "40%"


def test_bars_have_their_values_and_colours_the_longest_first() -> None:
    panel = bars(1, "Slowest", "Seconds.", Query("b", "{{call}}"), unit=SECONDS, steps=rising(orange=0.25, red=1))
    page = drawn(panel, [series(0.1, call="read"), series(2, call="write")])
    assert texts(page, "text", "label") == ["2 s write", "100 ms read"]
    assert [each.attributes["class"] for each in page.all("rect") if "bar" in each.classes] == ["bar red", "bar green"]


def test_the_answers_of_a_table_are_merged_by_their_labels() -> None:
    columns = (
        Column("up", "up", COUNT, MUST_BE_ONE),
        Column("memory", "memory", BYTES),
    )
    page = drawn(
        rows(1, "Replicas", "Each.", ("service", "pod"), columns),
        [series(1, service="order", pod="order-1"), series(0, service="order", pod="order-2")],
        [series(2**20, service="order", pod="order-1")],
    )
    assert page.table("Replicas") == [
        ["service", "pod", "up", "memory"],
        ["order", "order-1", "✓1", "1 MiB"],
        ["order", "order-2", "✗0", ""],
    ]


def test_events_are_lines_in_every_plot_and_a_list_on_top() -> None:
    panel = lines(1, "Load", "Requests.", Query("l", "all"), unit=COUNT)
    page = drawn(panel, [series(1, 2, 3)], events=[Harm("order-1 has started", 4, 4)])
    assert texts(page, "li", inside="events") == ["order-1 has started, at 4.0 s"]
    assert [each.attributes["x1"] for each in page.all("line", "harm", inside="plot-1")] == ["40.000%"]


def test_moments_that_follow_each_other_are_one_event() -> None:
    down = Series({"pod": "order-1"}, [(1002, 1), (1004, 1), (1008, 1), (1010, 0)])
    found = pages.events_in([("{{pod}} does not answer", [down])], WINDOW)
    assert found == [Harm("order-1 does not answer", 2, 4), Harm("order-1 does not answer", 8, 8)]
