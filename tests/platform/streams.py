"""An event stream as it comes: httpx's ASGI transport answers only when the application is done."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from starlette.types import ASGIApp, Message, Scope

WITHIN_S = 5.0


class EventStream:
    """A GET of server-sent events from an application of this process, read one by one while it is open."""

    def __init__(self, app: ASGIApp, path: str, headers: Mapping[str, str]) -> None:
        self._app = app
        self._scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("ascii"),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
            "server": ("souk.test", 80),
            "client": ("127.0.0.1", 1),
        }
        self._events: asyncio.Queue[dict[str, str] | None] = asyncio.Queue()
        self._started = asyncio.Event()
        self._unread = ""
        self.status = 0
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._serving = asyncio.ensure_future(self._app(self._scope, self._receive, self._send))
        async with asyncio.timeout(WITHIN_S):
            await self._started.wait()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)

    async def next(self) -> dict[str, str]:
        """The next event, as its fields."""
        async with asyncio.timeout(WITHIN_S):
            event = await self._events.get()
        assert event is not None, "the stream has ended"
        return event

    async def ended(self) -> bool:
        """Whether the stream ends now, without another event."""
        async with asyncio.timeout(WITHIN_S):
            return await self._events.get() is None

    async def _receive(self) -> Message:
        # The client stays until it is closed: then the application is cancelled.
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode("ascii"): value.decode("ascii") for name, value in message["headers"]}
            self._started.set()
            return
        *complete, self._unread = (self._unread + message.get("body", b"").decode()).split("\n\n")
        for block in complete:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if fields:
                self._events.put_nowait(fields)
        if not message.get("more_body", False):
            self._events.put_nowait(None)
