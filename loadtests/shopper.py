"""What every journey is made of: a browser of its own, pauses, requests that are due, and answers that are checked."""

import json
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any, ClassVar, NoReturn, cast
from urllib.parse import urlencode

from geventhttpclient.url import URL
from locust import FastHttpUser, task
from locust.env import Environment

from loadtests.floor import Floor
from loadtests.record import NEVER_SENT, NO_ANSWER, WRONG, Request
from loadtests.schedule import Arrival, draws_of, think_time_s

TIMEOUT_S = 30.0
"""Longer than anything the shop promises, so that who gives up first does not hide what it was about."""
MOST_DETAIL = 300
NOT_AS_TOLD = (LookupError, TypeError, ValueError, AttributeError)
"""What reading a body raises that is not of the form that the contract says."""


class Left(Exception):
    """The shopper is done: something was wrong, and is written down, or the run is over."""


class NotAsHoped(Exception):
    """An answer that is a failure; `kind` as a request has it."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class Answer:
    """What came back. Whatever is read of it and is not as the contract says makes the request a failure."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.status: int = response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; their names in any case."""
        return self._response.headers or {}

    @property
    def content(self) -> bytes:
        """The body."""
        return self._response.content or b""

    def must_be(self, *statuses: int) -> None:
        """Raises NotAsHoped for any other status: what says that it is refused for now by its number."""
        if self.status == 0:
            raise NotAsHoped(NO_ANSWER, repr(getattr(self._response, "error", None)))
        if self.status not in statuses:
            said = self.content.decode(errors="replace")[:MOST_DETAIL]
            refused = self.status in {429, 502, 503, 504}
            raise NotAsHoped(str(self.status) if refused else WRONG, f"{self.status} {said}")

    def must(self, so: object, detail: str) -> None:
        """Raises NotAsHoped where something that the contract says is not so."""
        if not so:
            raise NotAsHoped(WRONG, detail)

    def json(self) -> Any:
        """The body as JSON; raises ValueError."""
        return json.loads(self.content)

    def object(self) -> dict[str, Any]:
        """The body as a JSON object."""
        found = self.json()
        self.must(isinstance(found, dict), "not a JSON object")
        return cast("dict[str, Any]", found)

    def items(self, most: int) -> list[dict[str, Any]]:
        """The items of a page of a list."""
        items: list[dict[str, Any]] = self.object()["items"]
        self.must(len(items) <= most, f"{len(items)} items where {most} were asked for")
        return items

    def lines(self) -> Iterator[str]:
        """The lines of a body that is still coming, without their ends."""
        stream, until = self._response.stream, time.monotonic() + TIMEOUT_S
        # Locust's own reader waits for full blocks, which a live stream has not.
        while line := cast("bytes", stream.readline(b"\n")):
            yield line.decode().rstrip("\n")
            if time.monotonic() > until:
                raise NotAsHoped(NO_ANSWER, f"no end of the stream within {TIMEOUT_S:.0f} s")

    def close(self) -> None:
        """Leave a body that is still coming, and its connection, as a browser does."""
        if self.status:
            self._response.release()


