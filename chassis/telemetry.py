"""JSON logs and Prometheus metrics.

The HTTP families carry the names, labels and meaning of prometheus-fastapi-instrumentator's defaults, so its dashboards
work. They are filled from plain counters that the request path touches once a request and that become families only
when somebody scrapes: docs/decisions/metrics.md has the measurement.
"""

import logging
import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from time import time
from typing import TYPE_CHECKING, Any, Self

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Exemplar, HistogramMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from chassis.context import UNTRACED, Context, current

if TYPE_CHECKING:
    from chassis.tracing import Tracing

HIGH_RESOLUTION_S = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75,
    1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 30, 60,
)  # fmt: skip
BY_HANDLER_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bucket bounds in seconds. 0.1, 0.25 and 0.5 are thresholds that service level objectives are stated in."""

OPENMETRICS = "application/openmetrics-text"

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED = "none"
"""The handler of a path that no route knows, as prometheus-fastapi-instrumentator calls it. A raw path never becomes
a label: whoever sends random URLs would make a series of each."""

LABELS: Mapping[str, int] = {
    "from": 2,
    "grant_type": 2,
    "handler": 48,
    "le": 25,
    "method": 8,
    "operation": 4,
    "outcome": 8,
    "peer": 4,
    "reason": 8,
    "result": 4,
    "state": 4,
    "statement": 10,
    "status": 24,
    "step": 4,
    "table": 24,
    "work": 4,
    "worker": 8,
}
"""Every label that a family may have, and how many values it takes in one: docs/metrics.md says what they mean. An id,
an address, a name or a path is none of them, since a client could make series with it."""
OTHER = "other"
"""The value that stands for all those beyond a label's number."""


