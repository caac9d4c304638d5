"""What is traced: requests, statements and calls, named by templates, in the trace of whoever asked, and at no cost to
whoever does not want it.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any, cast
from uuid import uuid4

import httpx2
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser
from structlog.testing import capture_logs

from chassis.app import Service
from chassis.context import Context
from chassis.migrations import ROOT
from chassis.testing import client
from chassis.tests.conftest import Build
from chassis.tracing import summary
from chassis.transport import DEADLINE
from local.ports import free_ports
from tests.collector import Collected, Collector, collecting

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER_ID = "00f067aa0ba902b7"
RECORDED = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-01"}
NOT_RECORDED = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-00"}


class Recorder(httpx2.AsyncBaseTransport):
    """A peer that answers as it is told, and keeps what it was asked."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if not self.status:
            raise httpx2.ConnectError("nobody is there")
        return httpx2.Response(self.status, content=b'"here"')


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


async def sent(service: Service, collector: Collector) -> list[Collected]:
    """The spans that the service made, all of which it sends when it ends, in the order in which they began."""
    assert service.telemetry.tracing is not None
    await asyncio.to_thread(service.telemetry.tracing.close)
    return sorted(collector.spans, key=lambda span: span.began_ns)


@pytest.fixture
def traced(collector: Collector, build: Build) -> Service:
    return build(otel_exporter_otlp_endpoint=collector.origin)


async def test_a_request_is_a_span_below_its_caller_named_by_its_route(traced: Service, collector: Collector) -> None:
    async with client(traced) as http:
        await http.get(f"/notes/{uuid4()}?who=ada@souk.example", headers=RECORDED)
    request, _ = await sent(traced, collector)
    assert request.title == "product server GET /notes/{note_id}"
    assert (request.trace_id, request.parent_id) == (TRACE_ID, CALLER_ID)
    assert not request.failed
    assert request.attributes == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "http.route": "/notes/{note_id}",
        "http.response.status_code": 404,
    }


async def test_what_no_route_knows_is_named_by_nothing_that_was_sent(traced: Service, collector: Collector) -> None:
    async with client(traced) as http:
        await http.request("PROPFIND", "/ada@souk.example", headers=RECORDED)
    (request,) = await sent(traced, collector)
    assert request.name == "HTTP"
    assert request.attributes["http.request.method"] == "_OTHER"
    assert "http.route" not in request.attributes


@pytest.mark.parametrize(("path", "failed"), [("/crash", True), ("/statuses/503", True), ("/statuses/409", False)])
async def test_a_5xx_is_an_error_and_a_refusal_is_not(
    traced: Service, collector: Collector, path: str, *, failed: bool
) -> None:
    async with client(traced) as http:
        answer = await http.get(path, headers=RECORDED)
    (request,) = await sent(traced, collector)
    assert request.failed == failed
    assert request.attributes.get("error.type") == (str(answer.status_code) if failed else None)


async def test_a_root_has_the_trace_id_that_its_problem_tells(traced: Service, collector: Collector) -> None:
    async with client(traced) as http:
        document = (await http.get("/nowhere")).json()
    (request,) = await sent(traced, collector)
    assert (request.trace_id, request.parent_id) == (document["trace_id"], "")


async def test_statements_are_below_their_request_and_show_no_value(traced: Service, collector: Collector) -> None:
    title = f"the secret of {uuid4()}"
    async with client(traced) as http:
        for status in (201, 500):  # the second has the same title, which is unique
            assert (await http.post("/notes", json={"title": title}, headers=RECORDED)).status_code == status
    spans = await sent(traced, collector)
    requests = [span for span in spans if span.kind == "server"]
    statements = [[span for span in spans if span.parent_id == request.span_id] for request in requests]
    assert [[span.name for span in of_one] for of_one in statements] == [
        ["BEGIN", "INSERT note", "COMMIT"],
        ["BEGIN", "INSERT note", "ROLLBACK"],
    ]
    inserted, refused = (of_one[1] for of_one in statements)
    assert inserted.attributes == {"db.system.name": "postgresql", "db.query.summary": "INSERT note"}
    assert refused.failed
    assert refused.attributes["error.type"] == "23505"
    assert title not in repr(spans)


