"""Five times as many checkouts as the platform can take, at a constant rate, whatever it answers.

The load goes to the order processes past the edge, by a generator that costs a twentieth of what it asks for: machine
and generator are shared with what is measured, and a dear one would measure itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import cast
from uuid import uuid4

import httptools
import orjson
import psutil

from drills.evidence import Exchange, Table
from drills.oracle import Checkout, Told
from drills.report import percentile
from drills.shoppers import ADDRESS, Shopper, wanted
from drills.stage import Drill, Stage, processes

FACTOR = 5
BUYERS = 16
CONNECTIONS_AT_REST = 16
"""Connections that measure the capacity, each sending when it is answered."""
CONNECTED = 64
"""Connections to each process that are there before the rush, as an edge has them."""
MOST_CONNECTIONS = 2_000
RUSHES = 3
CAPACITY_S = 5.0
GOODPUT_SHARE = 0.8
REFUSED_WITHIN_S = 0.1
WAITS_S = 8.0
"""How long a buyer waits for an answer."""
MOST_MEMORY_MB = 200
TOO_MANY = b"too many requests at once"
CALL = "POST /api/v1/orders"


@dataclass(slots=True)
class Sent:
    """One checkout that was sent."""

    checkout: Checkout
    at_s: float
    seconds: float = 0.0
    status: int | None = None
    retry_after: bool = False
    body: bytes = b""


class _Connection(asyncio.Protocol):
    """A connection that sends one checkout at a time."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] | None = None
        self.closed = False
        self._sent: Sent | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it

    def send(self, sent: Sent, wire: bytes) -> "asyncio.Future[None]":
        """Send a checkout; the future ends with its answer, or when none will come."""
        self._sent = sent
        self._parser = httptools.HttpResponseParser(self)
        self.answered = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return self.answered

    def close(self) -> None:
        """Close at once."""
        self.closed = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.closed = True
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._sent is not None and name.lower() == b"retry-after" and value:
            self._sent.retry_after = True

    def on_body(self, body: bytes) -> None:
        if self._sent is not None:
            self._sent.body += body

    def on_message_complete(self) -> None:
        if self._sent is not None and self.answered is not None and not self.answered.done():
            self._sent.status = self._parser.get_status_code()
            self.answered.set_result(None)


