"""httpx's transport interface over HTTP/1.1 connections that live on the event loop itself.

A checkout makes five calls, each one hop of a latency that a buyer waits for, with few of them in flight. A pool in a
thread of its own pays two switches for each; this one pays none, and parses with the parser that uvicorn uses:
docs/decisions/peer-calls.md has the measurement. It speaks what services say to each other: plain HTTP/1.1 (RFC
9112), whole requests, whole answers.
"""

import asyncio
from collections import deque
from typing import cast

import httptools
import httpx2

CONNECT_TIMEOUT_S = 1.0
IDLE_TIMEOUT_S = 20.0
"""An idle connection is dropped before the server, which waits 120 s, would drop it: else a POST now and then meets a
closing socket.
"""
CONNECTIONS = 100
"""The most connections to one peer; a call beyond waits for one, within its own timeout."""
MOST_BODY_BYTES = 64 * 2**20
REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
"""Methods that may be sent again when a kept connection turns out to be closed, RFC 9110, 9.2.2."""
TARGET = "target"
"""httpx's extension for the request's target: a peer's URL is parsed once, and each call's path goes beside it, since
parsing costs more than the call's headers and body together.
"""

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


def target(request: httpx2.Request) -> bytes:
    """The path and query that a request asks for, as they go over the wire."""
    return request.extensions.get(TARGET) or request.url.raw_path


async def whole(message: httpx2.Request | httpx2.Response) -> bytes:
    """The body of a message, as it came.

    Reading it through httpx's decoders would cost more than parsing the whole message, and services encode no bodies.
    """
    return b"".join([part async for part in cast("httpx2.AsyncByteStream", message.stream)])


class _Connection(asyncio.Protocol):
    """One connection, and the one exchange that is under way on it."""

    def __init__(self) -> None:
        self.served = 0
        self.idle_since = 0.0
        self.closed = False
        self.reusable = False
        self.begun = False
        """Whether anything of the present answer has come."""
        self._exchange: asyncio.Future[Answer] | None = None

    def exchange(self, wire: bytes) -> "asyncio.Future[Answer]":
        """Send a request and return the future of its answer."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self.begun = self.reusable = False
        self._parser = httptools.HttpResponseParser(self)
        exchange = self._exchange = asyncio.get_running_loop().create_future()
        if self.closed:
            self._fail(httpx2.ReadError("the connection was closed before the request was sent"))
        else:
            self._transport.write(wire)
        return exchange

    def close(self) -> None:
        """Close at once; an exchange under way fails."""
        self.closed = True
        self._transport.abort()

    def _fail(self, error: httpx2.TransportError) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None and not exchange.done():
            exchange.set_exception(error)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.close()  # nobody asked
            return
        self.begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx2.RemoteProtocolError(str(error)))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._fail(httpx2.ReadError(str(exc) if exc else "the connection was closed before the answer was complete"))

    # the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MOST_BODY_BYTES:
            self._fail(httpx2.RemoteProtocolError("the answer is too large"))
            self.close()
        self._body.append(body)

    def on_message_complete(self) -> None:
        exchange, self._exchange = self._exchange, None
        self.served += 1
        self.reusable = self._parser.should_keep_alive()
        if exchange is not None and not exchange.done():
            exchange.set_result((self._parser.get_status_code(), self._headers, b"".join(self._body)))


class _Peer:
    """The connections to one address."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: deque[_Connection] = deque()
        self.slots = asyncio.Semaphore(CONNECTIONS)

    async def connection(self) -> _Connection:
        """The connection that was used last, or a new one; raises ConnectError or ConnectTimeout."""
        loop = asyncio.get_running_loop()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and loop.time() - connection.idle_since < IDLE_TIMEOUT_S:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return (await loop.create_connection(_Connection, self._host, self._port))[1]
        except TimeoutError:
            raise httpx2.ConnectTimeout(f"no connection within {CONNECT_TIMEOUT_S} s") from None
        except OSError as error:
            raise httpx2.ConnectError(str(error)) from error

    def give_back(self, connection: _Connection) -> None:
        """Keep a connection for the next call, or close it."""
        if connection.closed or not connection.reusable:
            connection.close()
            return
        now = connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        while now - self._idle[0].idle_since >= IDLE_TIMEOUT_S:
            self._idle.popleft().close()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()


class PooledTransport(httpx2.AsyncBaseTransport):
    """A pool of connections for each peer. An exchange is timed by its caller: cancelling it closes its connection."""

    def __init__(self) -> None:
        self._peers: dict[tuple[str, int], _Peer] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        if url.scheme != "http":
            raise httpx2.UnsupportedProtocol(f"{url.scheme} is not spoken between services")
        address = (url.host, url.port or 80)
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = _Peer(*address)
        wire = _wire(request, await whole(request))
        async with peer.slots:
            status, headers, content = await self._exchange(peer, request.method, wire)
        return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(content), request=request)

    async def _exchange(self, peer: _Peer, method: str, wire: bytes) -> Answer:
        while True:
            connection = await peer.connection()
            try:
                answer = await connection.exchange(wire)
            except httpx2.ReadError:
                if connection.served and not connection.begun and method in REPEATABLE:
                    continue  # it was kept, and closed by the other side in the same moment
                raise
            except BaseException:
                connection.close()
                raise
            peer.give_back(connection)
            return answer

    async def aclose(self) -> None:
        for peer in self._peers.values():
            peer.close()


def _wire(request: httpx2.Request, content: bytes) -> bytes:
    """The request as it is sent; raises LocalProtocolError where a header or the target would end before it does."""
    path, fields = target(request), request.headers.raw
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), path)]
    lines += [b"%b: %b" % field for field in fields]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(fields) or b" " in path:
        raise httpx2.LocalProtocolError("a line break or a space where none may be")
    return b"%b\r\n\r\n%b" % (head, content)
