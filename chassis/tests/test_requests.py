"""What every request carries and is bounded by: its id and trace, its deadline, the number served at once."""

import asyncio
import re
from collections.abc import AsyncIterator
from socket import gethostname

import httpx2
import pytest
from structlog.testing import capture_logs

from chassis.app import Service
from chassis.testing import client
from chassis.tests.application import Gate
from chassis.tests.asgi import Request
from chassis.tests.conftest import Build
from chassis.tests.test_problems import TRACE_ID, problem
from chassis.transport import DEADLINE


class Recorder(httpx2.AsyncBaseTransport):
    """A peer that answers, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return httpx2.Response(200, content=b'"here"')


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def relaying(build: Build, recorder: Recorder) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(build({"user": recorder})) as opened:
        yield opened


@pytest.mark.parametrize("request_id", ["a", "A.b_c-9", "x" * 128])
async def test_the_callers_request_id_is_answered_and_passed_on(
    relaying: httpx2.AsyncClient, recorder: Recorder, request_id: str
) -> None:
    answer = await relaying.get("/relay", headers={"X-Request-Id": request_id})
    assert answer.headers["x-request-id"] == request_id
    assert recorder.requests[0].headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a/b", "é", "a\tb", "a%0d%0ab"])
async def test_another_request_id_is_replaced_by_the_trace_id(http: httpx2.AsyncClient, request_id: str) -> None:
    answer = await http.get("/nowhere", headers={b"X-Request-Id": request_id.encode()})
    assert answer.headers["x-request-id"] == answer.json()["trace_id"]


@pytest.mark.parametrize(
    "path", ["/livez", "/docs", "/nowhere", "/crash", "/statuses/204"], ids=lambda path: path.strip("/")
)
async def test_every_answer_has_a_request_id(http: httpx2.AsyncClient, path: str) -> None:
    assert len((await http.get(path)).headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("path", ["/relay", "/nowhere", "/crash"], ids=lambda path: path.strip("/"))
async def test_server_timing_tells_who_answered_where_it_is_asked_for(
    build: Build, recorder: Recorder, path: str
) -> None:
    async with client(build({"user": recorder}, server_timing=True, port=8765)) as http:
        answer = await http.get(path, headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-00"})
    (header,) = answer.headers.get_list("server-timing")
    told = re.fullmatch(r'app;dur=(\d+\.\d), replica;desc="([^"]+):8765", trace;desc="(\w+)", retries;desc="0"', header)
    assert told is not None, header
    milliseconds, host, trace_id = told.groups()
    assert 0 < float(milliseconds) < 10_000
    assert (host, trace_id) == (gethostname(), TRACE_ID)


async def test_server_timing_is_nobodys_business_by_default(http: httpx2.AsyncClient) -> None:
    assert "server-timing" not in (await http.get("/nowhere")).headers


@pytest.mark.parametrize("flags", ["00", "01"])
async def test_a_trace_is_joined_and_passed_on_with_a_parent_of_its_own(
    relaying: httpx2.AsyncClient, recorder: Recorder, flags: str
) -> None:
    await relaying.get("/relay", headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-{flags}"})
    version, trace_id, parent_id, sent_flags = recorder.requests[0].headers["traceparent"].split("-")
    assert (version, trace_id, sent_flags) == ("00", TRACE_ID, flags)
    assert len(parent_id) == 16
    assert parent_id not in {"00f067aa0ba902b7", "0" * 16}


async def test_a_later_version_of_traceparent_is_joined(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/nowhere", headers={"traceparent": f"cc-{TRACE_ID}-00f067aa0ba902b7-01-more"})
    assert answer.json()["trace_id"] == TRACE_ID


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        TRACE_ID,
        f"ff-{TRACE_ID}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID[:-1]}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-00f067aa0ba902b7-01-more",
        f"00-{TRACE_ID}-00f067aa0ba902b7-zz",
    ],
)
async def test_an_invalid_traceparent_begins_a_new_trace(http: httpx2.AsyncClient, traceparent: str) -> None:
    """W3C Trace Context, 3.2.2."""
    trace_id = (await http.get("/nowhere", headers={"traceparent": traceparent})).json()["trace_id"]
    assert trace_id != TRACE_ID
    assert int(trace_id, 16)


async def test_two_requests_are_two_traces(http: httpx2.AsyncClient) -> None:
    first, second = [(await http.get("/nowhere")).json()["trace_id"] for _ in range(2)]
    assert first != second


async def test_when_the_deadline_passes_the_answer_is_503_and_the_work_is_cancelled(build: Build) -> None:
    service = build()
    gate: Gate = service.state.gate
    async with client(service) as http:
        answer = await http.get("/internal/wait", headers={DEADLINE: "0.05"})
    assert problem(answer, 503, "unavailable")["detail"] == "the deadline has passed"
    assert answer.headers["retry-after"]
    assert gate.cancelled.is_set()


@pytest.mark.parametrize("deadline", ["0", "-1", "-inf"])
async def test_a_deadline_that_has_passed_is_refused_and_no_peer_is_asked(
    relaying: httpx2.AsyncClient, recorder: Recorder, deadline: str
) -> None:
    problem(await relaying.get("/internal/relay", headers={DEADLINE: deadline}), 503, "unavailable")
    assert not recorder.requests


@pytest.mark.parametrize("deadline", ["", "soon", "nan", "1,5", "2026-11-23T12:00:00Z"])
async def test_a_deadline_that_is_no_number_is_422(http: httpx2.AsyncClient, deadline: str) -> None:
    document = problem(await http.get("/internal/statuses/204", headers={DEADLINE: deadline}), 422, "invalid-request")
    assert document["errors"][0]["field"] == DEADLINE


@pytest.mark.parametrize("deadline", ["60", "1e300", "inf"])
async def test_a_request_within_its_deadline_is_served(http: httpx2.AsyncClient, deadline: str) -> None:
    assert (await http.get("/internal/statuses/204", headers={DEADLINE: deadline})).status_code == 204


async def test_a_deadline_from_outside_is_nobodys(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/statuses/204", headers={DEADLINE: "-1"})).status_code == 204


async def test_json_of_another_type_is_415(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/notes", content=b"{}", headers={"Content-Type": "application/vnd.x+json"})
    problem(answer, 415, "unsupported-media-type")


async def test_a_peer_is_given_what_is_left_of_the_deadline(relaying: httpx2.AsyncClient, recorder: Recorder) -> None:
    await relaying.get("/internal/relay", headers={DEADLINE: "2"})
    assert 0 < float(recorder.requests[0].headers[DEADLINE]) <= 2


async def test_without_a_deadline_a_peer_is_given_the_time_that_its_client_waits(
    relaying: httpx2.AsyncClient, recorder: Recorder
) -> None:
    await relaying.get("/relay")
    await relaying.get("/internal/relay", headers={DEADLINE: "60"})
    assert [float(request.headers[DEADLINE]) for request in recorder.requests] == [3, 3]


async def test_one_request_too_many_is_shed_and_probes_are_not(build: Build) -> None:
    service = build(max_in_flight=2)
    gate: Gate = service.state.gate
    async with client(service) as http:
        held = [asyncio.create_task(http.get("/wait")) for _ in range(2)]
        for _ in held:
            await gate.arrivals.get()
        refused = await http.get("/statuses/204")
        assert (await http.get("/livez")).status_code == 200
        assert "http_requests_in_flight 3.0" in (await http.get("/metrics")).text
        assert (await http.get("/internal/statuses/204")).status_code == 204  # what was begun is finished
        assert 'souk_requests_refused_total{work="public"} 1.0' in (await http.get("/metrics")).text
        gate.opened.set()
        assert [answer.json() for answer in await asyncio.gather(*held)] == ["done", "done"]
        assert (await http.get("/statuses/204")).status_code == 204
    problem(refused, 503, "unavailable")
    assert refused.headers["retry-after"]


async def test_work_with_a_bound_of_its_own_takes_no_place_of_other_work(build: Build) -> None:
    service = build(max_in_flight=1)
    service.bound("waiting", "GET", "/wait", 1)
    gate: Gate = service.state.gate
    async with client(service) as http:
        held = asyncio.create_task(http.get("/wait"))
        await gate.arrivals.get()
        problem(await http.get("/wait"), 503, "unavailable")
        assert (await http.get("/statuses/204")).status_code == 204
        gate.opened.set()
        assert (await held).json() == "done"
        assert (await http.get("/wait")).json() == "done"
        exposition = (await http.get("/metrics")).text
    assert 'souk_requests_refused_total{work="waiting"} 1.0' in exposition
    assert 'souk_requests_refused_total{work="public"} 0.0' in exposition


@pytest.mark.parametrize("outcome", ["/failures/unexpected", "/statuses/404", "/nowhere", "/statuses/204"])
async def test_a_place_is_free_again_however_a_request_ends(build: Build, outcome: str) -> None:
    service = build(max_in_flight=1)
    async with client(service) as http:
        for _ in range(3):
            assert (await http.get(outcome)).status_code != 503


@pytest.mark.parametrize("path", ["/uploads", "/notes"])
async def test_a_client_that_goes_away_is_no_error_of_ours(service: Service, path: str) -> None:
    messages = ({"type": "http.request", "body": b"[", "more_body": True}, {"type": "http.disconnect"})
    request = Request(service, "POST", path, messages, content_type="application/json")
    with capture_logs() as logs:
        await request.send()
    assert request.status != 500
    assert not logs
    async with client(service) as http:
        assert "http_requests_total{" not in (await http.get("/metrics")).text


async def test_readiness_says_that_the_schema_is_awaited(http: httpx2.AsyncClient) -> None:
    # Nothing has started this service: requests run without its lifespan here.
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/livez")).status_code == 200


async def test_the_documentation_page_needs_no_other_host(http: httpx2.AsyncClient) -> None:
    page = (await http.get("/docs/product")).text
    assert "https://" not in page
    for asset, beginning in (("swagger-ui.css", ".swagger-ui"), ("swagger-ui-bundle.js", "/*!")):
        assert f"/docs/product/{asset}" in page
        answer = await http.get(f"/docs/product/{asset}")
        assert answer.status_code == 200
        assert answer.text.startswith(beginning)
    assert "/docs/product/openapi.json" in page


async def test_the_openapi_document_lists_what_comes_with_the_kind_of_an_operation(http: httpx2.AsyncClient) -> None:
    paths = (await http.get("/docs/product/openapi.json")).json()["paths"]
    assert set(paths["/notes"]["post"]["responses"]) == {"201", "413", "415", "422", "503"}
    assert set(paths["/notes/{note_id}"]["delete"]["responses"]) == {"204", "404", "422", "503"}
    assert set(paths["/shopper"]["get"]["responses"]) == {"200", "401", "503"}
    assert "not-found" in paths["/notes/{note_id}"]["get"]["responses"]["404"]["description"]
