"""Calls to a peer over real sockets: what it answers, how it fails, and what is made of it."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import orjson
import pytest

from chassis.balancing import FAILURES, RETRIES_A_SECOND, RETRIES_SAVED, RETRY_SHARE, CallPolicy
from chassis.clients import Peer, PeerRefused, PeerUnavailable
from chassis.context import Context, current
from chassis.origins import Addresses, Resolve
from chassis.problems import MEDIA_TYPE
from chassis.telemetry import Telemetry
from chassis.testing import credential
from chassis.transport import PooledTransport

ONE = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1"
"""A whole answer."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Line:
    """A server on a socket of this machine, which does with each connection what the test says."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """The head and the body of the next request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        self.requests.append(head + await reader.readexactly(int(length)))
        return self.requests[-1]

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator["Line"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self._open:
                writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed
        finally:
            writer.close()


def answering(status: int, body: bytes, content_type: str = "application/json") -> Line:
    """A server that gives every request the same answer and keeps its connections."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await line.read_request(reader)
            head = f"HTTP/1.1 {status} Answer\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()

    line = Line(serve)
    return line


TELEMETRY = Telemetry("order")


@asynccontextmanager
async def peer_at(*ports: int, timeout_s: float = 3.0) -> AsyncGenerator[Peer]:
    """The product service, as the order service would call it at these ports."""
    url = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    peer = Peer(
        "product",
        url,
        credential("order"),
        TELEMETRY,
        PooledTransport("product", url, TELEMETRY),
        timeout_s=timeout_s,
    )
    try:
        yield peer
    finally:
        await peer.aclose()


def counted(outcome: str) -> float:
    """How many calls had this outcome so far."""
    found = TELEMETRY.registry.get_sample_value("souk_peer_requests_total", {"peer": "product", "outcome": outcome})
    assert found is not None
    return found


def sampled(name: str, **labels: str) -> float:
    """What a metric of the product peer says; 0 where it says nothing yet."""
    return TELEMETRY.registry.get_sample_value(name, {"peer": "product", **labels}) or 0.0


@asynccontextmanager
async def one_more(outcome: str) -> AsyncGenerator[None]:
    """What happens in the block is counted as one call with this outcome."""
    before = counted(outcome)
    yield
    assert counted(outcome) == before + 1


async def test_an_answer_is_its_json_and_a_call_says_who_asks_and_until_when() -> None:
    async with answering(200, b'{"items": [1, 2]}').listening() as line, peer_at(line.port) as peer:
        token = current.set(Context(request_id="mine"))
        async with one_more("answered"):
            assert await peer.call("PUT", "/internal/v1/things?a=b%20c", {"n": 1}) == {"items": [1, 2]}
        current.reset(token)
    head, _, body = line.requests[0].partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (entry.partition(": ") for entry in rest)}
    assert first == "PUT /internal/v1/things?a=b%20c HTTP/1.1"
    assert orjson.loads(body) == {"n": 1}
    assert headers["host"] == f"127.0.0.1:{line.port}"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"].startswith("Bearer ")
    assert headers["x-request-id"] == "mine"
    assert headers["traceparent"].startswith("00-")
    assert float(headers["x-request-deadline"]) == 3


async def test_an_answer_without_a_body_is_none() -> None:
    async with answering(204, b"").listening() as line, peer_at(line.port) as peer:
        assert await peer.call("DELETE", "/thing") is None


async def test_a_problem_is_refused_with_its_facts() -> None:
    document = {"type": "/problems/insufficient-stock", "status": 409, "items": [{"available": 0}]}
    server = answering(409, orjson.dumps(document), MEDIA_TYPE)
    async with server.listening() as line, peer_at(line.port) as peer, one_more("refused"):
        with pytest.raises(PeerRefused) as refused:
            await peer.call("POST", "/thing")
    assert (refused.value.status, refused.value.code) == (409, "insufficient-stock")
    assert refused.value.document == document


async def test_a_refusal_that_is_no_problem_document_has_a_status_and_no_facts() -> None:
    async with answering(404, b"<html>", "text/html").listening() as line, peer_at(line.port) as peer:
        with pytest.raises(PeerRefused) as refused:
            await peer.call("GET", "/thing")
    assert (refused.value.status, refused.value.code, refused.value.document) == (404, "", {})


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (500, b"{}", "application/json"),
        (503, b'{"type": "/problems/unavailable"}', MEDIA_TYPE),
        (429, b'{"type": "/problems/too-many-attempts"}', MEDIA_TYPE),
        (302, b"", "text/plain"),
        (200, b"<html>", "text/html"),
        (200, b'{"cut": "of', "application/json"),
        (409, b"no json", MEDIA_TYPE),
    ],
)
async def test_an_answer_that_tells_nothing_leaves_the_outcome_unknown(
    status: int, body: bytes, content_type: str
) -> None:
    server = answering(status, body, content_type)
    async with server.listening() as line, peer_at(line.port) as peer, one_more("failed"):
        with pytest.raises(PeerUnavailable):
            await peer.call("POST", "/thing")


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with peer_at(unused.getsockname()[1]) as peer, one_more("unreachable"):
            with pytest.raises(PeerUnavailable, match="product"):
                await peer.call("GET", "/thing")


async def test_a_server_that_never_answers_is_waited_for_as_long_as_is_allowed() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await line.read_request(reader)
        await reader.read()

    line = Line(serve)
    async with line.listening(), peer_at(line.port, timeout_s=0.1) as peer, one_more("timeout"):
        with pytest.raises(PeerUnavailable):
            await peer.call("GET", "/thing")
    assert len(line.requests) == 1


async def test_a_server_that_stops_within_the_body_is_waited_for_as_long_as_is_allowed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await line.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun")
        await reader.read()

    line = Line(serve)
    async with line.listening(), peer_at(line.port) as peer, one_more("timeout"):
        with pytest.raises(PeerUnavailable):
            await peer.call("GET", "/thing", timeout_s=0.1)


async def test_the_deadline_of_the_request_ends_a_call_before_its_own_timeout() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await line.read_request(reader)
        await reader.read()

    line = Line(serve)
    async with line.listening(), peer_at(line.port, timeout_s=60) as peer, one_more("timeout"):
        token = current.set(Context(deadline=asyncio.get_running_loop().time() + 0.1))
        with pytest.raises(PeerUnavailable):
            await peer.call("GET", "/thing")
        current.reset(token)


def closing_after(answer: bytes, *, reset: bool = False) -> Line:
    """A server that answers a part and closes the connection, or resets it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await line.read_request(reader)
        writer.write(answer)
        await writer.drain()
        if reset:
            connection: Any = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    line = Line(serve)
    return line


@pytest.mark.parametrize(
    "line",
    [
        closing_after(b""),
        closing_after(b"HTTP/1.1 200 OK\r\ncontent-le"),
        closing_after(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"begun": '),
        closing_after(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n"),
        closing_after(b"", reset=True),
        closing_after(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun", reset=True),
        closing_after(b"220 mail.example ESMTP\r\n"),
    ],
    ids=["at once", "in the head", "in the body", "between chunks", "reset", "reset in the body", "another protocol"],
)
async def test_a_connection_that_breaks_leaves_the_outcome_unknown(line: Line) -> None:
    async with line.listening(), peer_at(line.port) as peer, one_more("unreachable"):
        with pytest.raises(PeerUnavailable):
            await peer.call("POST", "/thing", {})


async def test_one_connection_serves_call_after_call() -> None:
    async with answering(200, b"1").listening() as line, peer_at(line.port) as peer:
        for _ in range(20):
            assert await peer.call("GET", "/thing") == 1
    assert len(line.requests) == 20
    assert line.connections == 1


async def test_calls_at_once_do_not_wait_for_each_other() -> None:
    everybody_is_here = asyncio.Barrier(10)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await line.read_request(reader)
        await everybody_is_here.wait()
        writer.write(ONE)
        await writer.drain()
        await reader.read()

    line = Line(serve)
    async with line.listening(), peer_at(line.port, timeout_s=10) as peer:
        assert await asyncio.gather(*(peer.call("GET", "/thing") for _ in range(10))) == [1] * 10


async def test_after_a_broken_connection_the_next_call_gets_a_new_one() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await line.read_request(reader)
        if line.connections > 1:
            writer.write(ONE)
            await writer.drain()

    line = Line(serve)
    async with line.listening(), peer_at(line.port) as peer:
        with pytest.raises(PeerUnavailable):
            await peer.call("POST", "/thing")
        assert await peer.call("POST", "/thing") == 1
    assert len(line.requests) == 2, "what may have happened must not be repeated by the pool"


AGAIN = CallPolicy(idempotent=True, attempt_timeout_s=0.1)
CALLS = 30


def hanging() -> Line:
    """A server that takes every request and answers none."""

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await line.read_request(reader)
        await reader.read()

    line = Line(serve)
    return line


@pytest.mark.parametrize(
    "bad",
    [
        closing_after(b""),
        closing_after(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun", reset=True),
        answering(503, b"{}"),
        hanging(),
    ],
    ids=["closing", "resetting", "unavailable", "hanging"],
)
async def test_what_one_endpoint_does_not_answer_is_asked_of_another_until_it_is_ejected(bad: Line) -> None:
    good = answering(200, b"1")
    async with bad.listening(), good.listening(), peer_at(bad.port, good.port) as peer:
        for _ in range(CALLS):
            assert await peer.call("POST", "/thing", {}, policy=AGAIN) == 1
    assert 1 <= len(bad.requests) <= 2 * FAILURES
    assert len(good.requests) == CALLS


def dying() -> Line:
    """A server that answers once, and from then on closes what was kept, and what it still accepts, at a request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await line.read_request(reader) and len(line.requests) == 1:
            writer.write(ONE)
            await writer.drain()
            await line.read_request(reader)

    line = Line(serve)
    return line


async def test_a_kept_connection_that_breaks_is_given_up_with_its_endpoint() -> None:
    for _ in range(CALLS):
        bad, good = dying(), answering(200, b"1")
        async with bad.listening(), good.listening(), peer_at(bad.port, good.port) as peer:
            while len(bad.requests) < 2:
                assert await peer.call("GET", "/thing") == 1
            assert len(bad.requests) == 2


def forgetful() -> Line:
    """A server that closes a kept connection at its second request, and takes a new one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await line.read_request(reader)
        writer.write(ONE)
        await writer.drain()
        await line.read_request(reader)

    line = Line(serve)
    return line


@pytest.mark.parametrize("refusing", [0, 1, 2])
async def test_a_kept_connection_that_breaks_is_made_anew_where_no_other_endpoint_takes_the_call(refusing: int) -> None:
    with ExitStack() as stack:
        unused = [stack.enter_context(socket.socket()) for _ in range(refusing)]
        for each in unused:
            each.bind(("127.0.0.1", 0))
        async with (
            forgetful().listening() as line,
            peer_at(line.port, *(each.getsockname()[1] for each in unused)) as peer,
        ):
            assert [await peer.call("GET", "/thing") for _ in range(CALLS)] == [1] * CALLS
    assert line.connections == CALLS


async def test_what_may_not_be_sent_twice_is_not() -> None:
    bad, good = closing_after(b""), answering(200, b"1")
    answered = 0
    async with bad.listening(), good.listening(), peer_at(bad.port, good.port) as peer:
        for _ in range(CALLS):
            with suppress(PeerUnavailable):
                answered += await peer.call("POST", "/thing", {})
    assert answered == len(good.requests)
    assert len(good.requests) + len(bad.requests) == CALLS
    assert bad.requests


async def test_a_refused_connection_goes_on_to_the_next_endpoint_whatever_the_method() -> None:
    good = answering(200, b"1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with good.listening(), peer_at(unused.getsockname()[1], good.port) as peer:
            for _ in range(CALLS):
                assert await peer.call("POST", "/thing", {}) == 1
    assert len(good.requests) == CALLS


async def test_attempts_share_the_deadline_and_tell_it() -> None:
    lines = [hanging(), hanging()]
    async with (
        lines[0].listening(),
        lines[1].listening(),
        peer_at(*(line.port for line in lines), timeout_s=1.0) as peer,
        one_more("timeout"),  # after the peer, whose making makes the counter
    ):
        with pytest.raises(PeerUnavailable):
            await peer.call("POST", "/thing", {}, policy=AGAIN)
    told = [
        float(line.partition(b": ")[2])
        for request in (*lines[0].requests, *lines[1].requests)
        for line in request.split(b"\r\n")
        if line.startswith(b"X-Request-Deadline")
    ]
    assert len(told) == 2
    assert AGAIN.attempt_timeout_s in told
    assert max(told) < 0.95, "what the first attempt took is gone"


async def test_a_name_stands_for_all_its_addresses_and_is_kept_when_it_does_not_resolve() -> None:
    lines = [answering(200, b"1"), answering(200, b"2")]
    async with lines[0].listening(), lines[1].listening():
        found = [("127.0.0.1", line.port) for line in lines]

        async def resolve(_host: str, _port: int) -> list[tuple[str, int]]:
            if not found:
                raise OSError("no such name")
            return list(found)

        told: list[list[tuple[str, int]]] = []
        addresses = Addresses("product", "http://product:80", lambda these: told.append(list(these)), resolve)
        assert not addresses.known
        await addresses.first()
        assert addresses.known
        both = list(found)
        del found[1]
        await addresses.refresh()
        del found[0]
        await addresses.refresh()
        assert told == [both, both[:1]]
        await addresses.aclose()

        transport = PooledTransport("product", "http://product:80", Telemetry("order"), resolve=_always(both))
        peer = Peer("product", "http://product:80", credential("order"), Telemetry("order"), transport)
        assert {await peer.call("GET", "/thing") for _ in range(CALLS)} == {1, 2}
        await peer.aclose()


class Gated:
    """A server that takes requests, and answers them from the moment on at which its gate opens."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.gate = asyncio.Event()
        self.gone = 0
        """Connections that the caller closed before the gate opened."""
        self.line = Line(self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self.line.read_request(reader)
            closed, opened = asyncio.create_task(reader.read(1)), asyncio.create_task(self.gate.wait())
            await asyncio.wait({closed, opened}, return_when=asyncio.FIRST_COMPLETED)
            if not self.gate.is_set():
                self.gone += 1
                opened.cancel()
                return
            closed.cancel()
            await asyncio.wait({closed})
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n" + self._answer
            )


async def until(reached: Callable[[], bool]) -> None:
    """Let others run until something is so."""
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 - the other side of a socket sets no event
            await asyncio.sleep(0)


async def test_a_caller_that_is_cancelled_closes_its_connection_and_leaves_the_endpoint_idle() -> None:
    first, second = Gated(b"1"), Gated(b"2")
    async with first.line.listening(), second.line.listening(), peer_at(first.line.port, second.line.port) as peer:
        calls = [asyncio.create_task(peer.call("GET", "/thing")) for _ in range(10)]
        await until(lambda: len(first.line.requests) == len(second.line.requests) == 5)
        second.gate.set()  # those at the second are answered, those at the first given up
        await until(lambda: sum(task.done() for task in calls) == 5)
        for task in calls:
            task.cancel()
        assert [task.result() for task in calls if task.done()] == [2] * 5
        await until(lambda: first.gone == 5)
        first.gate.set()
        assert Counter([await peer.call("GET", "/thing") for _ in range(100)])[1] > 20, "nothing is outstanding there"


async def test_a_storm_of_failures_is_repeated_a_fifth_more_often_and_no_more() -> None:
    calls = 600
    lines = [answering(503, b"{}"), answering(503, b"{}")]
    began = asyncio.get_running_loop().time()
    async with lines[0].listening(), lines[1].listening(), peer_at(*(line.port for line in lines)) as peer:
        exhausted = sampled("souk_peer_retries_total", outcome="budget_exhausted")
        for _ in range(calls):
            with suppress(PeerUnavailable):
                await peer.call("GET", "/thing", policy=AGAIN)
        took_s = asyncio.get_running_loop().time() - began
        sent = sum(len(line.requests) for line in lines)
        retries = sent - calls
        assert calls * RETRY_SHARE <= retries
        assert retries <= RETRIES_SAVED + calls * RETRY_SHARE + took_s * RETRIES_A_SECOND
        assert sampled("souk_peer_retries_total", outcome="budget_exhausted") - exhausted == calls - retries


async def test_metrics_tell_who_is_left_out_and_what_became_of_retries() -> None:
    bad, good = closing_after(b""), answering(200, b"1")
    async with bad.listening(), good.listening(), peer_at(bad.port, good.port) as peer:
        ejected = sampled("souk_peer_ejections_total", reason="reset")
        answered = sampled("souk_peer_retries_total", outcome="answered")
        assert sampled("souk_peer_endpoints") == 2
        assert sampled("souk_peer_endpoints_ejected") == 0
        while len(bad.requests) < FAILURES:
            assert await peer.call("GET", "/thing", policy=AGAIN) == 1
        assert sampled("souk_peer_endpoints_ejected") == 1
        assert sampled("souk_peer_ejections_total", reason="reset") - ejected == 1
        assert sampled("souk_peer_retries_total", outcome="answered") - answered == FAILURES


async def test_the_request_that_makes_the_call_knows_how_often_a_peer_was_asked_again() -> None:
    bad, good = closing_after(b""), answering(200, b"1")
    async with bad.listening(), good.listening(), peer_at(bad.port, good.port) as peer:
        token = current.set(Context())
        try:
            while len(bad.requests) < FAILURES:
                assert await peer.call("GET", "/thing", policy=AGAIN) == 1
            asked = current.get()
            assert asked is not None
            assert asked.retries == FAILURES
        finally:
            current.reset(token)


async def test_a_call_that_is_under_way_when_its_address_goes_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.origins.RESOLVE_EVERY_S", 0.01)
    leaving, staying = Gated(b"1"), answering(200, b"2")
    async with leaving.line.listening(), staying.listening():
        now = [("127.0.0.1", leaving.line.port)]
        resolved = 0

        async def resolve(_host: str, _port: int) -> list[tuple[str, int]]:
            nonlocal resolved
            resolved += 1
            return list(now)

        transport = PooledTransport("product", "http://product:80", TELEMETRY, resolve=resolve)
        peer = Peer("product", "http://product:80", credential("order"), TELEMETRY, transport)
        call = asyncio.create_task(peer.call("GET", "/thing"))
        await until(lambda: len(leaving.line.requests) == 1)
        now[:] = [("127.0.0.1", staying.port)]
        seen = resolved
        await until(lambda: resolved >= seen + 2)  # the first of them is taken in by then
        assert {await peer.call("GET", "/thing") for _ in range(CALLS)} == {2}
        leaving.gate.set()
        assert await call == 1
        assert len(leaving.line.requests) == 1
        await peer.aclose()


def _always(addresses: list[tuple[str, int]]) -> Resolve:
    async def resolve(_host: str, _port: int) -> list[tuple[str, int]]:
        return addresses

    return resolve
