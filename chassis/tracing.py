"""Traces for OpenTelemetry: a span for each request, statement and call of a peer, and for what a service names itself.

Imported only where an endpoint is named, for it brings OpenTelemetry's SDK along. Whoever makes a span asks the context
of its request for the one that is under way: there is none where the trace is not recorded, and then that look is all
that tracing costs. docs/decisions/tracing.md has the reasons.

Names and attributes are those of the semantic conventions (https://opentelemetry.io/docs/specs/semconv/), without those
that hold what a client has sent: a path is its route's template, a statement the tables that it names. Values,
queries, addresses and headers are in no attribute.
"""

import logging
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from socket import gethostname
from typing import Any

import asyncpg
import structlog
from opentelemetry import trace
from opentelemetry.context import Context as Surroundings
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from chassis.context import UNTRACED, Context, context, current
from chassis.database import Connection
from chassis.idempotency import REPLAYED
from chassis.telemetry import METHODS, UNMATCHED

log = structlog.stdlib.get_logger()

EXPORT_TIMEOUT_S = 2.0
"""How long one batch is offered to the collector. A batch that it does not take is dropped, and so are spans that come
while 2,048 wait.
"""
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
ORDER_ID = "souk.order_id"
IDEMPOTENCY_REPLAYED = "souk.idempotency_replayed"
REPLAYED_HEADER = REPLAYED.lower().encode("ascii")

Attributes = Mapping[str, str | int | bool]

