"""Which endpoint a call goes to: pure bookkeeping, with a clock that the test turns."""

from collections import Counter
from random import Random

import pytest

from chassis.balancing import EJECTED_S, FAILURES, RETRIES_SAVED, Attempt, Balancer, CallPolicy, RetryBudget
from chassis.telemetry import Telemetry

READ = CallPolicy(idempotent=True)
UNTIMED = CallPolicy(idempotent=True, timed=False)
ADDRESSES = [("10.0.0.1", 80), ("10.0.0.2", 80), ("10.0.0.3", 80)]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def balancer_of(count: int, clock: Clock) -> Balancer:
    """A balancer over so many endpoints, seeded."""
    balancer = Balancer("product", Telemetry("order"), clock, Random(7))  # noqa: S311 - the same draws each time
    balancer.update(ADDRESSES[:count])
    return balancer


def begun(balancer: Balancer, policy: CallPolicy = READ, *, may_try: bool = False) -> Attempt:
    """Begin a call that has to find an endpoint."""
    attempt = balancer.begin(policy, may_try=may_try)
    assert attempt is not None
    return attempt


def serve(balancer: Balancer, clock: Clock, bad: str, seconds: float, times: int, policy: CallPolicy = READ) -> None:
    """Make calls one after another; those that meet the bad endpoint take longer."""
    for _ in range(times):
        attempt = begun(balancer, policy)
        clock.now += seconds if attempt.endpoint.address[0] == bad else 0.001
        balancer.succeeded(attempt)


def used(balancer: Balancer, times: int = 300) -> Counter[str]:
    """How many of so many calls each endpoint gets."""
    found: Counter[str] = Counter()
    for _ in range(times):
        attempt = begun(balancer)
        found[attempt.endpoint.address[0]] += 1
        balancer.succeeded(attempt)
    return found


def fail(balancer: Balancer, bad: set[str]) -> None:
    """Let calls to the bad endpoints fail until each has had its chances."""
    for _ in range(40 * FAILURES):
        attempt = begun(balancer)
        if attempt.endpoint.address[0] in bad:
            balancer.failed(attempt, "reset")
        else:
            balancer.succeeded(attempt)


def test_calls_are_spread_evenly(clock: Clock) -> None:
    counts = used(balancer_of(3, clock), 3000)
    assert all(900 < count < 1100 for count in counts.values())
    assert len(counts) == 3


def test_the_less_busy_of_two_is_chosen(clock: Clock) -> None:
    balancer = balancer_of(2, clock)
    held = begun(balancer)
    for _ in range(20):
        other = begun(balancer)
        assert other.endpoint is not held.endpoint
        balancer.succeeded(other)


def test_an_endpoint_that_fails_is_ejected_and_taken_back_by_one_trial_at_a_time(clock: Clock) -> None:
    balancer = balancer_of(3, clock)
    fail(balancer, {"10.0.0.1"})
    assert set(used(balancer)) == {"10.0.0.2", "10.0.0.3"}
    clock.now += EJECTED_S
    trial = begun(balancer, may_try=True)
    assert trial.trial
    assert not begun(balancer, may_try=True).trial
    balancer.failed(trial, "timeout")
    clock.now += EJECTED_S
    assert not begun(balancer, may_try=True).trial, "the second ejection is longer"
    clock.now += EJECTED_S
    balancer.succeeded(begun(balancer, may_try=True))
    assert set(used(balancer)) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}


def test_a_slow_endpoint_is_ejected(clock: Clock) -> None:
    balancer = balancer_of(2, clock)
    serve(balancer, clock, "10.0.0.1", 1.5, 20)
    assert set(used(balancer)) == {"10.0.0.2"}


def test_what_takes_its_time_by_nature_ejects_nobody(clock: Clock) -> None:
    balancer = balancer_of(2, clock)
    serve(balancer, clock, "10.0.0.1", 2.0, 20, UNTIMED)
    assert len(used(balancer)) == 2


def test_milliseconds_and_slowness_of_all_eject_nobody(clock: Clock) -> None:
    balancer = balancer_of(2, clock)
    serve(balancer, clock, "10.0.0.1", 0.2, 50)
    assert len(used(balancer)) == 2
    for _ in range(50):
        attempt = begun(balancer)
        clock.now += 2.0
        balancer.succeeded(attempt)
    assert len(used(balancer)) == 2


@pytest.mark.parametrize(("count", "left"), [(1, 1), (2, 1), (3, 2)])
def test_never_more_than_half_are_ejected(clock: Clock, count: int, left: int) -> None:
    balancer = balancer_of(count, clock)
    for address, _ in ADDRESSES[: count // 2 + 1]:
        fail(balancer, {address})
    assert len(used(balancer)) >= left


def test_when_all_fail_all_are_used(clock: Clock) -> None:
    balancer = balancer_of(3, clock)
    fail(balancer, {host for host, _ in ADDRESSES})
    assert {begun(balancer).endpoint.address[0] for _ in range(9)} == {host for host, _ in ADDRESSES}


def test_an_address_that_comes_is_used_and_one_that_goes_is_not(clock: Clock) -> None:
    balancer = balancer_of(2, clock)
    fail(balancer, {"10.0.0.1"})
    clock.now += EJECTED_S
    trial = begun(balancer, may_try=True)
    balancer.update(ADDRESSES[1:])
    balancer.succeeded(trial)
    assert set(used(balancer)) == {"10.0.0.2", "10.0.0.3"}
    assert trial.endpoint.outstanding == 0


def test_every_ending_gives_back_what_was_outstanding(clock: Clock) -> None:
    balancer = balancer_of(1, clock)

    def fails(attempt: Attempt) -> None:
        balancer.failed(attempt, "status")

    for end in (balancer.succeeded, balancer.abandoned, fails):
        attempt = begun(balancer)
        assert attempt.endpoint.outstanding == 1
        end(attempt)
        assert attempt.endpoint.outstanding == 0


def test_the_budget_ends_a_storm_of_retries(clock: Clock) -> None:
    budget = RetryBudget(clock)
    granted = 0
    for _ in range(1000):
        budget.deposit()
        granted += budget.withdraw()
    assert RETRIES_SAVED <= granted <= 200 + RETRIES_SAVED
    clock.now += 1
    assert budget.withdraw(), "some come by themselves"
