"""Everything that is not the answer hoped for is a problem document, and tells no more than it should."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from structlog.testing import capture_logs

from chassis.app import MAX_BODY_BYTES
from chassis.problems import MEDIA_TYPE, IllegalTransition, InsufficientStock, documented
from chassis.tests.application import SECRET_OF_A_CRASH

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer, which has the members of RFC 9457 and the trace id."""
    document = answer.json()
    assert answer.status_code == status == document["status"]
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert document["type"] == f"/problems/{code}"
    assert document["instance"] == answer.request.url.path
    assert document["title"]
    assert document["detail"]
    assert len(document["trace_id"]) == 32
    return document


async def test_a_raised_problem_carries_its_facts(http: httpx2.AsyncClient) -> None:
    note_id = str(uuid4())
    document = problem(await http.get(f"/notes/{note_id}"), 404, "not-found")
    assert document["detail"] == "there is no such note"
    assert document["note_id"] == note_id


async def test_an_unexpected_error_is_logged_and_shows_nothing_but_its_trace_id(http: httpx2.AsyncClient) -> None:
    with capture_logs() as logs:
        answer = await http.get("/crash", headers=TRACEPARENT)
    document = problem(answer, 500, "internal-error")
    assert document["trace_id"] == TRACE_ID
    assert SECRET_OF_A_CRASH not in answer.text
    assert "RuntimeError" not in answer.text
    (entry,) = logs
    assert entry["event"] == "unexpected_error"
    assert str(entry["exc_info"]) == SECRET_OF_A_CRASH


async def test_an_unknown_path_is_404(http: httpx2.AsyncClient) -> None:
    problem(await http.get("/nowhere"), 404, "not-found")
    problem(await http.get("/notes/"), 404, "not-found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST", "OPTIONS", "TRACE", "PURGE", "HEAD"])
async def test_another_method_is_405_and_names_all_that_the_path_knows(http: httpx2.AsyncClient, method: str) -> None:
    answer = await http.request(method, f"/notes/{uuid4()}")
    assert answer.status_code == 405
    # Two routes serve the path: one's own methods would be half of the truth.
    assert answer.headers["allow"] == "DELETE, GET"


async def test_a_body_that_says_it_is_too_long_is_413_before_it_is_read(http: httpx2.AsyncClient) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x" * (MAX_BODY_BYTES + 1)

    headers = {"Content-Length": str(MAX_BODY_BYTES + 1), "Content-Type": "application/json"}
    problem(await http.post("/notes", content=body(), headers=headers), 413, "content-too-large")
    problem(await http.post("/notes", content=b"x" * (MAX_BODY_BYTES + 1)), 413, "content-too-large")


async def test_a_chunked_body_is_413_when_it_has_grown_too_long(http: httpx2.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 2**16

    for path in ("/notes", "/uploads"):
        answer = await http.post(path, content=body(), headers={"Content-Type": "application/json"})
        problem(answer, 413, "content-too-large")


async def test_a_body_of_just_the_limit_is_taken(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/uploads", content=b"x" * MAX_BODY_BYTES)
    assert answer.json() == MAX_BODY_BYTES


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data", ""])
async def test_another_content_type_is_415(http: httpx2.AsyncClient, content_type: str) -> None:
    answer = await http.post("/notes", content=b'{"title": "a"}', headers={"Content-Type": content_type})
    problem(answer, 415, "unsupported-media-type")


async def test_fields_at_fault_are_named_by_dotted_paths(http: httpx2.AsyncClient) -> None:
    body = {
        "lines": [
            {"product_id": str(uuid4()), "quantity": 1},
            {"product_id": "1", "quantity": "2", "price": 0},
        ],
        "colour": "red",
    }
    document = problem(await http.post("/notes", json=body), 422, "invalid-request")
    fields = {error["field"] for error in document["errors"]}
    assert fields == {"title", "colour", "lines.1.product_id", "lines.1.quantity", "lines.1.price"}
    assert all(error["detail"] for error in document["errors"])


async def test_a_parameter_at_fault_is_named_without_where_it_stood(http: httpx2.AsyncClient) -> None:
    document = problem(await http.get("/notes/1"), 422, "invalid-request")
    assert [error["field"] for error in document["errors"]] == ["note_id"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe{}",
        b'{"title": NaN}',
        b'{"title": "a\\u0000b"}',
        b'{"title": "\\ud800"}',
        b'{"\\ud800": 1, "title": "a"}',
        b'{"title": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"title": "a"} {}',
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_a_body_that_is_not_what_it_should_be_is_422(http: httpx2.AsyncClient, body: bytes) -> None:
    answer = await http.post("/notes", content=body, headers={"Content-Type": "application/json"})
    assert problem(answer, 422, "invalid-request")["errors"]


async def test_a_refusal_does_not_repeat_what_was_sent(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/notes", json={"title": 1, "password": "correct horse battery staple"})
    assert "correct horse" not in answer.text


def test_a_route_documents_several_problems_of_one_status_together() -> None:
    responses = documented(InsufficientStock, IllegalTransition)
    assert list(responses) == [409]
    assert "`insufficient-stock`" in responses[409]["description"]
    assert "`illegal-transition`" in responses[409]["description"]
