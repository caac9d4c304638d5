"""create_service(): what the four services have in common, built once and opted into by one call."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import httpx2
import orjson
import structlog
from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis import problems
from chassis.auth import AccessTokens, ServiceCallers, ServiceCredential
from chassis.clients import DEADLINE, Peer, PooledTransport
from chassis.context import Context, current
from chassis.database import Database
from chassis.migrations import expected_revision
from chassis.problems import ContentTooLarge, ProblemResponse, Unavailable
from chassis.schemas import ProblemDocument
from chassis.settings import ServiceSettings
from chassis.telemetry import UNMATCHED, Telemetry
from chassis.workers import Round, Worker

log = structlog.stdlib.get_logger()

MAX_BODY_BYTES = 2**20
SERVICES = ("user", "product", "payment", "order")
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Never counted among the requests: they say nothing of what clients see."""
HANDLER = "souk.handler"
"""Where an answer given before routing notes in the ASGI scope which route it stands for."""
CHECK_SCHEMA_EVERY_S = 0.2

Transports = Mapping[str, httpx2.AsyncBaseTransport]


class Service(FastAPI):
    """A FastAPI application that counts, traces and bounds what it serves.

    Its `__call__` is the outermost layer, one for all of it: each layer more costs every request. `front` is what it
    calls: FastAPI, or what a service puts before it, such as a cache of answers. `body_limits` are the bytes that
    paths take beyond MAX_BODY_BYTES.
    """

    def __init__(self, name: str, settings: ServiceSettings, transports: Transports | None) -> None:
        self.service_name = name
        self.telemetry = Telemetry(name)
        self.database = Database(settings)
        self.credential = ServiceCredential(name, settings)
        self.stopping = asyncio.Event()
        self.front: ASGIApp = super().__call__
        self.body_limits: dict[str, int] = {}
        self._transports = transports
        self._pool = PooledTransport()
        self._peers: dict[str, Peer] = {}
        self._workers: list[Worker] = []
        self._preparations: list[Round] = []
        self._in_flight = 0
        self._max_in_flight = settings.max_in_flight
        self.started = asyncio.Event()
        super().__init__(
            title=f"Souk: {name}",
            version="1",
            docs_url=f"/docs/{name}",
            redoc_url=None,
            openapi_url=f"/docs/{name}/openapi.json",
            swagger_ui_oauth2_redirect_url=None,
            redirect_slashes=False,
            max_body_size=MAX_BODY_BYTES,
            lifespan=_lifespan,
            separate_input_output_schemas=False,
        )
        self.state.database = self.database
        self.state.service_callers = ServiceCallers(name, settings)
        self.telemetry.in_flight.set_function(lambda: self._in_flight)
        self.telemetry.gauge(
            "souk_database_connections_in_use", "Connections of the pool that serve a statement now."
        ).set_function(self.database.in_use)
        self.telemetry.gauge("souk_database_pool_size", "The most connections that the pool opens.").set(
            settings.database_pool_size
        )

    def peer(self, name: str, url: str, *, timeout_s: float = 3.0) -> Peer:
        """A client of another service; the same one for the same name."""
        if name not in self._peers:
            transport = self._pool if self._transports is None else self._transports[name]
            self._peers[name] = Peer(name, url, self.credential, self.telemetry, transport, timeout_s=timeout_s)
        return self._peers[name]

    def worker(self, name: str, work: Round, *, every_s: float) -> Worker:
        """Background work that starts and stops with the service."""
        worker = Worker(name, work, every_s, self.telemetry)
        self._workers.append(worker)
        return worker

    def prepare(self, work: Round) -> None:
        """Work that the service needs done before it is ready, once the schema is there; repeated until it succeeds."""
        self._preparations.append(work)

    @property
    def ready(self) -> bool:
        """Whether the service has started and the schema was at the expected revision then.

        It does not follow the database down: an outage answers 503 request by request, and must not take every replica
        out of its Service at once.
        """
        return self.started.is_set()

    async def start(self) -> None:
        """Begin to wait for the schema; when it is there, what was prepared is done and the workers start."""
        self._awaiting_schema = asyncio.create_task(self._await_schema())

    async def _await_schema(self) -> None:
        expected = expected_revision(self.service_name)
        while not self.ready:
            try:
                if await self.database.revision() >= expected:
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
        log.info("service_ready", schema=expected)

    async def stop(self) -> None:
        """Stop the workers and close every connection."""
        self.stopping.set()
        self._awaiting_schema.cancel()
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        for peer in self._peers.values():
            await peer.aclose()
        await self._pool.aclose()
        await self.database.close()

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
        request_id = traceparent = deadline = None
        request_bytes = 0
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                request_id = value.decode("latin-1")
            elif name == b"traceparent":
                traceparent = value.decode("latin-1")
            elif name == b"content-length":
                request_bytes = int(value) if value.isdigit() else 0
            elif name == DEADLINE_HEADER:
                deadline = value
        context = Context(request_id=request_id, traceparent=traceparent)
        request_id_header = (b"x-request-id", context.request_id.encode("ascii"))
        status = response_bytes = 0
        seconds = 0.0

        async def answer(message: Message) -> None:
            nonlocal status, response_bytes, seconds
            if message["type"] == "http.response.start":
                # The time until the answer begins: an open event stream is not a slow request.
                seconds = perf_counter() - started_at
                status = message["status"]
                message["headers"] = [*message["headers"], request_id_header]
            else:
                response_bytes += len(message.get("body", b""))
            await send(message)

        token = current.set(context)
        self._in_flight += 1
        try:
            if self._in_flight > self._max_in_flight and scope["path"] not in PROBES:
                refusal = ProblemResponse(Unavailable("too many requests at once"), scope["path"])
                await refusal(scope, receive, answer)
            elif request_bytes > MAX_BODY_BYTES and request_bytes > self.body_limits.get(scope["path"], 0):
                # A body of unknown length is counted as it comes, by FastAPI.
                await ProblemResponse(ContentTooLarge(), scope["path"])(scope, receive, answer)
            elif deadline is not None:
                await self._within(deadline, context, scope, receive, answer)
            else:
                await self.front(scope, receive, answer)
        except Exception:
            # The handler of unexpected errors has answered and logged; Starlette raises the error again for the
            # server's log.
            if not status:
                raise
        finally:
            self._in_flight -= 1
            current.reset(token)
            # A request whose client went away before an answer began has no status, and is not an error of ours.
            if status and scope["path"] not in PROBES:
                handler = scope.get(HANDLER) or _handler(scope)
                self.telemetry.http.observe(handler, scope["method"], status, seconds, request_bytes, response_bytes)

    async def _within(self, limit: bytes, context: Context, scope: Scope, receive: Receive, answer: Send) -> None:
        """Serve a request that its caller stops waiting for after `limit` seconds: then nothing of it goes on."""
        try:
            limit_s = float(limit)
            loop = asyncio.get_running_loop()
            context.deadline = loop.time() + limit_s
            async with asyncio.timeout(limit_s):
                await self.front(scope, receive, answer)
        except (TimeoutError, ValueError):
            refusal = ProblemResponse(Unavailable("the deadline has passed"), scope["path"])
            await refusal(scope, receive, answer)


