"""Answers from memory: never stale, also across replicas; shared, bounded, and none without a database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.types import Message, Receive, Scope, Send

from chassis.app import Application
from chassis.problems import Problem, Unavailable
from services.product.domain import ProductNotFound
from services.product.expiry import expire_reservations
from services.product.read_cache import Checks, ReadCache
from services.product.reads import PRODUCT, Representation
from services.product.repository import Generation
from services.product.tests.conftest import Json, Shop, make_service, ndjson
from services.product.tests.test_routes import problem

PATH = "/api/v1/products/x"


async def test_every_write_is_seen_by_the_next_read_through_another_replica(own_shop: Callable[..., Shop]) -> None:
    writer, reader = own_shop(), own_shop()
    product = await writer.product(10)
    path, order_id = f"/api/v1/products/{product['id']}", uuid4()
    await reader.read(path)

    async def run_out() -> None:
        await writer.service.database.execute("UPDATE reservations SET expires_at = now()")
        await expire_reservations(writer.service.state.stock, writer.service.state.metrics)

    line = {"sku": product["sku"], "category": writer.category, "price_minor": 3, "currency": "USD"}
    item = (product["id"], 2)
    writes: list[tuple[Callable[[], Awaitable[Any]], Json]] = [
        (lambda: writer.change(product["id"], name="Changed"), {"name": "Changed"}),
        (lambda: writer.move(product["id"], 5), {"available": 15}),
        (lambda: writer.reserve(order_id, item), {"available": 13}),
        (run_out, {"available": 15}),
        (lambda: writer.commit(order_id), {"available": 13}),
        (lambda: writer.release(order_id), {"available": 15}),
        (lambda: writer.bring_in(ndjson(line | {"name": "Imported"})), {"name": "Imported"}),
        (lambda: writer.bring_in(ndjson(line | {"name": "Imported", "on_hand": 4})), {"available": 4}),
    ]
    for write, expected in writes:
        for warm in (path, path, "/api/v1/products", "/api/v1/products"):
            await reader.read(warm)
        await write()
        alone = await reader.read(path)
        assert alone | expected == alone
        assert (await reader.read("/api/v1/products"))["items"] == [alone]
    other = f"{writer.category}-b"
    await writer.change(product["id"], category=other)
    assert [row["slug"] for row in await reader.read("/api/v1/categories")] == [other]
    await writer.retire(product["id"])
    problem(await reader.send("GET", path), 404, "not-found")
    assert (await reader.read("/api/v1/products"))["items"] == []
    assert await reader.read("/api/v1/categories") == []
    await writer.bring_in(ndjson(line | {"name": "Back"}))
    assert (await reader.read(path))["name"] == "Back"


async def test_no_reader_ever_sees_what_was_before_a_write_that_it_knows_of(own_shop: Callable[..., Shop]) -> None:
    replicas = [own_shop() for _ in range(3)]
    product_id = (await replicas[0].product(1))["id"]
    acknowledged = 1
    done = asyncio.Event()

    async def write() -> None:
        nonlocal acknowledged
        for n in range(60):
            answer = await replicas[n % 3].move(product_id, 1)
            acknowledged = answer.json()["available"]
        done.set()

    async def read(replica: Shop, path: str) -> int:
        reads = last = 0
        while not done.is_set():
            known = max(acknowledged, last)
            found = await replica.read(path)
            last = (found["items"][0] if "items" in found else found)["available"]
            assert last >= known
            reads += 1
        return reads

    paths = (f"/api/v1/products/{product_id}", "/api/v1/products")
    reads = await asyncio.gather(write(), *(read(replica, path) for replica in replicas for path in paths * 3))
    assert min(count for count in reads[1:] if count is not None) > 0


async def test_a_commit_of_what_is_held_leaves_the_answers_as_they_are(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop()
    product_id, order_id = (await shop.product(2))["id"], uuid4()
    await shop.reserve(order_id, (product_id, 1))
    before = await shop.service.state.catalogue.generation()
    await shop.commit(order_id)
    assert await shop.service.state.catalogue.generation() == before
    await shop.release(order_id)
    after = await shop.service.state.catalogue.generation()
    assert (after.edits, after.all) == (before.edits, before.all + 1), "the categories show no stock"


class Source:
    """Stands for the reads: counts what is made, and waits where a test says so."""

    def __init__(self, body: bytes = b"body", problem: Problem | None = None) -> None:
        self.body = body
        self.problem = problem
        self.made = 0
        self.go = asyncio.Event()
        self.go.set()

    async def read(self, route: str, path: str, query_string: bytes) -> Representation | None:
        assert (route, path) == (PRODUCT, PATH)
        if query_string == b"refused":
            return None
        self.made += 1
        body, tag = b"%b %d" % (self.body, self.made), f'"{self.made}"'
        await self.go.wait()
        if self.problem is not None:
            raise self.problem
        return Representation(body, tag)


async def routes(_: Scope, __: Receive, send: Send) -> None:
    """Stand for FastAPI."""
    await send({"type": "http.response.start", "status": 422, "headers": []})
    await send({"type": "http.response.body", "body": b"why"})


class Versions:
    """Stands for the generation in the database, as of the moment at which a read of it begins."""

    def __init__(self) -> None:
        self.now = 0
        self.reads = 0
        self.error: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def read(self) -> Generation:
        self.reads += 1
        found, error = Generation(self.now, self.now), self.error
        await self.go.wait()
        if error is not None:
            raise error
        return found


async def get(cache: ReadCache, path: str = PATH, query: bytes = b"") -> tuple[int, bytes]:
    """Read through a cache, without a server."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    await cache(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


