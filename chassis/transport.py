"""httpx's transport interface over HTTP/1.1 connections that live on the event loop itself.

A checkout makes five calls, each one hop of a latency that a buyer waits for, with few of them in flight. A pool in a
thread of its own pays two switches for each; this one pays none, and parses with the parser that uvicorn uses:
docs/decisions/peer-calls.md has the measurement. It speaks what services say to each other: plain HTTP/1.1 (RFC
9112), whole requests, whole answers.

A peer may have several endpoints. Each call is balanced over them by `chassis/balancing.py`, and one that fails is
repeated once on another where that is safe: docs/decisions/balancing.md.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from random import Random
from time import monotonic
from typing import cast

import httptools
import httpx2

from chassis.balancing import Attempt, Balancer, CallPolicy, Endpoint, RetryBudget
from chassis.context import context
from chassis.origins import Address, Addresses, Resolve, resolved
from chassis.telemetry import Telemetry

CONNECT_TIMEOUT_S = 0.5
IDLE_TIMEOUT_S = 20.0
"""An idle connection is dropped before the server, which waits 120 s, would drop it: else a POST now and then meets a
closing socket.
"""
CONNECTIONS = 100
"""The most connections to one endpoint; a call beyond waits for one, within its own timeout."""
MOST_BODY_BYTES = 64 * 2**20
BY_METHOD = {method: CallPolicy(idempotent=True) for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")}
"""What is known of a call that says nothing of itself: RFC 9110, 9.2.2."""
NOT_IDEMPOTENT = CallPolicy(idempotent=False)
REPEATED = frozenset({502, 503, 504})
"""Answers upon which another endpoint is asked: this one cannot serve now."""
DEADLINE = "X-Request-Deadline"
"""How many seconds the caller still waits. A duration, as in gRPC, and not a time of day: clocks differ."""
DEADLINE_NAME = DEADLINE.encode("ascii")
POLICY = "policy"
"""httpx's extension for what the caller knows of the call, a CallPolicy."""
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


class Stale(httpx2.ReadError):
    """A kept connection was closed by the other side, maybe before it saw the request."""


