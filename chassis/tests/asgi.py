"""A request as the server hands it over, for what a client cannot do: leave midway, or send a thousand a second."""

from collections.abc import Iterable
from typing import Any

from starlette.types import Message, Scope

from chassis.app import Service


class Request:
    """One request to a service: the messages that its client sends, and the answer as it comes."""

    def __init__(
        self, service: Service, method: str, path: str, messages: Iterable[Message] = (), **headers: str
    ) -> None:
        self._service = service
        self._messages = iter((*messages, {"type": "http.request", "body": b"", "more_body": False}))
        self.status: int | None = None
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }

    async def send(self) -> None:
        """Have the service answer it."""
        await self._service(self.scope, self.receive, self.answered)

    async def receive(self) -> Message:
        """The next thing that the client sends."""
        return next(self._messages)

    async def answered(self, message: Any) -> None:
        """Take a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
