"""SIGKILL of a random replica every second."""

import asyncio

from drills.platform import Replica
from drills.stage import Drill, Stage, processes, storm

EVERY_S = 1.0
RECOVERED_WITHIN_S = 30.0


async def harm(stage: Stage) -> None:
    """Kill one of the replicas that run, start it again, and go on."""
    restarts: set[asyncio.Task[float]] = set()
    ready_after_s: list[float] = []
    until_s = stage.now_s() + stage.length.seconds
    kills = 0
    while stage.now_s() < until_s:
        # Never the last one of a service: that is the drill `outage`.
        candidates = [each for each in stage.platform.replicas if each.serving and _others(stage, each)]
        if candidates:
            replica = stage.random.choice(candidates)
            with stage.harm(f"kill {replica.name}"):
                replica.kill()
            kills += 1
            restarts.add(asyncio.create_task(stage.platform.restart(replica)))
        await asyncio.sleep(EVERY_S)
    ready_after_s += await asyncio.gather(*restarts)
    stage.promise("replicas were killed", f"{kills}, each ready again in at most {max(ready_after_s):.1f} s", kills > 0)


def _others(stage: Stage, replica: Replica) -> bool:
    return any(each.serving for each in stage.platform.of(replica.service) if each is not replica)


async def run(stage: Stage) -> None:
    """Shop, kill, shop."""
    await storm(stage, harm)
    stage.promise_recovery(RECOVERED_WITHIN_S, "the last kill")


KILL = Drill(
    "kill",
    "A random replica is killed by SIGKILL every second and started again: nothing that was acknowledged is lost.",
    60,
    run,
    processes(),
)