class Generator:
    """Sends checkouts of many buyers to the order processes in turn."""

    def __init__(self, stage: Stage, buyers: Sequence[Shopper]) -> None:
        self.stage = stage
        self.all: list[Sent] = []
        self._ports = cycle([replica.port for replica in stage.platform.of("order")])
        self._turns = cycle(buyers)
        self._products = cycle(stage.floor.product_ids)
        self._idle: dict[int, deque[_Connection]] = {}
        self._open = 0

    async def connect(self) -> None:
        """Open connections that nothing is sent on yet."""
        loop = asyncio.get_running_loop()
        for replica in self.stage.platform.of("order"):
            for _ in range(CONNECTED):
                _, connection = await loop.create_connection(_Connection, "127.0.0.1", replica.port)
                self._idle.setdefault(replica.port, deque()).append(connection)
                self._open += 1

    async def one(self) -> Sent:
        """Send one checkout, and wait for its answer."""
        buyer = next(self._turns)
        items = [(next(self._products), 1)]
        checkout = Checkout(buyer.user_id, uuid4().hex, items, sent=1)
        self.stage.floor.ledger.checkouts.append(checkout)
        body = orjson.dumps({"items": wanted(items), "address": ADDRESS, "payment_method": "tok_visa"})
        head = (
            f"POST /api/v1/orders HTTP/1.1\r\nhost: souk\r\nauthorization: {buyer.headers['Authorization']}\r\n"
            f"idempotency-key: {checkout.key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        sent = Sent(checkout, self.stage.now_s())
        self.all.append(sent)
        self.stage.client.sent += 1
        began = time.monotonic()
        await self._exchange(next(self._ports), sent, head.encode() + body)
        sent.seconds = time.monotonic() - began
        self._note(sent)
        return sent

    async def _exchange(self, port: int, sent: Sent, wire: bytes) -> None:
        idle = self._idle.setdefault(port, deque())
        connection = None
        while idle and connection is None:
            connection = idle.pop()
            if connection.closed:
                connection, self._open = None, self._open - 1
        try:
            async with asyncio.timeout(WAITS_S):
                if connection is None:
                    if self._open >= MOST_CONNECTIONS:
                        raise ConnectionError("the generator has no connection left")
                    self._open += 1
                    loop = asyncio.get_running_loop()
                    _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
                await connection.send(sent, wire)
        except (OSError, TimeoutError):
            if connection is not None:
                connection.close()
            self._open -= 1
            return
        if sent.status is None:
            self._open -= 1
        else:
            idle.append(connection)

    def _note(self, sent: Sent) -> None:
        """Write down what came, as a shopper's client does."""
        failure = {201: None, 202: None, None: "no answer"}.get(sent.status, str(sent.status))
        exchange = Exchange(sent.at_s, sent.seconds, CALL, sent.status, failure, sent.retry_after)
        self.stage.client.exchanges.append(exchange)
        if sent.status == 201:
            order = orjson.loads(sent.body)
            sent.checkout.told.append(Told(201, order["id"], order["total"]["amount_minor"]))
        elif sent.status not in {202, 503, None}:
            self.stage.client.wrong.append(f"{CALL} was answered {sent.status} {sent.body[:300]!r}")

    def close(self) -> None:
        """Close every connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()


async def _closed_loop(generator: Generator, seconds: float) -> float:
    """Checkouts a second when each connection sends as soon as it is answered."""
    until = time.monotonic() + seconds
    done = 0

    async def buy() -> None:
        nonlocal done
        while time.monotonic() < until:
            sent = await generator.one()
            done += sent.status == 201

    await asyncio.gather(*(buy() for _ in range(CONNECTIONS_AT_REST)))
    return done / seconds


async def _open_loop(generator: Generator, rate: float, seconds: float) -> list[Sent]:
    """Send at a constant rate, and wait for nothing."""
    sending: list[asyncio.Task[Sent]] = []
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * rate) - len(sending)
        sending += [asyncio.create_task(generator.one()) for _ in range(due)]
        await asyncio.sleep(0.005)
    return await asyncio.gather(*sending)


def _memory_mb(stage: Stage) -> float:
    """Resident memory of the largest process, in units of 2**20 bytes."""
    pids = [replica.process.pid for replica in stage.platform.replicas if replica.process is not None]
    return max(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20


@dataclass(slots=True)
class Rush:
    """One time of five times too much: what was taken on, and what the platform could do just before and after."""

    offered: float
    """Checkouts a second, as are the others."""
    confirmed: float
    before: float
    after: float
    refused_s: list[float]
    """How long each refusal took, ascending."""

    @property
    def share(self) -> float:
        """Goodput, of the capacity around it: a machine that slows down meanwhile is not the platform's doing."""
        return self.confirmed * 2 / (self.before + self.after)

    @property
    def recovered(self) -> float:
        """The capacity afterwards, of that before."""
        return self.after / self.before


async def _rush(stage: Stage, generator: Generator, before: float) -> Rush:
    """Offer five times the capacity, and measure the capacity again at once."""
    await generator.connect()
    began_s = stage.now_s()
    with stage.harm(f"a rush of {FACTOR} times the capacity"):
        sent = await _open_loop(generator, before * FACTOR, stage.length.seconds / RUSHES)
    took_s = stage.now_s() - began_s
    return Rush(
        len(sent) * RUSHES / stage.length.seconds,
        sum(each.status == 201 for each in sent) / took_s,
        before,
        await _closed_loop(generator, CAPACITY_S),
        sorted(each.seconds for each in sent if each.status == 503),
    )


async def run(stage: Stage) -> None:
    """Measure what the platform can take, and send five times as much, three times over."""
    buyers = [Shopper(stage.floor, number) for number in range(BUYERS)]
    for buyer in buyers:
        await buyer.sign_in()
    generator = Generator(stage, buyers)
    await _closed_loop(generator, 1.0)  # keys are fetched, connections open
    capacity = await _closed_loop(generator, CAPACITY_S)
    rushes: list[Rush] = []
    memory_mb = 0.0
    for _ in range(RUSHES):
        rushes.append(await _rush(stage, generator, rushes[-1].after if rushes else capacity))
        memory_mb = max(memory_mb, _memory_mb(stage))
    generator.close()
    _judge(stage, rushes, memory_mb)
    await _pursue(stage, generator, buyers)


def _judge(stage: Stage, rushes: Sequence[Rush], memory_mb: float) -> None:
    """Note what was promised; of the rushes the middle one counts, since the machine may do something else in one."""
    names = ("capacity before", "offered", "confirmed meanwhile", "capacity afterwards", "refused", "p99 of refusals")
    rows = [
        (
            *(f"{rate:.0f}/s" for rate in (each.before, each.offered, each.confirmed, each.after)),
            str(len(each.refused_s)),
            f"{percentile(each.refused_s, 99) * 1000:.0f} ms" if each.refused_s else "",
        )
        for each in rushes
    ]
    stage.tables.append(Table("Checkouts", names, rows))
    share = median(each.share for each in rushes)
    stage.promise(
        f"goodput is at least {GOODPUT_SHARE:.0%} of the capacity", f"{share:.0%}", share >= GOODPUT_SHARE, of_time=True
    )
    refused = [each.refused_s for each in rushes]
    stage.promise("the rest is refused with 503", f"{sum(map(len, refused))} checkouts", all(refused))
    if all(refused):
        p50_s, p99_s = (median(percentile(each, percent) for each in refused) for percent in (50, 99))
        stage.promise(
            f"a refusal comes within {REFUSED_WITHIN_S * 1000:.0f} ms",
            f"p50 {p50_s * 1000:.0f} ms, p99 {p99_s * 1000:.0f} ms",
            p99_s <= REFUSED_WITHIN_S,
            of_time=True,
        )
    silent = sum(each.failure == "503" and not each.retry_after for each in stage.client.exchanges)
    stage.promise("each 503 says when to come back", f"{silent} without Retry-After", silent == 0)
    stage.promise(
        f"memory stays below {MOST_MEMORY_MB} MB a process", f"{memory_mb:.0f} MB", memory_mb <= MOST_MEMORY_MB
    )
    recovered = median(each.recovered for each in rushes)
    stage.promise(
        "all is as before at once afterwards",
        f"{recovered:.0%} of the capacity",
        recovered >= GOODPUT_SHARE,
        of_time=True,
    )


def _shed(sent: Sent) -> bool:
    """Whether a checkout found no place, and so never was; any other 503 may have come after its order was stored."""
    return sent.status == 503 and TOO_MANY in sent.body


async def _pursue(stage: Stage, generator: Generator, buyers: Sequence[Shopper]) -> None:
    """Repeat what has no outcome, and forget what was refused for want of a place: its key is free."""
    by_user = {buyer.user_id: buyer for buyer in buyers}
    unknown = [each for each in generator.all if each.status != 201 and not _shed(each)]
    gate = asyncio.Semaphore(CONNECTIONS_AT_REST)

    async def pursue(sent: Sent) -> None:
        async with gate:
            items = wanted(sent.checkout.items)
            await by_user[sent.checkout.user_id].insist_on(sent.checkout, {"items": items}, method="tok_visa")

    await asyncio.gather(*(pursue(each) for each in unknown))
    refused = {id(each.checkout) for each in generator.all if _shed(each)}
    ledger = stage.floor.ledger
    ledger.checkouts = [each for each in ledger.checkouts if id(each) not in refused]


OVERLOAD = Drill(
    "overload",
    "Five times the checkouts that the platform can take: what it takes it finishes, the rest is refused at once.",
    24,
    run,
    processes(),
)
