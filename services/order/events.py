"""An order's status as it changes: one query every fraction of a second for all orders that this replica's clients
watch.

PostgreSQL's NOTIFY would save the wait, but it takes one lock for the whole cluster when a transaction commits,
which every checkout would then queue for.
"""

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

import orjson
import structlog

from chassis.context import Context, current
from chassis.problems import Problem, Unavailable
from chassis.schemas import rfc3339
from services.order.domain import FINAL, Entry, Order
from services.order.repository import Orders

log = structlog.stdlib.get_logger()

LOOK_EVERY_S = 0.25
COMMENT_EVERY_S = 15.0
OPEN_FOR_S = 900.0
"""As long as an access token lives: then the client asks again, with `Last-Event-ID` and a token that is valid."""
MOST_WATCHES = 2_000
MOST_WATCHES_OF_A_USER = 20


class _Watch:
    """One client's view of an order: how many entries it has got, and those that it has not."""

    def __init__(self, order_id: UUID, user_id: UUID, seen: int) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.seen = seen
        self.news: asyncio.Queue[tuple[Entry, ...]] = asyncio.Queue()


class StatusFeed:
    """Tells the clients of this replica what happens to the orders that they watch."""

    def __init__(self, orders: Orders, stopping: asyncio.Event) -> None:
        self._orders = orders
        self._stopping = stopping
        self._watches: set[_Watch] = set()
        self._looking: asyncio.Task[None] | None = None

    def admit(self, user_id: UUID) -> None:
        """Refuse a stream where there are too many, of this user or in all; raises Unavailable."""
        of_user = sum(watch.user_id == user_id for watch in self._watches)
        if len(self._watches) >= MOST_WATCHES or of_user >= MOST_WATCHES_OF_A_USER:
            raise Unavailable("too many event streams are open", retry_after_s=5)

    async def follow(self, order: Order, user_id: UUID, seen: int) -> AsyncGenerator[bytes, None]:
        """The order's entries after the first `seen` as server-sent events, until its final status or the server's
        stop.

        https://html.spec.whatwg.org/multipage/server-sent-events.html
        """
        watch = _Watch(order.id, user_id, len(order.history))
        ends_at = asyncio.get_running_loop().time() + OPEN_FOR_S
        for number, entry in enumerate(order.history[seen:], start=seen + 1):
            yield _event(number, entry)
        final = order.status in FINAL
        self._watches.add(watch)
        self._look()
        try:
            while not final and not self._stopping.is_set() and asyncio.get_running_loop().time() < ends_at:
                entries = await self._next(watch)
                if entries is None:
                    yield b": still here\n\n"
                    continue
                for number, entry in enumerate(entries, start=watch.seen - len(entries) + 1):
                    yield _event(number, entry)
                    final = final or entry.status in FINAL
        finally:
            self._watches.discard(watch)

    async def _next(self, watch: _Watch) -> tuple[Entry, ...] | None:
        """The next entries, or none when it is time for a sign of life, or to stop."""
        news = asyncio.ensure_future(watch.news.get())
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((news, stop), timeout=COMMENT_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            return news.result() if news.done() else None
        finally:
            news.cancel()
            stop.cancel()

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_watched())

    async def _look_while_watched(self) -> None:
        current.set(Context())  # for all who watch, so not in the trace of the one who was first
        while self._watches:
            seen: dict[UUID, int] = {}
            for watch in self._watches:
                seen[watch.order_id] = min(watch.seen, seen.get(watch.order_id, watch.seen))
            try:
                changed = await self._orders.changed(seen)
            except Problem as problem:
                log.warning("orders_not_watched", problem=problem.code)
                changed = {}
            for watch in self._watches:
                history = changed.get(watch.order_id, ())
                if len(history) > watch.seen:
                    watch.news.put_nowait(history[watch.seen :])
                    watch.seen = len(history)
            await asyncio.sleep(LOOK_EVERY_S)


def _event(number: int, entry: Entry) -> bytes:
    data = {"status": entry.status, "at": rfc3339(entry.at)}
    if entry.reason is not None:
        data["reason"] = entry.reason
    return b"id: %d\nevent: status\ndata: %s\n\n" % (number, orjson.dumps(data))