NOWHERE = Surroundings()
"""What a root begins in: a span's parent is always said, never taken from OpenTelemetry's own context variable."""
UUIDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Span:
    """A span that is under way. Those below it are of the same trace."""

    __slots__ = ("_span", "_tracer", "id")

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self.id = f"{span.get_span_context().span_id:016x}"

    def below(self, name: str, kind: SpanKind, attributes: Attributes | None = None) -> "Span":
        """Begin a span that is a part of this one."""
        surroundings = trace.set_span_in_context(self._span, NOWHERE)
        return Span(self._tracer, self._tracer.start_span(name, surroundings, kind, attributes))

    def step(self, here: Context, name: str) -> AbstractContextManager[None]:
        """A block of the work of `here` that is a part of this one."""
        return under_way(here, self.below(name, SpanKind.INTERNAL, _order_of(here)))

    def call(self, peer: str, host: str, port: int, method: str, path: str) -> "Span":
        """Begin a call of a peer; its repetition on another endpoint is a part of it."""
        template = UUIDS.sub("{id}", path.partition("?")[0])
        return self.below(
            f"{method} {template}",
            SpanKind.CLIENT,
            {
                "http.request.method": method,
                "url.template": template,
                "server.address": host,
                "server.port": port,
                "service.peer.name": peer,
            },
        )

    def called(self, status: int, outcome: str) -> None:
        """End a call: with the status of its answer, or 0 where there was none."""
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if outcome == "answered":
            self.end()
        else:
            self.end(str(status) if status >= 400 else outcome)

    def end(self, error: str | None = None) -> None:
        """End it; `error` is the kind of what went wrong, and never its message."""
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class RequestSpan(Span):
    """The span of a request that is served."""

    __slots__ = ()

    def answered(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the answer as it begins."""
        self._span.set_attribute("http.response.status_code", status)
        if any(name == REPLAYED_HEADER for name, _ in headers):
            self._span.set_attribute(IDEMPOTENCY_REPLAYED, True)

    def served(self, method: str, route: str, status: int, order_id: str | None) -> None:
        """End it, now that its route is known. A refusal is an answer like another; 5xx, and none, are errors."""
        verb = method if method in METHODS else "HTTP"
        if route == UNMATCHED:
            self._span.update_name(verb)
        else:
            self._span.update_name(f"{verb} {route}")
            self._span.set_attribute("http.route", route)
        if order_id is not None:
            self._span.set_attribute(ORDER_ID, order_id)
        if 0 < status < 500:
            self.end()
        else:
            self.end(str(status) if status else "no_answer")


def _order_of(here: Context) -> Attributes:
    return {} if here.order_id is None else {ORDER_ID: here.order_id}


@contextmanager
def under_way(here: Context, span: Span) -> Generator[None, None, None]:
    """Let a span be the one that is under way in the work of `here`, until the block ends."""
    outer, here.span = here.span, span
    try:
        yield
    except BaseException as error:
        span.end(type(error).__name__)
        raise
    else:
        span.end()
    finally:
        here.span = outer


class TracedConnection(Connection):
    """A connection whose statements are spans, each below the one that is under way."""

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        with _statement(query):
            return await super().fetch(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        with _statement(query):
            return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        with _statement(query):
            return await super().fetchval(query, *args, **options)

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        with _statement(query):
            return await super().execute(query, *args, **options)

    async def executemany(self, command: str, args: Any, **options: Any) -> None:
        with _statement(command):
            await super().executemany(command, args, **options)


@contextmanager
def _statement(query: str) -> Generator[None, None, None]:
    here = current.get()
    if here is None or here.span is None:
        yield
        return
    name = summary(query)
    span = here.span.below(name, SpanKind.CLIENT, {"db.system.name": "postgresql", "db.query.summary": name})
    try:
        yield
    except asyncpg.PostgresError as error:
        span.end(error.sqlstate or type(error).__name__)
        raise
    except BaseException as error:
        span.end(type(error).__name__)
        raise
    else:
        span.end()


TARGETS = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM|(?<!epoch )FROM|JOIN) (?!pg_|unnest|jsonb_)([a-z_]+)\b(?!\()")
NAMED_HERE = re.compile(r"\b([a-z_]+) AS (?:NOT )?(?:MATERIALIZED )?\(")
MOST_TARGETS = 4


@lru_cache(maxsize=512)
def summary(query: str) -> str:
    """What a statement does to which tables, as `INSERT idempotency_keys INSERT orders`: those that it writes to, or
    where there are none those that it reads. Of nothing but the text that the repository has written; values are
    parameters.
    """
    text = " ".join(query.split())
    named_here = set(NAMED_HERE.findall(text))
    targets = [(verb.split()[0], table) for verb, table in TARGETS.findall(text) if table not in named_here]
    written = [f"{verb} {table}" for verb, table in targets if verb in {"INSERT", "UPDATE", "DELETE"}]
    if written:
        return " ".join(list(dict.fromkeys(written))[:MOST_TARGETS])
    read = list(dict.fromkeys(table for _, table in targets))[:MOST_TARGETS]
    return " ".join(("SELECT", *read)) if read else text.split(" ", 1)[0].rstrip(";")


class _Ids(RandomIdGenerator):
    """A trace that begins here has the id that the logs of its request carry."""

    def generate_trace_id(self) -> int:
        return int(context().trace_id, 16)


class _Exporter(OTLPSpanExporter):
    """Sends batches, from a thread of its own, and says once when the collector stops or begins to take them."""

    ending = False
    """Whether the process is about to end: a collector that is known to be down is not waited for then."""
    _delivered = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.ending and not self._delivered:
            return SpanExportResult.FAILURE
        result = super().export(spans)
        delivered = result is SpanExportResult.SUCCESS
        if delivered != self._delivered:
            self._delivered = delivered
            if delivered:
                log.info("spans_delivered_again")
            else:
                log.warning("spans_not_delivered", dropped=len(spans))
        return result


class Tracing:
    """What makes a service's spans, and sends them to a collector in the background.

    Each service has its own and none is OpenTelemetry's global one: local mode runs four in a process, and a library
    that traces by the global one would note what it likes.
    """

    connection_class = TracedConnection

    def __init__(self, service: str, port: int, endpoint: str, ratio: float) -> None:
        """Send to `/v1/traces` below the endpoint; record this share of the traces that begin here."""
        # It would say with every batch what `_Exporter` says once.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._exporter = _Exporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create(
                {
                    "service.namespace": "souk",
                    "service.name": service,
                    "service.instance.id": f"{gethostname()}:{port}",
                }
            ),
            shutdown_on_exit=False,
            id_generator=_Ids(),
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("souk", schema_url=SCHEMA)

    def request(self, here: Context, method: str, scheme: str) -> RequestSpan | None:
        """Begin the span of a request whose context is the current one; none where its trace is not recorded."""
        known = method if method in METHODS else "_OTHER"
        attributes = {"http.request.method": known, "url.scheme": scheme}
        span = self._begun(here, known, SpanKind.SERVER, attributes)
        if span is None:
            return None
        here.span = begun = RequestSpan(self._tracer, span)
        return begun

    def joined(self, here: Context, name: str) -> AbstractContextManager[None]:
        """A block that is a span in the trace that `here`, which is the current context, was given."""
        span = self._begun(here, name, SpanKind.INTERNAL, _order_of(here))
        return UNTRACED if span is None else under_way(here, Span(self._tracer, span))

    def _begun(self, here: Context, name: str, kind: SpanKind, attributes: Attributes) -> trace.Span | None:
        """A span below the caller's, or a root. What a caller does not record is decided, and costs nothing more."""
        surroundings = NOWHERE
        if here.parent_id is not None:
            if here.sampled == "00":
                return None
            flags = TraceFlags(TraceFlags.SAMPLED)
            parent = SpanContext(int(here.trace_id, 16), int(here.parent_id, 16), is_remote=True, trace_flags=flags)
            surroundings = trace.set_span_in_context(NonRecordingSpan(parent), NOWHERE)
        span = self._tracer.start_span(name, surroundings, kind, attributes)
        if not span.is_recording():
            return None
        here.sampled = "01"
        return span

    def close(self) -> None:
        """Send what is left and end; blocks for EXPORT_TIMEOUT_S a batch at most, and not while nobody takes them."""
        self._exporter.ending = True
        self._provider.shutdown()