class Shopper(FastHttpUser):
    """A browser with a person before it.

    Its connections are its own: opened when something is asked, kept while the person thinks, reused for what comes
    next and closed when the person leaves. So who comes costs the shop a new connection, and what is asked next none.
    """

    abstract = True
    network_timeout = TIMEOUT_S
    connection_timeout = TIMEOUT_S
    concurrency = 6
    """Connections to one origin, as browsers have with HTTP/1.1."""
    default_headers: dict[str, str] | None = {"User-Agent": "souk-loadtests"}  # noqa: RUF012 - Locust reads it only
    client: Any
    """Locust's, which is typed by half."""
    floor: ClassVar[Floor]
    """Set when a run begins."""
    journey: ClassVar[str] = ""
    _loops: ClassVar[Iterator[int]] = count()
    """Numbers of those who come again and again, in a closed loop."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.number = 0
        self.draw = Random(0)  # noqa: S311 - so that a run can be repeated
        self._due_s = 0.0
        self._opened = 0
        browser = self.client.client.clientpool.get_client(URL(self.host or ""))
        browser._connection_pool.after_connect = self._opened_connection  # its hook, for which it has no argument

    def _opened_connection(self, _socket: Any) -> None:
        """Allow one new connection for a request: a kept one may have been closed meanwhile, and then browsers ask
        again on a new one. One that is new and closed without an answer is a failure; the client hides seven of them.
        """
        self._opened += 1
        if self._opened > 1:
            raise ConnectionResetError("a new connection was closed without an answer")

    # How one comes

    def arrive(self, arrival: Arrival) -> None:
        """Come once, at the moment of a schedule, whatever the shop does: an open loop."""
        self._begin(arrival.number, arrival.due_s)
        try:
            self._go_shopping()
        except Left:
            pass
        finally:
            self.client.client.close()

    @task
    def come_again(self) -> None:
        """Come, think, and come again as somebody else: a closed loop, in which one who waits does not ask."""
        floor = self.floor
        if floor.closing.wait(max(-floor.now_s(), 0)):
            time.sleep(0.1)  # until Locust has stopped this user
            return
        floor.in_shop += 1
        floor.arrivals += 1
        self._begin(next(Shopper._loops) * floor.processes + floor.index, floor.now_s())
        try:
            self._go_shopping()
            self.think()
        except Left:
            time.sleep(min(1.0, floor.plan.shape.think_s))  # one who meets an error does not hammer at the door
        finally:
            floor.in_shop -= 1

    def _begin(self, number: int, due_s: float) -> None:
        self.number = number
        self.draw = draws_of(number, self.floor.plan.seed)
        self._due_s = due_s

    def _go_shopping(self) -> None:
        """The journey. Where it breaks at something of its own, that is written down: a shopper who is missing would be
        an omission that no figure shows. Raises Left.
        """
        try:
            self.shop()
        except Left:
            raise
        except Exception as error:
            now_s, detail = self.floor.now_s(), f"{type(error).__name__}: {error}"
            call = f"the {self.journey}'s journey"
            self.floor.wrote_request(
                Request(self._due_s, now_s, now_s, self.journey, self.number, call, 0, WRONG, detail)
            )
            raise Left from error

    def shop(self) -> None:
        """The journey; raises Left."""
        raise NotImplementedError

    def _go_unserved(self, call: str) -> NoReturn:
        """Leave at the end, with a request that was due before it and had to wait until then."""
        floor, now_s = self.floor, self.floor.now_s()
        if floor.over and self._due_s < floor.plan.shape.ends_s:
            floor.wrote_request(Request(self._due_s, now_s, now_s, self.journey, self.number, call, 0, NEVER_SENT))
        raise Left

    # What one does

    def think(self) -> None:
        """Look at what came before asking for more; raises Left where the run ends meanwhile."""
        self._due_s += think_time_s(self.draw, self.floor.plan.shape.think_s)
        if self.floor.closing.wait(max(self._due_s - self.floor.now_s(), 0)):
            raise Left

    @contextmanager
    def asked(
        self,
        method: str,
        template: str,
        *ids: object,
        query: Mapping[str, str | int] | None = None,
        body: Any = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> Generator[Answer]:
        """Ask, and judge the answer in the block: what it finds wrong makes the request a failure and ends the journey.

        The request was due when the pause before it should have ended, or, without one, when the answer before it came.
        `template` is the path with `{}` for each of the `ids`. Raises Left.
        """
        floor, call = self.floor, f"{method} {template.replace('{}', '{id}')}"
        if floor.closing.is_set():
            self._go_unserved(call)
        path = template.format(*ids) + (f"?{urlencode(query)}" if query else "")
        sent_headers = dict(headers or {})
        data: str | bytes | None = content
        if body is not None:
            data, sent_headers["Content-Type"] = json.dumps(body), "application/json"
        elif form is not None:
            data, sent_headers["Content-Type"] = urlencode(form), "application/x-www-form-urlencoded"
        self._opened = 0
        due_s, sent_s = self._due_s, floor.now_s()
        with self.client.request(
            method,
            path,
            name=template.replace("{}", "{id}"),
            data=data,
            headers=sent_headers,
            catch_response=True,
            allow_redirects=False,
            stream=stream,
        ) as response:
            ended_s, answer = floor.now_s(), Answer(response)
            wrong: NotAsHoped | None = None
            try:
                yield answer
            except NotAsHoped as error:
                wrong = error
            except NOT_AS_TOLD as error:
                wrong = NotAsHoped(WRONG, f"{type(error).__name__}: {error}")
            except OSError as error:
                wrong = NotAsHoped(NO_ANSWER, repr(error))  # a stream that broke off
            if stream:
                ended_s = floor.now_s()
                answer.close()
            failure, detail = ("", "") if wrong is None else (wrong.kind, wrong.detail[:MOST_DETAIL])
            floor.wrote_request(
                Request(due_s, sent_s, ended_s, self.journey, self.number, call, answer.status, failure, detail)
            )
            # Locust's own page and statistics show the same: from when it was due.
            response.request_meta["response_time"] = (ended_s - due_s) * 1000
            self._due_s = ended_s
            if wrong is not None:
                response.failure(str(wrong))
                raise Left
            response.success()
