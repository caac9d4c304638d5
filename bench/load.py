"""A load generator that costs less than what it measures: prepared bytes over keep-alive connections.

It knows as much of HTTP/1.1 (RFC 9112) as the answers need: a status line, and a body of `Content-Length` bytes.
"""

import asyncio
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import cycle

import uvloop

BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class UnexpectedAnswer(Exception):
    """A benchmark of wrong answers measures nothing, so the first one ends it."""


@dataclass(frozen=True, slots=True)
class Request:
    """The bytes of a request and the statuses that answer it rightly."""

    wire: bytes
    expected: frozenset[int]


def request(
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    expected: Iterable[int] = (HTTPStatus.OK,),
) -> Request:
    """Prepare a request."""
    fields = {"host": "localhost"} | dict(headers or {})
    if body:
        fields |= {"content-type": "application/json", "content-length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Request(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body, frozenset(expected))


def within(requests: Iterable[Request], for_s: float) -> Iterator[Request]:
    """Requests as long as there are any, but none later than some seconds after the first."""
    end = time.perf_counter() + for_s
    for each in requests:
        if time.perf_counter() >= end:
            return
        yield each


def again_and_again(requests: Sequence[Request], for_s: float) -> Iterator[Request]:
    """The same requests in turn, for some seconds."""
    return within(cycle(requests), for_s)


@dataclass
class Load:
    """What was sent and answered."""

    elapsed_s: float = 0.0
    latencies_s: "array[float]" = field(default_factory=lambda: array("d"))
    """Of each answer, in the order in which they came: from the first byte sent to the last one received."""

    @property
    def requests(self) -> int:
        """How many were answered."""
        return len(self.latencies_s)

    @property
    def per_second(self) -> float:
        """Answers a second over all connections."""
        return self.requests / self.elapsed_s


def run(port: int, requests: Iterable[Request], *, connections: int) -> Load:
    """Send the requests to this machine's `port` until there are none left, each connection one at a time.

    Raises UnexpectedAnswer.
    """
    return uvloop.run(_run(port, iter(requests), connections))


async def _run(port: int, requests: Iterator[Request], connections: int) -> Load:
    load = Load()
    loop = asyncio.get_running_loop()
    opened: list[_Connection] = []
    for _ in range(connections):
        transport, connection = await loop.create_connection(lambda: _Connection(requests, load), "127.0.0.1", port)
        connection.transport = transport
        opened.append(connection)
    begin = time.perf_counter()
    for connection in opened:
        connection.send_next()
    try:
        await asyncio.gather(*(connection.done for connection in opened))
    finally:
        for connection in opened:
            connection.transport.close()
    load.elapsed_s = time.perf_counter() - begin
    return load


class _Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, requests: Iterator[Request], load: Load) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._load = load
        self._request = Request(b"", frozenset())
        self._received = b""
        self._sent_at = 0.0

    def send_next(self) -> None:
        """Send the next request, or note that there is none."""
        following = next(self._requests, None)
        if following is None:
            self.done.set_result(None)
            return
        self._request = following
        self._received = b""
        self._sent_at = time.perf_counter()
        self.transport.write(following.wire)

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data
        end_of_head = received.find(b"\r\n\r\n")
        if end_of_head < 0:
            return
        status = int(received[9:12])
        if status in BODILESS:
            length = 0
        else:
            _, found, rest = received[:end_of_head].lower().partition(b"\r\ncontent-length:")
            if not found:
                self._fail(f"an answer without Content-Length: {received[:200]!r}")
                return
            length = int(rest.partition(b"\r\n")[0])
        if len(received) < end_of_head + 4 + length:
            return
        if status not in self._request.expected:
            self._fail(f"{self._request.wire[:200]!r} was answered {received[:1000]!r}")
            return
        self._load.latencies_s.append(time.perf_counter() - self._sent_at)
        self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server closed the connection ({exc}) upon {self._request.wire[:200]!r}")

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(UnexpectedAnswer(reason))