async def test_the_outgoing_traceparent_names_the_span_of_the_call(build: Build, collector: Collector) -> None:
    peer = Recorder()
    service = build({"user": peer}, otel_exporter_otlp_endpoint=collector.origin)
    async with client(service) as http:
        await http.get("/relay", headers=RECORDED)
    request, call = await sent(service, collector)
    assert call.title == "product client GET /here"
    assert (call.trace_id, call.parent_id) == (TRACE_ID, request.span_id)
    assert peer.requests[0].headers["traceparent"] == f"00-{TRACE_ID}-{call.span_id}-01"
    assert call.attributes == {
        "http.request.method": "GET",
        "url.template": "/here",
        "server.address": "127.0.0.1",
        "server.port": 8001,
        "service.peer.name": "user",
        "http.response.status_code": 200,
    }


@pytest.mark.parametrize(("status", "error"), [(0, "unreachable"), (409, "409"), (500, "500")])
async def test_a_call_without_a_good_answer_is_an_error(
    build: Build, collector: Collector, status: int, error: str
) -> None:
    service = build({"user": Recorder(status)}, otel_exporter_otlp_endpoint=collector.origin)
    async with client(service) as http:
        await http.get("/relay", headers=RECORDED)
    _, call = await sent(service, collector)
    assert call.failed
    assert call.attributes["error.type"] == error


async def test_a_path_s_ids_are_no_part_of_a_call_s_name(traced: Service, collector: Collector) -> None:
    tracing = traced.telemetry.tracing
    assert tracing is not None
    here = Context(traceparent=RECORDED["traceparent"])
    with tracing.joined(here, "saga recover"):
        assert here.span is not None
        here.span.call("user", "user", 80, "GET", f"/internal/v1/users/{uuid4()}/addresses/{uuid4()}").end()
    _, call = await sent(traced, collector)
    assert call.name == "GET /internal/v1/users/{id}/addresses/{id}"


async def test_probes_are_not_traced(traced: Service, collector: Collector) -> None:
    async with client(traced) as http:
        for path in ("/livez", "/readyz", "/metrics"):
            await http.get(path, headers=RECORDED)
    assert await sent(traced, collector) == []


async def test_a_trace_that_the_caller_does_not_record_is_passed_on_so(build: Build, collector: Collector) -> None:
    peer = Recorder()
    service = build({"user": peer}, otel_exporter_otlp_endpoint=collector.origin)
    async with client(service) as http:
        await http.get("/relay", headers=NOT_RECORDED)
    assert await sent(service, collector) == []
    version, trace_id, parent_id, flags = peer.requests[0].headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE_ID, "00")
    assert parent_id != CALLER_ID


@pytest.mark.parametrize(("ratio", "flags"), [(0.0, "00"), (1.0, "01")])
async def test_a_trace_that_begins_here_is_recorded_by_the_ratio(
    build: Build, collector: Collector, ratio: float, flags: str
) -> None:
    peer = Recorder()
    service = build({"user": peer}, otel_exporter_otlp_endpoint=collector.origin, otel_traces_sampler_arg=ratio)
    async with client(service) as http:
        await http.get("/relay")
    assert len(await sent(service, collector)) == (2 if ratio else 0)
    assert peer.requests[0].headers["traceparent"].endswith(flags)


async def test_a_request_that_is_cancelled_ends_its_spans(build: Build, collector: Collector) -> None:
    service = build(otel_exporter_otlp_endpoint=collector.origin)
    async with client(service) as http:
        headers = RECORDED | {DEADLINE: "0.05"}
        assert (await http.get("/internal/wait", headers=headers)).status_code == 503
    (request,) = await sent(service, collector)
    assert request.attributes["http.response.status_code"] == 503


def imported(code: str) -> set[str]:
    """The packages of OpenTelemetry and of what it sends with that a process has imported which runs the code."""
    heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf", "requests")
    code += f"\nimport sys; print(*(name for name in {heavy!r} if name in sys.modules))"
    answer = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


BUILT = """
from chassis.settings import ServiceSettings
from chassis.testing import settings_for
from chassis.tests.application import create_app
create_app(settings_for(ServiceSettings, "product", "postgresql:///unused"{}))
"""