def cache_of(source: Source, versions: Versions, *, most_bytes: int = 10**6, most_entries: int = 100) -> ReadCache:
    """A cache before a source."""
    return ReadCache(routes, source.read, versions.read, most_bytes=most_bytes, most_entries=most_entries)


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_hundred_reads_at_once_share_a_check_and_an_answer() -> None:
    source, versions = Source(), Versions()
    cache = cache_of(source, versions)
    await get(cache)
    await get(cache)
    assert (source.made, versions.reads) == (2, 1), "the first answer was made before any generation was known"
    assert set(await asyncio.gather(*(get(cache) for _ in range(100)))) == {(200, b"body 2")}
    assert (source.made, versions.reads) == (2, 2)
    versions.now += 1
    assert set(await asyncio.gather(*(get(cache) for _ in range(100)))) == {(200, b"body 3")}
    assert (source.made, versions.reads) == (3, 3)


async def test_who_comes_while_a_check_is_under_way_waits_for_the_next() -> None:
    source, versions = Source(), Versions()
    cache = cache_of(source, versions)
    await get(cache)
    await get(cache)
    versions.go.clear()
    early = asyncio.create_task(get(cache))
    await turns()
    versions.now += 1  # a write, told to its client before its next read
    late = asyncio.create_task(get(cache))
    await turns()
    assert versions.reads == 2
    versions.go.set()
    assert await early == (200, b"body 2"), "it came before the write was told"
    assert await late == (200, b"body 3")


async def test_who_comes_while_an_answer_is_made_does_not_take_it_unless_it_is_fresh() -> None:
    source, versions = Source(), Versions()
    cache = cache_of(source, versions)
    await get(cache)
    await get(cache)
    versions.now += 1
    source.go.clear()
    early = asyncio.create_task(get(cache))
    await turns()
    same = asyncio.create_task(get(cache))
    await turns()
    versions.now += 1
    late = asyncio.create_task(get(cache))
    await turns()
    source.go.set()
    assert (await early, await same, await late) == ((200, b"body 3"), (200, b"body 3"), (200, b"body 4"))
    assert await get(cache) == (200, b"body 4"), "an older answer that is ready later does not replace a newer one"


async def test_a_read_that_is_cancelled_takes_no_other_along() -> None:
    source, versions = Source(), Versions()
    cache = cache_of(source, versions)
    await get(cache)
    await get(cache)
    versions.go.clear()
    reads = [asyncio.create_task(get(cache)) for _ in range(3)]
    await turns()
    reads[0].cancel()
    versions.go.set()
    assert await asyncio.gather(*reads[1:]) == [(200, b"body 2")] * 2
    versions.now += 1
    source.go.clear()
    reads = [asyncio.create_task(get(cache)) for _ in range(3)]
    await turns()
    reads[0].cancel()  # the one that makes the answer for all
    await turns()
    source.go.set()
    assert {status for status, _ in await asyncio.gather(*reads[1:])} == {200}


async def test_only_successes_are_kept() -> None:
    source, versions = Source(problem=ProductNotFound()), Versions()
    cache = cache_of(source, versions)
    for _ in range(3):
        assert (await get(cache))[0] == 404
        assert await get(cache, query=b"refused") == (422, b"why")
    assert (source.made, versions.reads) == (3, 0)


async def test_memory_is_bounded_by_entries_and_by_bytes() -> None:
    versions = Versions()
    versions.now = 1
    by_entries = cache_of(Source(), versions, most_entries=2)
    by_bytes = cache_of(Source(b"x" * 10_000), versions, most_bytes=25_000)
    for cache in (by_entries, by_bytes):
        for query in (b"a", b"a", b"b", b"b", b"a", b"c", b"c"):  # b is the least recently used when c comes
            await get(cache, query=query)
        [reads, size] = cache.collect()
        counts = {sample.labels["result"]: sample.value for sample in reads.samples}
        assert counts == {"hit": 3, "miss": 3, "rebuild": 1}
        assert 0 < size.samples[0].value <= 25_000
        await get(cache, query=b"a")
        await get(cache, query=b"b")
        counts = {sample.labels["result"]: sample.value for sample in next(iter(cache.collect())).samples}
        assert counts == {"hit": 4, "miss": 4, "rebuild": 1}


