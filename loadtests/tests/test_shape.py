import pytest

from loadtests import shape
from loadtests.shape import Leg, Shape

BROWSING = {"visitor": 6.5, "buyer": 2, "returner": 0, "admin": 1}
"""Requests of a journey that browse, on average, as its code has them: what everybody may see."""
ORDERING = {"visitor": 0, "buyer": 10.1, "returner": 8.4, "admin": 5}
"""The rest: accounts, carts, orders, payments, and the admin's own."""


def test_the_shapes_are_those_of_the_page() -> None:
    assert shape.names() == ["flash-sale", "ramp", "soak", "spike", "steady"]


@pytest.mark.parametrize("name", shape.names())
def test_each_shape_says_who_comes_and_has_limits(name: str) -> None:
    loaded = shape.load(name)
    assert set(loaded.mix) <= set(shape.JOURNEYS)
    assert sum(loaded.mix.values()) == 100
    assert loaded.limits or loaded.find_knee
    assert 0 < loaded.most_failed_share < 1
    assert loaded.warm_up_s > 0
    judged_late = [limit.in_last_leg_after_s for limit in loaded.limits if limit.in_last_leg_after_s is not None]
    assert all(after_s < loaded.legs[-1].seconds for after_s in judged_late)


def test_the_shopping_mix_is_that_of_tpc_w() -> None:
    browsing = sum(share * BROWSING[name] for name, share in shape.SHOPPING_MIX.items())
    ordering = sum(share * ORDERING[name] for name, share in shape.SHOPPING_MIX.items())
    assert browsing / (browsing + ordering) == pytest.approx(0.8, abs=0.03)


def test_a_shape_is_scaled_in_height_and_length() -> None:
    spike = Shape("", legs=(Leg(60, 8), Leg(30, 48), Leg(90, 8)), warm_up_s=20, most_failed_share=0)
    scaled = spike.scaled(peak_rate=12, seconds=18)
    assert [leg.rate for leg in scaled.legs] == [2, 12, 2]
    assert [leg.seconds for leg in scaled.legs] == pytest.approx([6, 3, 9])
    assert scaled.warm_up_s == pytest.approx(3.6)
    assert scaled.seconds == pytest.approx(18)
    assert spike.scaled() == spike


def test_a_rate_is_that_of_the_leg_and_the_warm_up_is_at_the_first() -> None:
    ramp = Shape("", legs=(Leg(100, 0, 50), Leg(10, 5)), warm_up_s=10, most_failed_share=0)
    assert ramp.rate_at(5) == 0
    assert ramp.rate_at(60) == 25
    assert ramp.rate_at(115) == 5
    assert ramp.rate_at(121) == 0
    assert ramp.peak_rate == 50
    assert ramp.ends_s == 120


def test_only_some_journeys_keep_their_shares_of_each_other() -> None:
    assert shape.load("steady").only(["buyer", "admin"]).mix == {"buyer": 11, "admin": 1}
