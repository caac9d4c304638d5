"""Background work: a round every few seconds, or at once when somebody says that there is something to do."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from chassis.context import Context, current
from chassis.problems import Problem
from chassis.telemetry import Telemetry

log = structlog.stdlib.get_logger()

Round = Callable[[], Awaitable[object]]


class Worker:
    """Runs `round` again and again until it is stopped. A round that fails is logged and counted, and the next one
    comes.
    """

    def __init__(self, name: str, work: Round, every_s: float, telemetry: Telemetry) -> None:
        self.name = name
        self._work = work
        self._every_s = every_s
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._rounds = {result: telemetry.worker_runs.labels(name, result) for result in ("done", "failed")}

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name=f"worker-{self.name}")

    def wake(self) -> None:
        """Run the next round now."""
        self._wake.set()

    async def stop(self) -> None:
        """End, in the middle of a round if need be: all rounds may be cut short anywhere, as by a crash."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            current.set(Context())
            try:
                await self._work()
                self._rounds["done"].inc()
            except Problem as problem:
                self._rounds["failed"].inc()
                log.warning("worker_round_failed", worker=self.name, problem=problem.code, detail=problem.detail)
            except Exception:
                self._rounds["failed"].inc()
                log.exception("worker_round_failed", worker=self.name)
            try:
                async with asyncio.timeout(self._every_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
