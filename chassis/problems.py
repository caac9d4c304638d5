"""Errors as RFC 9457 problem documents, from one tree.

    Problem
    ├── InvalidRequest             422  invalid-request
    ├── InvalidCursor              400  invalid-cursor
    ├── IdempotencyKeyMissing      400  idempotency-key-missing
    ├── IdempotencyKeyInvalid      400  idempotency-key-invalid
    ├── IdempotencyKeyReused       422  idempotency-key-reused
    ├── RequestInProgress          409  request-in-progress
    ├── Unauthenticated            401  unauthenticated
    ├── Forbidden                  403  forbidden
    ├── NotFound                   404  not-found
    ├── MethodNotAllowed           405  method-not-allowed
    ├── InsufficientStock          409  insufficient-stock
    ├── IllegalTransition          409  illegal-transition
    ├── PreconditionFailed         412  precondition-failed
    ├── ContentTooLarge            413  content-too-large
    ├── UnsupportedMediaType       415  unsupported-media-type
    ├── TooManyAttempts            429  too-many-attempts
    ├── InternalError              500  internal-error
    └── Unavailable                503  unavailable

A service's own problems stand in its `domain.py`; `docs/problems.md` explains every `type`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict, cast

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from chassis.context import context

MEDIA_TYPE = "application/problem+json"
log = structlog.stdlib.get_logger()


class FieldError(TypedDict):
    """What is wrong with one field; `field` is a dotted path such as `items.0.quantity`."""

    field: str
    detail: str


class Problem(Exception):
    """An answer that is not the one hoped for, raised with the facts that help its reader.

    A subclass sets `status`, `code` and `title`; `facts` become members of the document, `headers` go with it.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **facts: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers: dict[str, str] = dict(headers or {})
        self.facts = facts

    def document(self, instance: str) -> dict[str, Any]:
        """The members of RFC 9457, 3.1, the trace id, then the facts."""
        return {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "trace_id": context().trace_id,
            **self.facts,
        }

    def body(self, instance: str) -> bytes:
        """The document as JSON in UTF-8."""
        return orjson.dumps(self.document(instance), default=str)


class InvalidRequest(Problem):
    status, code, title = 422, "invalid-request", "The request cannot be taken as it is"

    def __init__(self, errors: Sequence[FieldError], **facts: Any) -> None:
        detail = "; ".join(f"{error['field']}: {error['detail']}" for error in errors)
        super().__init__(detail or None, errors=list(errors), **facts)

    @classmethod
    def field(cls, field: str, detail: str) -> "InvalidRequest":
        """One field is at fault."""
        return cls([FieldError(field=field, detail=detail)])


class InvalidCursor(Problem):
    status, code, title = 400, "invalid-cursor", "The cursor is damaged or belongs to another list"


class IdempotencyKeyMissing(Problem):
    status, code, title = 400, "idempotency-key-missing", "This call needs an Idempotency-Key"


class IdempotencyKeyInvalid(Problem):
    status, code, title = 400, "idempotency-key-invalid", "An Idempotency-Key has 1 to 255 characters"


class IdempotencyKeyReused(Problem):
    status, code, title = 422, "idempotency-key-reused", "This Idempotency-Key was used with another body"


class RequestInProgress(Problem):
    status, code, title = 409, "request-in-progress", "The first request with this Idempotency-Key is still in flight"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class Unauthenticated(Problem):
    status, code, title = 401, "unauthenticated", "A valid bearer token is needed"

    def __init__(self, detail: str | None = None, *, challenge: str = 'Bearer realm="souk"', **facts: Any) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": challenge}, **facts)


class Forbidden(Problem):
    status, code, title = 403, "forbidden", "Not allowed for this caller"


class NotFound(Problem):
    status, code, title = 404, "not-found", "There is nothing here"


class MethodNotAllowed(Problem):
    status, code, title = 405, "method-not-allowed", "The resource does not know this method"


