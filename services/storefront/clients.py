"""The four services as the storefront sees them: at their public paths, in the name of whoever asks.

Nothing here is trusted by the services more than any other client is, so what a shopper may not do, the storefront may
not do for them.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from time import perf_counter
from typing import Any, cast

import httpx2
import orjson

from chassis.app import Application
from chassis.balancing import CallPolicy
from chassis.clients import NO_ANSWER, Calls
from chassis.context import context
from chassis.transport import POLICY
from services.storefront.settings import StorefrontSettings

TIMEOUT_S = 4.0
CHECKOUT = CallPolicy(idempotent=True, attempt_timeout_s=None, timed=False)
"""An order may be sent twice, since it carries its key; a provider may take its time, on whichever replica."""
CHECKOUT_TIMEOUT_S = 9.0
"""The order service answers within 5 s, with 202 where it does not know the outcome by then."""
OPENED_S = 5.0
"""How long a stream may take to begin."""


class Refused(Exception):
    """A service's definite no (4xx): `code` is the last part of the problem's type, `document` all of it."""

    def __init__(self, service: str, status: int, document: Mapping[str, Any]) -> None:
        self.service = service
        self.status = status
        self.document = document
        self.code = str(document.get("type", "")).rpartition("/")[2]
        super().__init__(f"{service} answered {status} {self.code}")

    def errors(self) -> dict[str, str]:
        """What is wrong with which field, by the last part of its path: `address.city` is the form's `city`."""
        errors: list[dict[str, str]] = self.document.get("errors", [])
        return {error["field"].rpartition(".")[2]: error["detail"] for error in errors}


class Unreachable(Exception):
    """A service gave no answer, or 5xx: whether it did what was asked is not known."""

    def __init__(self, service: str) -> None:
        self.service = service
        super().__init__(f"{service} does not answer")


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer told of itself in Server-Timing; `replica` is empty where it told nothing."""

    service: str
    milliseconds: float
    replica: str
    retries: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered: `document` is its JSON, none where it has no body."""

    status: int
    headers: httpx2.Headers
    document: Any


class Services:
    """The ways to the four services; one for the life of the application."""

    def __init__(self, application: Application, settings: StorefrontSettings) -> None:
        self.origins = {
            "user": settings.user_url,
            "product": settings.product_url,
            "payment": settings.payment_url,
            "order": settings.order_url,
        }
        self.pools = {name: application.pool(name, urls) for name, urls in self.origins.items()}
        self.calls = {
            name: Calls(name, httpx2.URL(urls.partition(",")[0].strip()), application.telemetry)
            for name, urls in self.origins.items()
        }
        self._streams: httpx2.AsyncClient | None = None
        self._random = Random()  # noqa: S311 - spreads streams

    @asynccontextmanager
    async def stream(
        self,
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: AsyncIterable[bytes] | None = None,
        *,
        read_timeout_s: float | None = None,
    ) -> AsyncGenerator[httpx2.Response, None]:
        """A request whose body or answer goes through piece by piece, to an address of the service drawn at random.

        Not balanced and not repeated: who reads an event stream opens it anew where it ended. Raises Unreachable.
        """
        if self._streams is None:
            self._streams = httpx2.AsyncClient(timeout=httpx2.Timeout(OPENED_S, read=read_timeout_s))
        origin = self._random.choice(self.origins[service].split(",")).strip()
        try:
            async with self._streams.stream(
                method, f"{origin}{path}", headers=_told(context().traceparent()) | dict(headers), content=content
            ) as answer:
                yield answer
        except httpx2.TransportError:
            raise Unreachable(service) from None

    async def aclose(self) -> None:
        """Close the streams' connections; the pools are the application's."""
        if self._streams is not None:
            await self._streams.aclose()


def _told(traceparent: str) -> dict[str, str]:
    return {"traceparent": traceparent, "X-Request-Id": context().request_id}


class Shop:
    """The four services, for one request of a browser; `access_token` says in whose name, none in nobody's."""

    def __init__(self, services: Services, access_token: str | None) -> None:
        self._services = services
        self.access_token = access_token
        self.told: list[Told] = []

    async def get(self, service: str, path: str, **parameters: object) -> Any:
        """The JSON of a read; parameters that are none are left out. Raises Refused, Unreachable."""
        query = httpx2.QueryParams({name: str(value) for name, value in parameters.items() if value is not None})
        return (await self.call(service, "GET", f"{path}?{query}" if query else path)).document

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        document: Any = None,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        policy: CallPolicy | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        """Send `document` as JSON, or `form` as a form.

        Raises Refused for a definite refusal (4xx), Unreachable where the outcome is not known.
        """
        sent = dict(headers or {})
        content = b""
        if self.access_token is not None:
            sent["Authorization"] = f"Bearer {self.access_token}"
        if form is not None:
            content = str(httpx2.QueryParams(dict(form))).encode("ascii")
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        elif document is not None:
            content = orjson.dumps(document)
            sent["Content-Type"] = "application/json"
        origin = self._services.origins[service].partition(",")[0].strip()
        extensions: dict[str, Any] = {"timeout": {"read": timeout_s}}
        if policy is not None:
            extensions[POLICY] = policy
        call = self._services.calls[service].to(method, path)
        started = perf_counter()
        try:
            with call:
                sent = _told(call.traceparent) | sent
                request = httpx2.Request(method, origin + path, headers=sent, content=content, extensions=extensions)
                async with asyncio.timeout(timeout_s):
                    answer = await self._services.pools[service].handle_async_request(request)
                    body = await answer.aread()
                call.answered(answer.status_code)
                self._note(service, (perf_counter() - started) * 1000, answer.headers.get("server-timing", ""))
                if answer.status_code >= 500:
                    raise Unreachable(service)
                found = orjson.loads(body) if "json" in answer.headers.get("content-type", "") else None
                if answer.status_code >= 400:
                    call.outcome = "refused"
                    document = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
                    raise Refused(service, answer.status_code, document)
                call.outcome = "answered"
                return Answer(answer.status_code, answer.headers, found)
        except NO_ANSWER as error:
            raise Unreachable(service) from (error if call.outcome == "unreachable" else None)

    def _note(self, service: str, milliseconds: float, timing: str) -> None:
        replica, retries = (_described(timing, name) for name in ("replica", "retries"))
        self.told.append(Told(service, milliseconds, replica, int(retries) if retries.isdigit() else 0))


def _described(timing: str, name: str) -> str:
    """The description of an entry of Server-Timing; empty where there is no such entry."""
    found = re.search(rf'\b{name};desc="([^"]*)"', timing)
    return found[1] if found else ""