async def test_an_answer_that_is_too_large_is_served_and_not_kept() -> None:
    source = Source(b"x" * 10_000)
    cache = cache_of(source, Versions(), most_bytes=5_000)
    assert [(await get(cache))[0] for _ in range(3)] == [200] * 3
    assert source.made == 3


async def test_nothing_unproven_is_answered() -> None:
    source, versions = Source(), Versions()
    cache = cache_of(source, versions)
    await get(cache)
    versions.error = Unavailable("down")
    assert {status for status, _ in await asyncio.gather(*(get(cache) for _ in range(5)))} == {503}
    versions.error = None
    assert (await get(cache))[0] == 200


async def test_checks_raise_to_all_who_wait_and_go_on_afterwards() -> None:
    versions = Versions()
    checks = Checks(versions.read)
    versions.error = Unavailable()
    found = await asyncio.gather(*(checks.begin() for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [Unavailable] * 3
    versions.error, versions.now = None, 4
    assert (await checks.begin()).all == 4


async def test_an_outage_of_the_database_is_503_and_ends_by_itself(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop()
    product = await shop.product(1)
    path = f"/api/v1/products/{product['id']}"
    await shop.read(path)
    database = shop.service.database
    down = Shop(make_service("postgresql://souk@/none?host=/nowhere"), shop.category)
    for each in (path, "/api/v1/products", "/api/v1/categories"):
        answer = await down.send("GET", each)
        problem(answer, 503, "unavailable")
        assert answer.headers["Retry-After"]
    problem(await down.send("GET", "/internal/v1/audit"), 401, "unauthenticated")
    # Every connection dies under the service that has answers in memory: the next read opens another.
    await database.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
        "current_database()"
    )
    answers = [await shop.send("GET", path) for _ in range(3)]
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert answers[-1].json() == product | {"available": 1}


async def test_the_routes_answer_the_same_without_the_cache(own_shop: Callable[..., Shop]) -> None:
    cached, plain = own_shop(), own_shop()
    plain.service.front = super(Application, plain.service).__call__
    product = await cached.product(1)
    queries = ("", "?q=kettle&limit=1&surprise=1", "?in_stock=true&sort=-price", "?limit=0", "?limit=&sort=")
    paths = ["/api/v1/categories", *(f"/api/v1/products{query}" for query in (*queries, "?sort=relevance"))]
    paths += [f"/api/v1/products/{each}" for each in (product["id"], product["id"].upper(), uuid4(), "x", "import")]
    for path in paths:
        answers = [await shop.send("GET", path) for shop in (cached, plain)]
        assert answers[0].status_code == answers[1].status_code
        if answers[0].status_code == 200:
            assert answers[0].content == answers[1].content
            headers = {"If-None-Match": answers[0].headers["ETag"]}
            answers += [await shop.send("GET", path, headers=headers) for shop in (cached, plain)]
            assert [answer.status_code for answer in answers[2:]] == [304, 304]
        else:
            documents = [answer.json() | {"trace_id": ""} for answer in answers]
            assert documents[0] == documents[1]
        names = ("content-type", "etag", "cache-control", "content-length")
        headers_sent = [[answer.headers.get(name) for name in names] for answer in answers]
        if answers[0].status_code == 200:
            assert headers_sent[0] == headers_sent[1]
            assert headers_sent[2] == headers_sent[3]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_only_reads_are_answered_from_memory(own_shop: Callable[..., Shop], method: str) -> None:
    shop = own_shop()
    await shop.read("/api/v1/categories")
    refused = await shop.send(method, "/api/v1/categories")
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["Allow"] == "GET"


async def test_the_generation_counts_each_write_once(own_shop: Callable[..., Shop]) -> None:
    shop = own_shop()
    product = await shop.product(1)
    before = await shop.service.state.catalogue.generation()
    refused = [
        await shop.move(product["id"], -2),
        await shop.reserve(uuid4(), (product["id"], 2)),
        await shop.change(product["id"], {"If-Match": '"9"'}, name="x"),
        await shop.retire(product["id"], **{"If-Match": '"9"'}),
        await shop.commit(uuid4()),
    ]
    assert [answer.status_code for answer in refused] == [409, 409, 412, 412, 404]
    await shop.release(uuid4())
    assert await shop.service.state.catalogue.generation() == before, "what changes nothing makes nothing stale"
    order_id = UUID(int=1)
    for _ in range(2):
        await shop.reserve(order_id, (product["id"], 1))
    after = await shop.service.state.catalogue.generation()
    assert (after.edits, after.all) == (before.edits, before.all + 1)
