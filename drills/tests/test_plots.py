from itertools import pairwise

import pytest

from drills import plots
from drills.evidence import Harm
from drills.tests.page import parse


def test_a_line_has_a_point_for_each_value_in_the_middle_of_its_bin() -> None:
    line = plots.Line("requests", "requests", [0, 50, 100, 25])
    figure = parse(draw([line]))
    (path,) = figure.all("path", "line requests", inside="curves")
    assert path.attributes["d"] == "M125.00,1000.00 L375.00,500.00 L625.00,0.00 L875.00,750.00"


def test_a_gap_is_not_drawn_and_a_point_alone_is_a_dot() -> None:
    figure = parse(draw([plots.Line("p50", "p50", [10, None, 30, 40])]))
    dot, run = (path.attributes["d"] for path in figure.all("path", "line p50", inside="curves"))
    assert dot == "M125.00,900.00 h0"
    assert run == "M625.00,700.00 L875.00,600.00"


def test_a_filled_line_ends_on_the_ground_where_it_began() -> None:
    figure = parse(draw([plots.Line("failed", "failures", [10, 20], filled=True)]))
    (area,) = figure.all("path", "area failures", inside="curves")
    assert area.attributes["d"] == "M250.00,900.00 L750.00,800.00 V1000 H250.00 Z"


def test_harm_is_a_band_from_its_beginning_to_its_end_and_a_line_where_it_was_one_moment() -> None:
    figure = parse(draw(harms=[Harm("payment down", 10, 25), Harm("SIGKILL of order-1", 30, 30)]))
    (band,) = figure.all("rect", "harm", inside="figure")
    assert (band.attributes["x"], band.attributes["width"]) == ("25.000%", "37.500%")
    assert band.text == "1: payment down, from 10.0 to 25.0 s"
    lines = figure.all("line", "harm", inside="figure")
    assert [line.attributes["x1"] for line in lines] == ["25.000%", "75.000%"]
    assert lines[1].text == "2: SIGKILL of order-1, at 30.0 s"


def test_harms_have_their_name_where_there_is_room_and_else_their_number() -> None:
    close = [Harm("user down", 10, 10), Harm("product down", 13, 13), Harm("payment down", 20, 20)]
    labels = parse(draw(harms=close)).all("text", "harm")
    assert [label.text for label in labels] == ["1", "2 product down", "3 payment down"]


def test_numbers_of_harms_do_not_stand_on_each_other() -> None:
    harms = [Harm("killed", second / 4, second / 4) for second in range(160)]
    figure = parse(draw(harms=harms))
    places = [float(label.attributes["x"].rstrip("%")) for label in figure.all("text", "harm")]
    gaps = [after - before for before, after in pairwise(places)]
    assert min(gaps) >= 100 * plots.NUMBER_PX / plots.NARROWEST_PX
    assert len(figure.all("line", "harm", inside="figure")) == 160


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([260.0, None, 3.0], [0, 100, 200, 300]),
        ([1000.0], [0, 200, 400, 600, 800, 1000]),
        ([0.0], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_a_linear_scale_ends_in_a_round_number_above_everything(values: list[float | None], ticks: list[float]) -> None:
    scale = plots.linear(values)
    assert scale.ticks == pytest.approx(ticks)
    assert all(0 <= scale.height(value) <= 1 for value in values if value is not None)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([12.0, None, 2000.0], [10, 100, 1000, 10_000]), ([10.0], [10, 100]), ([0.4], [0.1, 1]), ([], [1, 10])],
)
def test_a_logarithmic_scale_has_whole_powers_of_ten(values: list[float | None], ticks: list[float]) -> None:
    scale = plots.logarithmic(values)
    assert scale.ticks == pytest.approx(ticks)
    assert all(0 <= scale.height(value) <= 1 for value in values if value is not None)
    assert scale.height(0) == 0


def test_bars_stand_in_the_order_of_their_counts_and_in_proportion() -> None:
    drawn = plots.bars("orders", "Orders", "10 orders", {"rejected": 2, "confirmed": 8}, {"confirmed": "sold"})
    figure = parse(drawn)
    assert [text.text for text in figure.all("text", "label")] == ["8 confirmed 80%", "2 rejected 20%"]
    assert [bar.attributes["width"] for bar in figure.all("rect") if "bar" in bar.classes] == ["100.000%", "25.000%"]


def test_bars_of_nothing_but_noughts_are_empty() -> None:
    figure = parse(plots.bars("orders", "Orders", "none", {"confirmed": 0}, {}))
    assert [bar.attributes["width"] for bar in figure.all("rect") if "bar" in bar.classes] == ["0.000%"]


def test_a_plot_says_what_it_is_to_those_who_do_not_see_it() -> None:
    figure = parse(draw())
    (image,) = [each for each in figure.all("svg") if each.attributes.get("role") == "img"]
    texts = {each.attributes["id"]: each.text for each in figure.elements if "id" in each.attributes}
    named_by = image.attributes["aria-labelledby"].split()
    assert [texts[each] for each in named_by] == ["What it shows", "In words: <50> & more"]


def draw(lines: list[plots.Line] | None = None, harms: list[Harm] | None = None) -> str:
    """A plot of 40 s from 0 to 100."""
    return plots.over_time(
        "figure",
        "What it shows",
        "In words: <50> & more",
        lines=lines or [plots.Line("requests", "requests", [1, 2])],
        scale=plots.Scale(0, 100, [0, 50, 100]),
        seconds=40,
        harms=harms or [],
    )
