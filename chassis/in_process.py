"""A transport into an application of the same process, for local mode and for tests."""

import asyncio
from typing import Any

import httpx2
from starlette.types import ASGIApp, Message

from chassis.transport import target, whole


class InProcessTransport(httpx2.AsyncBaseTransport):
    """httpx's transport interface over an ASGI application: the same requests and answers, without a socket.

    An answer is complete when it is returned, so this is not for streams that do not end.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await whole(request)
        raw_path = target(request)
        path, _, query = raw_path.partition(b"?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": httpx2.URL(raw_path.decode("ascii")).path if b"%" in path else path.decode("ascii"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (request.url.host, request.url.port),
            "client": ("127.0.0.1", 0),
        }
        sent = False
        start: Message = {}
        body: list[bytes] = []

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # nobody goes away here before the answer is complete
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.append(message.get("body", b""))

        await self._app(scope, receive, send)
        if not start:
            raise httpx2.RemoteProtocolError("the application gave no answer", request=request)
        stream = httpx2.ByteStream(b"".join(body))
        return httpx2.Response(start["status"], headers=start["headers"], stream=stream, request=request)
