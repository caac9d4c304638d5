"""PostgreSQL is stopped for a while, and then killed and started again, while everybody shops."""

import asyncio
from collections import Counter

from drills.evidence import REFUSED_FOR_NOW
from drills.stage import Drill, Stage, processes, storm

ANSWERED_WITHIN_S = 2.0
RECOVERED_WITHIN_S = 10.0
PROBES = ("/livez", "/readyz")
PROBED_EVERY_S = 0.5
BETWEEN_S = 15.0


class Outage:
    """Probes every replica while the database is away, and remembers when that was."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self.probes: Counter[int | None] = Counter()

    async def probe(self, stage: Stage) -> None:
        """Ask every replica whether it lives and is ready, again and again until cancelled."""
        while True:
            asked = [stage.platform.probe(replica, path) for replica in stage.platform.replicas for path in PROBES]
            self.probes.update(await asyncio.gather(*asked))
            await asyncio.sleep(PROBED_EVERY_S)

    async def harm(self, stage: Stage) -> None:
        """Stop the database, start it; kill it, start it."""
        probing = asyncio.create_task(self.probe(stage))
        try:
            for what, end in (("stopped", stage.platform.postgres.stop), ("killed", stage.platform.postgres.kill)):
                began_s = stage.now_s()
                with stage.harm(f"PostgreSQL {what}"):
                    await asyncio.to_thread(end)
                    await stage.until(began_s + stage.length.seconds)
                    await asyncio.to_thread(stage.platform.postgres.start)
                self.spans.append((began_s, stage.now_s()))
                if what == "stopped":
                    await asyncio.sleep(min(BETWEEN_S, stage.length.seconds))
        finally:
            probing.cancel()


async def run(stage: Stage) -> None:
    """Shop through two outages of the database."""
    outage = Outage()
    pids = [replica.process and replica.process.pid for replica in stage.platform.replicas]
    await storm(stage, outage.harm)
    down = [each for began_s, ended_s in outage.spans for each in stage.during(began_s, ended_s)]
    refused = [each for each in down if each.failure == REFUSED_FOR_NOW]
    slowest_s = max((each.seconds for each in refused), default=0.0)
    stage.promise("requests were refused while the database was away", f"{len(refused)} with 503", bool(refused))
    stage.promise_clear_refusals()
    stage.promise(
        f"a 503 comes within {ANSWERED_WITHIN_S:.0f} s",
        f"at most {slowest_s:.2f} s",
        slowest_s <= ANSWERED_WITHIN_S,
        of_time=True,
    )
    others = Counter(each.failure for each in down if each.failure not in {None, REFUSED_FOR_NOW})
    stage.promise("nothing fails otherwise", f"{dict(others) or 'nothing did'}", not others)
    fallen = sum(count for status, count in outage.probes.items() if status != 200)
    probes = f"{outage.probes.total()} probes, {fallen} of them not 200"
    stage.promise("the probes of every replica stand", probes, bool(outage.probes) and fallen == 0)
    ends = [began_s for began_s, _ in outage.spans[1:]] + [stage.now_s()]
    recovered_s = max(_recovered_s(stage, span[1], end_s) for span, end_s in zip(outage.spans, ends, strict=True))
    stage.promise_recovery(RECOVERED_WITHIN_S, "the database is back", recovered_s)
    same = pids == [replica.process and replica.process.pid for replica in stage.platform.replicas]
    stage.promise("no service was started again", "the same processes" if same else "others", same)


def _recovered_s(stage: Stage, ended_s: float, next_s: float) -> float:
    """How long after an outage the last request failed, before the next one began."""
    after = [each for each in stage.during(ended_s, next_s) if each.failure and each.ended_at_s < next_s]
    return max((each.ended_at_s for each in after), default=ended_s) - ended_s


DATABASE = Drill(
    "database",
    "PostgreSQL is stopped for half a minute, later killed for as long: clear refusals meanwhile, no restart.",
    30,
    run,
    processes(),
)
