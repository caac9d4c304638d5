from collections import Counter
from itertools import islice, pairwise
from random import Random
from statistics import fmean, pstdev

import pytest

from loadtests.schedule import Popularity, arrivals, draws_of, moments, share, think_time_s
from loadtests.shape import Leg, Shape, load

RAMP = (Leg(100, 0, 40), Leg(50, 40), Leg(50, 40, 0))


def test_a_seed_repeats_everything_and_another_one_does_not() -> None:
    shape = load("steady")
    assert list(arrivals(shape, 7)) == list(arrivals(shape, 7))
    assert list(arrivals(shape, 7)) != list(arrivals(shape, 8))
    assert draws_of(3, 7).random() == draws_of(3, 7).random() != draws_of(4, 7).random()


def test_arrivals_come_at_the_rate_of_the_shape() -> None:
    found = list(moments((Leg(1000, 8),), seed=1))
    assert len(found) == pytest.approx(8000, rel=0.05)
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] < 1000


def test_poisson_arrivals_come_in_clumps_as_people_do() -> None:
    gaps = [later - earlier for earlier, later in pairwise(moments((Leg(2000, 10),), seed=2))]
    # An exponential distribution has a deviation as large as its mean.
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(1, abs=0.05)


def test_constant_arrivals_are_equally_far_apart() -> None:
    found = list(moments((Leg(10, 4),), seed=1, poisson=False))
    assert found == pytest.approx([number / 4 for number in range(1, 40)])


@pytest.mark.parametrize("poisson", [True, False])
def test_a_rate_that_rises_and_falls_is_followed(poisson: bool) -> None:
    by_leg = Counter(int(at_s // 50) for at_s in moments(RAMP, seed=3, poisson=poisson))
    expected = {0: 500, 1: 1500, 2: 2000, 3: 1000}
    assert by_leg == {leg: pytest.approx(count, rel=0.12) for leg, count in expected.items()}


def test_processes_share_the_arrivals_and_each_is_sent_once() -> None:
    shape = load("ramp").scaled(seconds=30)
    everybody = list(arrivals(shape, 5))
    shared = [arrival for index in range(3) for arrival in share(arrivals(shape, 5), index, 3)]
    assert sorted(shared, key=lambda each: each.number) == everybody


def test_journeys_come_in_the_shares_of_the_mix() -> None:
    shape = load("steady")
    counted = Counter(arrival.journey for arrival in islice(arrivals(shape.scaled(seconds=3000), 1), 20_000))
    for journey, wanted in shape.mix.items():
        assert counted[journey] / counted.total() == pytest.approx(wanted / 100, abs=0.01)


def test_nobody_comes_where_nobody_is_wanted() -> None:
    assert next(moments((Leg(10, 0), Leg(10, 2)), seed=1, poisson=False)) > 10


def test_pauses_have_their_mean_and_no_end_beyond_ten_of_it() -> None:
    random = Random(1)  # noqa: S311 - so that a run can be repeated
    pauses = [think_time_s(random, 7) for _ in range(50_000)]
    assert fmean(pauses) == pytest.approx(7, rel=0.03)
    assert 0 <= min(pauses) <= max(pauses) <= 70


def test_the_first_product_is_liked_most_and_every_one_is_chosen() -> None:
    random, popularity = Random(1), Popularity(50)  # noqa: S311 - so that a run can be repeated
    chosen = Counter(popularity.draw(random) for _ in range(50_000))
    assert set(chosen) == set(range(50))
    assert chosen[0] / chosen[9] == pytest.approx(10**0.8, rel=0.1)


def test_a_shape_without_a_warm_up_begins_with_its_first_leg() -> None:
    assert Shape("", legs=(Leg(5, 1),), warm_up_s=0, most_failed_share=0).schedule == (Leg(5, 1),)
