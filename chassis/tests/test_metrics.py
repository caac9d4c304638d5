"""The metrics of a service: the families that dashboards expect, and no more series than there are routes."""

import random
import string
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_fastapi_instrumentator import Instrumentator

from chassis.app import Service
from chassis.telemetry import BY_HANDLER_S, HIGH_RESOLUTION_S, LABELS, OTHER, Telemetry
from chassis.testing import client
from chassis.tests.application import Gate, answer_with
from chassis.tests.asgi import Request
from chassis.tests.conftest import Build

HTTP = (
    "http_requests",
    "http_request_size_bytes",
    "http_response_size_bytes",
    "http_request_duration_highr_seconds",
    "http_request_duration_seconds",
)


async def scraped(http: httpx2.AsyncClient) -> dict[str, Metric]:
    """The families of `/metrics`, as a Prometheus would read them."""
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def series(families: dict[str, Metric], names: Iterable[str] = HTTP) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Every series of these families, by its name and labels."""
    return {(sample.name, frozenset(sample.labels.items())) for name in names for sample in families[name].samples}


def value(families: dict[str, Metric], family: str, sample: str, **labels: str) -> float:
    """The sum of the samples that carry these labels; 0 where there is none."""
    return sum(
        found.value
        for found in families[family].samples
        if found.name == sample and labels.items() <= found.labels.items()
    )


def requests_total(families: dict[str, Metric], **labels: str) -> float:
    return value(families, "http_requests", "http_requests_total", **labels)


@pytest.fixture
async def instrumented() -> AsyncIterator[httpx2.AsyncClient]:
    """An application with prometheus-fastapi-instrumentator's own middleware and defaults."""
    app = FastAPI()
    app.add_api_route("/statuses/{status}", answer_with)
    Instrumentator(registry=CollectorRegistry()).instrument(app).expose(app)
    async with client(app) as http:
        yield http


async def test_the_http_families_are_those_of_prometheus_fastapi_instrumentator(
    http: httpx2.AsyncClient, instrumented: httpx2.AsyncClient
) -> None:
    for served in (http, instrumented):
        await served.get("/statuses/200")
        await served.post("/nowhere", content=b"abc")

    def shape(families: dict[str, Metric]) -> dict[str, tuple[str, frozenset[tuple[str, frozenset[str]]]]]:
        """Type, and label names by sample, of each HTTP family; the time of creation is the client library's own."""
        return {
            name: (
                family.type,
                frozenset(
                    (sample.name, frozenset(sample.labels))
                    for sample in family.samples
                    if not sample.name.endswith("_created")
                ),
            )
            for name, family in families.items()
            if name in HTTP
        }

    own, theirs = shape(await scraped(http)), shape(await scraped(instrumented))
    assert own == theirs
    assert set(own) == set(HTTP)


async def test_random_paths_methods_and_hosts_make_no_series_of_their_own(service: Service) -> None:
    chance = random.Random(20_000)  # noqa: S311 - made-up paths, no secrets
    letters = string.ascii_letters + string.digits + "/-._~%é{}"
    for _ in range(10_000):
        path = "/" + "".join(chance.choices(letters, k=chance.randint(1, 60)))
        path = chance.choice((path, f"/notes{path}", f"/notes/{uuid4()}", f"/docs{path}", f"/internal/v1{path}"))
        method = chance.choice(("GET", "".join(chance.choices(string.ascii_uppercase, k=6))))
        host = "".join(chance.choices(string.ascii_lowercase, k=12))
        await Request(service, method, path, host=f"{host}.example").send()
    async with client(service) as http:
        families = await scraped(http)
    assert requests_total(families) == 10_000
    found = [dict(labels) for _, labels in series(families)]
    routes = {route.path for route in service.routes if isinstance(route, APIRoute)} | {*service.openapi()["paths"]}
    assert {labels["handler"] for labels in found if "handler" in labels} <= {*routes, "none"}
    assert {labels["method"] for labels in found if "method" in labels} == {"GET", "OTHER"}
    assert len(found) < 200


async def test_odd_methods_share_a_label(service: Service) -> None:
    for method in ("BREW", "PROPFIND", "get"):
        await Request(service, method, f"/notes/{uuid4()}").send()
    async with client(service) as http:
        assert requests_total(await scraped(http), method="OTHER", status="405", handler="/notes/{note_id}") == 3


async def test_the_path_template_is_the_handler(http: httpx2.AsyncClient) -> None:
    for _ in range(3):
        await http.get(f"/notes/{uuid4()}")
    families = await scraped(http)
    assert requests_total(families, handler="/notes/{note_id}", method="GET", status="404") == 3


async def test_statuses_are_not_grouped(http: httpx2.AsyncClient) -> None:
    for status in (200, 204, 404, 409, 503):
        await http.get(f"/statuses/{status}")
    families = await scraped(http)
    for status in (200, 204, 404, 409, 503):
        assert requests_total(families, handler="/statuses/{status}", status=str(status)) == 1


async def test_a_crash_is_counted_as_500_under_its_route(http: httpx2.AsyncClient) -> None:
    await http.get("/crash")
    assert requests_total(await scraped(http), handler="/crash", method="GET", status="500") == 1


async def test_what_is_refused_before_routing_is_counted(http: httpx2.AsyncClient) -> None:
    await http.post("/notes", content=b"x" * (2**20 + 1))
    assert requests_total(await scraped(http), method="POST", status="413") == 1


