from dataclasses import replace

import pytest

from loadtests.findings import Verdict, doubts, find, find_knee
from loadtests.record import End, Order, Rows
from loadtests.shape import Leg, Limit
from loadtests.tests.recorded import RAMP, STEADY, Took, run


def fast(_due_s: float) -> Took:
    return Took()


def test_a_run_within_its_limits_passes() -> None:
    found = find(run(STEADY, fast), STEADY)
    assert found.verdict is Verdict.PASSED
    assert found.reasons == []
    assert found.knee is None


def test_the_warm_up_is_left_out_of_the_figures() -> None:
    cold = find(run(STEADY, lambda due_s: Took(5.0 if due_s < 10 else 0.02)), STEADY)
    assert cold.verdict is Verdict.PASSED
    assert max(call.latency.max_ms for call in cold.calls) == pytest.approx(20)
    assert all(request.due_s >= 10 for request in cold.measured)
    slow = find(run(STEADY, lambda due_s: Took(5.0 if due_s >= 10 else 0.02)), STEADY)
    assert slow.verdict is Verdict.FAILED


def test_what_was_due_after_the_end_is_left_out_too() -> None:
    rows = run(STEADY, fast)
    rows.requests.append(replace(rows.requests[-1], due_s=STEADY.ends_s + 1, ended_s=STEADY.ends_s + 60))
    assert max(call.latency.max_ms for call in find(rows, STEADY).calls) == pytest.approx(20)


def test_latency_is_judged_from_when_a_request_was_due() -> None:
    # Each was sent half a second late, and was then answered in 20 ms.
    found = find(run(STEADY, lambda _: Took(0.52, late_s=0.5)), STEADY)
    assert found.verdict is Verdict.FAILED
    assert found.calls[0].latency.p99_ms == pytest.approx(520)
    assert found.calls[0].service.p99_ms == pytest.approx(20)


def test_a_wrong_answer_fails_the_run_even_in_the_warm_up() -> None:
    found = find(run(STEADY, lambda due_s: Took(failure="wrong answer" if due_s < 0.05 else "")), STEADY)
    assert found.verdict is Verdict.FAILED
    assert found.failures.total() == 0


def test_as_many_refusals_are_allowed_as_the_shape_says_and_no_more() -> None:
    few = find(run(STEADY, lambda due_s: Took(failure="503" if 20 < due_s < 20.5 else "")), STEADY)
    assert few.verdict is Verdict.PASSED
    many = find(run(STEADY, lambda due_s: Took(failure="503" if 20 < due_s < 22 else "")), STEADY)
    assert many.verdict is Verdict.FAILED


def test_an_unclean_audit_fails_the_run() -> None:
    found = find(run(STEADY, fast), STEADY, violations=["audit: VIOLATION nothing is oversold"])
    assert found.verdict is Verdict.FAILED


@pytest.mark.parametrize(("cpu", "lag_s"), [(0.97, 0.002), (0.3, 0.4)])
def test_a_generator_that_was_the_bottleneck_makes_the_run_invalid(cpu: float, lag_s: float) -> None:
    found = find(run(STEADY, fast, cpu=cpu, lag_s=lag_s), STEADY)
    assert found.verdict is Verdict.INVALID
    (doubt,) = found.doubts
    assert doubt.startswith("the generator was the bottleneck: ")


def test_a_wrong_answer_stays_one_whatever_the_generator_was_at() -> None:
    found = find(run(STEADY, lambda _: Took(failure="wrong answer"), cpu=0.97), STEADY)
    assert found.verdict is Verdict.FAILED


def test_a_generator_busy_in_the_warm_up_only_is_believed() -> None:
    rows = run(STEADY, fast)
    rows.samples[:] = [replace(each, cpu=0.99 if each.at_s < 10 else 0.3) for each in rows.samples]
    assert find(rows, STEADY).doubts == []


