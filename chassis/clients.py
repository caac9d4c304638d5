"""Calls to other services: httpx's transport interface over a fast pool, with deadline, trace, credential and problems.

The seam is `httpx2.AsyncBaseTransport`. Over a network `PooledTransport` lies under it, in one process
`InProcessTransport`, in tests a wrapper that loses replies. A `Peer` spares what httpx's client does for each call
(cookies, redirects, proxies, merging of defaults): docs/decisions/peer-calls.md has the measurement.
"""

import asyncio
from time import perf_counter
from typing import Any, Literal, cast, get_args

import httpx2
import orjson

from chassis.auth import ServiceCredential
from chassis.balancing import CallPolicy
from chassis.context import context
from chassis.problems import MEDIA_TYPE, Unavailable
from chassis.telemetry import Telemetry
from chassis.transport import DEADLINE, POLICY, TARGET, whole


class PeerRefused(Exception):
    """A peer answered with a problem; its client decodes `code` and `document` into a problem of its own."""

    def __init__(self, peer: str, status: int, document: dict[str, Any]) -> None:
        self.peer = peer
        self.status = status
        self.document = document
        self.code = str(document.get("type", "")).rpartition("/")[2]
        super().__init__(f"{peer} answered {status} {self.code}")


class PeerUnavailable(Unavailable):
    """A peer gave no answer, or 5xx, 429 or nonsense: whether it did what was asked is not known."""

    def __init__(self, peer: str, outcome: "Outcome") -> None:
        super().__init__(f"the {peer} service does not answer")
        self.peer = peer
        self.outcome = outcome


NO_ANSWER = (TimeoutError, httpx2.TransportError, orjson.JSONDecodeError)
"""What a call fails with whose outcome is not known."""
Outcome = Literal["answered", "refused", "failed", "timeout", "unreachable"]


class Calls:
    """What is told of the calls to one peer: how long they take, how they end, and a span of each."""

    def __init__(self, peer: str, url: httpx2.URL, telemetry: Telemetry) -> None:
        self.peer = peer
        self.host = url.host
        self.port = url.port or 80
        self.seconds = telemetry.peer_seconds.labels(peer)
        self.outcomes = {outcome: telemetry.peer_requests.labels(peer, outcome) for outcome in get_args(Outcome)}

    def to(self, method: str, path: str) -> "Call":
        """A call that begins and ends with its block."""
        return Call(self, method, path)


class Call:
    """A call, which is under way while its block lasts. Whoever makes it says how it ended: `timeout` stands where
    nobody came to say so, `unreachable` where the block was left by a TransportError other than ReadTimeout.
    """

    __slots__ = ("_calls", "_method", "_path", "_span", "_started", "_status", "outcome", "traceparent")

    def __init__(self, calls: Calls, method: str, path: str) -> None:
        self._calls = calls
        self._method = method
        self._path = path
        self._status = 0
        self.outcome: Outcome = "timeout"
        self.traceparent = ""
        """The header that makes what the peer does a part of this call, once it has begun."""

    def answered(self, status: int) -> None:
        """Note that an answer has come, which is a failure until it is found to be more."""
        self._status = status
        self.outcome = "failed"

    def __enter__(self) -> None:
        here, calls = context(), self._calls
        self._span = here.span and here.span.call(calls.peer, calls.host, calls.port, self._method, self._path)
        self.traceparent = here.traceparent(self._span)
        self._started = perf_counter()

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.ReadTimeout):
            self.outcome = "unreachable"
        self._calls.seconds.observe(perf_counter() - self._started)
        self._calls.outcomes[self.outcome].inc()
        if self._span is not None:
            self._span.called(self._status, self.outcome)


class Peer:
    """Another service, as this one calls it.

    Every call carries this service's credential, the trace, and what is left of the deadline; it ends by the
    deadline or by `timeout_s`, whichever comes first.
    """

    def __init__(
        self,
        name: str,
        urls: str,
        credential: ServiceCredential,
        telemetry: Telemetry,
        transport: httpx2.AsyncBaseTransport,
        *,
        timeout_s: float = 3.0,
    ) -> None:
        self.name = name
        self._url = httpx2.URL(urls.partition(",")[0].strip())  # the one that `Host` names
        self._host = self._url.netloc
        self._credential = credential
        self._transport = transport
        self._timeout_s = timeout_s
        self._calls = Calls(name, self._url, telemetry)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        policy: CallPolicy | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send `body` as JSON and return the answer's, or none where it has none.

        `policy` says whether it may be repeated on another endpoint; without one its method does.

        Raises PeerRefused for a definite refusal (4xx), PeerUnavailable where the outcome is not known.
        """
        here = context()
        limit_s = timeout_s or self._timeout_s
        remaining_s = here.remaining_s()
        if remaining_s is not None:
            limit_s = min(limit_s, remaining_s)
        call = self._calls.to(method, path)
        try:
            with call:
                if limit_s <= 0:
                    raise PeerUnavailable(self.name, call.outcome)
                async with asyncio.timeout(limit_s):
                    request = self._request(method, path, body, limit_s, policy, call.traceparent)
                    answer = await self._transport.handle_async_request(request)
                    content = await whole(answer)
                call.answered(answer.status_code)
                if answer.status_code >= 500 or answer.status_code == 429 or 300 <= answer.status_code < 400:
                    raise PeerUnavailable(self.name, call.outcome)
                found = _parsed(answer, content)
                if answer.status_code >= 400:
                    call.outcome = "refused"
                    document = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
                    raise PeerRefused(self.name, answer.status_code, document)
                call.outcome = "answered"
                return found
        except NO_ANSWER as error:
            raise PeerUnavailable(self.name, call.outcome) from (error if call.outcome == "unreachable" else None)

    def _request(
        self, method: str, path: str, body: Any, limit_s: float, policy: CallPolicy | None, traceparent: str
    ) -> httpx2.Request:
        here = context()
        # asyncpg has a UUID of its own, which only `str` makes JSON of.
        content = b"" if body is None else orjson.dumps(body, default=str)
        headers = [
            (b"Host", self._host),
            (b"Authorization", self._credential.authorization(self.name).encode("ascii")),
            (b"traceparent", traceparent.encode("ascii")),
            (b"X-Request-Id", here.request_id.encode("ascii")),
            (DEADLINE.encode("ascii"), b"%.3f" % limit_s),
        ]
        if body is not None:
            headers += [(b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(content))]
        extensions = {"timeout": {"read": limit_s}, TARGET: path.encode("ascii"), POLICY: policy}
        # Given as a stream, the body is not read and its headers are not guessed by httpx, which knows no better.
        stream = httpx2.ByteStream(content)
        return httpx2.Request(method, self._url, headers=headers, stream=stream, extensions=extensions)

    async def aclose(self) -> None:
        """Close the transport's connections."""
        await self._transport.aclose()


def _parsed(answer: httpx2.Response, content: bytes) -> Any:
    """The answer's JSON; none where it has no body, or is a refusal that is no problem document. Raises
    orjson.JSONDecodeError.
    """
    refusal = answer.status_code >= 400
    if not content or (refusal and not answer.headers.get("content-type", "").startswith(MEDIA_TYPE)):
        return None
    return orjson.loads(content)
