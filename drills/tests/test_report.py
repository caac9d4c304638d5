import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from drills import report
from drills.evidence import Evidence, Exchange, Harm, Promise, Table
from drills.tests.page import Page, parse


def test_a_passed_drill_says_so_first_and_then_what_it_is(tmp_path: Path) -> None:
    page = read(storm(), tmp_path)
    assert page.all("h1")[0].text.split() == ["✓", "PASSED"]
    assert page.all("header")[0].classes == ["good"]
    assert "lead" in page.all("p")[1].around
    assert page.all("p")[1].text == "Payment is down for 30 s."


def test_a_failed_drill_says_why_on_top(tmp_path: Path) -> None:
    evidence = storm(
        violations=["paid once: order 7: two captures"],
        promises=[Promise("503 within 2 s", "3.1 s", kept=False), Promise("p99", "9 s", kept=False, judged=False)],
    )
    page = read(evidence, tmp_path)
    assert page.all("h1")[0].text.split() == ["✗", "FAILED"]
    assert page.all("header")[0].classes == ["bad"]
    reasons = [each.text for each in page.all("li", inside="lead")]
    assert reasons == ["paid once: order 7: two captures", "503 within 2 s: 3.1 s"]
    assert page.elements.index(page.all("li", inside="lead")[0]) < page.elements.index(page.all("section")[0])


def test_many_reasons_are_counted_and_the_violations_listed_below(tmp_path: Path) -> None:
    violations = [f"sold once: product {number}" for number in range(report.MOST_SHOWN + 5)]
    page = read(storm(violations=violations), tmp_path)
    reasons = [each.text for each in page.all("li", inside="lead")]
    assert reasons[-1] == f"and {len(violations) - report.MOST_REASONS} more"
    listed = [each.text for each in page.all("li", inside="violations")]
    assert listed == violations[: report.MOST_SHOWN]
    assert "And 5 more, in the JSON." in [each.text for each in page.all("p")]
    assert load(tmp_path, "storm")["violations"] == violations


def test_each_request_is_plotted_once_in_the_bin_in_which_it_ended(tmp_path: Path) -> None:
    evidence = storm()
    page = read(evidence, tmp_path)
    bins = report.over_time(evidence)
    assert sum(bins.requests) == len(evidence.exchanges) == evidence.sent
    assert sum(bins.failures) == evidence.failures.total() > 0
    assert points(page, "requests") == pytest.approx(
        heights([count / bins.bin_s for count in bins.requests], top(page, "requests-over-time")), abs=0.01
    )
    assert points(page, "failures") == pytest.approx(
        heights([count / bins.bin_s for count in bins.failures], top(page, "requests-over-time")), abs=0.01
    )


def test_latency_has_a_point_for_each_bin_in_which_a_request_ended(tmp_path: Path) -> None:
    evidence = storm(exchanges=[exchange(second) for second in (0, 1, 2, 3, 4, 10, 11, 30)], seconds=60)
    page = read(evidence, tmp_path)
    for style in ("p50", "p95", "p99"):
        assert len(points(page, style)) == 8
    assert len(page.all("path", "line p50", inside="latency-over-time")) == 3


def test_harm_stands_in_both_plots_where_it_was_done(tmp_path: Path) -> None:
    exchanges = [exchange(second) for second in range(60)]
    page = read(
        storm(exchanges=exchanges, seconds=60, harms=[Harm("payment down", 20, 50), Harm("order-1 killed", 15, 15)]),
        tmp_path,
    )
    for plot in ("requests-over-time", "latency-over-time"):
        (band,) = page.all("rect", "harm", inside=plot)
        assert (band.attributes["x"], band.attributes["width"]) == ("33.333%", "50.000%")
        lines = [each.attributes["x1"] for each in page.all("line", "harm", inside=plot)]
        assert lines == ["25.000%", "33.333%"]
    assert page.table("Harm done")[1:] == [
        ["1", "order-1 killed", "15.0", "15.0"],
        ["2", "payment down", "20.0", "50.0"],
    ]