DEADLINE_HEADER = DEADLINE.lower().encode("ascii")


def _handler(scope: Scope) -> str:
    """The path template of the route that served, never the raw path."""
    route = scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None) or UNMATCHED


@asynccontextmanager
async def _lifespan(service: FastAPI) -> AsyncGenerator[None, None]:
    assert isinstance(service, Service)
    await service.start()
    try:
        yield
    finally:
        await service.stop()


def _put_problems(schema: dict[str, Any]) -> None:
    """Put the problem document into the schema, in place of FastAPI's own shape of a validation error."""
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in problem.pop("$defs", {}).items():
        components[name] = definition
    components["Problem"] = problem
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path in schema["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            unprocessable = responses.get("422", {})
            if "application/json" in unprocessable.get("content", {}):
                title = problems.InvalidRequest.title
                responses["422"] = {"description": f"{title} (`invalid-request`)", "content": content}
            responses.setdefault("503", {"description": f"{Unavailable.title} (`unavailable`)", "content": content})


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
    problems.install(service)

    async def livez() -> Response:
        """Whether the process's event loop turns; nothing else."""
        return Response("ok", media_type="text/plain")

    async def readyz() -> Response:
        """Whether the service has started and found its schema."""
        ready = service.ready
        return Response("ready" if ready else "starting", 200 if ready else 503, media_type="text/plain")

    async def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(service.telemetry.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def docs() -> HTMLResponse:
        """The list of the services' documentation pages."""
        return HTMLResponse(INDEX)

    for path, endpoint in (("/livez", livez), ("/readyz", readyz), ("/metrics", metrics), ("/docs", docs)):
        service.add_api_route(path, endpoint, include_in_schema=False)
    return service


def openapi_bytes(service: Service) -> bytes:
    """The OpenAPI document as it is committed."""
    return orjson.dumps(service.openapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
