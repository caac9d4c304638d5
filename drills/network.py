"""A network that harms: a proxy between the processes of a platform, which draws a fate for each request.

It is a process of its own, `python -m drills.network`: links and commands as JSON lines on stdin, an answer to each on
stdout; it ends when stdin does. `Network` is its client. The nth request of a link has the same fate in every run of a
seed. It speaks what callers here do, HTTP/1.1 without pipelining; a connection that pipelines is reset.

NetworkFailed   the proxy did not start, refused a command, or ended
"""

import asyncio
import os
import random
import socket
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

import httptools
import orjson
import uvloop

from chassis.migrations import ROOT
from drills.platform import Link

Mode = Literal["clear", "faulty", "slow", "hang", "down"]

PASSED = "passed"
DELAYED = "delayed"
"""It arrives later, and also where its caller has given up by then."""
REPLY_DROPPED = "reply dropped"
"""It is delivered; its reply is swallowed and the connection closed."""
REPLY_RESET = "reply reset"
"""It is delivered; half of what first comes of its reply is passed on, then the connection is reset."""
UNDELIVERED = "undelivered"
"""The connection is reset before anything is sent on."""
DUPLICATED = "duplicated"
"""A copy of it is sent at the same time on a connection of its own, whose reply nobody sees."""
FATES = (PASSED, DELAYED, REPLY_DROPPED, REPLY_RESET, UNDELIVERED, DUPLICATED)
SLOWED = "slowed"
"""A request whose reply waited because its link was slow."""
HUNG = "hung"
"""A request that its link took, or whose reply it kept, because it hung."""
REFUSED = "refused"
"""A connection that was reset because its link was down."""
UNREACHABLE = "unreachable"
"""A request, or the copy of one, that met nobody behind the link."""

DELAY_S = (0.05, 2.0)
MOST_HELD_BYTES = 64 * 2**10
"""A request longer than this is passed as it comes: a fate would need all of it first."""
LINE_BYTES = 4 * 2**20
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def fate_of(seed: int, link: str, number: int, fates: Mapping[str, float]) -> tuple[str, float]:
    """The fate of the nth request of a link, passed where none is drawn, and how long it waits if it is delayed."""
    drawn = random.Random(f"{seed}-{link}-{number}")  # noqa: S311 - so that a drill can be repeated
    at, delay_s = drawn.random(), drawn.uniform(*DELAY_S)
    for fate, probability in fates.items():
        if at < probability:
            return fate, delay_s
        at -= probability
    return PASSED, delay_s


class _Road:
    """One link: its mode, its counts and the connections on it."""

    def __init__(self, link: Link, seed: int) -> None:
        self.link = link
        self.seed = seed
        self.mode: Mode = "clear"
        self.slow_s = 0.0
        self.fates: Mapping[str, float] = {}
        self.requests = 0
        self.counts = Counter[str]()
        self.callers: set[_Caller] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def set(self, mode: Mode, seconds: float, fates: Mapping[str, float]) -> None:
        self.mode, self.slow_s, self.fates = mode, seconds, fates
        for caller in list(self.callers):
            if mode == "down":
                self.counts[REFUSED] += 1
                caller.reset()
            elif mode == "hang":
                caller.hang_if_busy()
            elif caller.hung:
                caller.reset()

    def draw(self) -> tuple[str, float]:
        """The fate of the next request."""
        self.requests += 1
        return fate_of(self.seed, self.link.name, self.requests, self.fates if self.mode == "faulty" else {})

    def connect(self, target: "_Target") -> None:
        """Connect to what is behind the link; a target that cannot be reached is lost."""
        task = asyncio.create_task(self._connect(target))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _connect(self, target: "_Target") -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: target, "127.0.0.1", self.link.target_port)
        except OSError as error:
            self.counts[UNREACHABLE] += 1
            target.connection_lost(error)


class _End(asyncio.Protocol):
    """One end of a connection through the proxy; either end is read no faster than the other takes it."""

    transport: asyncio.Transport | None = None
    lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it

    def opposite(self) -> "_End | None":
        raise NotImplementedError

    def read(self, reading: bool) -> None:
        """Read on, or pause; more than once is allowed."""
        if self.transport is not None and not self.transport.is_closing():
            (self.transport.resume_reading if reading else self.transport.pause_reading)()

    def pause_writing(self) -> None:
        if (other := self.opposite()) is not None:
            other.read(False)

    def resume_writing(self) -> None:
        if (other := self.opposite()) is not None:
            other.read(True)

    def abort(self) -> None:
        self.lost = True
        if self.transport is not None:
            self.transport.abort()