def test_requests_that_were_lost_on_the_way_make_the_run_invalid() -> None:
    rows = run(STEADY, fast)
    rows.requests.pop()
    assert find(rows, STEADY).verdict is Verdict.INVALID
    rows.end = None
    assert doubts(rows, STEADY, interrupted=False) == ["the generator did not end in order"]


def test_nothing_sent_proves_nothing() -> None:
    rows = Rows(end=End(0, 0))
    assert find(rows, STEADY).verdict is Verdict.INVALID


def test_an_interrupted_run_is_judged_by_what_there_is() -> None:
    rows = run(STEADY, fast)
    rows.requests[:] = [request for request in rows.requests if request.due_s < 30]
    rows.end = None
    found = find(rows, STEADY, interrupted=True)
    assert found.verdict is Verdict.INTERRUPTED
    assert len(found.measured) == pytest.approx(2000, rel=0.01)
    assert found.bins[-1].begins_s + found.bins[-1].seconds == pytest.approx(30, abs=0.1)


def test_a_limit_may_be_of_one_call_and_of_the_last_leg() -> None:
    shape = replace(
        STEADY, legs=(Leg(30, 10), Leg(30, 10)), limits=(Limit(99, 100, "POST /api/v1/orders", in_last_leg_after_s=10),)
    )
    assert find(run(shape, lambda due_s: Took(1.0 if due_s < 50 else 0.02)), shape).verdict is Verdict.PASSED
    assert find(run(shape, lambda due_s: Took(1.0 if due_s > 50 else 0.02)), shape).verdict is Verdict.FAILED
    of_none = replace(shape, limits=(Limit(99, 100, "GET /nothing"),))
    assert find(run(shape, fast), of_none).verdict is Verdict.FAILED


# The knee


def test_the_knee_is_where_the_shop_ceases_to_follow() -> None:
    found = find(run(RAMP, lambda due_s: Took(0.02 if due_s < 80 else 0.02 + (due_s - 80) / 4)), RAMP)
    assert found.knee is not None
    assert found.knee.at_s == pytest.approx(80, abs=3)
    assert found.knee.arrival_rate == pytest.approx(RAMP.rate_at(80), rel=0.05)
    assert found.knee.request_rate == pytest.approx(10 * RAMP.rate_at(80), rel=0.1)
    assert found.knee.unloaded_p95_ms == pytest.approx(20)
    assert found.knee.why.startswith("p95 above 70 ms")


def test_refusals_are_a_knee_too_and_none_after_it_is_judged() -> None:
    found = find(run(RAMP, lambda due_s: Took(failure="503" if due_s > 90 else "")), RAMP)
    assert found.knee is not None
    assert found.knee.at_s == pytest.approx(90, abs=3)
    assert found.knee.why == "more than 1% fail"
    assert found.failures["503"] > 1000
    assert found.verdict is Verdict.PASSED


def test_a_shop_that_follows_to_the_end_has_no_knee() -> None:
    found = find(run(RAMP, lambda due_s: Took(0.02 + due_s / 10_000)), RAMP)
    assert found.knee is None
    assert found.verdict is Verdict.PASSED


def test_one_slow_moment_is_no_knee() -> None:
    assert find(run(RAMP, lambda due_s: Took(1.0 if 60 < due_s < 62 else 0.02)), RAMP).knee is None


def test_there_is_no_knee_in_nothing() -> None:
    assert find_knee([]) is None


# The flash sale


def order(status: str, number: int) -> Order:
    return Order(1.0, f"order-{number}", status, 900, 1)


def test_what_was_sold_and_cancelled_can_be_sold_again_and_no_unit_twice() -> None:
    shape = replace(STEADY, hot_units=3)
    rows = run(shape, fast)
    rows.orders += [order("confirmed", number) for number in range(4)] + [order("cancelled", 0)]
    assert find(rows, shape).verdict is Verdict.PASSED
    rows.orders.append(order("confirmed", 5))
    found = find(rows, shape)
    assert found.verdict is Verdict.FAILED
    assert found.reasons == ["of 3 units none is sold twice: 4 sold"]
