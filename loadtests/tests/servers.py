"""Little HTTP servers for the tests: one that stalls, one that lies, and some that are no shop."""

import json
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2

PRODUCT: dict[str, Any] = {
    "id": "0198c5d0-0000-7000-8000-000000000001",
    "sku": "LAMP-1",
    "name": "Lantern",
    "description": "",
    "category": "lamps",
    "tags": [],
    "price": {"amount_minor": 900, "currency": "USD"},
    "available": 5,
}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, its body, and its headers beside `Content-Length`."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Answering = Callable[[str, str, Mapping[str, str], bytes], Reply | None]
"""Takes method, path with its query, headers and body; where it answers none the connection is closed."""


@contextmanager
def serving(answering: Answering) -> Generator[str]:
    """A server of these answers, each connection in a thread of its own, and its origin."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1
        """Head and body in one packet: a second one would wait for the acknowledgement of the first."""

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = answering(self.command, self.path, dict(self.headers.items()), body)
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status not in {204, 304}:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            """Be silent."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Stalling:
    """A shop of one product that answers at once, but for one second in which it answers nobody."""

    def __init__(self, *, stalls_after_s: float, for_s: float) -> None:
        self._stalls_after_s = stalls_after_s
        self._for_s = for_s
        self._first: float | None = None

    def __call__(self, _method: str, path: str, _headers: Mapping[str, str], _body: bytes) -> Reply:
        if path.startswith("/api/v1/products?"):
            return Reply(200, json.dumps({"items": [PRODUCT], "next_cursor": None}).encode())
        now = time.monotonic()
        self._first = self._first or now
        stalls_at = self._first + self._stalls_after_s
        if stalls_at <= now < stalls_at + self._for_s:
            time.sleep(stalls_at + self._for_s - now)
        return Reply(200, json.dumps(PRODUCT).encode(), {"ETag": '"1"'})


class Closing:
    """A shop of one product that takes a request for it, and hangs up."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, _method: str, path: str, _headers: Mapping[str, str], _body: bytes) -> Reply | None:
        if path.startswith("/api/v1/products?"):
            return Reply(200, json.dumps({"items": [PRODUCT], "next_cursor": None}).encode())
        self.asked += 1
        return None


class Lying:
    """The shop behind it, but for the total of each order, which is a cent too high."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        sent = {name: value for name, value in headers.items() if name.lower() not in {"host", "content-length"}}
        sent["Accept-Encoding"] = "identity"
        answer = self._client.request(method, path, headers=sent, content=body or None)
        content = answer.content
        if (method, path, answer.status_code) == ("POST", "/api/v1/orders", 201):
            order: dict[str, Any] = answer.json()
            order["total"]["amount_minor"] += 1
            content = json.dumps(order).encode()
        passed = {name: answer.headers[name] for name in ("etag", "content-type", "location") if name in answer.headers}
        passed |= {"X-Request-Id": answer.headers.get("x-request-id", "")}
        return Reply(answer.status_code, content, passed)
