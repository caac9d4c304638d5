"""Storms of a cluster: what its operator does on a working day, and what befalls its nodes.

What is planned (a rollout, a drain, another number of replicas) may fail no request. What is not planned may fail some,
each of which the client repeats with its key, until the cluster has noticed.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from chassis.secrets import SERVICES
from deploy.commands import run
from drills.client import FOR_NOW
from drills.cluster import EDGE, Cluster, in_cluster
from drills.evidence import Promise, Table
from drills.platform import NotHere, PlatformError
from drills.stage import Drill, Stage, storm

ENOUGH = 20_000
"""Requests without which a planned change proves nothing."""
QUIET_WITHIN_S = 60.0
SHARES_WITHIN_S = 15.0
ALERT_WITHIN_S = 120.0
"""After the storm: the sums of which a burn is judged lag by a minute, and a rule may wait as long."""
UNWATCHED = "nobody watches (MONITORING=no)"
NODE_GONE_S = 75.0
"""Longer than Kubernetes takes to notice (`node-monitor-grace-period`, 50 s)."""
NODE_BACK_WITHIN_S = 180.0
POSTGRES = "postgres"
SHOPPERS = 16
"""As many as two of three order replicas have places for: what a change costs is shown, not what a rush does."""
CHECKOUT = "POST /api/v1/orders"

OnCluster = Stage[Cluster]


async def _planned(stage: OnCluster, change: Callable[[OnCluster], Awaitable[None]]) -> None:
    """Make a change while shoppers shop, in a full run again until enough requests were sent, and note what failed."""

    async def harm(_: OnCluster) -> None:
        await change(stage)
        while stage.length.full and stage.client.sent < ENOUGH:
            await change(stage)

    await storm(stage, harm)
    _nothing_failed(stage)
    await _nobody_is_paged(stage)
    if stage.length.full:
        stage.promise(f"at least {ENOUGH:,} requests", f"{stage.client.sent:,}", stage.client.sent >= ENOUGH)


def _nothing_failed(stage: OnCluster) -> None:
    """Note that no request failed: none of those that read, and none of those that buy."""
    exchanges = stage.client.exchanges
    for what, chosen in (
        ("reads", [each for each in exchanges if each.call.startswith("GET ")]),
        ("checkouts", [each for each in exchanges if each.call == CHECKOUT]),
        ("requests", exchanges),
    ):
        failed = Counter(each.failure for each in chosen if each.failure)
        measured = f"{failed.total()} of {len(chosen):,}" + (f": {dict(failed)}" if failed else "")
        stage.promise(f"no failed {what}", measured, bool(chosen) and not failed)


def _all_came_to_an_end(stage: OnCluster) -> None:
    """Note that what failed was refused clearly, repeated, and in the end done."""
    failed = Counter(each.failure for each in stage.client.exchanges if each.failure)
    clear = {"no answer", *map(str, FOR_NOW)}
    unclear = [kind for kind in failed if kind not in clear]
    stage.promise("what failed says that it may be repeated", f"{dict(failed) or 'nothing failed'}", not unclear)
    open_still = len(stage.floor.unresolved)
    stage.promise(
        "0 failed after the client's own repetition, with its key", f"{open_still} unresolved", not open_still
    )
    stage.promise_recovery(QUIET_WITHIN_S, "the last harm")


async def _alert_fires(stage: OnCluster) -> None:
    """Wait for the alert that this storm must raise, and note when it fired. It may go on for long."""
    name = stage.drill.alert
    assert name is not None
    text = f"{name} fires"
    began_s = stage.harms[0].began_s
    async with stage.platform.watched() as prometheus:
        if prometheus is None:
            stage.promises.append(Promise(text, UNWATCHED, kept=False, judged=False))
            return
        until_s = stage.now_s() + ALERT_WITHIN_S
        while (fired_s := await prometheus.fired(name, stage.began_at.timestamp() + began_s)) is None:
            if stage.now_s() > until_s:
                stage.promise(text, f"it did not, within {ALERT_WITHIN_S:.0f} s after the storm", False, of_time=True)
                return
            await asyncio.sleep(1)
    measured = f"{fired_s:.0f} s after the first harm" if fired_s > 0 else "it did before the first harm already"
    stage.promise(text, measured, True, of_time=True)


async def _nobody_is_paged(stage: OnCluster) -> None:
    """Note that a change which was planned has woken nobody."""
    text = "nobody is paged"
    async with stage.platform.watched() as prometheus:
        if prometheus is None:
            stage.promises.append(Promise(text, UNWATCHED, kept=False, judged=False))
            return
        pages = await prometheus.pages(stage.began_at.timestamp())
    stage.promise(text, ", ".join(pages) or "no alert", not pages)


# Rollout


async def _rollout(stage: OnCluster) -> None:
    cluster = stage.platform
    for service in SERVICES:
        with stage.harm(f"rolling restart of {service}"):
            await cluster.do("rollout", "restart", f"deployment/{service}")
            await cluster.settled()
    images = await _new_images(cluster)
    for service, image in images.items():
        with stage.harm(f"new image of {service}"):
            await cluster.do("set", "image", f"deployment/{service}", f"*={image}")
            await cluster.settled()
    for service in images:
        with stage.harm(f"rollback of {service}"):
            await cluster.do("rollout", "undo", f"deployment/{service}")
            await cluster.settled()


async def _new_images(cluster: Cluster) -> Mapping[str, str]:
    """Bring each service's image to the nodes under a new name, as a release would."""
    kind = cluster.target.kind_cluster
    if kind is None:
        raise NotHere("a new image is brought to the nodes of a kind cluster only")
    images: dict[str, str] = {}
    for service in SERVICES:
        now = await _image(cluster, service)
        images[service] = f"souk/{service}:drilled"
        await asyncio.to_thread(run, ("docker", "tag", now, images[service]))
    command = ("kind", "load", "docker-image", f"--name={kind}", *images.values())
    await asyncio.to_thread(lambda: run(command, timeout_s=600))
    return images


