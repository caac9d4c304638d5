"""The proxy does what it says to a request: what is behind the link gets what its fate says, and the caller sees it."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Self

import orjson
import psutil
import pytest

from chassis.migrations import ROOT
from drills.network import (
    DELAY_S,
    DELAYED,
    DUPLICATED,
    FATES,
    HUNG,
    MOST_HELD_BYTES,
    PASSED,
    REFUSED,
    REPLY_DROPPED,
    REPLY_RESET,
    SLOWED,
    UNDELIVERED,
    UNREACHABLE,
    Mode,
    Network,
    NetworkFailed,
    fate_of,
)
from drills.platform import Link, free_ports

GET = b"GET /a HTTP/1.1\r\nHost: here\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"
"""A request after whose reply the server closes."""
REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

CLOSED, RESET = "closed", "reset"
"""How a connection ended, for its caller."""

SEED = 7
LINKS = 100
"""As many as there are tests here, or more: each test has one of its own."""
PATIENCE_S = 30.0
EARLY_S = 0.01
"""By how much a timer may be early: clocks tick in milliseconds."""

Answer = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


async def replies(writer: asyncio.StreamWriter, request: bytes) -> None:
    del request
    writer.write(REPLY)


class Replica:
    """A server that keeps each request as it came, and answers it."""

    def __init__(self) -> None:
        self.answer: Answer = replies
        self.asked: list[bytes] = []
        self.connections = 0
        self.lost = 0
        """Connections that their other end has closed or reset."""
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, sock: socket.socket) -> AsyncGenerator[Self]:
        server = await asyncio.start_server(self._connected, sock=sock)
        yield self
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            try:
                await self._answer_all(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                async with self._news:
                    self.lost += 1
                    self._news.notify_all()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = b""
        while b"connection: close" not in request:
            request = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(b": ") for line in request.lower().split(b"\r\n")[1:-2])
            if b"transfer-encoding" in fields:
                while not request.endswith(b"\r\n0\r\n\r\n"):
                    request += await reader.readuntil(b"\r\n")
            request += await reader.readexactly(int(fields.get(b"content-length", b"0")))
            async with self._news:
                self.asked.append(request)
                self._news.notify_all()
            await self.answer(writer, request)
            await writer.drain()

    async def has(self, number: int) -> None:
        """Wait until as many requests came."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: len(self.asked) >= number)

    async def has_lost(self, number: int) -> None:
        """Wait until as many connections were lost."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: self.lost >= number)


class Caller:
    """A connection of a caller: a bare socket, as a stream forgets what came right before a reset."""

    def __init__(self, link: Link) -> None:
        self._port = link.port
        self._socket = socket.socket()
        self._socket.setblocking(False)

    async def __aenter__(self) -> Self:
        try:
            await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", self._port))
        except OSError:
            self._socket.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def read(self, size: int) -> bytes:
        """As much of what comes next; less if the connection is closed before."""
        read = bytearray()
        while len(read) < size and (data := await self._receive(size - len(read))):
            read += data
        return bytes(read)

    async def ask(self, request: bytes = GET) -> bytes:
        """Send a request, and read as much as the usual reply has."""
        await self.send(request)
        return await self.read(len(REPLY))

    async def end(self) -> tuple[bytes, str]:
        """What comes until the connection ends, and how it does."""
        came = bytearray()
        try:
            while data := await self._receive(2**16):
                came += data
        except ConnectionResetError:
            return bytes(came), RESET
        return bytes(came), CLOSED

    async def _receive(self, most: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.get_running_loop().sock_recv(self._socket, most)


async def ask(link: Link, request: bytes = LAST) -> tuple[bytes, str]:
    """What comes after a request on a connection of its own, and how the connection ends."""
    try:
        async with Caller(link) as caller:
            await caller.send(request)
            return await caller.end()
    except ConnectionResetError:  # before all was sent
        return b"", RESET


@dataclass(frozen=True, slots=True)
class Shared:
    """A proxy for all tests here, and the links that no test had yet, each with its target's bound socket."""

    network: Network
    spare: list[tuple[Link, socket.socket]]