class _Caller(_End):
    """A caller's connection, and the one exchange that is under way on it."""

    def __init__(self, road: _Road) -> None:
        self.road = road
        self.hung = False
        self.fate = PASSED
        self.method = b""
        self.target: _Target | None = None
        self.replying = False
        """Whether a request was decided upon whose reply is not complete."""
        self._next_request()

    def _next_request(self) -> None:
        self._held = b""
        self._streamed = self._whole = self._pipelined = False
        self._parser = httptools.HttpRequestParser(self)

    def opposite(self) -> _End | None:
        return self.target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.road.callers.add(self)
        if self.road.mode == "down":
            self.road.counts[REFUSED] += 1
            self.reset()

    def data_received(self, data: bytes) -> None:
        if self.lost or self.hung:
            return
        if self.replying and not self._streamed:
            self.reset()  # it pipelines
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.reset()
            return
        if self._pipelined:
            self.reset()
            return
        self.method = self._parser.get_method()
        if self._streamed and self.target is not None:
            self.target.write(data)
        else:
            self._held += data
            if self._whole or len(self._held) > MOST_HELD_BYTES:
                self._decide()
        if self._whole and self._streamed:
            self._next_request()

    def on_message_begin(self) -> None:
        self._pipelined = self._whole

    def on_message_complete(self) -> None:
        self._whole = True

    def _decide(self) -> None:
        wire, fits, road = self._held, len(self._held) <= MOST_HELD_BYTES, self.road
        fate, delay_s = road.draw()
        self.fate = fate if fits else PASSED
        self.replying = True
        self._streamed = not self._whole
        if not self._streamed:
            self._next_request()
        if road.mode == "hang":
            self.hang_if_busy()
            return
        road.counts[self.fate] += 1
        if self.fate == UNDELIVERED:
            self.reset()
        elif self.fate == DELAYED:
            asyncio.get_running_loop().call_later(delay_s, self._deliver, wire)
        else:
            if self.fate == DUPLICATED:
                _Target(road, None, self.method).write(wire)
            self._deliver(wire)

    def _deliver(self, wire: bytes) -> None:
        if self.hung:
            return
        if self.lost:
            if self.road.mode in {"clear", "faulty", "slow"}:
                _Target(self.road, None, self.method).write(wire)
            return
        if self.target is None:
            self.target = _Target(self.road, self, self.method)
        self.target.begin(self.method)
        self.target.write(wire)

    def replied(self) -> None:
        """The reply is complete, and passed on or swallowed."""
        self.replying = False
        if self.fate == REPLY_DROPPED:
            self.close()

    def hang_if_busy(self) -> None:
        """Answer nothing more, if anything is to be answered."""
        if self.replying and not self.hung:
            self.hung = True
            self.road.counts[HUNG] += 1
            if self.target is not None:
                self.target.read(False)

    def close(self) -> None:
        """Close when what was written is sent."""
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """Close by RST."""
        if self.transport is not None and not self.lost:
            sock: socket.socket = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost = True
        self.road.callers.discard(self)
        if self.target is not None:
            self.target.abort()