async def rollout(stage: OnCluster) -> None:
    """Restart all services pod by pod, then give each a new image, and take it back."""
    await _planned(stage, _rollout)


# Release


async def release(stage: OnCluster) -> None:
    """Bring the working tree into the cluster as `make deploy` does: its migrations first, then its images."""
    cluster = stage.platform
    before = await _released(cluster)

    async def harm(_: OnCluster) -> None:
        with stage.harm("make deploy"):
            await asyncio.to_thread(lambda: run((sys.executable, "-m", "deploy", "up"), timeout_s=1200))
        await stage.until(stage.harms[0].began_s + stage.length.seconds)

    await storm(stage, harm)
    after = await _released(cluster)
    rows = [(what, before[what], after[what]) for what in before if before[what] != after[what]]
    stage.promise("there was something to release", ", ".join(what for what, *_ in rows) or "nothing", bool(rows))
    stage.tables.append(Table("What was released", ("of", "before", "after"), rows))
    _nothing_failed(stage)
    await _nobody_is_paged(stage)


async def _released(cluster: Cluster) -> dict[str, str]:
    """The image of each service, and the revision of each schema."""
    found: dict[str, str] = {}
    for service in SERVICES:
        found[f"image of {service}"] = await _image(cluster, service)
        query = ("psql", "--username=postgres", f"--dbname=souk_{service}", "--no-align", "--tuples-only")
        command = (*query, "--command=SELECT version_num FROM alembic_version")
        found[f"schema of {service}"] = (await cluster.do("exec", f"{POSTGRES}-0", "--", *command)).strip()
    return found


async def _image(cluster: Cluster, service: str) -> str:
    path = "{.spec.template.spec.containers[0].image}"
    return (await cluster.do("get", f"deployment/{service}", f"--output=jsonpath={path}")).strip()


# Drain


