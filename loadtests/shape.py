"""The shape of a load: how many shoppers arrive when, who they are, and the limits that the shop is held to.

A shape is a file in `loadtests/shapes/` that assigns one `Shape` to `SHAPE`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

JOURNEYS = ("visitor", "buyer", "returner", "admin")
SHOPPING_MIX: Mapping[str, float] = {"visitor": 85, "buyer": 11, "returner": 3, "admin": 1}
"""Of 100 who arrive. Ours, chosen so that about four requests in five browse and one orders, which is the shopping mix
of TPC-W (specification 1.8, "Web Interaction Mix"): `test_the_shopping_mix_is_that_of_tpc_w` counts them.
"""
THINK_S = 7.0
"""Seconds between an answer and the next request, on average: TPC-W 1.8, "Think Time": negative exponential with a mean
of 7 to 8 s, cut at ten times the mean.
"""
HURRIED_S = 1.0
"""Ours, for shapes that change within seconds: the same shoppers in a hurry, so that a rate of arrivals is a rate of
requests soon after. The rate of requests is the same in the end; fewer shoppers are in the shop at a time.
"""


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of time in which the rate of arrivals goes straight from one value to another, in shoppers a second."""

    seconds: float
    rate: float
    to_rate: float | None = None
    """None where the rate stays."""

    @property
    def end_rate(self) -> float:
        """The rate at the end."""
        return self.rate if self.to_rate is None else self.to_rate

    @property
    def arrivals(self) -> float:
        """How many arrive in it, on average."""
        return self.seconds * (self.rate + self.end_rate) / 2

    def rate_at(self, seconds: float) -> float:
        """The rate so long after the beginning."""
        return self.rate + (self.end_rate - self.rate) * seconds / self.seconds

    def moment_of(self, count: float) -> float:
        """The seconds after which `count` have arrived, on average: the inverse of the integral of the rate."""
        slope = (self.end_rate - self.rate) / self.seconds
        if slope == 0:
            return count / self.rate
        return (math.sqrt(max(self.rate**2 + 2 * slope * count, 0)) - self.rate) / slope


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that a percentile of the latency may be, in milliseconds, from when each request was due."""

    percent: float
    most_ms: float
    call: str | None = None
    """As `POST /api/v1/orders`; none for all requests together."""
    in_last_leg_after_s: float | None = None
    """Judged in the last leg only, from so many seconds on; none for all that is measured."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One load, and what is asked of the shop under it."""

    title: str
    legs: Sequence[Leg]
    warm_up_s: float
    """At the first leg's rate, before it. What is due then is sent and checked, and counts in no figure."""
    most_failed_share: float
    """Of the requests that are judged: refused (503) or not answered. A wrong answer is never allowed."""
    limits: Sequence[Limit] = ()
    mix: Mapping[str, float] = field(default_factory=lambda: SHOPPING_MIX)
    think_s: float = THINK_S
    find_knee: bool = False
    """Whether the load is raised until the shop cannot follow. Failures and limits are judged before that only."""
    hot_units: int | None = None
    """Everyone wants one product, of which there are so many; none where the products are many."""

    @property
    def seconds(self) -> float:
        """How long it is measured."""
        return sum(leg.seconds for leg in self.legs)

    @property
    def ends_s(self) -> float:
        """When nobody arrives any more, from the beginning of the warm-up."""
        return self.warm_up_s + self.seconds

    @property
    def peak_rate(self) -> float:
        """The most that arrive, in shoppers a second."""
        return max(max(leg.rate, leg.end_rate) for leg in self.legs)

    @property
    def schedule(self) -> Sequence[Leg]:
        """The legs with the warm-up before them."""
        return (Leg(self.warm_up_s, self.legs[0].rate), *self.legs) if self.warm_up_s else tuple(self.legs)

    def rate_at(self, at_s: float) -> float:
        """The rate of arrivals at a moment from the beginning of the warm-up; 0 after the end."""
        begins_s = 0.0
        for leg in self.schedule:
            if at_s < begins_s + leg.seconds:
                return leg.rate_at(at_s - begins_s)
            begins_s += leg.seconds
        return 0.0

    def scaled(
        self, *, peak_rate: float | None = None, seconds: float | None = None, think_s: float | None = None
    ) -> "Shape":
        """The same with another peak, another length (a warm-up is at most a fifth of it then) or other pauses."""
        higher = 1.0 if peak_rate is None else peak_rate / self.peak_rate
        longer = 1.0 if seconds is None else seconds / self.seconds
        legs = tuple(
            Leg(leg.seconds * longer, leg.rate * higher, None if leg.to_rate is None else leg.to_rate * higher)
            for leg in self.legs
        )
        warm_up_s = self.warm_up_s if seconds is None else min(self.warm_up_s, seconds / 5)
        return replace(self, legs=legs, warm_up_s=warm_up_s, think_s=self.think_s if think_s is None else think_s)

    def only(self, journeys: Sequence[str]) -> "Shape":
        """The same with these journeys only, in the shares that they have of each other."""
        return replace(self, mix={name: share for name, share in self.mix.items() if name in journeys})


def names() -> list[str]:
    """The shapes that there are."""
    found = (Path(__file__).parent / "shapes").glob("[!_]*.py")
    return sorted(path.stem.replace("_", "-") for path in found)


def load(name: str) -> Shape:
    """The shape of this name, one of `names()`."""
    found: Shape = import_module(f"loadtests.shapes.{name.replace('-', '_')}").SHAPE
    return found
