"""create_service(): what the services have in common, built once and opted into by one call.

An `Application` counts, traces and bounds what it serves; a `Service` is one with a database, which others may call.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from math import isnan, nan
from pathlib import Path
from socket import gethostname
from sys import maxsize
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httpx2
import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.auth import AccessTokens, ServiceCallers, ServiceCredential
from chassis.clients import Peer
from chassis.context import Context, current
from chassis.database import Connection, Database
from chassis.migrations import expected_revision
from chassis.postgres_metrics import READ_EVERY_S, PostgresMetrics
from chassis.problems import (
    ContentTooLarge,
    InternalError,
    InvalidRequest,
    NotFound,
    Problem,
    ProblemResponse,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    documented,
)
from chassis.schemas import ProblemDocument
from chassis.secrets import SERVICES
from chassis.settings import ApplicationSettings, ServiceSettings
from chassis.telemetry import OPENMETRICS, UNMATCHED, Telemetry
from chassis.transport import DEADLINE, PooledTransport
from chassis.workers import Round, Worker

if TYPE_CHECKING:
    from chassis.tracing import Tracing

log = structlog.stdlib.get_logger()

MAX_BODY_BYTES = 2**20
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Never counted among the requests: they say nothing of what clients see."""
HANDLER = "souk.handler"
"""Where an answer given before routing notes in the ASGI scope which route it stands for."""
STREAM = "souk.stream"
"""Where a route notes in the ASGI scope that its answer stays open, and is not one of the requests served at once."""
CHECK_SCHEMA_EVERY_S = 0.2

Transports = Mapping[str, httpx2.AsyncBaseTransport]


class Bound:
    """How many requests of one class of work a process serves at once; one more is refused.

    Each class is counted apart, so that work of one cannot take the places of another: docs/decisions/limits.md.
    """

    __slots__ = ("held", "most", "refused")

    def __init__(self, work: str, most: int, telemetry: Telemetry) -> None:
        self.most = most
        self.held = 0
        self.refused = telemetry.refused.labels(work)


