"""The calls that a checkout is made of, straight to their functions.

FastAPI's handling of a request's parameters costs more than what these calls do with them. A route is *direct* when
its function takes only what can be handed over without that: UUIDs of its path, one body, the request, and
dependencies that are coroutine functions of the request. The function is the same one, registered, documented and
typed as any other; this layer in front of the routes calls it when everything about a request is in order, and leaves
the request to FastAPI, which knows how to say what is wrong, when anything is not. docs/decisions/direct-calls.md has
the measurement.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Any, get_args, get_origin, get_type_hints
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends, Header
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.app import HANDLER
from chassis.schemas import Body, JsonBytes, json_of

ID: TypeAdapter[UUID] = TypeAdapter(UUID)


class NotDirect(Exception):
    """The route's function takes something that only FastAPI can hand over."""


class _Route:
    """A direct route: how to recognise its requests, and how to call its function."""

    def __init__(self, route: APIRoute) -> None:
        (self.method,) = route.methods or {"GET"}
        self.path = route.path
        self.pattern = route.path_regex
        self.status = route.status_code or 200
        self.function: Callable[..., Awaitable[Any]] = route.endpoint
        self.ids: list[str] = []
        self.dependencies: list[tuple[str, Callable[[Request], Awaitable[Any]]]] = []
        self.body: tuple[str, type[Body]] | None = None
        self.request: str | None = None
        for name, hint in get_type_hints(route.endpoint, include_extras=True).items():
            if name != "return":
                self._take(name, hint)

    def _take(self, name: str, hint: Any) -> None:
        kind, metadata = hint, ()
        if get_origin(hint) is Annotated:
            kind, *metadata = get_args(hint)
        depends = [marker for marker in metadata if isinstance(marker, Depends)]
        if depends:
            self.dependencies.append((name, _of_request(depends[0].dependency)))
        elif f"{{{name}}}" in self.path and kind is UUID:
            self.ids.append(name)
        elif kind is Request:
            self.request = name
        elif isinstance(kind, type) and issubclass(kind, Body) and self.body is None:
            self.body = (name, kind)
        else:
            raise NotDirect(f"{self.method} {self.path}: {name}")

    async def arguments(self, request: Request, path: re.Match[str]) -> dict[str, Any] | None:
        """What the function is called with, or none where FastAPI has to say what is wrong."""
        found: dict[str, Any] = {}
        try:
            for name in self.ids:
                found[name] = ID.validate_python(path[name])
            if self.body is not None:
                headers = request.headers
                if headers.get("content-type") != "application/json" or "content-length" not in headers:
                    return None
                name, model = self.body
                found[name] = model.model_validate_json(await request.body())
        except (ValueError, ClientDisconnect):
            return None
        for name, dependency in self.dependencies:
            found[name] = await dependency(request)
        if self.request is not None:
            found[self.request] = request
        return found


def _of_request(dependency: Any) -> Callable[[Request], Awaitable[Any]]:
    """The dependency as a coroutine function of the request; raises NotDirect where it takes more, or but a header."""
    function = dependency if inspect.isfunction(dependency) else type(dependency).__call__
    hints = {name: hint for name, hint in get_type_hints(function, include_extras=True).items() if name != "return"}
    if inspect.iscoroutinefunction(function) and len(hints) == 1:
        ((name, hint),) = hints.items()
        if hint is Request:
            return dependency
        for marker in get_args(hint)[1:]:
            if isinstance(marker, Header) and marker.alias:
                return _of_header(dependency, name, marker.alias)
    raise NotDirect(f"{dependency} is not a coroutine function of the request")


def _of_header(dependency: Any, name: str, header: str) -> Callable[[Request], Awaitable[Any]]:
    async def of_request(request: Request) -> Any:
        return await dependency(**{name: request.headers.get(header)})

    return of_request


class Direct:
    """The layer in front of the routes."""

    def __init__(self, app: ASGIApp, router: APIRouter, functions: Collection[Callable[..., Any]]) -> None:
        """Serve these functions of a router directly; raises NotDirect for one that cannot be."""
        self._app = app
        self._routes: dict[str, list[_Route]] = {}
        routes = [route for route in router.routes if isinstance(route, APIRoute) and route.endpoint in functions]
        if len(routes) < len(functions):
            raise NotDirect("the router does not have all of these functions")
        for route in routes:
            direct = _Route(route)
            self._routes.setdefault(direct.method, []).append(direct)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for route in self._routes.get(scope["method"], ()):
                path = route.pattern.match(scope["path"])
                if path is not None:
                    await self._serve(route, path, scope, receive, send)
                    return
        await self._app(scope, receive, send)

    async def _serve(self, route: _Route, path: re.Match[str], scope: Scope, receive: Receive, send: Send) -> None:
        received: list[Message] = []

        async def remembered() -> Message:
            received.append(await receive())
            return received[-1]

        async def again() -> Message:
            return received.pop(0) if received else await receive()

        scope[HANDLER] = route.path
        request = Request(scope, remembered)
        arguments = await route.arguments(request, path)
        if arguments is None:
            await self._app(scope, again, send)
            return
        answer = await route.function(**arguments)
        if isinstance(answer, BaseModel):
            answer = JsonBytes(json_of(answer), route.status)
        elif not isinstance(answer, Response):
            answer = Response(status_code=route.status)
        await answer(scope, receive, send)
