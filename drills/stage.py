"""One drill from curtain to curtain: a platform, shoppers on it, the harm, then the reckoning.

warm-up ──▶ harm ──▶ quiet ──▶ closing: what is open is pursued ──▶ all final ──▶ oracle and audit ──▶ evidence
"""

import asyncio
import platform as machine
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic

import httpx2
import orjson
from typing_extensions import TypeVar

from chassis.auth import ServiceCredential
from chassis.secrets import AUDIT
from chassis.settings import ServiceSettings
from drills import audit
from drills.client import Answer, Client
from drills.evidence import REFUSED_FOR_NOW, Evidence, Exchange, Harm, Promise, Table
from drills.oracle import disagreements
from drills.platform import Ground, Platform, Topology
from drills.shoppers import Floor, Keeper, Shopper

G = TypeVar("G", bound=Ground, default=Platform)

SHOPPERS = 32
PRODUCTS = 200
UNITS = 1_000_000
WARM_UP_S = 5.0
QUIET_S = 10.0
PURSUED_FOR_S = 45.0
"""How long what is open when the shop closes is repeated."""
FINAL_WITHIN_S = 60.0
LEDGER_POLLED_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Drill(Generic[G]):
    """What a drill is called, what it shows, and how it is done."""

    name: str
    title: str
    seconds: float
    """How long the harm lasts in a full run."""
    run: "Callable[[Stage[G]], Awaitable[None]]"
    platform: "Callable[[Path, Length], G]"
    """What is drilled; the folder is its own."""
    shoppers: int = SHOPPERS
    setting: "Callable[[Stage[G]], AbstractAsyncContextManager[Any]] | None" = None
    """What has to be there before the platform starts, and until it has ended; `Stage.network` is what it yields."""
    alert: str | None = None
    """The alert that must fire because of it, where somebody watches; none where nobody needs to be told."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run is: the full one, in which times are judged, or a short one beside other work."""

    seconds: float
    full: bool


def processes(topology: Callable[[Length], Topology] = lambda _: Topology()) -> Callable[[Path, Length], Platform]:
    """A platform of processes, of such a topology."""
    return lambda folder, length: Platform(folder, topology(length))


