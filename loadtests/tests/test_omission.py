"""A server that stalls for a second, and who sees it. Locust runs as it does for `make load`, in its own process."""

import os
import subprocess
import sys

from chassis.migrations import ROOT
from loadtests.findings import latencies
from loadtests.record import Rows, read
from loadtests.tests.servers import Closing, Stalling, serving

SECONDS = 10
STALLS_AFTER_S, FOR_S = 5.0, 1.0


def glances(origin: str, *options: str, failing: bool = False) -> Rows:
    """What shoppers who ask once wrote down."""
    command = (
        sys.executable, "-m", "locust", "--locustfile", "loadtests/tests/glance.py", "--headless", "--only-summary",
        "--host", origin, "--stop-timeout", "40", "--shape", "steady", "--journeys", "visitor", "--seed", "1",
        *options,
    )  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    rows = read(done.stdout.splitlines())
    assert rows.end is not None, done.stderr
    assert rows.end.requests == len(rows.requests)
    assert [bool(request.failure) for request in rows.requests] == [failing] * len(rows.requests)
    return rows


def test_a_stall_of_a_second_is_seen_from_when_requests_were_due_and_not_from_when_they_were_sent() -> None:
    # Two shoppers at a time: while both wait for the shop the others, who arrive as before, wait at the door.
    with serving(Stalling(stalls_after_s=STALLS_AFTER_S, for_s=FOR_S)) as origin:
        rows = glances(origin, "--seconds", str(SECONDS), "--peak-rate", "50", "--most-in-shop", "2")
    assert len(rows.requests) > 0.8 * 50 * SECONDS
    corrected = latencies(request.latency_s for request in rows.requests)
    naive = latencies(request.service_s for request in rows.requests)
    assert corrected.p99_ms > 500 * FOR_S
    assert naive.max_ms > 500 * FOR_S  # it happened, to two of some five hundred
    assert naive.p99_ms < 500 * FOR_S
    stalled = [request for request in rows.requests if request.latency_s > FOR_S / 4]
    assert len(stalled) > 20
    assert len([request for request in rows.requests if request.service_s > FOR_S / 4]) < len(stalled) / 4


def test_users_who_wait_before_they_ask_again_hardly_see_it() -> None:
    """The closed loop, for comparison: as many users as had places above, and as many of them see the stall."""
    with serving(Stalling(stalls_after_s=STALLS_AFTER_S, for_s=FOR_S)) as origin:
        rows = glances(origin, "--seconds", str(SECONDS), "--loop", "closed", "--most-users", "2", "--think", "0.02")
    assert latencies(request.latency_s for request in rows.requests).p99_ms < 500 * FOR_S


def test_a_connection_that_is_closed_without_an_answer_is_a_failure_and_not_asked_again() -> None:
    shop = Closing()
    with serving(shop) as origin:
        rows = glances(origin, "--peak-rate", "5", "--seconds", "3", failing=True)
    assert {(request.status, request.failure) for request in rows.requests} == {(0, "no answer")}
    assert shop.asked == len(rows.requests) > 0
