"""Reads of the catalogue, answered from memory before routing, and never stale.

What is kept. The whole answer, bytes and headers, of `GET` of the list, one product and the categories, by path and
query string as they came; 200 only, the least recently used dropped first.

Why it is fresh. Every transaction that changes what such a read shows also raises a counter in
`catalogue_generation`, and the counters' sum is the generation. Two snapshots of the database in which the generation
is the same therefore show the same catalogue. An entry notes a generation that was read *before* its content, so its
content is at least as new as what the generation stands for. A request is answered from an entry only if a *check*, a
read of the generation that began after the request came, finds the entry's generation: then nothing has been
committed between, by any replica, and the answer is the one that a read of the database would have given at that
moment. A client that was told of its write reads it.

Why it is cheap. A check proves every entry at once, so requests share it: those that come while one is under way wait
for the next. Its cost is divided by the requests that wait, and a hit is a look-up, an awaited future and two
messages.

What is not in memory, or no longer true, is read once for all who wait for the same answer with the same generation.
A request for what is not in memory needs no check: the newest generation known is older than its content.

Without the database nothing can be proven, and nothing is answered: 503.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.app import HANDLER
from chassis.context import current
from chassis.problems import Problem, ProblemResponse
from services.product.conditional import NO_CACHE, matches
from services.product.reads import CATEGORIES, Representation, template
from services.product.repository import Generation

ENTRY_BYTES = 1_000
"""What an entry takes beside its body and its key, roughly."""

Key = tuple[str, bytes]
Headers = list[tuple[bytes, bytes]]


class Checks:
    """Reads the generation for many requests at once."""

    def __init__(self, read: Callable[[], Awaitable[Generation]]) -> None:
        self._read = read
        self._waiting: list[asyncio.Future[Generation]] = []
        self._task: asyncio.Task[None] | None = None
        self.newest = Generation(-1, -1)
        """The newest that was read, however long ago."""

    def begin(self) -> asyncio.Future[Generation]:
        """The generation as of a read that begins after this call; awaiting it raises Unavailable."""
        # A future for each, since a request that is cancelled takes the future it waits for along.
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        current.set(None)  # for all who wait, so in the trace of none of them
        try:
            while self._waiting:
                await asyncio.sleep(0)  # what has arrived by now is read from its sockets first, and joins
                waiting, self._waiting = self._waiting, []
                try:
                    found = await self._read()
                except Exception as error:  # each waiting request raises it
                    for future in waiting:
                        if not future.done():
                            future.set_exception(error)
                else:
                    self.newest = found
                    for future in waiting:
                        if not future.done():
                            future.set_result(found)
        finally:
            self._task = None


class Entry:
    """An answer as it is sent, and the generation that proves it."""

    __slots__ = ("body", "generation", "headers", "size", "tag", "unchanged_headers")

    def __init__(self, made: Representation, generation: int, key: Key) -> None:
        self.tag = made.tag
        self.unchanged_headers: Headers = [
            (b"etag", made.tag.encode("ascii")),
            (b"cache-control", NO_CACHE.encode("ascii")),
        ]
        self.headers: Headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(made.body)),
            *self.unchanged_headers,
        ]
        self.body: Message = {"type": "http.response.body", "body": made.body}
        self.generation = generation
        self.size = len(made.body) + len(key[0]) + len(key[1]) + ENTRY_BYTES


NO_BODY: Message = {"type": "http.response.body", "body": b""}


class ReadCache(Collector):
    """The ASGI application in front of the routes."""

    def __init__(
        self,
        app: ASGIApp,
        read: Callable[[str, str, bytes], Awaitable[Representation | None]],
        generation: Callable[[], Awaitable[Generation]],
        *,
        most_bytes: int,
        most_entries: int,
    ) -> None:
        """`read` is `Reads.answer`; what it leaves to the routes, and all that is no such read, goes on to `app`."""
        self._app = app
        self._read = read
        self._checks = Checks(generation)
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._building: dict[Key, tuple[int, asyncio.Future[Entry | None]]] = {}
        self._bytes = 0
        self._hits = self._misses = self._rebuilds = 0

    def collect(self) -> Iterable[Metric]:
        """The metrics, for one scrape."""
        reads = CounterMetricFamily(
            "souk_read_cache_reads",
            "Reads of the catalogue: hits proven fresh, misses, and rebuilds of what had changed.",
            labels=("result",),
        )
        for result, count in (("hit", self._hits), ("miss", self._misses), ("rebuild", self._rebuilds)):
            reads.add_metric((result,), count)
        size = GaugeMetricFamily("souk_read_cache_bytes", "Memory that the kept answers take.", self._bytes)
        return (reads, size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The way of a hit is written out here: a call more would cost each of them.
        route = template(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope[HANDLER] = route
        key: Key = (scope["path"], scope["query_string"])
        try:
            if key not in self._entries and key not in self._building:
                self._misses += 1
                entry = await self._build(route, key, _mark(route, self._checks.newest))
            else:
                generation = _mark(route, await self._checks.begin())
                # While this request waited another may have made the answer anew, or dropped it.
                entry = self._entries.get(key)
                if entry is not None and entry.generation == generation:
                    self._hits += 1
                    self._entries.move_to_end(key)
                else:
                    self._rebuilds += 1
                    entry = await self._rebuild(route, key, generation)
        except Problem as problem:
            await ProblemResponse(problem, scope["path"])(scope, receive, send)
            return
        if entry is None:
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"if-none-match" and matches(value.decode("latin-1"), entry.tag):
                await send({"type": "http.response.start", "status": 304, "headers": entry.unchanged_headers})
                await send(NO_BODY)
                return
        await send({"type": "http.response.start", "status": 200, "headers": entry.headers})
        await send(entry.body)

    async def _rebuild(self, route: str, key: Key, generation: int) -> Entry | None:
        """The answer with this generation, by whoever began to make it; none where the routes are to refuse it."""
        under_way = self._building.get(key)
        if under_way is not None and under_way[0] == generation:
            # Its content is read after its generation was, and this request's check has found the same: it is fresh.
            entry = await asyncio.shield(under_way[1])
            if entry is not None:
                return entry
        return await self._build(route, key, generation)

    async def _build(self, route: str, key: Key, generation: int) -> Entry | None:
        building: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        mine = self._building[key] = (generation, building)
        entry = None
        try:
            made = await self._read(route, *key)
            if made is not None:
                entry = Entry(made, generation, key)
                self._keep(key, entry)
            return entry
        finally:
            # Those who wait for it make it themselves where it failed, so that each is told why in its own trace.
            building.set_result(entry)
            if self._building.get(key) is mine:
                del self._building[key]

    def _keep(self, key: Key, entry: Entry) -> None:
        before = self._entries.get(key)
        if before is not None and before.generation > entry.generation:
            return  # a slower read that began earlier
        if before is not None:
            self._drop(key)
        if entry.size > self._most_bytes:
            return
        self._entries[key] = entry
        self._bytes += entry.size
        while self._bytes > self._most_bytes or len(self._entries) > self._most_entries:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        self._bytes -= self._entries.pop(key).size


def _mark(route: str, generation: Generation) -> int:
    """What of a generation an answer depends on: the categories show no stock, so checkouts leave them as they are."""
    return generation.edits if route == CATEGORIES else generation.all
