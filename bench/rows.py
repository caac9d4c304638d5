"""The rows of the tables: each function measures one promise, with its own calibration in the same minute."""

import asyncio
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, cycle, islice
from uuid import uuid4

import httpx2
import orjson
import uvloop

from bench import load
from bench.measure import Cost, ServerProcess, cost, server, side_by_side
from bench.shop import Shop, order
from chassis.clients import Peer
from chassis.postgres_metrics import READ_EVERY_S, VIEWS
from chassis.telemetry import HttpMetrics, Telemetry
from chassis.testing import answer_in_every_way, credential
from chassis.transport import PooledTransport
from local.ports import free_ports
from services.order.settings import OrderSettings
from services.product.app import COUNT_EVERY_S, LOOK_EVERY_S
from services.product.repository import HELD, ON_HAND
from tests.openapi import create_services

CONNECTIONS = 32
CHECKOUTS: int = OrderSettings.model_fields["max_checkouts"].default
"""As many at once as a replica takes: what is refused costs next to nothing."""
ROUND_S = 3.0


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    work: str
    measured: str
    promise: str
    kept: bool


@contextmanager
def bare(shop: Shop, answer: httpx2.Response) -> "Generator[ServerProcess]":
    """The unit: a server that does nothing but send these bytes."""
    port = free_ports(1)
    sent = [(name, value) for name, value in answer.headers.items() if name != "date"]
    file = shop.folder / f"answer-{port}.json"
    file.write_bytes(orjson.dumps({"headers": sent, "body": answer.text}))
    with server("bench.bare", str(port), str(file), port=port, ready="/") as process:
        yield process


def _read(process: ServerProcess, paths: list[str]) -> Cost:
    requests = [load.request("GET", path) for path in paths]
    return cost([process], process.port, load.again_and_again(requests, ROUND_S), connections=CONNECTIONS)


def _share_of_bare(unit: Cost, measured: Cost) -> tuple[float, str]:
    share = unit.cpu_us / measured.cpu_us
    text = f"{share:.0%} of bare ({measured.cpu_us:.0f} us against {unit.cpu_us:.0f}, {measured.per_second:.0f}/s)"
    return share, text


def reads_repeated(shop: Shop) -> Iterator[Row]:
    """The same list and the same product, read again and again."""
    with shop.running("user", "product") as services:
        product_id = shop.stock(1000)[0]
        for work, path in (
            ("product list of 20, again and again", "/api/v1/products?limit=20"),
            ("product detail, again and again", f"/api/v1/products/{product_id}"),
        ):
            with bare(shop, shop.get("product", path)) as unit:
                costs = side_by_side(
                    lambda: _read(unit, ["/"]),
                    lambda: _read(services["product"], [path]),  # noqa: B023 - called before the next turn
                )
            share, text = _share_of_bare(*costs)
            yield Row(work, text, ">= 60% of bare", share >= 0.6)


def reads_distinct(shop: Shop) -> Iterator[Row]:
    """Lists by a thousand different filters a round, none of them repeated in any round."""
    sorts = ("newest", "price", "-price", "name")
    filters = (
        f"/api/v1/products?category=shelf-{number % 10}&min_price={1000 + number % 500}&max_price={10**6 + number}"
        f"&sort={sorts[number % 4]}"
        for number in count()
    )
    with shop.running("user", "product") as services:
        shop.stock(1000)

        def distinct() -> Cost:
            requests = [load.request("GET", path) for path in islice(filters, 1000)]
            product = services["product"]
            return cost([product], product.port, requests, connections=CONNECTIONS)

        with bare(shop, shop.get("product", next(filters))) as unit:
            costs = side_by_side(lambda: _read(unit, ["/"]), distinct)
        share, text = _share_of_bare(*costs)
        yield Row("product lists by 1,000 filters, none repeated", text, ">= 12% of bare", share >= 0.12)


def metrics_overhead(shop: Shop) -> Iterator[Row]:
    """Counting one request, in process, where the CPU is not lost in that of the server."""
    metrics = HttpMetrics()
    calls = 200_000

    def observe() -> Cost:
        began = time.process_time()
        for _ in range(calls):
            metrics.observe("/api/v1/products", "GET", 200, 0.002, 0, 9000)
        spent_s = time.process_time() - began
        return Cost(spent_s / calls * 1e6, calls / spent_s)

    with bare(shop, SMALL) as unit_process:
        unit, measured = side_by_side(lambda: _read(unit_process, ["/"]), observe)
    ratio = measured.cpu_us / unit.cpu_us
    yield Row("metrics of a request", f"{ratio:.2f} bare ({measured.cpu_us:.1f} us)", "<= 0.5 bare", ratio <= 0.5)