def names() -> Generator[str]:
    """Names of links whose first request, if it is delayed, waits neither for long nor too shortly to be noticed."""
    for number in count(1):
        name = f"order-{number}->product-1"
        if 0.3 < fate_of(SEED, name, 1, {})[1] < 0.6:
            yield name


def links_to(targets: Sequence[int], called: Sequence[str]) -> list[Link]:
    first = free_ports(len(targets))
    return [Link(name, first + at, port) for at, (name, port) in enumerate(zip(called, targets, strict=True))]


@asynccontextmanager
async def running(links: Sequence[Link], seed: int = SEED) -> AsyncGenerator[Network]:
    network = Network()
    await network.start(links, seed)
    try:
        yield network
    finally:
        await network.stop()


@pytest.fixture(scope="module")
async def shared() -> AsyncGenerator[Shared]:
    sockets = [bound() for _ in range(LINKS)]
    links = links_to([port_of(sock) for sock in sockets], list(islice(names(), LINKS)))
    async with running(links) as network:
        yield Shared(network, list(zip(links, sockets, strict=True)))
    for sock in sockets:
        sock.close()


@pytest.fixture
def network(shared: Shared) -> Network:
    return shared.network


@pytest.fixture
def place(shared: Shared) -> tuple[Link, socket.socket]:
    return shared.spare.pop()


@pytest.fixture
def link(place: tuple[Link, socket.socket]) -> Link:
    """A link that is clear and was never used; nobody is behind it unless the test asks for `replica`."""
    return place[0]


@pytest.fixture
async def replica(place: tuple[Link, socket.socket]) -> AsyncGenerator[Replica]:
    async with Replica().listening(place[1]) as replica:
        yield replica