def test_the_plotted_numbers_stand_on_the_page(tmp_path: Path) -> None:
    evidence = storm()
    bins = report.over_time(evidence)
    head, *rows = read(evidence, tmp_path).table(f"What is plotted, in bins of {bins.bin_s:.2f} s")
    assert head[1:3] == ["requests", "failed"]
    assert [int(row[1].replace(",", "")) for row in rows] == bins.requests
    assert [int(row[2].replace(",", "")) for row in rows] == bins.failures


@pytest.mark.parametrize(("seconds", "bins"), [(0.5, 20), (60.2, 60), (600, 120)])
def test_a_bin_is_about_a_second_but_for_the_shortest_and_the_longest_drills(seconds: float, bins: int) -> None:
    found = report.over_time(storm(exchanges=[], harms=[], seconds=seconds))
    assert len(found.requests) == bins
    assert found.seconds == pytest.approx(seconds)


def test_a_request_that_ended_last_of_all_is_in_the_last_bin() -> None:
    found = report.over_time(storm(exchanges=[Exchange(59, 31, "GET /", None, "no answer")], harms=[], seconds=60))
    assert found.seconds == pytest.approx(90)
    assert found.requests[-1] == found.failures[-1] == 1


def test_a_report_of_fewer_requests_than_were_sent_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(report.Incomplete, match="600 requests written down, and 601 were counted"):
        report.write(storm(sent=601), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_request_outside_of_the_plot_is_missed(tmp_path: Path) -> None:
    exchanges = [exchange(1), exchange(-5)]
    with pytest.raises(report.Incomplete, match="1 requests over time, and 2 were counted"):
        report.write(storm(exchanges=exchanges), tmp_path)


def test_an_incomplete_report_leaves_none_of_an_earlier_run(tmp_path: Path) -> None:
    report.write(storm(), tmp_path)
    with pytest.raises(report.Incomplete):
        report.write(storm(sent=0), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_drill_that_failed_before_its_first_request_has_a_report(tmp_path: Path) -> None:
    page = read(storm(exchanges=[], harms=[], orders=Counter(), promises=[], seconds=0), tmp_path)
    assert [each.text for each in page.all("li", inside="lead")] == ["no harm was done", "no request was sent"]
    figures = [each.text for each in page.all("strong", inside="figures")]
    assert figures == ["0", "0", "0", "no harm", "not compared", "none to judge"]


def test_the_key_figures_are_those_of_the_evidence(tmp_path: Path) -> None:
    evidence = storm(recovered_s=1.25, violations=["one", "two"])
    page = read(evidence, tmp_path)
    figures = [each.text for each in page.all("strong", inside="figures")]
    assert figures == ["600", "60", "12", "1.2 s", "✗ 2 violations", "1 of 1"]
    notes = [each.text for each in page.all("small", inside="figures")]
    assert notes[1] == "10.00% of all: 503 (40), no answer (20)"
    assert notes[2] == "confirmed (9), rejected (2), cancelled (1)"


def test_orders_have_a_bar_for_each_outcome(tmp_path: Path) -> None:
    page = read(storm(orders=Counter(confirmed=9, paying=1)), tmp_path)
    labels = [each.text for each in page.all("text", "label", inside="orders-by-outcome")]
    assert labels == ["9 confirmed 90%", "1 paying 10%"]
    bars = [each.classes for each in page.all("rect", inside="orders-by-outcome") if "bar" in each.classes]
    assert bars == [["bar", "sold"], ["bar", "open"]]


def test_promises_say_whether_they_were_kept_and_judged(tmp_path: Path) -> None:
    promises = [Promise("503 within 2 s", "1.4 s", kept=True), Promise("p99", "1.9 times", kept=False, judged=False)]
    assert read(storm(promises=promises), tmp_path).table("Promises")[1:] == [
        ["503 within 2 s", "1.4 s", "✓ yes", "judged"],
        ["p99", "1.9 times", "✗ no", "shown only"],
    ]


def test_calls_have_their_nearest_rank_percentiles(tmp_path: Path) -> None:
    exchanges = [Exchange(number / 10, number / 1000, "GET /a", 200) for number in range(1, 101)]
    exchanges += [Exchange(1, 0.25, "POST /b", 503, "503"), Exchange(1, 0.5, "POST /b", 201)]
    assert read(storm(exchanges=exchanges), tmp_path).table("Calls")[1:] == [
        ["GET /a", "100", "0", "50.0", "95.0", "99.0", "100.0"],
        ["POST /b", "2", "1", "250.0", "500.0", "500.0", "500.0"],
    ]


@pytest.mark.parametrize(("percent", "value"), [(50, 3.0), (20, 1.0), (21, 2.0), (99, 5.0), (100, 5.0)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert report.percentile([1.0, 2.0, 3.0, 4.0, 5.0], percent) == value


def test_what_a_shop_said_is_text_and_never_markup(tmp_path: Path) -> None:
    nasty = "<script>alert('&amp;')</script>\""
    evidence = storm(
        title=nasty,
        command=nasty,
        machine=nasty,
        versions=nasty,
        began_at=nasty,
        harms=[Harm(nasty, 1, 2)],
        orders=Counter({nasty: 1}),
        promises=[Promise(nasty, nasty, kept=True)],
        violations=[nasty],
        tables=[Table(nasty, [nasty], [[nasty]])],
        exchanges=[Exchange(1, 0.1, nasty, 500, nasty)],
    )
    page = read(evidence, tmp_path)
    assert page.all("script") == []
    assert page.table(nasty) == [[nasty], [nasty]]
    assert page.table("Calls")[1][0] == nasty
    assert page.table("Promises")[1][0] == nasty
    assert [each.text for each in page.all("li", inside="violations")] == [nasty]


def test_a_page_asks_no_other_host_for_anything(tmp_path: Path) -> None:
    text = report.write(storm(), tmp_path).read_text(encoding="utf-8")
    assert "://" not in text
    assert "url(" not in text
    page = parse(text)
    assert {each.attributes["href"] for each in page.elements if "href" in each.attributes} == {"storm.json"}
    assert not [each for each in page.elements if "src" in each.attributes or each.tag == "link"]
    policy = [each for each in page.all("meta") if each.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0].attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_table_has_a_caption_and_every_id_stands_once(tmp_path: Path) -> None:
    page = read(storm(tables=[Table("Probes", ["probe"], [["/livez"]])]), tmp_path)
    assert len(page.all("table")) == len(page.all("caption")) > 4
    ids = [each.attributes["id"] for each in page.elements if "id" in each.attributes]
    assert len(ids) == len(set(ids)) == 9


def test_the_json_has_all_but_the_single_exchanges(tmp_path: Path) -> None:
    evidence = storm(tables=[Table("Probes", ("probe", "answered"), [("/livez", "64")])], violations=["one"])
    report.write(evidence, tmp_path)
    found = load(tmp_path, "storm")
    assert found == json.loads(json.dumps(report.summary(evidence)))
    for name in ("title", "command", "seed", "began_at", "seconds", "machine", "versions", "sent", "violations"):
        assert found[name] == getattr(evidence, name)
    assert (found["passed"], found["broken"]) == (False, ["one"])
    assert Counter(found["orders"]) == evidence.orders
    assert Counter(found["failures"]) == evidence.failures
    assert [Harm(**each) for each in found["harms"]] == evidence.harms
    assert [Promise(**each) for each in found["promises"]] == evidence.promises
    assert found["tables"] == [{"title": "Probes", "columns": ["probe", "answered"], "rows": [["/livez", "64"]]}]
    assert report.OverTime(**found["over_time"]) == report.over_time(evidence)
    assert [report.Call(**each) for each in found["calls"]] == report.calls(evidence.exchanges)
    assert "exchanges" not in found


def test_the_index_has_a_row_for_each_report(tmp_path: Path) -> None:
    report.write(storm(name="outage"), tmp_path)
    report.write(storm(name="kill", violations=["lost"], recovered_s=2.0), tmp_path)
    page = parse(report.index(tmp_path).read_text(encoding="utf-8"))
    assert page.all("h1")[0].text == "✗ 1 of 2 passed"
    assert page.table("All drills")[1:] == [
        ["kill", "✗ failed", "600", "60", "12", "2.0 s"],
        ["outage", "✓ passed", "600", "60", "12", "at once"],
    ]
    assert [each.attributes["href"] for each in page.all("a")] == ["kill.html", "outage.html"]


def test_an_index_of_nothing_does_not_pass(tmp_path: Path) -> None:
    page = parse(report.index(tmp_path).read_text(encoding="utf-8"))
    assert page.all("h1")[0].text == "✗ no drill was run"


def test_the_page_for_the_docs_has_a_row_and_a_section_for_each_report(tmp_path: Path) -> None:
    harms = [Harm(what, 20, 20) for what in ("a", "a", "b", "c", "d|e", "f", "g")]
    report.write(storm(name="kill", harms=harms, recovered_s=2.0, violations=["lost"], tables=[PROBES]), tmp_path)
    report.write(storm(name="outage"), tmp_path)
    lines = report.markdown(tmp_path).splitlines()
    assert lines[2].endswith(": 1 of 2 drills passed.")
    at = lines.index("| drill | harm done | requests | failed | orders | recovery | oracle and audit |")
    assert lines[at + 1 : at + 4] == [
        "| --- | --- | ---: | --- | --- | --- | --- |",
        "| [kill](#kill) | a (2), b, c, d/e, 2 of other kinds | 600 | 503 (40), no answer (20)"
        " | confirmed (9), rejected (2), cancelled (1) | 2.0 s | 1 violations |",
        "| [outage](#outage) | payment down | 600 | 503 (40), no answer (20)"
        " | confirmed (9), rejected (2), cancelled (1) | at once | clean |",
    ]
    at = lines.index("## kill")
    assert lines[at + 2] == "Payment is down for 30 s. **FAILED** in 62 s."
    assert lines[at + 4] == "`make drill NAME=storm`, 2026-11-25T02:00:00Z"
    assert lines[at + 8] == "| 503 within 2 s | 1.4 s | yes |"
    assert lines[at + 10] == "Probes:"
    assert lines[at + 12 : at + 15] == ["| probe | answered |", "| --- | --- |", "| /livez | 64 |"]


PROBES = Table("Probes", ("probe", "answered"), [("/livez", "64")])


def storm(**changed: Any) -> Evidence:
    """600 requests in 60 s, a tenth of them failed, with what is given in place of what is usual."""
    random = Random(7)  # noqa: S311 - latencies, not secrets
    failures = ["503"] * 40 + ["no answer"] * 20 + [None] * 540
    random.shuffle(failures)
    usual: dict[str, Any] = {
        "name": "storm",
        "title": "Payment is down for 30 s.",
        "command": "make drill NAME=storm",
        "seed": 7,
        "began_at": "2026-11-25T02:00:00Z",
        "seconds": 61.5,
        "machine": "2 cores, Linux",
        "versions": "Python 3.11.7",
        "exchanges": [
            Exchange(number / 10, random.random(), f"GET /{number % 3}", None if failure else 200, failure)
            for number, failure in enumerate(failures)
        ],
        "harms": [Harm("payment down", 20, 50)],
        "orders": Counter(confirmed=9, rejected=2, cancelled=1),
        "promises": [Promise("503 within 2 s", "1.4 s", kept=True)],
    } | changed
    usual.setdefault("sent", len(usual["exchanges"]))
    return Evidence(**usual)


def exchange(sent_at_s: float) -> Exchange:
    return Exchange(sent_at_s, 0.02, "GET /", 200)


def read(evidence: Evidence, folder: Path) -> Page:
    """Write the report and read it as a browser does."""
    return parse(report.write(evidence, folder).read_text(encoding="utf-8"))


def load(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def points(page: Page, style: str) -> list[float]:
    """The heights at which a series has its points, from the top."""
    paths = page.all("path", f"line {style}", inside="curves")
    places = [place for path in paths for place in path.attributes["d"].split() if place != "h0"]
    return [float(place.partition(",")[2]) for place in places]


def top(page: Page, plot: str) -> float:
    """The highest number on a plot's vertical axis."""
    ticks = [each for each in page.all("text", "tick", inside=plot) if each.attributes["text-anchor"] == "end"]
    return float(ticks[-1].text.replace(",", ""))


def heights(values: list[float], highest: float) -> list[float]:
    return [1000 * (1 - value / highest) for value in values]