async def _drain(stage: OnCluster) -> None:
    cluster = stage.platform
    for node in await cluster.workers():
        with stage.harm(f"drain of {node}"):
            try:
                await cluster.do("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
                await cluster.settled()
            finally:
                await cluster.do("uncordon", node)
        await asyncio.sleep(5)


async def drain(stage: OnCluster) -> None:
    """Empty each worker in turn, as for its maintenance."""
    await _planned(stage, _drain)


# Kills


async def pod_kill(stage: OnCluster) -> None:
    """Kill a pod of each service and of the edge, again and again, without a word to it."""

    async def harm(_: OnCluster) -> None:
        until_s = stage.now_s() + stage.length.seconds
        while stage.now_s() < until_s:
            for workload in (*SERVICES, EDGE):
                await _kill(stage, workload)
                await stage.platform.settled()

    await storm(stage, harm)
    killed = Counter(each.what for each in stage.harms)
    stage.promise("a pod of each was killed", f"{dict(killed)}", len(killed) == len(SERVICES) + 1)
    _all_came_to_an_end(stage)


async def _kill(stage: OnCluster, workload: str) -> None:
    pods = await stage.platform.pods(workload)
    pod = stage.random.choice(sorted(each["metadata"]["name"] for each in pods))
    with stage.harm(f"a pod of {workload} killed"):
        await stage.platform.do("delete", f"pod/{pod}", "--grace-period=0", "--force", "--wait=false")


async def node_loss(stage: OnCluster) -> None:
    """Stop a worker's container as if its power had failed, and start it again later."""
    cluster = stage.platform
    if cluster.target.kind_cluster is None:
        raise NotHere("a node is stopped in a kind cluster only")
    counts = {node: len(await _pods_on(cluster, node)) for node in await cluster.workers()}
    node = max(counts, key=lambda each: counts[each])

    async def harm(_: OnCluster) -> None:
        try:
            with stage.harm(f"{node} is gone, with {counts[node]} pods"):
                await asyncio.to_thread(run, ("docker", "kill", node))
                await asyncio.sleep(NODE_GONE_S)
        finally:
            await asyncio.to_thread(run, ("docker", "start", node))
        await cluster.do("wait", f"node/{node}", "--for=condition=Ready", f"--timeout={NODE_BACK_WITHIN_S:.0f}s")
        await cluster.settled()

    await storm(stage, harm)
    _all_came_to_an_end(stage)
    (gone,) = stage.harms
    last_s = max((each.ended_at_s for each in stage.during(gone.began_s, gone.ended_s) if each.failure), default=None)
    quiet_s = 0.0 if last_s is None else last_s - gone.began_s
    stage.promise_recovery(QUIET_WITHIN_S, "the node is gone, though it stays so", quiet_s)
    await _alert_fires(stage)


async def _pods_on(cluster: Cluster, node: str) -> list[str]:
    found = await cluster.do("get", "pods", f"--field-selector=spec.nodeName={node}", "--output=name")
    return found.split()


async def database_restart(stage: OnCluster) -> None:
    """Restart the database's pod with notice, and then without."""
    cluster = stage.platform

    async def harm(_: OnCluster) -> None:
        for what, options in (
            ("PostgreSQL restarted", ()),
            ("PostgreSQL killed", ("--grace-period=0", "--force")),
        ):
            with stage.harm(what):
                await cluster.do("delete", f"pod/{POSTGRES}-0", *options)
                await cluster.settled()
            await asyncio.sleep(stage.length.seconds / 2)

    await storm(stage, harm)
    failed = Counter(each.failure for each in stage.client.exchanges if each.failure)
    stage.promise("requests were refused while the database was away", f"{dict(failed)}", failed["503"] > 0)
    stage.promise_clear_refusals()
    _all_came_to_an_end(stage)
    await _alert_fires(stage)


# Scale


async def scale(stage: OnCluster) -> None:
    """Let each autoscaler have more replicas at once, see whether they take their share, and give them back."""
    cluster = stage.platform
    rows: list[Sequence[str]] = []

    async def harm(_: OnCluster) -> None:
        limits = await _limits(cluster)
        try:
            for service, (least, most) in limits.items():
                with stage.harm(f"{service} from {least} to {most} replicas"):
                    await _bound(cluster, service, most)
                    await cluster.at_least(most, service)
                    await asyncio.sleep(SHARES_WITHIN_S)
                    before = await cluster.served(service)
                    await asyncio.sleep(SHARES_WITHIN_S)
                    after = await cluster.served(service)
                counts = sorted(after[name] - before[name] for name in before)
                rows.append((service, f"{least} to {most}", ", ".join(f"{count:.0f}" for count in counts)))
                mean = sum(counts) / len(counts)
                stage.promise(
                    f"{SHARES_WITHIN_S:.0f} s after they are ready the replicas of {service} share its requests",
                    f"the least has {counts[0] / mean:.0%} of the mean, the most {counts[-1] / mean:.0%}",
                    counts[0] >= mean / 2,
                )
        finally:
            for service, (least, _most) in limits.items():
                await _bound(cluster, service, least)
        with stage.harm("as many replicas as before"):
            for service, (least, _most) in limits.items():
                await cluster.do("scale", f"deployment/{service}", f"--replicas={least}")
            await cluster.settled()

    await storm(stage, harm)
    stage.tables.append(Table("Requests of each replica", ("service", "replicas", f"in {SHARES_WITHIN_S:.0f} s"), rows))
    _nothing_failed(stage)
    await _alert_fires(stage)


async def _limits(cluster: Cluster) -> dict[str, tuple[int, int]]:
    """How few and how many replicas each autoscaler allows."""
    found = await asyncio.to_thread(cluster.kubectl.items, "horizontalpodautoscalers")
    limits = {
        each["spec"]["scaleTargetRef"]["name"]: (each["spec"]["minReplicas"], each["spec"]["maxReplicas"])
        for each in found
    }
    if not limits:
        raise PlatformError("there is no HorizontalPodAutoscaler")
    return {service: limits[service] for service in SERVICES if service in limits}


async def _bound(cluster: Cluster, service: str, least: int) -> None:
    await cluster.do("patch", f"horizontalpodautoscaler/{service}", f'--patch={{"spec":{{"minReplicas":{least}}}}}')


CLUSTER_DRILLS = (
    Drill(
        "rollout",
        "All four services are restarted pod by pod, get a new image and lose it again, under load: no request fails.",
        60,
        rollout,
        in_cluster,
        SHOPPERS,
    ),
    Drill(
        "release",
        "The working tree is deployed over the release before it, migrations and all, under load: no request fails.",
        60,
        release,
        in_cluster,
        SHOPPERS,
    ),
    Drill("drain", "Each worker in turn is drained, under load: no request fails.", 60, drain, in_cluster, SHOPPERS),
    Drill(
        "pod-kill",
        "Pods of each service and of the edge are killed: what fails is repeated by its client, with its key.",
        60,
        pod_kill,
        in_cluster,
        SHOPPERS,
    ),
    Drill(
        "node-loss",
        "A worker is gone, with all its pods, and comes back: what fails is repeated by its client, with its key.",
        75,
        node_loss,
        in_cluster,
        SHOPPERS,
        alert="SoukReplicaDown",
    ),
    Drill(
        "database-restart",
        "PostgreSQL is restarted, then killed: clear refusals meanwhile, and all goes on when it is back.",
        20,
        database_restart,
        in_cluster,
        SHOPPERS,
        alert="SoukErrorBudgetBurn",
    ),
    Drill(
        "scale",
        "Each service gets as many replicas as it may have, and loses them: the new ones take their share.",
        60,
        scale,
        in_cluster,
        SHOPPERS,
        alert="SoukAutoscalerAtMaximum",
    ),
)
"""Drills of the platform that `make deploy` brought into a cluster."""
