from dataclasses import replace
from pathlib import Path

import pytest

from drills.tests.page import Page, parse
from loadtests import report
from loadtests.findings import Findings, find
from loadtests.record import Order
from loadtests.shape import Shape
from loadtests.tests.recorded import RAMP, STEADY, Took, run


def page_of(found: Findings, shape: Shape, folder: Path, loop: str = "open loop, Poisson arrivals") -> Page:
    about = report.About(
        name="steady",
        shape=shape,
        command="make load TARGET=local SHAPE=steady SEED=7",
        seed=7,
        loop=loop,
        target="local, http://127.0.0.1:8000",
        began_at="2026-11-25T20:00:00Z",
        machine="Linux 6, 2 cores",
        versions="Python 3.14, locust 2.47",
        audit="audit: clean",
    )
    return parse(report.write(folder, about, found).read_text(encoding="utf-8"))


def text_of(page: Page) -> str:
    """All that the page says."""
    return page.all("main")[0].text


def steady(_due_s: float) -> Took:
    return Took()


def test_the_verdict_comes_first_and_the_reasons_right_after(tmp_path: Path) -> None:
    found = find(run(STEADY, lambda _: Took(0.3)), STEADY)
    page = page_of(found, STEADY, tmp_path)
    assert page.all("h1")[0].text.split() == ["✗", "FAILED"]
    (reason,) = (each.text for each in page.all("li", inside="lead"))
    assert reason.startswith("p95 of all requests within 100 ms: 300.0 ms of ")
    assert page_of(find(run(STEADY, steady), STEADY), STEADY, tmp_path).all("h1")[0].text.split() == ["✓", "PASSED"]


def test_each_endpoint_has_its_line_from_due_and_from_sent(tmp_path: Path) -> None:
    found = find(run(STEADY, lambda _: Took(0.08, late_s=0.05)), STEADY)
    rows = page_of(found, STEADY, tmp_path).table("By endpoint")
    assert rows[0] == ["call", "sent", "failed", "p50, ms", "p95, ms", "p99, ms", "max, ms", "p99 from sent, ms"]
    assert [row[0] for row in rows[1:]] == [call.call for call in found.calls]
    assert all(row[3:] == ["80.0", "80.0", "80.0", "80.0", "30.0"] for row in rows[1:])
    assert sum(int(row[1].replace(",", "")) for row in rows[1:]) == len(found.measured)


@pytest.mark.parametrize("plot", ["rate", "latency", "generator", "p95-by-call", "call-0"])
def test_rate_percentiles_and_generator_are_drawn(plot: str, tmp_path: Path) -> None:
    page = page_of(find(run(STEADY, steady), STEADY), STEADY, tmp_path)
    assert plot in {element.attributes.get("id") for element in page.all("svg")}


def test_the_warm_up_is_a_band_and_the_knee_a_line(tmp_path: Path) -> None:
    warm = page_of(find(run(STEADY, steady), STEADY), STEADY, tmp_path)
    (band,) = warm.all("rect", "harm", inside="rate")
    assert (band.attributes["x"], band.attributes["width"]) == ("0.000%", f"{10 / 70:.3%}")
    found = find(run(RAMP, lambda due_s: Took(0.02 if due_s < 80 else 2.0)), RAMP)
    ramp = page_of(found, RAMP, tmp_path)
    (line,) = ramp.all("line", "harm", inside="latency")
    assert float(line.attributes["x1"].rstrip("%")) == pytest.approx(80 / 120 * 100, abs=2)
    assert "p95 above 70 ms" in text_of(ramp)


def test_failures_are_listed_with_what_was_wrong(tmp_path: Path) -> None:
    found = find(run(STEADY, lambda due_s: Took(failure="503" if 20 < due_s < 21 else "")), STEADY)
    page = page_of(found, STEADY, tmp_path)
    rows = page.table("The first of them")
    assert len(rows) == 1 + report.MOST_FAILURES
    assert {row[3] for row in rows[1:]} == {"503"}


def test_an_answer_cannot_write_into_the_page(tmp_path: Path) -> None:
    rows = run(STEADY, steady)
    rows.requests[-1] = replace(rows.requests[-1], failure="wrong answer", detail="<script>alert(1)</script>")
    rows.orders.append(Order(1.0, "1", "<b>confirmed", 1, 0))
    page_of(find(rows, STEADY), STEADY, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "<b>confirmed" not in text


def test_a_closed_loop_says_what_its_figures_are_not(tmp_path: Path) -> None:
    found = find(run(STEADY, steady), STEADY)
    assert "One who waits" not in text_of(page_of(found, STEADY, tmp_path))
    closed = text_of(page_of(found, STEADY, tmp_path, loop="closed loop, 50 users at the peak"))
    assert "one who waits for an answer asks for nothing" in closed


def test_who_wants_to_repeat_it_finds_how(tmp_path: Path) -> None:
    text = text_of(page_of(find(run(STEADY, steady), STEADY), STEADY, tmp_path))
    for part in ("make load TARGET=local SHAPE=steady SEED=7", "Linux 6, 2 cores", "locust 2.47", "audit: clean"):
        assert part in text


def test_a_run_of_nothing_has_a_page_too(tmp_path: Path) -> None:
    rows = run(STEADY, steady)
    rows.requests.clear()
    assert page_of(find(rows, STEADY), STEADY, tmp_path).all("h1")[0].text.split() == ["✗", "INVALID"]
