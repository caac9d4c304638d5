"""Runs as generators write them down, made by rule and not by a shop, for the tests of what is found in them."""

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.record import End, Request, Rows, Sample
from loadtests.shape import Leg, Limit, Shape

CALLS = ("GET /api/v1/products", "GET /api/v1/products/{id}", "POST /api/v1/orders")
STEADY = Shape("Steady.", (Leg(60, 10),), warm_up_s=10, most_failed_share=0.01, limits=(Limit(95, 100),))
RAMP = Shape("A ramp.", (Leg(120, 5, 65),), warm_up_s=0, most_failed_share=0.01, find_knee=True)


@dataclass(frozen=True, slots=True)
class Took:
    """What a request takes, and how it fails."""

    latency_s: float = 0.02
    late_s: float = 0.0
    failure: str = ""


def run(shape: Shape, took: Callable[[float], Took], *, cpu: float = 0.3, lag_s: float = 0.002) -> Rows:
    """A run under a shape: requests at ten times the rate of arrivals, each as `took` says of the moment it is due."""
    rows, due_s, number = Rows(), 0.0, 0
    while due_s < shape.ends_s:
        due_s += 1 / (10 * shape.rate_at(due_s))
        each = took(due_s)
        sent_s, status = due_s + each.late_s, int(each.failure) if each.failure.isdigit() else 200
        rows.add(
            Request(
                due_s, sent_s, due_s + each.latency_s, "visitor", number // 10, CALLS[number % 3], status, each.failure
            )
        )
        number += 1
    for second in range(int(shape.ends_s)):
        rows.add(Sample(float(second), "here-1", cpu, 0.5, lag_s, 20, 0))
    rows.add(End(len(rows.requests), number // 10))
    return rows