class _Handled:
    """Requests of one handler and method."""

    __slots__ = ("buckets", "exemplars", "request_bytes", "response_bytes", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.buckets = [0] * (len(BY_HANDLER_S) + 1)
        self.exemplars: dict[int, Exemplar] = {}
        self.seconds = 0.0
        self.request_bytes = 0
        self.response_bytes = 0


Bucket = tuple[str, float] | tuple[str, float, Exemplar]


def _cumulative(bounds: Iterable[float], counts: list[int], exemplars: dict[int, Exemplar]) -> list[Bucket]:
    """Bucket counts as the exposition format wants them: cumulative, the last one `+Inf`."""
    total, found = 0, list[Bucket]()
    for number, (bound, count) in enumerate(zip((*bounds, float("inf")), counts, strict=True)):
        total += count
        name = "+Inf" if bound == float("inf") else str(float(bound))
        exemplar = exemplars.get(number)
        found.append((name, total) if exemplar is None else (name, total, exemplar))
    return found


class HttpMetrics(Collector):
    """Requests served, as the families of prometheus-fastapi-instrumentator."""

    def __init__(self) -> None:
        self._handled: dict[tuple[str, str], _Handled] = {}
        self._high_resolution = [0] * (len(HIGH_RESOLUTION_S) + 1)
        self._exemplars: dict[int, Exemplar] = {}
        self._seconds = 0.0

    def observe(
        self,
        handler: str,
        method: str,
        status: int,
        seconds: float,
        request_bytes: int,
        response_bytes: int,
        trace_id: str | None = None,
    ) -> None:
        """Count one request; with the id of its trace where that is recorded, which becomes the exemplar of its bucket.

        Called on the event loop only, so it takes no lock.
        """
        if method not in METHODS:
            method = "OTHER"
        handled = self._handled.get((handler, method))
        if handled is None:
            handled = self._handled[handler, method] = _Handled()
        handled.statuses[status] = handled.statuses.get(status, 0) + 1
        bucket = bisect_left(BY_HANDLER_S, seconds)
        handled.buckets[bucket] += 1
        handled.seconds += seconds
        handled.request_bytes += request_bytes
        handled.response_bytes += response_bytes
        fine = bisect_left(HIGH_RESOLUTION_S, seconds)
        self._high_resolution[fine] += 1
        self._seconds += seconds
        if trace_id is not None:
            handled.exemplars[bucket] = self._exemplars[fine] = Exemplar({"trace_id": trace_id}, seconds, time())

    def collect(self) -> Iterable[Metric]:
        """The families, for one scrape."""
        requests = CounterMetricFamily(
            "http_requests", "Requests by method, status and handler.", labels=("handler", "method", "status")
        )
        duration = HistogramMetricFamily(
            "http_request_duration_seconds", "Latency by handler and method.", labels=("handler", "method")
        )
        received = SummaryMetricFamily(
            "http_request_size_bytes", "Content length of incoming requests by handler.", labels=("handler",)
        )
        sent = SummaryMetricFamily(
            "http_response_size_bytes", "Content length of outgoing responses by handler.", labels=("handler",)
        )
        sizes: dict[str, tuple[int, int, int]] = {}
        for (handler, method), handled in list(self._handled.items()):
            count = 0
            for status, times in list(handled.statuses.items()):
                requests.add_metric((handler, method, str(status)), times)
                count += times
            buckets = _cumulative(BY_HANDLER_S, handled.buckets, handled.exemplars)
            duration.add_metric((handler, method), buckets, handled.seconds)
            before = sizes.get(handler, (0, 0, 0))
            sizes[handler] = (before[0] + count, before[1] + handled.request_bytes, before[2] + handled.response_bytes)
        for handler, (count, request_bytes, response_bytes) in sizes.items():
            received.add_metric((handler,), count, request_bytes)
            sent.add_metric((handler,), count, response_bytes)
        high_resolution = HistogramMetricFamily(
            "http_request_duration_highr_seconds", "Latency of all requests, in many buckets, without labels."
        )
        buckets = _cumulative(HIGH_RESOLUTION_S, self._high_resolution, self._exemplars)
        high_resolution.add_metric((), buckets, self._seconds)
        return (requests, received, sent, high_resolution, duration)


class _Bounded(MetricWrapperBase):
    """A family whose labels take no more values than LABELS says; what is beyond them is counted as OTHER."""

    _labelnames: tuple[str, ...]
    _metrics: dict[Sequence[str], Any]

    def labels(self, *labelvalues: object, **labelkwargs: object) -> Self:
        values = tuple(map(str, labelvalues or (labelkwargs[name] for name in self._labelnames)))
        if values not in self._metrics:
            pairs = zip(self._labelnames, values, strict=True)
            values = tuple(self._bounded(position, *pair) for position, pair in enumerate(pairs))
        return super().labels(*values)

    def _bounded(self, position: int, label: str, value: str) -> str:
        known = {values[position] for values in self._metrics} - {OTHER}
        return value if value in known or len(known) < LABELS[label] else OTHER


class BoundedCounter(_Bounded, Counter):
    pass


class BoundedGauge(_Bounded, Gauge):
    pass


class BoundedHistogram(_Bounded, Histogram):
    pass


def _known(name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    unknown = sorted(set(labels) - LABELS.keys())
    if unknown:
        raise ValueError(f"{name} cannot have the label {', '.join(unknown)}: LABELS has those that there are")
    return labels


class Telemetry:
    """The metrics of one service, and its tracing where it has one. Each service has a registry of its own, since local
    mode runs four in a process.
    """

    def __init__(self, service: str, tracing: "Tracing | None" = None) -> None:
        self.service = service
        self.tracing = tracing
        self.registry = CollectorRegistry()
        self.http = HttpMetrics()
        self.registry.register(self.http)
        if sys.platform == "linux":
            ProcessCollector(registry=self.registry)
        self.refused = self.counter(
            "souk_requests_refused", "Requests refused since too many were served at once, by class of work.", ("work",)
        )
        self.in_flight = self.gauge("http_requests_in_flight", "Requests being served now.")
        self.peer_requests = self.counter(
            "souk_peer_requests", "Calls to other services by peer and outcome.", ("peer", "outcome")
        )
        self.peer_seconds = self.histogram(
            "souk_peer_request_seconds", "Seconds a call to another service took.", ("peer",)
        )
        self.peer_endpoints = self.gauge("souk_peer_endpoints", "Addresses that a peer is known to have.", ("peer",))
        self.peer_endpoints_ejected = self.gauge(
            "souk_peer_endpoints_ejected", "Addresses that get no calls for a while.", ("peer",)
        )
        self.peer_ejections = self.counter(
            "souk_peer_ejections", "Ejections of an address by peer and reason.", ("peer", "reason")
        )
        self.peer_retries = self.counter(
            "souk_peer_retries", "Calls repeated on another address by peer and outcome.", ("peer", "outcome")
        )
        self.worker_runs = self.counter(
            "souk_worker_runs", "Rounds of a background worker by outcome.", ("worker", "outcome")
        )

    def counter(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Counter:
        """A counter of this service; its name gets `_total`. Raises ValueError for a label that is not in LABELS."""
        return BoundedCounter(name, help_text, _known(name, labels), registry=self.registry)

    def gauge(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Gauge:
        """A gauge of this service. Raises ValueError for a label that is not in LABELS."""
        return BoundedGauge(name, help_text, _known(name, labels), registry=self.registry)

    def histogram(self, name: str, help_text: str, labels: tuple[str, ...] = ()) -> Histogram:
        """A histogram of this service, in seconds, with the bounds of BY_HANDLER_S. Raises ValueError for a label that
        is not in LABELS.
        """
        return BoundedHistogram(name, help_text, _known(name, labels), registry=self.registry, buckets=BY_HANDLER_S)

    def exposition(self) -> bytes:
        """All families in Prometheus' text format."""
        return generate_latest(self.registry)

    def openmetrics(self) -> bytes:
        """All families in the OpenMetrics text format, which has exemplars."""
        encode, _ = choose_encoder(OPENMETRICS)
        return encode(self.registry)

    def joined(self, here: Context, name: str) -> AbstractContextManager[None]:
        """A block that is a span in the trace that `here`, which is the current context, was given; nothing more than
        the block where that trace is not recorded.
        """
        return UNTRACED if self.tracing is None else self.tracing.joined(here, name)


def _bind_context(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the ids of the request in whose course the event was logged."""
    context = current.get()
    if context is not None:
        event["trace_id"] = context.trace_id
        if context.request_id != context.trace_id:
            event["request_id"] = context.request_id
        if context.order_id is not None:
            event.setdefault("order_id", context.order_id)
    return event


def _json(event: MutableMapping[str, Any], **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def configure_logging(service: str, level: str = "info") -> None:
    """Log JSON lines to standard output, those of libraries included; `service` names the process."""

    def bind_service(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        event.pop("color_message", None)  # uvicorn's, for terminals
        return event

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        bind_service,
        _bind_context,
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *(processor for processor in shared if not isinstance(processor, structlog.stdlib.ExtraAdder)),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
