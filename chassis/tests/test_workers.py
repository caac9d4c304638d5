"""Background work goes on: after a failure, when it is woken, until it is stopped."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis.context import context
from chassis.problems import Unavailable
from chassis.telemetry import Telemetry
from chassis.workers import Worker

A_DAY_S = 86_400.0


class Rounds:
    """Work that fails as it is told to, and lets a test wait for a round."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.failures: list[Exception] = []

    async def __call__(self) -> None:
        self.begun.put_nowait(context().trace_id)
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry("order")


@pytest.fixture
def rounds() -> Rounds:
    return Rounds()


@pytest.fixture
async def worker(rounds: Rounds, telemetry: Telemetry) -> AsyncIterator[Worker]:
    worker = Worker("tidy", rounds, A_DAY_S, telemetry)
    yield worker
    await worker.stop()


def counted(telemetry: Telemetry, outcome: str) -> float | None:
    return telemetry.registry.get_sample_value("souk_worker_runs_total", {"worker": "tidy", "outcome": outcome})


async def test_the_first_round_comes_at_once_and_the_next_when_somebody_wakes_it(
    worker: Worker, rounds: Rounds, telemetry: Telemetry
) -> None:
    worker.start()
    async with asyncio.timeout(10):
        first = await rounds.begun.get()
        worker.wake()
        second = await rounds.begun.get()
        worker.wake()
        await rounds.begun.get()
    assert first != second, "each round is a trace of its own"
    assert counted(telemetry, "done") in {2, 3}
    assert counted(telemetry, "failed") == 0


@pytest.mark.parametrize("failure", [Unavailable("the database does not answer"), RuntimeError("a bug")])
async def test_a_round_that_fails_is_counted_and_the_next_one_comes(
    worker: Worker, rounds: Rounds, telemetry: Telemetry, failure: Exception
) -> None:
    rounds.failures = [failure, failure]
    worker.start()
    async with asyncio.timeout(10):
        for _ in range(4):
            await rounds.begun.get()
            worker.wake()
    assert counted(telemetry, "failed") == 2
    assert counted(telemetry, "done") in {1, 2}


async def test_rounds_come_by_themselves(rounds: Rounds, telemetry: Telemetry) -> None:
    worker = Worker("tidy", rounds, 0.001, telemetry)
    worker.start()
    async with asyncio.timeout(10):
        for _ in range(3):
            await rounds.begun.get()
    await worker.stop()


async def test_a_worker_is_stopped_within_a_round(telemetry: Telemetry) -> None:
    begun = asyncio.Event()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    worker = Worker("tidy", for_ever, A_DAY_S, telemetry)
    worker.start()
    async with asyncio.timeout(10):
        await begun.wait()
        await worker.stop()
    await worker.stop()


async def test_one_that_was_never_started_stops(worker: Worker) -> None:
    await worker.stop()