class Stage(Generic[G]):
    """What a drill works with."""

    def __init__(self, drill: Drill[G], length: Length, seed: int, folder: Path) -> None:
        self.drill = drill
        self.length = length
        self.seed = seed
        self.random = random.Random(f"{drill.name}-{seed}")  # noqa: S311 - so that a drill can be repeated
        shutil.rmtree(folder, ignore_errors=True)
        self.platform = drill.platform(folder, length)
        self.began = time.monotonic()
        self.began_at = datetime.now(UTC)
        self.harms: list[Harm] = []
        self.promises: list[Promise] = []
        self.tables: list[Table] = []
        self.violations: list[str] = []
        self.client = Client(self.platform.origin, self.began)
        self.floor = Floor(self.client, seed)
        self.keeper = Keeper(self.floor, *self.platform.admin)
        self.network: Any = None
        self._earlier: Collection[str] = ()
        """Orders that were there before."""
        self._shopping: list[asyncio.Task[None]] = []
        self._internal = httpx2.AsyncClient(timeout=60)

    # Time

    def now_s(self) -> float:
        """Seconds since the drill began."""
        return time.monotonic() - self.began

    async def until(self, moment_s: float) -> None:
        """Wait until so many seconds have passed since the drill began."""
        await asyncio.sleep(max(0.0, moment_s - self.now_s()))

    # What the drill does and claims

    @contextmanager
    def harm(self, what: str) -> Generator[None]:
        """Note the time in which the platform is harmed."""
        began_s = self.now_s()
        self.say(f"harm: {what}")
        try:
            yield
        finally:
            self.harms.append(Harm(what, began_s, self.now_s()))

    def promise(self, text: str, measured: str, kept: bool, *, of_time: bool = False) -> None:
        """Note a promise and what was measured; one `of_time` is judged in a full run only."""
        self.promises.append(Promise(text, measured, kept, judged=self.length.full or not of_time))

    def promise_clear_refusals(self) -> None:
        """Note that each 503 told its client when to come back."""
        silent = sum(each.failure == REFUSED_FOR_NOW and not each.retry_after for each in self.client.exchanges)
        self.promise("each 503 says when to come back", f"{silent} without Retry-After", silent == 0)

    def promise_recovery(self, within_s: float, event: str, recovered_s: float | None = None) -> None:
        """Note that nothing failed any more so many seconds after an event, such as `the database is back`: the end of
        the last harm, where `recovered_s` is not measured otherwise.
        """
        if recovered_s is None:
            recovered_s = self.recovered_s() or 0.0
        self.promise(
            f"nothing fails {within_s:.0f} s after {event}",
            f"the last failure came after {recovered_s:.1f} s",
            recovered_s <= within_s,
            of_time=True,
        )

    def say(self, line: str) -> None:
        """Tell whoever watches."""
        print(f"{self.drill.name} {self.now_s():6.1f} s  {line}", flush=True)

    def during(self, began_s: float, ended_s: float, *calls: str) -> list[Exchange]:
        """The exchanges that were sent in some seconds, of some calls or all."""
        return [
            each
            for each in self.client.exchanges
            if began_s <= each.sent_at_s < ended_s and (not calls or each.call in calls)
        ]

    # Shopping

    async def open(self) -> None:
        """Start the platform and put products on the shelves."""
        self.say("starting the platform")
        await self.platform.start()
        await self.keeper.sign_in()
        self._earlier = (await self.beliefs()).orders.keys()
        self.floor.product_ids += await self.stock(PRODUCTS, UNITS)

    async def stock(
        self, products: int, units: int, prefix: str = "DRILL", *, lose_reply: bool = False, trace_id: str | None = None
    ) -> list[str]:
        """Import products, all with so many units, and return their ids; shoppers will buy the usual ones."""
        lines = b"\n".join(orjson.dumps(_product(f"{prefix}-{number:05}", units)) for number in range(products))
        lost = lose_reply

        async def ask() -> Answer:
            nonlocal lost, trace_id
            losing, lost, trace, trace_id = lost, False, trace_id, None
            return await self.client.call(
                "POST", "/api/v1/products/import", content=lines, lose_reply=losing, trace_id=trace,
                headers={**self.keeper.headers, "Content-Type": "application/x-ndjson"},
            )  # fmt: skip

        answer = await self.floor.insist(ask, "an import")
        if answer.members.get("rejected") or answer.members["created"] + answer.members["updated"] != products:
            self.violations.append(f"an import of {products} lines was answered {answer.members}")
        new = sorted([each["id"] async for each in self._found(prefix)])
        self.floor.ledger.on_shelf.update(dict.fromkeys(new, units))
        return new

    async def _found(self, prefix: str) -> AsyncGenerator[dict[str, Any]]:
        """All products whose SKU begins so, newest first."""
        params: dict[str, str | int] = {"limit": 100}
        while True:
            page = await self.floor.insist(
                lambda: self.client.call("GET", "/api/v1/products", params=params), "reading the catalogue"
            )
            for each in page.body["items"]:
                if each["sku"].startswith(prefix):
                    yield each
            if page.body["next_cursor"] is None:
                return
            params["cursor"] = page.body["next_cursor"]

    async def available(self, product_id: str, units: int) -> None:
        """Wait until so many units of a product can be bought; raises TimeoutError."""
        async with asyncio.timeout(FINAL_WITHIN_S):
            while True:
                answer = await self.client.call("GET", "/api/v1/products/{}", product_id)
                if answer.status == 200 and answer.body["available"] == units:
                    return
                await asyncio.sleep(0.05)

    async def take_away(self, product_id: str, units: int) -> None:
        """Take units from the shelf for another reason than an order."""
        answer = await self.client.call(
            "POST", "/api/v1/products/{}/stock", product_id,
            headers=self.keeper.headers, body={"delta": -units, "reason": "a drill"},
        )  # fmt: skip
        if answer.status == 200:
            self.floor.ledger.on_shelf[product_id] -= units

    def admit(self) -> None:
        """Let the shoppers in."""
        shoppers = [Shopper(self.floor, number) for number in range(self.drill.shoppers)]
        self._shopping = [asyncio.create_task(shopper.shop()) for shopper in shoppers]
        self._shopping.append(asyncio.create_task(self.keeper.keep()))

    async def close(self) -> None:
        """Let nobody begin anything, and wait until what is open has come to its end, or was pursued long enough."""
        self.floor.closing.set()
        self.say("closing: what is open is pursued")
        _, open_still = await asyncio.wait(self._shopping, timeout=PURSUED_FOR_S) if self._shopping else ((), ())
        self.floor.closed.set()
        if open_still:
            await asyncio.wait(open_still)
        for task in self._shopping:
            task.result()  # a shopper that failed is a fault of the drill

    # The reckoning

    async def beliefs(self) -> audit.Beliefs:
        """What the services believe."""
        folder = self.platform.secrets / AUDIT
        settings = ServiceSettings.model_validate(
            {"port": 0, "database_url": "unused", **{file.name: _read(file) for file in sorted(_files(folder))}}
        )
        credential = ServiceCredential(AUDIT, settings)
        async with self.platform.reached() as urls:
            return await audit.read(urls, credential, self._internal)

    async def final(self) -> tuple[audit.Beliefs, float]:
        """Wait until everything is final; return what is believed then, and how long it took from the close."""
        began = time.monotonic()
        while True:
            beliefs = await self.beliefs()
            waited_s = time.monotonic() - began
            if not unfinished(beliefs) or waited_s > FINAL_WITHIN_S:
                return beliefs, waited_s
            await asyncio.sleep(LEDGER_POLLED_EVERY_S)

    async def reckon(self) -> Evidence:
        """Compare what the clients know with what the services believe, and gather the evidence."""
        beliefs, waited_s = await self.final()
        left = unfinished(beliefs)
        self.promise(
            f"everything is final {FINAL_WITHIN_S:.0f} s after the last request",
            f"{waited_s:.1f} s" if not left else f"{len(left)} are not, such as {left[0]}",
            not left,
        )
        told = disagreements(self.floor.ledger, beliefs.without(self._earlier))
        audited = [str(violation) for violation in audit.check(beliefs, datetime.now(UTC))]
        self.violations += [*self.client.wrong, *self.floor.unresolved, *told, *(f"audit: {line}" for line in audited)]
        return Evidence(
            name=self.drill.name,
            title=self.drill.title,
            command=self.command,
            seed=self.seed,
            began_at=self.began_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            seconds=self.now_s(),
            machine=_machine(),
            versions=_versions(),
            sent=self.client.sent,
            exchanges=self.client.exchanges,
            harms=self.harms,
            orders=Counter(each["status"] for each in beliefs.without(self._earlier).orders.values()),
            promises=self.promises,
            violations=self.violations,
            tables=self.tables,
            recovered_s=self.recovered_s(),
        )

    @property
    def command(self) -> str:
        """What runs this drill again."""
        seconds = "" if self.length.full else f" SECONDS={self.length.seconds:g}"
        return f"make drill NAME={self.drill.name}{seconds} SEED={self.seed}"

    def recovered_s(self) -> float | None:
        """From the end of the last harm to the end of the last request that failed after it; none where none did."""
        if not self.harms:
            return None
        healed_s = max(harm.ended_s for harm in self.harms)
        failed = [each.ended_at_s for each in self.client.exchanges if each.failure and each.ended_at_s > healed_s]
        return max(failed) - healed_s if failed else None

    async def aclose(self) -> None:
        """End the platform and every connection."""
        for task in self._shopping:
            task.cancel()
        await asyncio.gather(*self._shopping, return_exceptions=True)
        await self.client.aclose()
        await self._internal.aclose()
        await self.platform.stop()