class Application(FastAPI):
    """A FastAPI application that counts, traces and bounds what it serves.

    Its `__call__` is the outermost layer, one for all of it: each layer more costs every request. `front` is what it
    calls: FastAPI, or what a service puts before it, such as a cache of answers. `body_limits` are the bytes that
    paths take beyond MAX_BODY_BYTES.
    """

    def __init__(
        self,
        name: str,
        settings: ApplicationSettings,
        transports: Transports | None,
        *,
        max_internal_in_flight: int = 1,
        openapi_url: str | None = None,
    ) -> None:
        self.service_name = name
        self._tracing = _tracing(name, settings)
        self.telemetry = Telemetry(name, self._tracing)
        self.stopping = asyncio.Event()
        self.front: ASGIApp = super().__call__
        self.body_limits: dict[str, int] = {}
        self._transports = transports
        self._replica = f"{gethostname()}:{settings.port}" if settings.server_timing else None
        self._pools: dict[str, httpx2.AsyncBaseTransport] = {}
        self._workers: list[Worker] = []
        self._preparations: list[Round] = []
        self._closings: list[Round] = []
        self._public = Bound("public", settings.max_in_flight, self.telemetry)
        self._internal = Bound("internal", max_internal_in_flight, self.telemetry)
        self._probes = Bound("probe", maxsize, self.telemetry)
        self._bounds = {(method, path): self._probes for method in ("GET", "HEAD") for path in PROBES}
        self.started = asyncio.Event()
        super().__init__(
            title=f"Souk: {name}",
            version="1",
            docs_url=None,
            redoc_url=None,
            openapi_url=openapi_url,
            redirect_slashes=False,
            lifespan=_lifespan,
            separate_input_output_schemas=False,
            # Its own would note paths and queries as they came, and does not see what is answered before routing.
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        self.telemetry.in_flight.set_function(self._in_flight)

    def pool(self, name: str, urls: str) -> httpx2.AsyncBaseTransport:
        """The connections to another service, at the origins that a setting names; the same ones for the same name."""
        if name not in self._pools:
            self._pools[name] = (
                PooledTransport(name, urls, self.telemetry) if self._transports is None else self._transports[name]
            )
        return self._pools[name]

    def bound(self, work: str, method: str, path: str, most: int) -> None:
        """Let requests of this method and path be a class of work with a bound of its own."""
        self._bounds[method, path] = Bound(work, most, self.telemetry)

    def _in_flight(self) -> int:
        return sum(bound.held for bound in {self._public, self._internal, *self._bounds.values()})

    def worker(self, name: str, work: Round, *, every_s: float) -> Worker:
        """Background work that starts and stops with the service."""
        worker = Worker(name, work, every_s, self.telemetry)
        self._workers.append(worker)
        return worker

    def prepare(self, work: Round) -> None:
        """Work that has to be done before it is ready, once the schema is there; repeated until it succeeds."""
        self._preparations.append(work)

    def on_close(self, work: Round) -> None:
        """What has to be closed when it stops, beside the pools."""
        self._closings.append(work)

    @property
    def ready(self) -> bool:
        """Whether it has started, and the schema of its database was at the expected revision then.

        It does not follow the database down: an outage answers 503 request by request, and must not take every replica
        out of its Service at once.
        """
        return self.started.is_set()

    async def start(self) -> None:
        """Begin to wait for the schema, if there is one; then what was prepared is done and the workers start."""
        self._starting = asyncio.create_task(self._prepare())

    async def _may_prepare(self) -> bool:
        return True

    async def _prepare(self) -> None:
        while not self.ready:
            try:
                if await self._may_prepare():
                    for work in self._preparations:
                        await work()
                    self.started.set()
                    break
            except Unavailable:
                pass
            except Exception:
                log.exception("service_not_prepared")
            await asyncio.sleep(CHECK_SCHEMA_EVERY_S)
        for worker in self._workers:
            worker.start()
        log.info("service_ready")

    async def stop(self) -> None:
        """Stop the workers, close every connection, and send the spans that are left."""
        self.stopping.set()
        self._starting.cancel()
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        await self._close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    async def _close(self) -> None:
        for work in self._closings:
            await work()
        for pool in self._pools.values():
            await pool.aclose()

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once, with the problem document that every error refers to."""
        if self.openapi_schema is None:
            schema = get_openapi(
                title=self.title,
                version=self.version,
                routes=self.routes,
                separate_input_output_schemas=False,
            )
            _put_problems(schema)
            self.openapi_schema = schema
        return self.openapi_schema

    def build_middleware_stack(self) -> ASGIApp:
        """Put before the routes only what `__call__` does not do: the exception handlers, and closing what a form
        uploads.
        """
        return ExceptionMiddleware(AsyncExitStackMiddleware(self.router), self.exception_handlers)

    def allowed_methods(self, path: str) -> list[str]:
        """The methods that the routes of this path know, for `Allow` (RFC 9110, 10.2.1)."""
        found: set[str] = set()
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            scope: Scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": [], "app": self}
            if any(route.matches(dict(scope))[0] is Match.FULL for route in self.router.routes):
                found.add(method)
        return sorted(found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        started_at = perf_counter()
        scope["app"] = self  # as Starlette does, for what is in front of it too
        request_id = traceparent = deadline = None
        content_type = b""
        request_bytes = 0
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                request_id = value.decode("latin-1")
            elif name == b"traceparent":
                traceparent = value.decode("latin-1")
            elif name == b"content-type":
                content_type = value
            elif name == b"content-length":
                request_bytes = int(value) if value.isdigit() else 0
            elif name == b"transfer-encoding":
                receive = self._counted(scope["path"], receive)
            elif name == DEADLINE_HEADER and scope["path"].startswith(INTERNAL):
                deadline = value
        context = Context(request_id=request_id, traceparent=traceparent)
        request_id_header = (b"x-request-id", context.request_id.encode("ascii"))
        status = response_bytes = 0
        seconds = 0.0
        gone = False
        bound = self._bounds.get((scope["method"], scope["path"]))
        if bound is None:
            bound = self._internal if scope["path"].startswith(INTERNAL) else self._public
        held = 1
        span = None

        async def answer(message: Message) -> None:
            nonlocal status, response_bytes, seconds
            if message["type"] == "http.response.start":
                # The time until the answer begins: an open event stream is not a slow request.
                seconds = perf_counter() - started_at
                status = message["status"]
                message["headers"] = [*message["headers"], request_id_header]
                if self._replica is not None:
                    message["headers"].append((b"server-timing", _timing(self._replica, seconds, context)))
                if span is not None:
                    span.answered(status, message["headers"])
                if STREAM in scope:
                    release()  # it waits for most of its time, and whoever serves it bounds how many there are
            else:
                response_bytes += len(message.get("body", b""))
            await send(message)

        def release() -> None:
            nonlocal held
            bound.held -= held
            held = 0

        async def hear() -> Message:
            nonlocal gone
            message = await receive()
            if message["type"] == "http.disconnect" and not status:
                gone = True
            return message

        token = current.set(context)
        if self._tracing is not None and bound is not self._probes:
            span = self._tracing.request(context, scope["method"], scope["scheme"])
        bound.held += held
        try:
            if bound.held > bound.most:
                bound.refused.inc()
                raise Unavailable("too many requests at once")
            if request_bytes > MAX_BODY_BYTES and request_bytes > self.body_limits.get(scope["path"], 0):
                raise ContentTooLarge
            if b"+json" in content_type:
                raise UnsupportedMediaType("the body must be application/json")  # FastAPI takes these for JSON as well
            if deadline is not None:
                await self._within(deadline, context, scope, hear, answer)
            else:
                await self.front(scope, hear, answer)
        except Problem as problem:
            # Where the answer has begun it stays unfinished, which the server tells the client by closing.
            if not status:
                await ProblemResponse(problem, scope["path"])(scope, receive, answer)
        except Exception as error:
            if status:
                raise
            log.exception("unexpected_error", method=scope["method"], path=scope["path"], exc_info=error)
            await ProblemResponse(InternalError(), scope["path"])(scope, receive, answer)
        finally:
            release()
            current.reset(token)
            trace_id = None
            if span is not None:
                span.served(scope["method"], _handler(scope), status, context.order_id)
                trace_id = context.trace_id
            # A request whose client went away before an answer began is not an error of ours, whatever was answered.
            if status and not gone and scope["path"] not in PROBES:
                self.telemetry.http.observe(
                    _handler(scope), scope["method"], status, seconds, request_bytes, response_bytes, trace_id
                )

    def _counted(self, path: str, receive: Receive) -> Receive:
        """Count a body of unknown length as it comes, and raise 413 in whoever reads it when it is too long."""
        left = self.body_limits.get(path, MAX_BODY_BYTES)

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413)
            return message

        return counted

    async def _within(self, limit: bytes, context: Context, scope: Scope, receive: Receive, answer: Send) -> None:
        """Serve a request that its caller stops waiting for after `limit` seconds: then nothing of it goes on.

        Raises Unavailable when the deadline passes, InvalidRequest when it is no number.
        """
        try:
            limit_s = float(limit)
        except ValueError:
            limit_s = nan
        if isnan(limit_s):
            raise InvalidRequest.field(DEADLINE, "must be a number of seconds")
        context.deadline = asyncio.get_running_loop().time() + limit_s
        timeout = asyncio.timeout(limit_s)
        try:
            async with timeout:
                await self.front(scope, receive, answer)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise Unavailable("the deadline has passed") from None


def _tracing(name: str, settings: ApplicationSettings) -> "Tracing | None":
    """The service's tracing, where an endpoint is named. Nothing is imported for it otherwise."""
    if not settings.otel_exporter_otlp_endpoint:
        return None
    from chassis.tracing import Tracing

    endpoint, ratio = settings.otel_exporter_otlp_endpoint, settings.otel_traces_sampler_arg
    return Tracing(name, settings.port, endpoint, ratio)


class Service(Application):
    """An application with a database, which is ready when its schema is, and which calls its peers in its own name."""

    def __init__(self, name: str, settings: ServiceSettings, transports: Transports | None) -> None:
        super().__init__(
            name,
            settings,
            transports,
            max_internal_in_flight=settings.max_internal_in_flight,
            openapi_url=f"/docs/{name}/openapi.json",
        )
        self.database = Database(settings, Connection if self._tracing is None else self._tracing.connection_class)
        self.credential = ServiceCredential(name, settings)
        self._peers: dict[str, Peer] = {}
        self.state.database = self.database
        self.state.service_callers = ServiceCallers(name, settings)
        self.telemetry.gauge(
            "souk_database_connections_in_use", "Connections of the pool that serve a statement now."
        ).set_function(self.database.in_use)
        self.telemetry.gauge("souk_database_pool_size", "The most connections that the pool opens.").set(
            settings.database_pool_size
        )

    def peer(self, name: str, urls: str, *, timeout_s: float = 3.0) -> Peer:
        """A client of another service, at the origins that a setting names; the same one for the same name."""
        if name not in self._peers:
            self._peers[name] = Peer(
                name, urls, self.credential, self.telemetry, self.pool(name, urls), timeout_s=timeout_s
            )
        return self._peers[name]

    async def _may_prepare(self) -> bool:
        return await self.database.revision() >= expected_revision(self.service_name)

    async def _close(self) -> None:
        await super()._close()
        await self.database.close()


def _timing(replica: str, seconds: float, context: Context) -> bytes:
    """What Server-Timing carries (W3C Server Timing): durations are milliseconds."""
    return (
        f'app;dur={seconds * 1000:.1f}, replica;desc="{replica}", trace;desc="{context.trace_id}",'
        f' retries;desc="{context.retries}"'
    ).encode("latin-1")


INTERNAL = "/internal/"
DEADLINE_HEADER = DEADLINE.lower().encode("ascii")


def _handler(scope: Scope) -> str:
    """The path template of the route that served, never the raw path."""
    handler = scope.get(HANDLER)
    if handler is not None:
        return handler
    route = scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None) or UNMATCHED