def bound() -> socket.socket:
    """A socket whose port nobody else can take, and on which nobody listens yet."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def port_of(sock: socket.socket) -> int:
    return sock.getsockname()[1]


def post(body: bytes) -> bytes:
    return b"POST /b?c=%%20d HTTP/1.1\r\nHost: here\r\nX-OdD: \xe4;, \r\nContent-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, size: int) -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


async def counted(network: Network, link: Link, what: str, number: int) -> None:
    """Wait until the proxy has counted as many."""
    async with asyncio.timeout(PATIENCE_S):
        while (await network.counts())[link.name][what] < number:
            pass


def proxies() -> set[int]:
    """The proxies that were started here and have not ended."""
    return {
        each.pid
        for each in psutil.Process().children()
        if each.status() != psutil.STATUS_ZOMBIE and "drills.network" in each.cmdline()
    }


async def test_a_clear_link_passes_request_and_reply_byte_for_byte(
    network: Network, link: Link, replica: Replica
) -> None:
    everything = bytes(range(256))
    reply = b"HTTP/1.1 201 Of its own\r\nX-OdD: \xe4;, \r\nContent-Length: 256\r\n\r\n" + everything

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        writer.write(reply)

    replica.answer = answer
    async with Caller(link) as caller:
        await caller.send(post(everything))
        assert await caller.read(len(reply)) == reply
    assert replica.asked == [post(everything)]
    assert (await network.counts())[link.name] == Counter({PASSED: 1})


async def test_the_requests_of_one_connection_come_on_one_connection(link: Link, replica: Replica) -> None:
    requests = [post(b"%d" % number) for number in range(5)]
    async with Caller(link) as caller:
        for request in requests:
            assert await caller.ask(request) == REPLY
        await caller.send(LAST)
        assert await caller.end() == (REPLY, CLOSED)
    assert replica.asked == [*requests, LAST]
    assert replica.connections == 1


async def test_a_request_in_pieces_is_delivered_as_one(network: Network, link: Link, replica: Replica) -> None:
    request = post(b"body")
    async with Caller(link) as caller:
        for at in range(len(request)):
            await caller.send(request[at : at + 1])
            await network.counts()
        assert await caller.read(len(REPLY)) == REPLY
    assert replica.asked == [request]


async def test_a_chunked_reply_is_passed_on_as_it_comes(link: Link, replica: Replica) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    first_was_read = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        writer.write(head + b"3\r\none\r\n")
        await first_was_read.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    replica.answer = answer
    async with Caller(link) as caller:
        await caller.send(GET)
        assert await caller.read(len(head) + 8) == head + b"3\r\none\r\n"
        first_was_read.set()
        assert await caller.read(13) == b"3\r\ntwo\r\n0\r\n\r\n"
        replica.answer = replies
        assert await caller.ask() == REPLY


@pytest.mark.parametrize("in_chunks", [False, True])
async def test_a_large_body_is_streamed_both_ways(link: Link, replica: Replica, in_chunks: bool) -> None:
    body = os.urandom(3 * 2**20)
    if in_chunks:
        body = chunked(body.hex().encode(), 50_000)
        fields = b"transfer-encoding: chunked\r\n\r\n"
    else:
        fields = b"content-length: %d\r\n\r\n" % len(body)

    async def echo(writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + request.partition(b"\r\n")[2])

    replica.answer = echo
    async with Caller(link) as caller:
        for _ in range(2):
            await caller.send(b"PUT /b HTTP/1.1\r\n" + fields + body)
            reply = b"HTTP/1.1 200 OK\r\n" + fields + body
            assert await caller.read(len(reply)) == reply
        replica.answer = replies
        assert await caller.ask() == REPLY
    assert len(replica.asked) == 3
    assert replica.connections == 1


async def test_a_reply_is_taken_no_faster_than_its_caller_reads(network: Network, link: Link, replica: Replica) -> None:
    pieces, sent = 1000, 0

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        nonlocal sent
        del request
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (pieces * 2**17))
        for _ in range(pieces):
            writer.write(bytes(2**17))
            await writer.drain()
            sent += 1

    replica.answer = answer
    async with Caller(link) as caller:
        await caller.send(GET)
        await caller.read(1)
        for _ in range(pieces):  # in each of which the proxy would take a piece or more
            await network.counts()
        assert 0 < sent < pieces


async def test_the_reply_to_head_ends_with_its_head(link: Link, replica: Replica) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(head if request.startswith(b"HEAD") else REPLY)

    replica.answer = answer
    async with Caller(link) as caller:
        for _ in range(2):
            await caller.send(b"HEAD /a HTTP/1.1\r\nhost: here\r\n\r\n")
            assert await caller.read(len(head)) == head
        assert await caller.ask(LAST) == REPLY
        assert await caller.end() == (b"", CLOSED)


async def test_a_dropped_reply_to_head_is_over_with_its_head(network: Network, link: Link, replica: Replica) -> None:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")

    replica.answer = answer
    await network.set("faulty", links=link.name, fates={REPLY_DROPPED: 1})
    assert await ask(link, b"HEAD /a HTTP/1.1\r\nhost: here\r\n\r\n") == (b"", CLOSED)
    assert len(replica.asked) == 1


async def test_a_reply_without_a_length_lasts_until_its_connection_is_closed(link: Link, replica: Replica) -> None:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nok")

    replica.answer = answer
    assert await ask(link) == (b"HTTP/1.1 200 OK\r\n\r\nok", CLOSED)


async def test_where_the_connection_is_closed_without_a_reply_so_is_that_of_the_caller(
    link: Link, replica: Replica
) -> None:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        writer.close()

    replica.answer = answer
    assert await ask(link, GET) == (b"", CLOSED)


async def test_with_a_caller_goes_its_connection_behind_the_link(link: Link, replica: Replica) -> None:
    async with Caller(link) as caller:
        assert await caller.ask() == REPLY
        assert replica.lost == 0
    await replica.has_lost(1)


async def test_a_caller_that_sends_a_request_before_its_reply_is_reset(
    network: Network, link: Link, replica: Replica
) -> None:
    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del writer, request
        await asyncio.Event().wait()

    replica.answer = answer
    async with Caller(link) as caller:
        await caller.send(GET)
        await replica.has(1)
        await caller.send(GET)
        assert await caller.end() == (b"", RESET)
    replica.answer = replies
    assert await ask(link) == (REPLY, CLOSED)
    assert replica.asked == [GET, LAST]
    assert (await network.counts())[link.name] == Counter({PASSED: 2})


@pytest.mark.parametrize("more", [b"GET", GET, GET + GET], ids=["a piece of one", "one", "two"])
async def test_a_caller_that_sends_two_requests_at_once_is_reset(link: Link, replica: Replica, more: bytes) -> None:
    assert await ask(link, GET + more) == (b"", RESET)
    assert await ask(link) == (REPLY, CLOSED)
    assert replica.asked == [LAST]


async def test_a_caller_that_sends_a_request_right_after_a_streamed_one_is_reset(link: Link, replica: Replica) -> None:
    request = post(bytes(2 * MOST_HELD_BYTES))
    async with Caller(link) as caller:
        await caller.send(request[:-1])
        await caller.send(request[-1:] + GET)
        assert await caller.end() == (b"", RESET)
    assert GET not in replica.asked


@pytest.mark.parametrize("words", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"HELO here\r\n"])
async def test_a_caller_that_does_not_speak_http_is_reset(link: Link, replica: Replica, words: bytes) -> None:
    assert await ask(link, words) == (b"", RESET)
    assert replica.connections == 0


@pytest.mark.parametrize(("fate", "missed"), [(PASSED, 1), (DUPLICATED, 2)])
async def test_where_nobody_listens_the_caller_is_reset(network: Network, link: Link, fate: str, missed: int) -> None:
    await network.set("faulty", links=link.name, fates={fate: 1})
    assert await ask(link) == (b"", RESET)
    await counted(network, link, UNREACHABLE, missed)
    assert (await network.counts())[link.name] == Counter({fate: 1, UNREACHABLE: missed})


async def test_a_request_of_which_the_reply_is_dropped_arrives_and_its_connection_is_closed(
    network: Network, link: Link, replica: Replica
) -> None:
    await network.set("faulty", links=link.name, fates={REPLY_DROPPED: 1})
    assert await ask(link, GET) == (b"", CLOSED)
    assert replica.asked == [GET]
    assert (await network.counts())[link.name] == Counter({REPLY_DROPPED: 1})


async def test_a_request_of_which_the_reply_is_reset_arrives_and_half_of_the_reply_is_seen(
    network: Network, link: Link, replica: Replica
) -> None:
    await network.set("faulty", links=link.name, fates={REPLY_RESET: 1})
    assert await ask(link, GET) == (REPLY[: len(REPLY) // 2], RESET)
    assert replica.asked == [GET]
    assert (await network.counts())[link.name] == Counter({REPLY_RESET: 1})


async def test_of_a_large_reply_that_is_reset_a_part_is_seen(network: Network, link: Link, replica: Replica) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % 2**22

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        writer.write(head + bytes(2**22))

    replica.answer = answer
    await network.set("faulty", links=link.name, fates={REPLY_RESET: 1})
    seen, ending = await ask(link, GET)
    assert ending == RESET
    assert 0 < len(seen) <= 2**21
    assert (head + bytes(2**22)).startswith(seen)


async def test_an_undelivered_request_does_not_arrive(network: Network, link: Link, replica: Replica) -> None:
    await network.set("faulty", links=link.name, fates={UNDELIVERED: 1})
    async with Caller(link) as caller:
        await caller.send(post(b"body")[:-1])
        await caller.send(b"y")
        assert await caller.end() == (b"", RESET)
    await network.set("clear", links=link.name)
    assert await ask(link) == (REPLY, CLOSED)
    assert replica.asked == [LAST]
    assert replica.connections == 1
    assert (await network.counts())[link.name] == Counter({UNDELIVERED: 1, PASSED: 1})


async def test_a_duplicated_request_arrives_twice_and_its_caller_sees_one_reply(
    network: Network, link: Link, replica: Replica
) -> None:
    await network.set("faulty", links=link.name, fates={DUPLICATED: 1})
    request = post(b"body")
    async with Caller(link) as caller:
        await caller.send(request[:-2])
        await caller.send(request[-2:])
        assert await caller.read(len(REPLY)) == REPLY
        await replica.has(2)
        await replica.has_lost(1)  # that of the copy
        await network.set("clear", links=link.name)
        await caller.send(LAST)
        assert await caller.end() == (REPLY, CLOSED)
    assert replica.asked == [request, request, LAST]
    assert replica.connections == 2
    assert (await network.counts())[link.name] == Counter({DUPLICATED: 1, PASSED: 1})


async def test_a_delayed_request_arrives_later(network: Network, link: Link, replica: Replica) -> None:
    _, delay_s = fate_of(SEED, link.name, 1, {DELAYED: 1})
    await network.set("faulty", links=link.name, fates={DELAYED: 1})
    arrived_at: list[float] = []

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        arrived_at.append(asyncio.get_running_loop().time())
        writer.write(REPLY)

    replica.answer = answer
    sent_at = asyncio.get_running_loop().time()
    assert await ask(link) == (REPLY, CLOSED)
    assert arrived_at[0] - sent_at >= delay_s - EARLY_S
    assert replica.asked == [LAST]
    assert (await network.counts())[link.name] == Counter({DELAYED: 1})


async def test_a_delayed_request_arrives_also_where_its_caller_has_gone(
    network: Network, link: Link, replica: Replica
) -> None:
    await network.set("faulty", links=link.name, fates={DELAYED: 1})
    async with Caller(link) as caller:
        await caller.send(post(b"body"))
        await counted(network, link, DELAYED, 1)
    await replica.has(1)
    assert replica.asked == [post(b"body")]


@pytest.mark.parametrize("fate", [REPLY_DROPPED, UNDELIVERED, DUPLICATED])
async def test_a_request_too_long_to_be_held_passes_whatever_its_fate(
    network: Network, link: Link, replica: Replica, fate: str
) -> None:
    await network.set("faulty", links=link.name, fates={fate: 1})
    request = post(bytes(MOST_HELD_BYTES))
    async with Caller(link) as caller:
        assert await caller.ask(request) == REPLY
        await network.set("clear", links=link.name)
        assert await caller.ask(LAST) == REPLY
    assert replica.asked == [request, LAST]
    assert (await network.counts())[link.name] == Counter({PASSED: 2})


async def test_a_request_too_long_to_be_held_is_passed_on_before_it_is_complete(
    network: Network, link: Link, replica: Replica
) -> None:
    request = post(bytes(MOST_HELD_BYTES))
    async with Caller(link) as caller:
        await caller.send(request[:-1])
        await counted(network, link, PASSED, 1)
        assert await caller.ask(request[-1:]) == REPLY
    assert replica.asked == [request]


async def test_only_a_faulty_link_draws_fates(network: Network, link: Link, replica: Replica) -> None:
    for mode in ("clear", "slow"):
        await network.set(mode, links=link.name, fates={UNDELIVERED: 1})
        assert await ask(link) == (REPLY, CLOSED)
    assert len(replica.asked) == 2


async def test_the_fate_of_a_request_does_not_befall_the_next_on_its_connection(
    network: Network, link: Link, replica: Replica
) -> None:
    async with Caller(link) as caller:
        assert await caller.ask() == REPLY
        await network.set("faulty", links=link.name, fates={DUPLICATED: 1})
        assert await caller.ask() == REPLY
        await replica.has(3)
        await network.set("clear", links=link.name)
        assert await caller.ask() == REPLY
        await network.set("faulty", links=link.name, fates={UNDELIVERED: 1})
        await caller.send(GET)
        assert await caller.end() == (b"", RESET)
    assert len(replica.asked) == 4


async def test_a_slow_link_delays_the_reply_and_not_the_request(network: Network, link: Link, replica: Replica) -> None:
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % 2**20 + os.urandom(2**20)
    answered_at: list[float] = []

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        answered_at.append(asyncio.get_running_loop().time())
        writer.write(reply)

    replica.answer = answer
    await network.set("slow", links=link.name, seconds=0.2)
    async with Caller(link) as caller:
        for number in range(2):
            await caller.send(GET)
            assert await caller.read(1) == reply[:1]
            assert asyncio.get_running_loop().time() - answered_at[number] >= 0.2 - EARLY_S
            assert await caller.read(len(reply) - 1) == reply[1:]
    assert (await network.counts())[link.name] == Counter({PASSED: 2, SLOWED: 2})


async def test_a_link_that_hangs_gives_no_reply_and_resets_when_it_is_cleared(
    network: Network, link: Link, replica: Replica
) -> None:
    await network.set("hang", links=link.name)
    async with Caller(link) as caller:
        await caller.send(GET)
        await counted(network, link, HUNG, 1)
        await network.set("clear", links=link.name)
        assert await caller.end() == (b"", RESET)
    assert await ask(link) == (REPLY, CLOSED)
    assert replica.asked == [LAST]
    assert (await network.counts())[link.name] == Counter({HUNG: 1, PASSED: 1})


@pytest.mark.parametrize("mode", ["clear", "faulty", "slow", "down"])
async def test_a_link_that_begins_to_hang_keeps_the_reply_to_what_it_has_delivered(
    network: Network, link: Link, replica: Replica, mode: Mode
) -> None:
    hangs = asyncio.Event()

    async def answer(writer: asyncio.StreamWriter, request: bytes) -> None:
        del request
        await hangs.wait()
        writer.write(REPLY)

    replica.answer = answer
    async with Caller(link) as caller, Caller(link) as later:
        await caller.send(GET)
        await replica.has(1)
        await network.set("hang", links=link.name)
        hangs.set()
        await later.send(GET)  # the reply is at the proxy, or on its way, when this is counted
        await counted(network, link, HUNG, 2)
        await network.set(mode, links=link.name)
        assert await caller.end() == (b"", RESET)
        assert await later.end() == (b"", RESET)
    assert replica.asked == [GET]


async def test_a_connection_on_which_nothing_was_asked_outlives_a_hang(
    network: Network, link: Link, replica: Replica
) -> None:
    async with Caller(link) as caller:
        assert await caller.ask() == REPLY
        await network.set("hang", links=link.name)
        await network.set("clear", links=link.name)
        assert await caller.ask() == REPLY
    assert len(replica.asked) == 2


async def test_a_link_that_is_down_resets_every_connection(network: Network, link: Link, replica: Replica) -> None:
    async with Caller(link) as idle:
        assert await idle.ask() == REPLY
        await network.set("down", links=link.name)
        assert await idle.end() == (b"", RESET)
    for _ in range(3):
        assert await ask(link) == (b"", RESET)
    await network.set("clear", links=link.name)
    assert await ask(link) == (REPLY, CLOSED)
    assert replica.asked == [GET, LAST]
    assert (await network.counts())[link.name] == Counter({PASSED: 2, REFUSED: 4})


async def test_a_pattern_chooses_links(replica: Replica, link: Link) -> None:
    called = ["edge->order-1", "order-1->product-1", "order-2->product-1", "order-1->product-2", "edge->product-1"]
    links = links_to([link.target_port] * len(called), called)

    async def down() -> list[str]:
        return [each.name for each in links if await ask(each) == (b"", RESET)]

    async with running(links) as network:
        assert await down() == []
        await network.set("down", links="order-*->product-1")
        assert await down() == ["order-1->product-1", "order-2->product-1"]
        await network.set("down")
        assert await down() == called
        await network.set("clear", links="edge->*")
        assert await down() == called[1:4]
        await network.set("clear", links="*")
        assert await down() == []
    assert set(replica.asked) == {LAST}


async def test_a_pattern_that_no_link_matches_is_refused(network: Network, link: Link, replica: Replica) -> None:
    with pytest.raises(NetworkFailed, match="no link is called order-1->payment"):
        await network.set("down", links="order-1->payment")
    assert await ask(link) == (REPLY, CLOSED)
    assert replica.asked == [LAST]


@pytest.mark.parametrize("fates", [{"lost": 0.1}, {PASSED: 0.6, DELAYED: 0.6}, {DELAYED: -0.1}])
async def test_what_are_no_probabilities_of_fates_is_refused(
    network: Network, link: Link, replica: Replica, fates: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match="not probabilities of fates"):
        await network.set("faulty", links=link.name, fates=fates)
    assert await ask(link) == (REPLY, CLOSED)
    assert replica.asked == [LAST]


async def test_each_link_has_counts_of_its_own(network: Network, link: Link, replica: Replica, shared: Shared) -> None:
    other, _ = shared.spare.pop()
    await ask(link)
    await network.set("faulty", links=link.name, fates={UNDELIVERED: 1})
    await ask(link)
    await network.set("slow", links=link.name, seconds=0.01)
    await ask(link)
    await ask(other)
    counts = await network.counts()
    assert counts[link.name] == Counter({PASSED: 2, UNDELIVERED: 1, SLOWED: 1})
    assert counts[other.name] == Counter({PASSED: 1, UNREACHABLE: 1})
    assert len(counts) == LINKS
    assert len(replica.asked) == 2


async def test_commands_may_be_given_at_once(network: Network, link: Link, replica: Replica) -> None:
    await ask(link)
    counts = asyncio.gather(*(network.counts() for _ in range(5)))
    await asyncio.gather(*(network.set("slow", links=link.name, seconds=0.01) for _ in range(5)))
    assert [each[link.name] for each in await counts] == [Counter({PASSED: 1})] * 5
    await ask(link)
    assert (await network.counts())[link.name] == Counter({PASSED: 2, SLOWED: 1})
    assert len(replica.asked) == 2


async def test_the_nth_request_of_a_link_has_the_same_fate_in_every_run(link: Link, replica: Replica) -> None:
    fates = {REPLY_DROPPED: 0.25, UNDELIVERED: 0.25, REPLY_RESET: 0.25}
    seen = {
        (REPLY, CLOSED): PASSED,
        (b"", CLOSED): REPLY_DROPPED,
        (b"", RESET): UNDELIVERED,
        (REPLY[: len(REPLY) // 2], RESET): REPLY_RESET,
    }

    async def run(seed: int, clear: int) -> list[str]:
        """What befell 40 requests, of which the first were sent on a clear link."""
        link_of_run = replace(link, port=free_ports(1))
        async with running([link_of_run], seed) as network:
            met = [seen[await ask(link_of_run)] for _ in range(clear)]
            await network.set("faulty", fates=fates)
            return met + [seen[await ask(link_of_run)] for _ in range(40 - clear)]

    drawn = [fate_of(SEED, link.name, number, fates)[0] for number in range(1, 41)]
    assert set(drawn) == {PASSED, *fates}
    assert await run(SEED, clear=0) == drawn
    assert await run(SEED, clear=10) == [PASSED] * 10 + drawn[10:]
    assert await run(SEED + 1, clear=0) != drawn
    assert replica.asked.count(LAST) == len(replica.asked) > 60


def test_another_seed_and_another_link_have_other_fates() -> None:
    fates = {str(fate): 1 / len(FATES) for fate in FATES}
    runs = [
        [fate_of(seed, name, number, fates) for number in range(50)]
        for seed in (1, 2)
        for name in ("edge->order-1", "edge->order-2")
    ]
    for run in runs:
        assert {fate for fate, _ in run} == set(FATES)
        assert [other for other in runs if other == run] == [run]


def test_fates_are_as_frequent_as_they_are_probable() -> None:
    fates: dict[str, float] = {DELAYED: 0.02, REPLY_DROPPED: 0.01, REPLY_RESET: 0.3, UNDELIVERED: 0.1, DUPLICATED: 0.2}
    draws = [fate_of(SEED, "edge->order-1", number, fates) for number in range(10_000)]
    found = Counter(fate for fate, _ in draws)
    for fate, probability in (fates | {PASSED: 1 - sum(fates.values())}).items():
        deviation = (10_000 * probability * (1 - probability)) ** 0.5
        assert found[fate] == pytest.approx(10_000 * probability, abs=3 * deviation)
    shortest_s, longest_s = DELAY_S
    delays_s = [delay_s for fate, delay_s in draws if fate == DELAYED]
    assert all(shortest_s <= delay_s <= longest_s for delay_s in delays_s)
    assert sum(delays_s) / len(delays_s) == pytest.approx((shortest_s + longest_s) / 2, rel=0.15)


@pytest.mark.parametrize("fate", FATES)
def test_a_certain_fate_befalls_every_request_and_where_none_is_drawn_it_passes(fate: str) -> None:
    assert {fate_of(SEED, "edge->order-1", number, {fate: 1})[0] for number in range(100)} == {fate}
    assert {fate_of(SEED, "edge->order-1", number, {fate: 0})[0] for number in range(100)} == {PASSED}


async def test_a_proxy_whose_port_is_taken_does_not_start() -> None:
    before = proxies()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        links = [Link("edge->order-1", free_ports(1), 1), Link("edge->order-2", port_of(taken), 1)]
        with pytest.raises(NetworkFailed, match="address already in use"):
            await Network().start(links, SEED)
    assert proxies() == before
    with pytest.raises(ConnectionRefusedError):
        await ask(links[0])


async def test_a_proxy_that_is_stopped_has_ended_and_so_have_its_connections(link: Link, replica: Replica) -> None:
    before = proxies()
    (own,) = links_to([link.target_port], ["edge->order-1"])
    network = Network()
    await network.start([own], SEED)
    (pid,) = proxies() - before
    async with Caller(own) as caller:
        assert await caller.ask() == REPLY
        await network.stop()
        assert proxies() == before
        assert not psutil.pid_exists(pid)
        assert (await caller.end())[0] == b""
    with pytest.raises(ConnectionRefusedError):
        await ask(own)
    assert len(replica.asked) == 1
    with pytest.raises(NetworkFailed, match="the proxy has ended"):
        await network.counts()


async def test_a_proxy_that_was_killed_says_so_at_the_next_command(link: Link) -> None:
    before = proxies()
    async with running(links_to([link.target_port], ["edge->order-1"])) as network:
        (pid,) = proxies() - before
        psutil.Process(pid).kill()
        with pytest.raises(NetworkFailed, match="the proxy has ended"):
            await network.set("clear")


async def test_a_proxy_ends_by_itself_and_in_silence_when_its_commands_end(link: Link, replica: Replica) -> None:
    (own,) = links_to([link.target_port], ["edge->order-1"])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "drills.network", cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(orjson.dumps({"seed": SEED, "links": [own]}) + b"\n")
    assert await process.stdout.readline() == b"{}\n"
    async with Caller(own) as caller:
        assert await caller.ask() == REPLY
        process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            answered, said = await process.communicate()
        assert (await caller.end())[0] == b""
    assert (answered, said, process.returncode) == (b"", b"", 0)
    assert len(replica.asked) == 1