class _Connections:
    """The connections to one address."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: deque[_Connection] = deque()
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._retired = False

    async def _connection(self) -> _Connection:
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

    def _give_back(self, connection: _Connection) -> None:
        """Keep a connection for the next call, or close it."""
        if connection.closed or not connection.reusable or self._retired:
            connection.close()
            return
        now = connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        while now - self._idle[0].idle_since >= IDLE_TIMEOUT_S:
            self._idle.popleft().close()

    async def exchange(self, wire: bytes) -> Answer:
        """Send a request and return its answer; cancelling it closes its connection.

        Raises ConnectError or ConnectTimeout when nothing was sent, ReadError or RemoteProtocolError otherwise.
        """
        async with self._slots:
            connection = await self._connection()
            try:
                answer = await connection.exchange(wire)
            except httpx2.ReadError as error:
                if connection.served and not connection.begun:
                    self.close()  # what else is kept is most likely closed as well
                    raise Stale(str(error)) from None
                raise
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)
            return answer

    def retire(self) -> None:
        """Close what is idle now, and what is in use when it is given back."""
        self._retired = True
        self.close()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()


class PooledTransport(httpx2.AsyncBaseTransport):
    """The way to one peer: balanced over its endpoints, with a pool of connections to each.

    A call is timed by its caller, and told how long that one waits by httpx's extension `timeout`.
    """

    def __init__(self, peer: str, urls: str, telemetry: Telemetry, *, resolve: Resolve = resolved) -> None:
        self._peer = peer
        self._pools: dict[Address, _Connections] = {}
        self._balancer = Balancer(peer, telemetry, monotonic, Random())  # noqa: S311 - spreads load
        self._budget = RetryBudget(monotonic)
        self._addresses = Addresses(peer, urls, self._changed, resolve)
        self._retries = {
            outcome: telemetry.peer_retries.labels(peer, outcome)
            for outcome in ("answered", "failed", "budget_exhausted")
        }

    def _changed(self, addresses: Sequence[Address]) -> None:
        for address in self._pools.keys() - set(addresses):
            self._pools.pop(address).retire()
        for address in addresses:
            if address not in self._pools:
                self._pools[address] = _Connections(*address)
        self._balancer.update(addresses)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.scheme != "http":
            raise httpx2.UnsupportedProtocol(f"{request.url.scheme} is not spoken between services")
        policy: CallPolicy = request.extensions.get(POLICY) or BY_METHOD.get(request.method, NOT_IDEMPOTENT)
        limit_s: float | None = request.extensions.get("timeout", {}).get("read")
        until = None if limit_s is None else monotonic() + limit_s
        head, body = _head(request), await whole(request)
        if not self._addresses.known:
            try:
                await self._addresses.first()
            except OSError as error:
                raise httpx2.ConnectError(str(error)) from error
        answer = await self._balanced(policy, head, body, until)
        if isinstance(answer, Exception):
            raise answer
        status, headers, content = answer
        return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(content), request=request)

    async def _balanced(
        self, policy: CallPolicy, head: bytes, body: bytes, until: float | None
    ) -> Answer | httpx2.TransportError:
        """The answer of the endpoint that was chosen, or of another one where that one failed."""
        self._budget.deposit()
        tried: list[Endpoint] = []
        repeats = 1 if policy.idempotent else 0
        outcome: Answer | httpx2.TransportError = httpx2.ConnectError("there is no endpoint")
        stale: Endpoint | None = None
        attempts = 0
        retried = False
        while True:
            left_s = None if until is None else until - monotonic()
            if left_s is not None and left_s <= 0:
                break
            may_try = repeats > 0 and self._budget.affords() if not tried else False
            attempt = self._balancer.begin(policy, tried, may_try=may_try)
            if attempt is None:
                if stale is None:
                    break
                tried.remove(stale)  # all others refuse, and this one may do with a new connection
                stale = None
                continue
            retried = retried or bool(tried) or outcome.__class__ is Stale
            attempts += 1
            outcome = await self._attempt(attempt, policy, repeats, head, body, left_s)
            if isinstance(outcome, tuple):
                if outcome[0] not in REPEATED:
                    break
            elif isinstance(outcome, httpx2.ConnectError | httpx2.ConnectTimeout):
                tried.append(attempt.endpoint)  # nothing was sent, so the next one may be asked whatever the method
                continue
            if not repeats:
                break
            if self._balancer.others(attempt):
                tried.append(attempt.endpoint)  # a process that dies resets what it keeps and what it still accepts
                stale = attempt.endpoint if isinstance(outcome, Stale) else None
            elif not isinstance(outcome, Stale):
                break
            if not self._budget.withdraw():
                self._retries["budget_exhausted"].inc()
                break
            repeats -= 1
        if retried:
            context().retries += attempts - 1
            good = isinstance(outcome, tuple) and outcome[0] < 500
            self._retries["answered" if good else "failed"].inc()
        return outcome

    async def _attempt(
        self, attempt: Attempt, policy: CallPolicy, repeats: int, head: bytes, body: bytes, left_s: float | None
    ) -> Answer | httpx2.TransportError:
        """Ask one endpoint: its answer, or what went wrong, either of which the balancer is told."""
        allowed_s = left_s
        if repeats and self._balancer.others(attempt):
            attempt_s = policy.attempt_timeout_s
            if attempt.trial and policy.timed:
                attempt_s = min(self._balancer.trial_timeout_s(attempt), attempt_s or INFINITE_S)
            if attempt_s is not None and (left_s is None or attempt_s < left_s):
                allowed_s = attempt_s
        if allowed_s is None:
            wire = b"%b\r\n\r\n%b" % (head, body)
        else:
            wire = b"%b\r\n%b: %.3f\r\n\r\n%b" % (head, DEADLINE_NAME, allowed_s, body)
        pool = self._pools[attempt.endpoint.address]
        try:
            if allowed_s is left_s:
                answer = await pool.exchange(wire)  # the caller's own timeout ends it
            else:
                async with asyncio.timeout(allowed_s):
                    answer = await pool.exchange(wire)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            self._balancer.failed(attempt, "connect")
            return error
        except TimeoutError:
            self._balancer.failed(attempt, "timeout")
            return httpx2.ReadTimeout(f"no answer within {allowed_s} s")
        except httpx2.TransportError as error:
            self._balancer.failed(attempt, "reset")
            return error
        except BaseException:
            self._balancer.abandoned(attempt)
            raise
        if answer[0] >= 500:
            self._balancer.failed(attempt, "status")
        else:
            self._balancer.succeeded(attempt)
        return answer

    async def aclose(self) -> None:
        await self._addresses.aclose()
        for pool in self._pools.values():
            pool.close()


INFINITE_S = float("inf")


def _head(request: httpx2.Request) -> bytes:
    """The request line and the fields, but for the deadline, which is each attempt's own.

    Raises LocalProtocolError where a header or the target would end before it does.
    """
    path = target(request)
    fields = [field for field in request.headers.raw if field[0] != DEADLINE_NAME]
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), path)]
    lines += [b"%b: %b" % field for field in fields]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(fields) or b" " in path:
        raise httpx2.LocalProtocolError("a line break or a space where none may be")
    return head