@asynccontextmanager
async def _lifespan(service: FastAPI) -> AsyncGenerator[None, None]:
    assert isinstance(service, Application)
    await service.start()
    try:
        yield
    finally:
        await service.stop()


def _put_problems(schema: dict[str, Any]) -> None:
    """Document the problems that come with the kind of an operation, whatever its route lists itself: no credential,
    a body too large or of another type, no route for an odd id in a path, no service.

    They take the place of FastAPI's own shape of a validation error.
    """
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in problem.pop("$defs", {}).items():
        components[name] = definition
    components["Problem"] = problem
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            if "application/json" in responses.get("422", {}).get("content", {}):
                del responses["422"]
            kinds: list[type[Problem]] = [Unavailable]
            if "security" in operation:
                kinds.append(Unauthenticated)
            if "{" in path:
                kinds.append(NotFound)
            if "requestBody" in operation:
                kinds += (ContentTooLarge, UnsupportedMediaType)
            if "requestBody" in operation or "parameters" in operation:
                kinds.append(InvalidRequest)
            for status, response in documented(*kinds).items():
                responses.setdefault(str(status), response)
            operation["responses"] = dict(sorted(responses.items()))


SCRIPT = "swagger-ui-bundle.js"
STYLE = "swagger-ui.css"
ASSET_HEADERS = {"Cache-Control": "public, max-age=86400"}
PAGES = "".join(
    f'<li><a href="/docs/{name}">{name}</a> (<a href="/docs/{name}/openapi.json">OpenAPI document</a>)</li>'
    for name in SERVICES
)
INDEX = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Souk: API documentation</title>
<style>body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem }}</style>
<h1>Souk</h1>
<p>The storefront API, a page for each service:</p>
<ul>{PAGES}</ul>
</html>
"""


def create_service(
    name: str,
    settings: ServiceSettings,
    transports: Transports | None = None,
    *,
    access_tokens: AccessTokens | None = None,
) -> Service:
    """A service with problems, telemetry, probes, metrics and documentation; its own routers are included by its
    app.py.

    `transports` replace the network between services by name, as local mode and tests do. `access_tokens` is given by
    the service that issues them; the others ask it for its keys.
    """
    service = Service(name, settings, transports)
    if access_tokens is None:
        user = service.peer("user", settings.user_url)
        access_tokens = AccessTokens(lambda: user.call("GET", "/api/v1/auth/jwks"))
    service.state.access_tokens = access_tokens
    service.prepare(service.database.warm)
    service.prepare(access_tokens.warm)
    problems.install(service)
    postgres = PostgresMetrics(service.database)
    service.telemetry.registry.register(postgres)
    service.worker("postgres-metrics", postgres.read, every_s=READ_EVERY_S)

    async def docs() -> HTMLResponse:
        """The list of the services' documentation pages."""
        return HTMLResponse(INDEX)

    add_probes(service)
    service.add_api_route("/docs", docs, include_in_schema=False)
    _add_swagger_ui(service)
    return service