def test_without_an_endpoint_nothing_of_opentelemetry_s_sdk_is_imported() -> None:
    """Its API is: FastAPI brings that along."""
    assert imported(BUILT.format("")) == set()
    assert "opentelemetry.sdk" in imported(BUILT.format(", otel_exporter_otlp_endpoint='http://127.0.0.1:1'"))


@pytest.fixture
def silent() -> Iterator[str]:
    """A collector that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def answers(service: Service) -> list[tuple[int, Any]]:
    """What a service answers to a few requests, among them as many as make several batches."""
    async with client(service) as http:
        found = [await http.get(path, headers=RECORDED) for path in ("/statuses/204", "/nowhere", "/crash", "/relay")]
        found += [await http.get("/statuses/200", headers=RECORDED) for _ in range(3000)]
    return [(answer.status_code, answer.content) for answer in found]


@pytest.mark.parametrize("kind", ["silent", "absent"])
async def test_a_dead_collector_changes_no_answer_and_holds_up_no_end(build: Build, silent: str, kind: str) -> None:
    endpoint = silent if kind == "silent" else f"http://127.0.0.1:{free_ports(1)}"
    peers = [Recorder(), Recorder()]
    untraced = build({"user": peers[0]})
    service = build({"user": peers[1]}, otel_exporter_otlp_endpoint=endpoint)
    expected = await answers(untraced)
    with capture_logs() as logs:
        assert await answers(service) == expected
        began = monotonic()
        tracing = service.telemetry.tracing
        assert tracing is not None
        await asyncio.to_thread(tracing.close)
    assert monotonic() - began < 10
    assert [entry["event"] for entry in logs if entry["event"].startswith("spans_")] == ["spans_not_delivered"]


async def test_the_latency_of_a_recorded_request_has_its_trace_as_exemplar(
    traced: Service, collector: Collector
) -> None:
    async with client(traced) as http:
        await http.get("/statuses/200", headers=RECORDED)
        await http.get("/statuses/201", headers={"traceparent": f"00-{'1' * 32}-{CALLER_ID}-00"})
        openmetrics = await http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,*/*"})
        text = await http.get("/metrics", headers={"Accept": "text/plain;version=0.0.4"})
    assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families: Iterable[Metric] = cast("Any", parser).text_string_to_metric_families(openmetrics.text)
    exemplars = {
        sample.exemplar.labels["trace_id"]: (sample.labels["handler"], family.name)
        for family in families
        for sample in family.samples
        if sample.exemplar is not None and "handler" in sample.labels
    }
    assert exemplars == {TRACE_ID: ("/statuses/{status}", "http_request_duration_seconds")}
    assert openmetrics.text.count(f'# {{trace_id="{TRACE_ID}"}}') == 2  # by handler, and of all
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert TRACE_ID not in text.text
    assert "# EOF" not in text.text
    assert [span.name for span in await sent(traced, collector)] == ["GET /statuses/{status}"]


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "text/plain;version=1.0.0"])
async def test_without_a_wish_for_openmetrics_the_exposition_is_text(http: httpx2.AsyncClient, accept: str) -> None:
    answer = await http.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


STATEMENTS = {
    "SELECT id FROM note WHERE id = $1": "SELECT note",
    "SELECT n.id FROM note n JOIN comment c ON c.note_id = n.id": "SELECT note comment",
    "INSERT INTO note (title) VALUES ($1) ON CONFLICT DO UPDATE SET title = $1": "INSERT note",
    "WITH old AS MATERIALIZED (SELECT id FROM note LIMIT 1 FOR UPDATE SKIP LOCKED) DELETE FROM note USING old": (
        "DELETE note"
    ),
    "WITH a AS (UPDATE note SET title = '' RETURNING id) INSERT INTO comment SELECT id FROM a": (
        "UPDATE note INSERT comment"
    ),
    "SELECT extract(epoch FROM made_at) FROM note": "SELECT note",
    "SELECT pg_advisory_xact_lock(1)": "SELECT",
    "BEGIN;": "BEGIN",
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_is_named_by_what_it_does_to_which_tables(statement: str) -> None:
    assert summary(statement) == STATEMENTS[statement]
