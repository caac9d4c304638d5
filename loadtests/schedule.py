"""Who arrives when: an open loop's schedule, which follows from shape and seed and from nothing that the shop does."""

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from loadtests.shape import Leg, Shape

MOST_TIMES_THE_MEAN = 10
"""Where a think time is cut: TPC-W 1.8."""
ZIPF_EXPONENT = 0.8
"""How unequally products are liked: L. Breslau et al., "Web Caching and Zipf-like Distributions", INFOCOM 1999, found
0.64 to 0.83 in what was asked of web servers.
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One shopper: who it is, and when it should have sent its first request."""

    number: int
    """From 0, over all processes of the run."""
    due_s: float
    """Since the beginning of the warm-up."""
    journey: str


def moments(legs: Sequence[Leg], seed: int, *, poisson: bool = True) -> Iterator[float]:
    """When somebody arrives, ascending: a Poisson process of the legs' rate, or one after each equal part of it.

    Gaps are drawn for a rate of 1 and mapped by the inverse of the integrated rate, which makes them a Poisson process
    of any rate (E. Cinlar, "Introduction to Stochastic Processes", 1975, 4.7).
    """
    random = Random(f"{seed}-moments")  # noqa: S311 - so that a run can be repeated
    begins_s = passed = 0.0
    following = _gap(random, poisson=poisson)
    for leg in legs:
        while following < passed + leg.arrivals:
            yield begins_s + leg.moment_of(following - passed)
            following += _gap(random, poisson=poisson)
        begins_s += leg.seconds
        passed += leg.arrivals


def _gap(random: Random, *, poisson: bool) -> float:
    return random.expovariate(1) if poisson else 1.0


def arrivals(shape: Shape, seed: int, *, poisson: bool = True) -> Iterator[Arrival]:
    """All who arrive."""
    for number, due_s in enumerate(moments(shape.schedule, seed, poisson=poisson)):
        yield Arrival(number, due_s, journey_of(number, seed, shape.mix))


def share(everybody: Iterator[Arrival], index: int, of: int) -> Iterator[Arrival]:
    """Those whom one of several processes sends: together they send everybody, each once."""
    return itertools.islice(everybody, index, None, of)


def journey_of(number: int, seed: int, mix: Mapping[str, float]) -> str:
    """Who the shopper of this number is."""
    random = Random(f"{seed}-{number}-journey")  # noqa: S311 - so that a run can be repeated
    return random.choices(list(mix), list(mix.values()))[0]


def draws_of(number: int, seed: int) -> Random:
    """What the shopper of this number draws by chance, the same in each run of this seed."""
    return Random(f"{seed}-{number}")  # noqa: S311 - so that a run can be repeated


def think_time_s(random: Random, mean_s: float) -> float:
    """A pause: negative exponential, cut at ten times its mean."""
    return min(-math.log(1 - random.random()) * mean_s, MOST_TIMES_THE_MEAN * mean_s)


class Popularity:
    """A choice among things of which the first is liked most, the n-th by 1 / n ** `ZIPF_EXPONENT` of it."""

    def __init__(self, count: int) -> None:
        self._reached = list(itertools.accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, count + 1)))

    def draw(self, random: Random) -> int:
        """The place of the one that is chosen."""
        found = bisect.bisect_right(self._reached, random.random() * self._reached[-1])
        return min(found, len(self._reached) - 1)  # where the product was rounded up
