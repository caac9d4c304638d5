"""A shopper's HTTP client, which writes down everything: what was sent, when, and what came back.

Nothing is repeated here. What a shopper does about an answer that did not come is the shopper's business.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import httpx2

from drills.evidence import Exchange

TIMEOUT_S = 15.0
"""Longer than anything the platform promises: a shopper that gives up first would hide what it was about."""
NO_ANSWER = "no answer"
LOST = "reply lost"
FOR_NOW = frozenset({502, 503, 504})
"""What says that the request may be repeated, with the same key: of the edge, and of a service itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` is none where nothing did."""

    status: int | None
    body: Any
    headers: Mapping[str, str]
    trace_id: str
    wrong: bool = False
    """Whether no such answer may be given to this call, whatever befell the platform; it is written down."""

    @property
    def for_now(self) -> bool:
        """Whether the request came to nothing that is known, and has to be repeated."""
        return self.status is None or self.status in FOR_NOW

    @property
    def code(self) -> str:
        """The code of a problem, such as `insufficient-stock`."""
        return str(self.members.get("type", "")).rpartition("/")[2]

    @property
    def members(self) -> dict[str, Any]:
        """The members of a body that is a JSON object; of any other none."""
        body: object = self.body
        return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


class _Counted(httpx2.AsyncHTTPTransport):
    """The transport, counting what is handed to it: apart from the log, so that each checks the other."""

    def __init__(self, client: "Client") -> None:
        super().__init__(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))
        self._of = client

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._of.sent += 1
        return await super().handle_async_request(request)


class Client:
    """All shoppers' connections to one edge."""

    def __init__(self, origin: str, began: float) -> None:
        """`began` is the moment by `time.monotonic()` that exchanges count from."""
        self.sent = 0
        self.exchanges: list[Exchange] = []
        self.wrong: list[str] = []
        """Answers that no call may give, whatever befell the platform."""
        self.began = began
        self._client = httpx2.AsyncClient(base_url=origin, timeout=TIMEOUT_S, transport=_Counted(self))

    async def call(
        self,
        method: str,
        template: str,
        *ids: object,
        hoped: Collection[int] = (200,),
        taken: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        lose_reply: bool = False,
        trace_id: str | None = None,
    ) -> Answer:
        """Send one request; `template` is its path with `{}` for each of the `ids`.

        `hoped` are the statuses of a call that works, `taken` others that say something true (a refusal, as of a card).
        With `lose_reply` the answer is taken from the socket and thrown away, as if it had been lost on its way.
        """
        trace_id = trace_id or uuid4().hex
        sent_headers = {"traceparent": f"00-{trace_id}-{trace_id[:16]}-01", **(headers or {})}
        call = f"{method} {template.replace('{}', '{id}')}"
        began = time.monotonic()
        status: int | None = None
        found: Any = None
        answered: Mapping[str, str] = {}
        try:
            answer = await self._client.request(
                method,
                template.format(*ids),
                headers=sent_headers,
                params=params,
                json=body,
                data=form,
                content=content,
            )
            status, answered = answer.status_code, answer.headers
            if answer.content and "json" in answer.headers.get("content-type", ""):
                found = answer.json()
        except (httpx2.TransportError, httpx2.DecodingError):
            pass
        except ValueError:
            self.wrong.append(f"{call} was answered {status} with a body that is no JSON: {answered}")
        if lose_reply:
            status, found, answered = None, None, {}
        failure, wrong = None, False
        if status is None:
            failure = LOST if lose_reply else NO_ANSWER
        elif status not in hoped and status not in taken:
            failure = str(status)
            if status not in FOR_NOW:
                wrong = True
                self.wrong.append(f"{call} was answered {status} {found or answered}")
        self.exchanges.append(
            Exchange(
                began - self.began,
                time.monotonic() - began,
                call,
                status,
                failure,
                retry_after="retry-after" in answered,
            )
        )
        return Answer(status, found, answered, trace_id, wrong)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
