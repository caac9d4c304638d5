"""Each service is gone for a while, all its replicas at once, one service after the other."""

import asyncio
from collections import Counter

from chassis.secrets import SERVICES
from drills.client import FOR_NOW
from drills.stage import Drill, Stage, processes, storm

BETWEEN_S = 10.0
RECOVERED_WITHIN_S = 10.0


async def harm(stage: Stage) -> None:
    """Kill all replicas of a service, leave it so for a while, start them; then the next service."""
    for service in SERVICES:
        replicas = stage.platform.of(service)
        with stage.harm(f"no {service}"):
            for replica in replicas:
                replica.kill()
            await asyncio.sleep(stage.length.seconds)
            await asyncio.gather(*(stage.platform.restart(replica) for replica in replicas))
        await asyncio.sleep(BETWEEN_S if stage.length.full else BETWEEN_S / 5)


async def run(stage: Stage) -> None:
    """Shop while one service after the other is gone."""
    await storm(stage, harm)
    for harm_done in stage.harms:
        hit = [each for each in stage.during(harm_done.began_s, harm_done.ended_s) if each.failure]
        stage.promise(f"{harm_done.what}: it was noticed", f"{len(hit)} requests failed", bool(hit))
    failures = Counter(each.failure for each in stage.client.exchanges if each.failure)
    clear = {*map(str, FOR_NOW)}
    unclear = {kind: count for kind, count in failures.items() if kind not in clear}
    stage.promise("every failure is a clear one: 502 of the edge, or 503", f"{dict(failures)}", not unclear)
    stage.promise_clear_refusals()
    stage.promise_recovery(RECOVERED_WITHIN_S, "the last service is back")


OUTAGE = Drill(
    "outage",
    "Each service in turn is gone for half a minute: what needs it is refused clearly, and all recovers by itself.",
    30,
    run,
    processes(),
)
