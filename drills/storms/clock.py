"""Each service in turn has a clock that is five minutes wrong, first ahead and then behind."""

import asyncio

from chassis.secrets import SERVICES
from drills.platform import Topology
from drills.stage import Drill, Length, Stage, processes, storm

OFFSET_S = 300


async def harm(stage: Stage) -> None:
    """Start the replicas of a service again with a wrong clock, one by one, and later with the right one."""
    each_s = stage.length.seconds / (2 * len(SERVICES))
    for service in SERVICES:
        for offset_s in (OFFSET_S, -OFFSET_S):
            with stage.harm(f"the clock of {service} is {offset_s:+d} s off"):
                await _restart(stage, service, offset_s)
                await asyncio.sleep(each_s)
        await _restart(stage, service, 0)


async def _restart(stage: Stage, service: str, offset_s: int) -> None:
    for replica in stage.platform.of(service):
        replica.environment["CLOCK_OFFSET_S"] = str(offset_s)
        await asyncio.to_thread(replica.end)
        await stage.platform.restart(replica)


async def run(stage: Stage) -> None:
    """Shop while clocks are wrong."""
    await storm(stage, harm)
    refused = [each for each in stage.client.exchanges if each.status == 401]
    stage.promise("no token is refused", f"{len(refused)} answers of 401", not refused)
    beliefs = await stage.beliefs()
    lost = [each for each in beliefs.reservations.values() if each["status"] == "expired"]
    stage.promise("no reservation is lost", f"{len(lost)} expired", not lost)


def _topology(_: Length) -> Topology:
    return Topology(harmed=frozenset(SERVICES))


CLOCK = Drill(
    "clock",
    "The clock of each service in turn is five minutes off, each way: no token is refused, no reservation lost.",
    80,
    run,
    processes(_topology),
)