async def test_probes_are_not_counted(http: httpx2.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        await http.get(path)
    assert requests_total(await scraped(http)) == 0
    await http.get("/livez/more")
    assert requests_total(await scraped(http)) == 1, "only the probes themselves are left out"


class Clock:
    """The clock by which requests are timed."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("chassis.app.perf_counter", clock)
    return clock


async def test_an_open_stream_is_no_slow_request(build: Build, clock: Clock) -> None:
    service = build()
    gate: Gate = service.state.gate
    request = Request(service, "GET", "/stream")

    async def answered(message: Any) -> None:
        await Request.answered(request, message)
        if message.get("body"):  # an hour passes while the stream is open
            clock.now_s += 3600
            gate.opened.set()

    await service(request.scope, request.receive, answered)
    assert request.status == 200
    async with client(service) as http:
        families = await scraped(http)
    assert requests_total(families, handler="/stream", status="200") == 1
    assert value(families, "http_request_duration_seconds", "http_request_duration_seconds_sum") == 0
    assert value(families, "http_response_size_bytes", "http_response_size_bytes_sum") == len(b"open\nclosed\n")


async def test_buckets_are_cumulative_and_end_in_the_count(service: Service) -> None:
    every_s = (0.001, 0.005, 0.0051, 0.1, 0.25, 0.26, 0.5, 2.0, 61.0, 3600.0)
    for seconds in every_s:
        service.telemetry.http.observe("/notes", "GET", 200, seconds, 10, 20)
    async with client(service) as http:
        families = await scraped(http)
    for family, bounds in (
        ("http_request_duration_highr_seconds", HIGH_RESOLUTION_S),
        ("http_request_duration_seconds", BY_HANDLER_S),
    ):
        buckets = [
            (float(sample.labels["le"]), sample.value)
            for sample in families[family].samples
            if sample.name == f"{family}_bucket"
        ]
        expected = [(bound, sum(seconds <= bound for seconds in every_s)) for bound in (*bounds, float("inf"))]
        assert buckets == expected
        assert value(families, family, f"{family}_count") == len(every_s)
        assert value(families, family, f"{family}_sum") == pytest.approx(sum(every_s))
    assert value(families, "http_request_size_bytes", "http_request_size_bytes_sum", handler="/notes") == 100
    assert value(families, "http_response_size_bytes", "http_response_size_bytes_count", handler="/notes") == 10


async def test_sizes_are_those_of_the_bodies(http: httpx2.AsyncClient) -> None:
    await http.post("/uploads", content=b"x" * 1234)
    families = await scraped(http)
    assert value(families, "http_request_size_bytes", "http_request_size_bytes_sum", handler="/uploads") == 1234
    assert value(families, "http_response_size_bytes", "http_response_size_bytes_sum", handler="/uploads") == 4


async def test_the_exposition_names_its_format(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/metrics")).headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_what_else_a_service_tells(http: httpx2.AsyncClient) -> None:
    families = await scraped(http)
    kinds = {name: family.type for name, family in families.items()}
    expected = {
        "http_requests_in_flight": "gauge",
        "souk_database_connections_in_use": "gauge",
        "souk_database_pool_size": "gauge",
        "souk_peer_requests": "counter",
        "souk_peer_request_seconds": "histogram",
        "process_resident_memory_bytes": "gauge",
    }
    assert expected.items() <= kinds.items()
    assert all(family.documentation for family in families.values())
    assert value(families, "souk_peer_requests", "souk_peer_requests_total", peer="user", outcome="answered") == 0


@pytest.mark.parametrize("label", ["user_id", "email", "path", "trace_id", "Outcome"])
@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_a_label_that_is_not_in_the_list_is_refused_at_registration(kind: str, label: str) -> None:
    telemetry = Telemetry("order")
    with pytest.raises(ValueError, match=f"souk_things cannot have the label {label}"):
        getattr(telemetry, kind)("souk_things", "Things.", ("outcome", label))
    assert b"souk_things" not in telemetry.exposition()


@pytest.mark.parametrize("kind", ["counter", "gauge", "histogram"])
def test_values_beyond_a_label_s_number_are_other(kind: str) -> None:
    telemetry = Telemetry("order")
    family = getattr(telemetry, kind)("souk_things", "Things.", ("peer", "outcome"))
    count = "observe" if kind == "histogram" else "inc"
    for number in range(1000):
        getattr(family.labels("product", f"what a user sent: {number}"), count)(1)
    sample = {"counter": "souk_things_total", "gauge": "souk_things", "histogram": "souk_things_count"}[kind]
    counted = {
        found.labels["outcome"]: found.value
        for metric in telemetry.registry.collect()
        for found in metric.samples
        if found.name == sample
    }
    kept = [f"what a user sent: {number}" for number in range(LABELS["outcome"])]
    assert counted == dict.fromkeys(kept, 1.0) | {OTHER: 1000.0 - len(kept)}
    assert family.labels(outcome="one more", peer="product") is family.labels("product", OTHER)


async def test_two_services_of_one_process_count_apart(build: Build) -> None:
    first, second = build(), build()
    async with client(first) as http:
        await http.get("/statuses/200")
        assert requests_total(await scraped(http)) == 1
    async with client(second) as http:
        assert requests_total(await scraped(http)) == 0
