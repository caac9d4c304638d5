"""`python -m bench.cluster [--write]`: what the platform in a cluster takes, at rest and under load, pod by pod.

The kubelets say it (their `stats/summary`): CPU as seconds used so far, memory as the working set, which is what an
eviction looks at. Load is the drills' shoppers, through the edge; their oracle and the audit judge what they got.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from chassis.migrations import ROOT
from chassis.telemetry import configure_logging
from deploy.manifests import MEBI, quantity
from deploy.terminal import step
from drills.cluster import Cluster, in_cluster
from drills.platform import NotHere, PlatformError
from drills.stage import Drill, Length, Stage
from drills.storms.cluster import SHOPPERS

PAGE = ROOT / "docs" / "resources.md"
SECONDS = 90.0
SETTLED_AFTER_S = 20.0
SAMPLED_EVERY_S = 10.0
"""The kubelet looks about as often itself."""
PLATFORM = ("edge", "user", "product", "payment", "order", "postgres")
INTRODUCTION = """\
# Resources

What each pod takes in a kind cluster of a control plane and three workers, beside what its manifest asks for. *Mean* is
the CPU of one pod over the whole time, of all its replicas; *most* is the busiest ten seconds, or the largest working
set, of any of them. `make bench-cluster` measures it again and writes this page.

A request is about what a pod used under this load; the limit of memory leaves room for what a customer may ask of
a replica at once, that of PostgreSQL for a connection of every replica that the autoscalers allow, 5.5 MiB each. What
PostgreSQL reads of its files counts in its working set, and is given back when it is needed elsewhere.
"""


@dataclass(slots=True)
class Usage:
    """What one pod used while it was watched."""

    workload: str
    samples: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Moments, and the CPU seconds used until then."""
    memory: list[float] = field(default_factory=list[float])
    """Bytes of the working set."""

    @property
    def rates(self) -> list[float]:
        """CPUs used between each two samples."""
        return [
            (used - before) / (at - since)
            for (since, before), (at, used) in zip(self.samples, self.samples[1:], strict=False)
        ]

    @property
    def mean(self) -> float:
        """CPUs used, from the first sample to the last."""
        (since, before), (at, used) = self.samples[0], self.samples[-1]
        return (used - before) / (at - since)


@dataclass(frozen=True, slots=True)
class Row:
    """A workload: what a pod of it asks for, and what one used."""

    workload: str
    pods: int
    requests: tuple[float, float]
    """CPUs and bytes."""
    limits: tuple[float, float]
    mean_cpus: float
    most_cpus: float
    most_bytes: float


async def watched(cluster: Cluster, seconds: float) -> dict[str, Usage]:
    """Watch the platform's pods for so long; by their names, those that were there all the time."""
    nodes = [*await cluster.workers(), *await _control_planes(cluster)]
    workloads = await _workloads(cluster)
    found = {name: Usage(workload) for name, workload in workloads.items()}
    ends_at = time.monotonic() + seconds
    while True:
        answers = await asyncio.gather(
            *(cluster.do("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary") for node in nodes)
        )
        for answer in answers:
            for pod in json.loads(answer)["pods"]:
                if pod["podRef"]["namespace"] == "souk" and (usage := found.get(pod["podRef"]["name"])):
                    note(usage, pod)
        if time.monotonic() >= ends_at:
            break
        await asyncio.sleep(min(SAMPLED_EVERY_S, max(0.1, ends_at - time.monotonic())))
    there = await _workloads(cluster)
    return {name: usage for name, usage in found.items() if name in there and len(usage.samples) > 1}


def note(usage: Usage, pod: dict[str, Any]) -> None:
    """Add what a kubelet says of a pod, unless that is what it has said before."""
    at = datetime.fromisoformat(pod["cpu"]["time"]).timestamp()
    if not usage.samples or at > usage.samples[-1][0]:
        usage.samples.append((at, pod["cpu"]["usageCoreNanoSeconds"] / 1e9))
    usage.memory.append(pod["memory"]["workingSetBytes"])


async def _control_planes(cluster: Cluster) -> list[str]:
    nodes = await asyncio.to_thread(cluster.kubectl.items, "nodes", "--selector=node-role.kubernetes.io/control-plane")
    return [node["metadata"]["name"] for node in nodes]


async def _workloads(cluster: Cluster) -> dict[str, str]:
    """The workload of each pod of the platform that is up, by the pod's name."""
    return {pod["metadata"]["name"]: name for name in PLATFORM for pod in await cluster.pods(name)}