class InsufficientStock(Problem):
    status, code, title = 409, "insufficient-stock", "Not enough in stock"


class IllegalTransition(Problem):
    status, code, title = 409, "illegal-transition", "Not possible in the present state"


class PreconditionFailed(Problem):
    status, code, title = 412, "precondition-failed", "The resource has changed since it was read"


class ContentTooLarge(Problem):
    status, code, title = 413, "content-too-large", "The body is larger than this call takes"


class UnsupportedMediaType(Problem):
    status, code, title = 415, "unsupported-media-type", "The body's content type is not one that this call takes"


class TooManyAttempts(Problem):
    status, code, title = 429, "too-many-attempts", "Too many attempts"


class InternalError(Problem):
    status, code, title = 500, "internal-error", "Something went wrong here; the trace id helps to find out what"


class Unavailable(Problem):
    """Nothing is known to have happened: the same request may be repeated, with the same key."""

    status, code, title = 503, "unavailable", "Not available right now; please repeat"

    def __init__(self, detail: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


class ProblemResponse(Response):
    """A problem on the wire."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, instance: str) -> None:
        super().__init__(problem.body(instance), problem.status, problem.headers)


def documented(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: the problems that it raises, by status, for its OpenAPI page."""
    by_status: dict[int | str, list[type[Problem]]] = {}
    for problem in problems:
        by_status.setdefault(problem.status, []).append(problem)
    return {
        status: {
            "description": "; ".join(sorted(f"{problem.title} (`{problem.code}`)" for problem in found)),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, found in by_status.items()
    }


def field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """Validation errors of pydantic as `{field, detail}`, without the input that they quote."""
    found: list[FieldError] = []
    for error in errors:
        # A member's name may hold half of a surrogate pair, which JSON can write and UTF-8 cannot.
        location = [str(part).encode(errors="replace").decode() for part in error["loc"]]
        if error["type"] == "json_invalid":
            location = ["body"]
        elif len(location) > 1 and location[0] in {"body", "query", "path", "header", "cookie"}:
            location = location[1:]
        found.append(FieldError(field=".".join(location), detail=str(error["msg"]).removeprefix("Value error, ")))
    return found


async def _problem(request: Request, error: Exception) -> Response:
    problem = cast("Problem", error)
    return ProblemResponse(problem, request.url.path)


async def _invalid(request: Request, error: Exception) -> Response:
    errors = cast("RequestValidationError", error).errors()
    # FastAPI hands a body over as bytes, unparsed, when its content type is not JSON.
    if any(fault["loc"] == ("body",) and isinstance(fault.get("input"), bytes) for fault in errors):
        return ProblemResponse(UnsupportedMediaType("the body must be application/json"), request.url.path)
    return ProblemResponse(InvalidRequest(field_errors(errors)), request.url.path)


async def _http(request: Request, error: Exception) -> Response:
    """What Starlette and FastAPI raise by themselves: an unknown path, a method that a path does not know."""
    raised = cast("HTTPException", error)
    kinds: dict[int, type[Problem]] = {404: NotFound, 405: MethodNotAllowed, 413: ContentTooLarge}
    if raised.status_code in {400, 422}:
        problem: Problem = InvalidRequest.field("body", str(raised.detail))
    else:
        problem = kinds.get(raised.status_code, InternalError)(headers=raised.headers)
    if raised.status_code == 405:
        problem.headers["Allow"] = ", ".join(request.app.allowed_methods(request.url.path))
    return ProblemResponse(problem, request.url.path)


async def _gone(request: Request, _error: Exception) -> Response:
    """The client went away while its body was read: nobody gets this answer, and nothing went wrong here."""
    return ProblemResponse(InvalidRequest.field("body", "ended before it was complete"), request.url.path)


def install(app: FastAPI) -> None:
    """Register the handlers. What none of them knows is answered by the outermost layer, as InternalError."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