class _Target(_End):
    """The connection to what is behind a link, for a caller, or for a request whose reply nobody sees."""

    def __init__(self, road: _Road, caller: _Caller | None, method: bytes) -> None:
        self.road = road
        self.caller = caller
        self._unsent: list[bytes] = []
        self.begin(method)
        road.connect(self)

    def begin(self, method: bytes) -> None:
        """Expect the reply to a request."""
        self._method = method
        self._begun = False
        self._complete = False
        self._parser = httptools.HttpResponseParser(self)

    def opposite(self) -> _End | None:
        return self.caller

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.lost:
            self.abort()
            return
        if self.caller is not None:
            self.caller.read(True)
            self.read(not self.caller.hung)
        for data in self._unsent:
            self.write(data)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)
            return
        self._unsent.append(data)
        if sum(map(len, self._unsent)) > MOST_HELD_BYTES and self.caller is not None:
            self.caller.read(False)

    def data_received(self, data: bytes) -> None:
        caller = self.caller
        if self.lost or (caller is not None and caller.hung):
            return
        first, self._begun = not self._begun, True
        if first and caller is not None and self.road.mode == "slow":
            self.road.counts[SLOWED] += 1
            self.read(False)
            asyncio.get_running_loop().call_later(self.road.slow_s, self._late, data)
            return
        self._pass_on(data)

    def _late(self, data: bytes) -> None:
        if not self.lost and self.caller is not None and not self.caller.hung:
            self._pass_on(data)
            self.read(True)

    def _pass_on(self, data: bytes) -> None:
        caller = self.caller
        if caller is not None and caller.transport is not None and caller.fate == REPLY_RESET:
            # Past the transport, whose buffer a reset would throw away; it is empty before a reply.
            os.write(caller.transport.get_extra_info("socket").fileno(), data[: len(data) // 2])
            caller.reset()
            return
        if caller is not None and caller.transport is not None and caller.fate != REPLY_DROPPED:
            caller.transport.write(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._complete = False
            self.abort()
            return
        if self._complete:
            if caller is None:
                self.abort()
            else:
                caller.replied()

    def on_headers_complete(self) -> None:
        self._complete = self._method == b"HEAD"  # whose reply has the length of a body and none

    def on_message_complete(self) -> None:
        self._complete = self._parser.get_status_code() >= 200

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost = True
        if self.caller is None or self.caller.hung:
            return
        if self.transport is None:
            self.caller.reset()
        else:
            self.caller.close()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    asked = orjson.loads(await lines.readline())
    roads = [_Road(Link(**link), asked["seed"]) for link in asked["links"]]
    try:
        for road in roads:
            await loop.create_server(_caller_of(road), "127.0.0.1", road.link.port, backlog=1024)
    except OSError as error:
        _answer({"error": str(error)})
        return
    _answer({})
    while line := await lines.readline():
        _answer(_obey(orjson.loads(line), roads))


def _caller_of(road: _Road) -> Callable[[], _Caller]:
    return lambda: _Caller(road)


def _obey(command: dict[str, Any], roads: Sequence[_Road]) -> dict[str, Any]:
    if "links" not in command:
        return {"counts": {road.link.name: road.counts for road in roads}}
    chosen = [road for road in roads if fnmatchcase(road.link.name, command["links"])]
    if not chosen:
        return {"error": f"no link is called {command['links']}"}
    for road in chosen:
        road.set(command["mode"], command["seconds"], command["fates"])
    return {}


def _answer(answer: Mapping[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()


class NetworkFailed(Exception):
    """The proxy did not start, refused a command, or ended."""


class Network:
    """The proxy as a process, from `start()` to `stop()`."""

    _process: Process

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def start(self, links: Sequence[Link], seed: int) -> None:
        """Listen on the links, all of them clear; raises NetworkFailed."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "drills.network", cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=LINE_BYTES
        )
        try:
            await self._ask({"seed": seed, "links": links})
        except NetworkFailed:
            await self.stop()
            raise

    async def set(
        self, mode: Mode, *, links: str = "*", seconds: float = 0.0, fates: Mapping[str, float] | None = None
    ) -> None:
        """Change the mode of the links of a pattern: `seconds` are for `slow`, probabilities of fates for `faulty`."""
        fates = fates or {}
        if not fates.keys() <= set(FATES) or sum(fates.values()) > 1 or min(fates.values(), default=0) < 0:
            raise ValueError(f"not probabilities of fates: {fates}")
        await self._ask({"mode": mode, "links": links, "seconds": seconds, "fates": fates})

    async def counts(self) -> dict[str, Counter[str]]:
        """What was done until now, by link and fate."""
        answer = await self._ask({})
        return {link: Counter(counts) for link, counts in answer["counts"].items()}

    async def stop(self) -> None:
        """End the process; connections that are open end with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(orjson.dumps(command) + b"\n")
            line = await self._process.stdout.readline()
        answer: dict[str, Any] = orjson.loads(line or b'{"error": "the proxy has ended"}')
        if "error" in answer:
            raise NetworkFailed(answer["error"])
        return answer


if __name__ == "__main__":
    uvloop.run(_serve())
