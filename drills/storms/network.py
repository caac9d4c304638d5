"""Storms of the network: a replica that is slow and then hangs, and links that drop, reset, delay and repeat."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2

from chassis.settings import ServiceSettings
from drills.evidence import Exchange, Table
from drills.network import DELAYED, DUPLICATED, REPLY_DROPPED, REPLY_RESET, UNDELIVERED, Network
from drills.platform import NotReady, Topology
from drills.report import percentile
from drills.stage import Drill, Length, Stage, processes, storm

CHECKOUT = "POST /api/v1/orders"
SLOW_S = 2.0
LOOKED_AT_EVERY_S = 0.2
POOL: int = ServiceSettings.model_fields["database_pool_size"].default
SLOW_REPLICA = "order-*->product-1"
SETTLES_WITHIN_S = 10.0
FACTOR = 1.5
QUICK = {"tok_visa": 80, "tok_mastercard": 10, "tok_declined": 10}
"""Payment methods that wait for nothing, so that what is measured is the platform."""
SHOPPERS = 12
"""Fewer than elsewhere: what is compared is how long a checkout takes, not how long it queues for two cores."""
FATES = {DELAYED: 0.02, REPLY_DROPPED: 0.01, REPLY_RESET: 0.01, UNDELIVERED: 0.01, DUPLICATED: 0.02}
"""Of all requests on every link; the rest pass."""


@asynccontextmanager
async def _network(stage: Stage) -> AsyncGenerator[Network]:
    network = Network()
    await network.start(stage.platform.links, stage.seed)
    try:
        yield network
    finally:
        await network.stop()


def _linked(_: Length) -> Topology:
    return Topology(linked=True)


def _p99_s(exchanges: list[Exchange]) -> float:
    return percentile(sorted(each.seconds for each in exchanges), 99)


async def _pools(stage: Stage, most: Counter[str]) -> None:
    """Look at the connections to PostgreSQL that each replica uses, again and again, and keep the most of each."""
    async with httpx2.AsyncClient() as client:
        while True:
            for replica in stage.platform.replicas:
                text = (await client.get(f"{replica.url}/metrics")).text
                found = re.search(r"^souk_database_connections_in_use ([\d.]+)$", text, re.MULTILINE)
                assert found is not None
                most[replica.name] = max(most[replica.name], int(float(found[1])))
            await asyncio.sleep(LOOKED_AT_EVERY_S)


async def slow(stage: Stage) -> None:
    """One replica of product answers two seconds late, and then not at all."""
    stage.floor.methods = QUICK
    network = stage.network
    stage.admit()
    await asyncio.sleep(5)
    calm_s = stage.now_s()
    await asyncio.sleep(stage.length.seconds / 2)
    spans = [("as usual", calm_s, stage.now_s())]
    most = Counter[str]()
    looking = asyncio.create_task(_pools(stage, most))
    for mode, seconds in (("slow", SLOW_S), ("hang", 0.0)):
        what = f"product-1 is {seconds:.0f} s slow" if seconds else "product-1 hangs"
        with stage.harm(what):
            await network.set(mode, links=SLOW_REPLICA, seconds=seconds)
            await asyncio.sleep(min(SETTLES_WITHIN_S, stage.length.seconds / 2))
            began_s = stage.now_s()
            await asyncio.sleep(stage.length.seconds / 2)
            spans.append((what, began_s, stage.now_s()))
            await network.set("clear", links=SLOW_REPLICA)
        await asyncio.sleep(5)
    looking.cancel()
    (reason,) = await asyncio.gather(looking, return_exceptions=True)
    if not isinstance(reason, asyncio.CancelledError):
        raise NotReady(f"a replica did not say how it was: {reason}")
    await stage.close()
    if not all(stage.during(began_s, ended_s, CHECKOUT) for _, began_s, ended_s in spans):
        stage.violations.append("no checkout was sent in one of the spans that are compared")
        return
    usual, *harmed = [(what, stage.during(began_s, ended_s, CHECKOUT)) for what, began_s, ended_s in spans]
    rows = [
        (what, str(len(found)), f"{_p99_s(found) * 1000:.0f} ms", str(sum(each.failure is not None for each in found)))
        for what, found in (usual, *harmed)
    ]
    stage.tables.append(Table("Checkouts", ("when", "sent", "p99", "failed"), rows))
    for what, found in harmed:
        ratio = _p99_s(found) / _p99_s(usual[1])
        stage.promise(
            f"{what}: after {SETTLES_WITHIN_S:.0f} s the p99 of a checkout is at most {FACTOR} times the usual",
            f"{ratio:.2f} times",
            ratio <= FACTOR,
            of_time=True,
        )
    name, in_use = most.most_common(1)[0]
    stage.promise("no pool runs dry", f"at most {in_use} of {POOL} connections in use, by {name}", in_use < POOL)
    counts = await network.counts()
    hit = sum((found for link, found in counts.items() if link.endswith("->product-1")), Counter[str]())
    stage.promise("requests were slowed and hung", f"{dict(hit)}", hit["slowed"] > 0 and hit["hung"] > 0)
    failed = Counter([each.failure for each in stage.client.exchanges if each.failure])
    wrong = {kind: count for kind, count in failed.items() if kind not in {"502", "503", "no answer"}}
    stage.promise("nothing fails but clearly", f"{dict(failed) or 'nothing did'}", not wrong)


async def _flaky_harm(stage: Stage) -> None:
    with stage.harm("every link drops, resets, delays and repeats"):
        await stage.network.set("faulty", fates=FATES)
        await asyncio.sleep(stage.length.seconds)
        await stage.network.set("clear")


async def flaky(stage: Stage) -> None:
    """Shop while every link between edge, services and services is bad."""
    stage.floor.repeats_by_itself = True
    await storm(stage, _flaky_harm)
    counts = sum((await stage.network.counts()).values(), Counter[str]())
    met = {fate: counts[fate] for fate in FATES}
    stage.tables.append(Table("Fates of requests", ("fate", "requests"), [(k, str(n)) for k, n in counts.items()]))
    stage.promise("every fate befell some request", f"{met}", all(met.values()))


SLOW = Drill(
    "slow",
    "One replica of product is two seconds slow, and then hangs: checkouts go round it within ten seconds.",
    20,
    slow,
    processes(_linked),
    SHOPPERS,
    _network,
)
FLAKY_NETWORK = Drill(
    "flaky-network",
    "Replies get lost, connections break, requests are late or come twice, between every pair: no order suffers.",
    60,
    flaky,
    processes(_linked),
    setting=_network,
)