async def rows(cluster: Cluster, usages: Iterable[Usage]) -> list[Row]:
    """A row for each workload."""
    found: list[Row] = []
    usages = list(usages)
    for name in PLATFORM:
        mine = [usage for usage in usages if usage.workload == name]
        pod, *_ = await cluster.pods(name)
        asked = pod["spec"]["containers"][0]["resources"]
        found.append(
            Row(
                name,
                len(mine),
                _pair(asked["requests"]),
                _pair(asked["limits"]),
                fmean(usage.mean for usage in mine),
                max(rate for usage in mine for rate in usage.rates),
                max(size for usage in mine for size in usage.memory),
            )
        )
    return found


def _pair(asked: dict[str, str]) -> tuple[float, float]:
    return quantity(asked["cpu"]), quantity(asked["memory"])


def table(found: Sequence[Row]) -> str:
    """The rows as Markdown, and their sum over all pods."""
    lines = [
        "| workload | pods | CPU requested | mean | most | limit | memory requested | most | limit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        cpus = (row.requests[0], row.mean_cpus, row.most_cpus, row.limits[0])
        sizes = (row.requests[1], row.most_bytes, row.limits[1])
        cells = [row.workload, str(row.pods), *map(_cpus, cpus), *map(_bytes, sizes)]
        lines.append("| " + " | ".join(cells) + " |")
    pods = sum(row.pods for row in found)
    requested, used = (sum(row.pods * row.requests[0] for row in found), sum(row.pods * row.mean_cpus for row in found))
    memory, most = (sum(row.pods * row.requests[1] for row in found), sum(row.pods * row.most_bytes for row in found))
    lines.append(f"| all | {pods} | {_cpus(requested)} | {_cpus(used)} | | | {_bytes(memory)} | {_bytes(most)} | |")
    return "\n".join(lines)


def _cpus(cpus: float) -> str:
    return f"{cpus * 1000:.0f}m"


def _bytes(size: float) -> str:
    return f"{size / MEBI:.0f} Mi"


async def measure(seconds: float) -> str:
    """Watch the platform at rest, then under load, and return both tables; raises PlatformError."""
    drill = Drill("resources", "What the platform takes.", seconds, _nothing, in_cluster, SHOPPERS)
    with tempfile.TemporaryDirectory(prefix="souk-bench-") as folder:
        stage = Stage(drill, Length(seconds, full=True), random.randrange(10**6), Path(folder))  # noqa: S311 - a seed
        try:
            await stage.open()
            cluster = stage.platform
            with step("at rest") as result:
                await asyncio.sleep(SETTLED_AFTER_S)
                resting = await rows(cluster, (await watched(cluster, seconds)).values())
                result.text = f"{sum(row.pods for row in resting)} pods"
            with step("under load") as result:
                stage.admit()
                await asyncio.sleep(SETTLED_AFTER_S)
                sent, began = stage.client.sent, time.monotonic()
                loaded = await rows(cluster, (await watched(cluster, seconds)).values())
                rate = (stage.client.sent - sent) / (time.monotonic() - began)
                await stage.close()
                result.text = f"{rate:.0f} requests a second"
            evidence = await stage.reckon()
        finally:
            await stage.aclose()
    if evidence.violations:
        raise PlatformError("\n".join(evidence.violations))
    return "\n\n".join(
        (
            f"## At rest\n\n{table(resting)}",
            f"## Under load\n\n{SHOPPERS} shoppers without a pause, {rate:.0f} requests a second, for"
            f" {seconds:.0f} s.\n\n{table(loaded)}",
            f"- Command: `make bench-cluster`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n"
            f"- Machine: {os.cpu_count()} cores, on which the cluster and the shoppers run\n"
            f"- Versions: Kubernetes {await _kubernetes(cluster)}, {evidence.versions}",
        )
    )


async def _nothing(_: Stage[Cluster]) -> None:
    """A drill that harms nothing is never performed."""


async def _kubernetes(cluster: Cluster) -> str:
    version: str = json.loads(await cluster.do("get", "--raw", "/version"))["gitVersion"]
    return version.removeprefix("v")


def main() -> None:
    """Measure, print the tables, and keep them if so asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="What the shop takes in a cluster.")
    parser.add_argument("--write", action="store_true", help="keep the tables in docs/resources.md")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it is watched, at rest and under load")
    options = parser.parse_args()
    configure_logging("bench", "warning")
    try:
        tables = asyncio.run(measure(options.seconds))
    except (NotHere, PlatformError) as error:
        sys.exit(f"souk: {error}")
    print(f"\n{tables}")
    if options.write:
        PAGE.write_text(f"{INTRODUCTION}\n{tables}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