def add_probes(service: Application) -> None:
    """Answer /livez, /readyz and /metrics."""

    async def livez() -> Response:
        """Whether the process's event loop turns; nothing else."""
        return Response("ok", media_type="text/plain")

    async def readyz() -> Response:
        """Whether the service has started and found its schema."""
        ready = service.ready
        return Response("ready" if ready else "starting", 200 if ready else 503, media_type="text/plain")

    async def metrics(request: Request) -> Response:
        """Metrics in Prometheus' text format, or in OpenMetrics where a scraper asks for that: it has exemplars."""
        if OPENMETRICS in request.headers.get("accept", ""):
            return Response(service.telemetry.openmetrics(), media_type=f"{OPENMETRICS}; version=1.0.0; charset=utf-8")
        return Response(service.telemetry.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, endpoint in (("/livez", livez), ("/readyz", readyz), ("/metrics", metrics)):
        service.add_api_route(path, endpoint, include_in_schema=False)


def _add_swagger_ui(service: Service) -> None:
    """Serve Swagger UI from the wheel that ships its files: FastAPI's own page asks a content delivery network."""
    wheel = find_spec("fastapi_standalone_docs")
    assert wheel is not None
    assert wheel.origin is not None
    folder = Path(wheel.origin).with_name("static") / "swagger"
    page = f"/docs/{service.service_name}"

    async def swagger_ui() -> HTMLResponse:
        """The service's documentation page."""
        return get_swagger_ui_html(
            openapi_url=f"{page}/openapi.json",
            title=service.title,
            swagger_js_url=f"{page}/{SCRIPT}",
            swagger_css_url=f"{page}/{STYLE}",
            swagger_favicon_url="data:,",
        )

    async def script() -> FileResponse:
        return FileResponse(folder / SCRIPT, headers=ASSET_HEADERS)

    async def style() -> FileResponse:
        return FileResponse(folder / STYLE, headers=ASSET_HEADERS)

    for path, endpoint in ((page, swagger_ui), (f"{page}/{SCRIPT}", script), (f"{page}/{STYLE}", style)):
        service.add_api_route(path, endpoint, include_in_schema=False)


def openapi_bytes(service: Service) -> bytes:
    """The OpenAPI document as it is committed."""
    return orjson.dumps(service.openapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