def unfinished(beliefs: audit.Beliefs) -> list[str]:
    """What is still under way: orders, payments, refunds."""
    return [
        *(f"the order {order_id}: {each['status']}" for order_id, each in beliefs.orders.items() if each["unfinished"]),
        *(
            f"the payment of {order_id}: {each['status']}"
            for order_id, each in beliefs.payments.items()
            if each["status"] in {"pending", "authorised"}
        ),
        *(f"the refund {each['id']}: {each['status']}" for each in beliefs.refunds if each["status"] != "done"),
    ]


async def perform(drill: Drill[G], length: Length, seed: int, folder: Path) -> Evidence:
    """Run a drill and return its evidence; raises PlatformError where it cannot be run."""
    stage = Stage(drill, length, seed, folder)
    async with AsyncExitStack() as stack:
        if drill.setting is not None:
            stage.network = await stack.enter_async_context(drill.setting(stage))
        stack.push_async_callback(stage.aclose)
        await stage.open()
        await drill.run(stage)
        return await stage.reckon()


async def storm(stage: Stage[G], harm: Callable[[Stage[G]], Awaitable[None]]) -> None:
    """The usual course of a drill: shoppers warm up, the harm comes and goes, shoppers go on for a while, and leave."""
    stage.admit()
    await asyncio.sleep(WARM_UP_S)
    await harm(stage)
    await asyncio.sleep(QUIET_S if stage.length.full else QUIET_S / 2)
    await stage.close()


def _product(sku: str, units: int) -> dict[str, Any]:
    price_minor = 500 + int(re.sub(r"\D", "", sku) or 0) % 5000
    return {
        "sku": sku,
        "name": f"Lantern {sku}",
        "description": "Blown glass and brushed steel, for the drills.",
        "category": f"shelf-{price_minor % 8}",
        "price_minor": price_minor,
        "currency": "USD",
        "on_hand": units,
    }


def _files(folder: Path) -> Sequence[Path]:
    return list(folder.iterdir())


def _read(path: Path) -> str:
    return path.read_text()


def _machine() -> str:
    return f"{machine.system()} {machine.release()}, {machine.machine()}"


def _versions() -> str:
    packages = ("fastapi", "uvicorn", "asyncpg", "httpx2")
    return ", ".join((f"Python {machine.python_version()}", *(f"{name} {version(name)}" for name in packages)))
