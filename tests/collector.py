"""A collector of traces: it takes what services send by OTLP over HTTP, and keeps the spans as a test asks for them."""

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATH = "/v1/traces"
COMES_WITHIN_S = 30
KINDS = {1: "internal", 2: "server", 3: "client"}
ERROR = 2
"""Of a span's status, as kinds are of its kind: numbers of opentelemetry/proto/trace/v1/trace.proto."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A span as it was sent; `parent_id` is empty for a root."""

    service: str
    kind: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    failed: bool
    attributes: dict[str, Any]

    @property
    def title(self) -> str:
        """As `order server POST /api/v1/orders`."""
        return f"{self.service} {self.kind} {self.name}"


@dataclass(slots=True)
class Collector:
    """A collector that answers at `origin` while its block lasts."""

    origin: str
    spans: list[Collected] = field(default_factory=list[Collected])

    def take(self, content: bytes) -> None:
        """Keep the spans of one request."""
        request: Any = ExportTraceServiceRequest.FromString(content)
        for resource in request.resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            self.spans += [_collected(service, span) for scope in resource.scope_spans for span in scope.spans]

    def await_request(self, trace_id: str, service: str) -> None:
        """Return when the span of a service's request has come, which is the last of what it sends of the request."""
        deadline = time.monotonic() + COMES_WITHIN_S
        while not any(span.service == service and span.kind == "server" for span in self.of(trace_id)):
            assert time.monotonic() < deadline, f"no span of a request to {service}"
            time.sleep(0.02)

    def of(self, trace_id: str) -> list[Collected]:
        """The spans of a trace, in the order in which they began."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.began_ns)


def _collected(service: str, span: Any) -> Collected:
    return Collected(
        service=service,
        kind=KINDS[span.kind],
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        failed=span.status.code == ERROR,
        attributes=_values(span.attributes),
    )


def _values(attributes: Iterable[Any]) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def collecting() -> Generator[Collector, None, None]:
    """A collector on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == PATH:
                collector.take(content)
            self.send_response(200 if self.path == PATH else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the spans are what is of interest."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tree(spans: list[Collected], root_id: str) -> list[str]:
    """The spans below one, a line each, indented by how deep they are; siblings in the order in which they began."""
    lines: list[str] = []

    def grow(parent_id: str, depth: int) -> None:
        for span in sorted((span for span in spans if span.parent_id == parent_id), key=lambda span: span.began_ns):
            lines.append("  " * depth + span.title)
            grow(span.span_id, depth + 1)

    grow(root_id, 0)
    return lines