def exposition(_shop: Shop) -> Iterator[Row]:
    """What a scrape costs a replica that has given every answer to every operation, in CPU and in bytes."""
    scrapes = 50
    for service in create_services():
        answer_in_every_way(service)
        text = service.telemetry.exposition()
        began = time.process_time()
        for _ in range(scrapes):
            service.telemetry.exposition()
        spent_ms = (time.process_time() - began) / scrapes * 1000
        series = sum(not line.startswith(b"#") for line in text.splitlines())
        measured = f"{spent_ms:.1f} ms, {len(text) / 1000:.0f} kB, {series} series"
        kept = spent_ms <= 20 and len(text) <= 150_000 and series <= 1500
        yield Row(f"a scrape of {service.service_name}", measured, "<= 20 ms, <= 150 kB, <= 1500 series", kept)


def gauges(shop: Shop) -> Iterator[Row]:
    """What PostgreSQL pays for what the gauges tell: each statement's time over how often it is run."""
    shop.migrate("product")
    for statement in MUCH_IN_STOCK:
        shop.postgres.execute(statement, "product")
    for what, every_s, statement in (
        ("PostgreSQL's views", READ_EVERY_S, VIEWS),
        ("what 1,000 reservations hold", LOOK_EVERY_S, HELD),
        ("the stock of 100,000 products", COUNT_EVERY_S, ON_HAND),
    ):
        plan = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
        plans = [orjson.loads(shop.postgres.execute(plan, "product"))[0] for _ in range(10)]
        spent_ms = min(each["Planning Time"] + each["Execution Time"] for each in plans)
        share = spent_ms / 1000 / every_s
        measured = f"{spent_ms:.1f} ms every {every_s:.0f} s, {share:.2%} of a core"
        yield Row(f"looking at {what}", measured, "<= 0.5% of a core", share <= 0.005)


MUCH_IN_STOCK = (
    # Nothing is asked of the products themselves, so none are there.
    """
    SET session_replication_role = replica;
    INSERT INTO stock (product_id, on_hand, reserved) SELECT gen_random_uuid(), 100, 3 FROM generate_series(1, 100000)
    """,
    """
    INSERT INTO reservations (order_id, items, status, expires_at)
    SELECT gen_random_uuid(), jsonb_agg(jsonb_build_object('product_id', product_id, 'quantity', 1)), 'held',
        now() + interval '1 hour'
    FROM (SELECT product_id, row_number() OVER () AS number FROM stock LIMIT 3000) AS held
    GROUP BY number % 1000
    """,
    "VACUUM ANALYZE",
)


def peer_call(shop: Shop) -> Iterator[Row]:
    """What a call to another service costs its caller, threads of the pool included."""
    with bare(shop, SMALL) as peer:
        unit, measured = side_by_side(lambda: _read(peer, ["/"]), lambda: uvloop.run(_call(peer.port)))
    ratio = measured.cpu_us / unit.cpu_us
    text = f"{ratio:.1f} bare ({measured.cpu_us:.0f} us)"
    yield Row("a call from service to service, 32 in flight", text, "<= 5 bare", ratio <= 5)


