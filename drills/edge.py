"""A reverse proxy that speaks as the edge does, in front of services that are processes of their own.

It routes by the prefixes of the edge, spreads requests over the replicas in turn and streams bodies both ways. As the
edge of compose, whose transport is Go's net/http, it sends a request to another replica where no connection came about,
and a GET or HEAD also where a connection broke before the answer, as an idle one does when its replica ends. Anything
else that a replica had begun and does not answer is 502 to the client.
"""

import argparse
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import count

import httpx2
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from local.edge import answer_itself, routed

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-connection"}
)
"""Headers that end at each hop, RFC 9110, 7.6.1."""
SAFE = frozenset({"GET", "HEAD"})
"""Methods whose request is sent again where a connection broke, as https://pkg.go.dev/net/http#Transport has it."""
BAD_GATEWAY = b"no replica answered\n"


class ReverseProxy:
    """An ASGI application that passes requests on to the services' replicas."""

    def __init__(self, replicas: Mapping[str, Sequence[str]]) -> None:
        self._replicas = {service: list(urls) for service, urls in replicas.items()}
        self._turns = {service: count() for service in replicas}
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)
        self._client = httpx2.AsyncClient(timeout=httpx2.Timeout(70, connect=2), limits=limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        service = routed(scope["path"])
        if service is None or service not in self._replicas:
            await answer_itself(scope, receive, send)
            return
        raw_path: bytes = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP_BY_HOP]
        body = _body(receive) if _has_body(scope) else None
        answer = None
        for origin in self._in_turn(service):
            url = httpx2.URL(origin).copy_with(raw_path=raw_path)
            request = httpx2.Request(scope["method"], url, headers=headers, content=body)
            try:
                answer = await self._client.send(request, stream=True)
                break
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue  # nothing was sent, and nothing of the body was read
            except (httpx2.NetworkError, httpx2.RemoteProtocolError):
                if body is not None or scope["method"] not in SAFE:
                    break
            except httpx2.TransportError:
                break
            except AttributeError as error:
                # A connection is lost already, by one who was killed right after he accepted: anyio asks for its peer.
                if error.name != "getpeername":
                    raise
        if answer is None:
            await _answer(send, 502, [(b"content-type", b"text/plain")], BAD_GATEWAY)
            return
        try:
            headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()

    def _in_turn(self, service: str) -> list[str]:
        """Each replica once, beginning with the one whose turn it is."""
        replicas = self._replicas[service]
        first = next(self._turns[service]) % len(replicas)
        return replicas[first:] + replicas[:first]

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def _has_body(scope: Scope) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])


async def _body(receive: Receive) -> AsyncGenerator[bytes, None]:
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until SIGTERM: `python -m drills.edge --port 8000 user=http://127.0.0.1:8001 user=... product=...`."""
    parser = argparse.ArgumentParser(prog="python -m drills.edge")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("replicas", nargs="+", metavar="SERVICE=URL")
    arguments = parser.parse_args()
    replicas: dict[str, list[str]] = {}
    for pair in arguments.replicas:
        service, _, url = pair.partition("=")
        replicas.setdefault(service, []).append(url)
    uvicorn.run(
        ReverseProxy(replicas),
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        timeout_keep_alive=120,
        server_header=False,
        date_header=False,  # the answers have theirs
    )


if __name__ == "__main__":
    main()
