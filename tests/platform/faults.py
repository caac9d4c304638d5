"""What goes wrong between services, scripted: calls that do not arrive, answers that get lost, peers that are slow,
and processes that are killed. Nothing here sleeps or draws lots, so a failure happens again.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import httpx2

from chassis.database import Connection, Database
from chassis.transport import target

Deliver = Callable[[], Awaitable[httpx2.Response]]
Fault = Callable[[Deliver], Awaitable[httpx2.Response]]


def path_of(request: httpx2.Request) -> str:
    """The path that a call asks for."""
    return target(request).decode("ascii")


async def refused(_: Deliver) -> httpx2.Response:
    """Nobody listens: the request does not arrive."""
    raise httpx2.ConnectError("connection refused")


async def reply_lost(deliver: Deliver) -> httpx2.Response:
    """The request is carried out; its answer never comes."""
    await deliver()
    raise httpx2.ReadError("connection reset")


ARRIVES_WITHIN_S = 10.0


class Gate:
    """A peer that is slow: the request waits at the gate until the test opens it, and is carried out then."""

    def __init__(self) -> None:
        self._arrived = asyncio.Event()
        self._opened = asyncio.Event()

    async def reached(self) -> None:
        """Wait until a request is at the gate; raises TimeoutError where none comes."""
        async with asyncio.timeout(ARRIVES_WITHIN_S):
            await self._arrived.wait()

    def open(self) -> None:
        """Let the requests pass."""
        self._opened.set()

    async def __call__(self, deliver: Deliver) -> httpx2.Response:
        self._arrived.set()
        await self._opened.wait()
        return await deliver()


class AnswerGate(Gate):
    """A peer that carries the request out at once; its answer waits at the gate."""

    async def __call__(self, deliver: Deliver) -> httpx2.Response:
        answer = await deliver()
        self._arrived.set()
        await self._opened.wait()
        return answer


@dataclass(slots=True)
class Rule:
    """A fault that strikes certain calls: the `nth` that match, counted from 1, or all of them."""

    peer: str
    method: str
    path: "re.Pattern[str]"
    fault: Fault
    nth: int | None
    matched: int = 0
    traceparents: list[str] = field(default_factory=list[str])

    def strikes(self, peer: str, request: httpx2.Request) -> bool:
        """Whether this call is struck; counts it."""
        if peer != self.peer or self.method not in {request.method, "*"} or not self.path.search(path_of(request)):
            return False
        self.matched += 1
        self.traceparents.append(request.headers["traceparent"])
        return self.nth is None or self.matched == self.nth


class Crash(BaseException):
    """The process ends here: a kind of exception that nothing catches, as nothing catches SIGKILL."""


@dataclass(slots=True)
class CrashPoints:
    """The moments at which a process may be killed: before and after every call to a peer and every statement, of all
    applications of this process.

    Watched once to learn them, then made to crash at one of them.
    """

    passed: list[str] = field(default_factory=list[str])
    watching: bool = False
    crash_at: int | None = None

    def watch(self, crash_at: int | None = None) -> None:
        """Begin to note the moments, and raise Crash at the one with this index."""
        self.passed = []
        self.watching = True
        self.crash_at = crash_at

    def stop(self) -> list[str]:
        """End it, and return the moments passed."""
        self.watching = False
        return self.passed

    def reach(self, moment: str) -> None:
        """Note a moment, or end there; a dead process reaches nothing more."""
        if self.watching:
            self.passed.append(moment)
            if len(self.passed) - 1 == self.crash_at:
                self.watching = False
                raise Crash(moment)

    def watch_statements(self, service: str, database: Database) -> None:
        """Make moments of the statements, or transactions, of a service."""
        acquire, release = database.acquire, database.release

        async def acquire_or_crash() -> Connection:
            self.reach(f"before a statement of {service}")
            return await acquire()

        def release_and_crash(connection: Connection) -> None:
            release(connection)
            self.reach(f"after a statement of {service}")

        database.acquire, database.release = acquire_or_crash, release_and_crash


class Faults:
    """The script: which faults strike which calls."""

    def __init__(self) -> None:
        self.crash_points = CrashPoints()
        self._rules: list[Rule] = []

    def strike(self, peer: str, method: str, path: str, fault: Fault, *, nth: int | None = None) -> Rule:
        """Let `fault` strike calls of a method (`*` for any) whose path holds the pattern `path`."""
        self._rules.append(Rule(peer, method, re.compile(path), fault, nth))
        return self._rules[-1]

    def heal(self) -> None:
        """Let everything work again."""
        self._rules.clear()

    def fault_of(self, peer: str, request: httpx2.Request) -> Fault | None:
        """The fault that strikes this call, if one does."""
        struck = [rule.fault for rule in self._rules if rule.strikes(peer, request)]
        return struck[-1] if struck else None


class FaultyTransport(httpx2.AsyncBaseTransport):
    """The way to one peer, with the faults of the script on it.

    `transports` may be filled after this was made, since the applications need each other's transports.
    """

    def __init__(self, peer: str, transports: Mapping[str, httpx2.AsyncBaseTransport], faults: Faults) -> None:
        self._peer = peer
        self._transports = transports
        self._faults = faults

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        async def deliver() -> httpx2.Response:
            return await self._transports[self._peer].handle_async_request(request)

        call = f"{request.method} {self._peer} {path_of(request)}"
        fault = self._faults.fault_of(self._peer, request)
        self._faults.crash_points.reach(f"before {call}")
        answer = await (deliver() if fault is None else fault(deliver))
        self._faults.crash_points.reach(f"after {call}")
        return answer