async def _call(port: int, calls: int = 8000) -> Cost:
    url = f"http://127.0.0.1:{port}"
    telemetry = Telemetry("bench")
    peer = Peer("product", url, credential("order"), telemetry, PooledTransport("product", url, telemetry))
    body = {"items": [{"product_id": "0190b3a0-0000-7000-8000-000000000000", "quantity": 2}]}

    async def caller(times: int) -> None:
        for _ in range(times):
            await peer.call("POST", "/internal/v1/quotes", body)

    async def together(times: int) -> None:
        async with asyncio.TaskGroup() as callers:
            for _ in range(CONNECTIONS):
                callers.create_task(caller(times))

    await together(5)
    began, cpu_began = time.perf_counter(), time.process_time()
    await together(calls // CONNECTIONS)
    spent = Cost((time.process_time() - cpu_began) / calls * 1e6, calls / (time.perf_counter() - began))
    await peer.aclose()
    return spent


SMALL = httpx2.Response(200, json={"items": [{"product_id": "0190b3a0", "available": 3, "name": "Lantern"}] * 2})
"""An answer of the size that services send each other."""


def checkout(shop: Shop) -> Iterator[Row]:
    """A confirmed order of two products: quote, reservation, authorisation, commit and capture, all durable."""
    with shop.running() as services, bare(shop, SMALL) as unit_process:
        products, customers = shop.stock(1000), cycle(shop.customers(20))
        pairs = cycle(zip(products[::2], products[1::2], strict=True))
        serving = [services[name] for name in ("order", "product", "payment")]

        def buy() -> Cost:
            orders = [order(next(customers), next(pairs)) for _ in range(600)]
            return cost(serving, services["order"].port, orders, connections=CHECKOUTS)

        unit, measured = side_by_side(lambda: _read(unit_process, ["/"]), buy)
        ratio = measured.cpu_us / unit.cpu_us
        text = f"{ratio:.0f} bare ({measured.cpu_us / 1000:.2f} ms)"
        yield Row("a checkout, CPU over order, product and payment", text, "<= 100 bare", ratio <= 100)
        promised = 150 * unit.per_second / 20_000
        text = f"{measured.per_second:.0f}/s where bare does {unit.per_second:.0f}/s"
        yield Row("checkouts on one core", text, f">= {promised:.0f}/s", measured.per_second >= promised)


def traced_checkout(shop: Shop) -> Iterator[Row]:
    """Checkouts whose traces are recorded and sent, against those whose callers record none, of the same services."""
    with (
        bare(shop, httpx2.Response(200)) as collector,
        shop.running(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}") as services,
    ):
        products, customers = shop.stock(1000), cycle(shop.customers(20))
        pairs = cycle(zip(products[::2], products[1::2], strict=True))
        serving = [services[name] for name in ("order", "product", "payment")]

        def buy(flags: str) -> Cost:
            callers = ({"traceparent": f"00-{uuid4().hex}-{uuid4().hex[:16]}-{flags}"} for _ in range(600))
            orders = [order(next(customers) | caller, next(pairs)) for caller in callers]
            return cost(serving, services["order"].port, orders, connections=CHECKOUTS)

        unrecorded, recorded = side_by_side(lambda: buy("00"), lambda: buy("01"))
    ratio = recorded.cpu_us / unrecorded.cpu_us
    text = f"{ratio:.2f} ({recorded.cpu_us / 1000:.2f} ms against {unrecorded.cpu_us / 1000:.2f})"
    yield Row("a checkout whose trace is recorded, to one whose is not", text, "<= 2", ratio <= 2)


def hot_product(shop: Shop) -> Iterator[Row]:
    """One product that everybody buys at once, against as many checkouts spread over a hundred."""
    with shop.running() as services:
        products, customers = shop.stock(1000), cycle(shop.customers(20))
        serving = [services[name] for name in ("order", "product", "payment")]

        def buy(wanted: Iterator[str]) -> Cost:
            orders = [order(next(customers), [next(wanted)]) for _ in range(400)]
            return cost(serving, services["order"].port, orders, connections=CHECKOUTS)

        spread, hot = side_by_side(lambda: buy(cycle(products)), lambda: buy(cycle(products[:1])))
    share = hot.per_second / spread.per_second
    text = f"{share:.0%} ({hot.per_second:.0f}/s against {spread.per_second:.0f}/s)"
    yield Row("checkouts of one hot product against those of many", text, ">= 50%", share >= 0.5)


def start_and_size(shop: Shop) -> Iterator[Row]:
    """From the start of the process to its first 200, and its memory after a thousand reads."""
    with shop.running() as services:
        for name, process in services.items():
            requests = [load.request("GET", "/livez")] * 1000
            load.run(process.port, requests, connections=CONNECTIONS)
            size_mb = process.resident_mb()
            kept = process.ready_after_s <= 1 and size_mb <= 85
            text = f"{process.ready_after_s:.2f} s, {size_mb:.0f} MB"
            yield Row(f"start and memory of {name}", text, "<= 1 s, <= 85 MB", kept)
    port = free_ports(5)
    arguments = ("--port", str(port), "--data", str(shop.folder / "local"))
    with server("local", *arguments, port=port, ready="/docs"):
        pass  # the first start makes the cluster and the demo catalogue
    with server("local", *arguments, port=port, ready="/docs") as process:
        size_mb = process.resident_mb()
    text = f"{process.ready_after_s:.2f} s, {size_mb:.0f} MB"
    kept = process.ready_after_s <= 2 and size_mb <= 140
    yield Row("start and memory of all in one process, PostgreSQL's apart", text, "<= 2 s, <= 140 MB", kept)


TABLES = {
    "Reads": (reads_repeated, reads_distinct),
    "What every request and call pays": (metrics_overhead, exposition, gauges, peer_call),
    "Checkout": (checkout, traced_checkout, hot_product),
    "Start and memory": (start_and_size,),
}
