"""`python -m bench.cluster [--write]`: what the platform in a cluster takes, at rest and under load, pod by pod.

The kubelets say it (their `stats/summary`): CPU as seconds used so far, memory as the working set, which is what an
eviction looks at. Load is the drills' shoppers, through the edge; their oracle and the audit judge what they got.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from chassis.telemetry import configure_logging
from deploy.manifests import MEBI, quantity
from deploy.target import NAMESPACE
from deploy.terminal import step
from drills.cluster import EDGE, Cluster, in_cluster
from drills.platform import NotHere, PlatformError
from drills.stage import Drill, Length, Stage, perform
from drills.storms.cluster import POSTGRES, SHOPPERS
from local.edge import STOREFRONT

PAGE = ROOT / "docs" / "resources.md"
SECONDS = 90.0
SETTLED_AFTER_S = 20.0
SAMPLED_EVERY_S = 10.0
"""The kubelet looks about as often itself."""
PLATFORM = (EDGE, *SERVICES, STOREFRONT, POSTGRES)
INTRODUCTION = """\
# Resources

What each pod takes in a kind cluster of a control plane and three workers, beside what its manifest asks for. *Mean* is
the CPU of one pod over the whole time, of all its replicas; *most* is the busiest ten seconds, or the largest working
set, of any of them; the last line takes that for each of its pods. `make bench-cluster` measures it again and writes
this page.

A request is about what a pod used under this load, in which shoppers call the API and nobody opens a page of the
storefront; the limit of memory leaves room for what a customer may ask of a replica at once, that of PostgreSQL for a
connection of every replica that the autoscalers allow, 5.5 MiB each. What PostgreSQL reads of its files counts in its
working set, and is given back when it is needed elsewhere.
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


async def watched(cluster: Cluster, seconds: float) -> list[Usage]:
    """Watch the platform's pods for so long; those that were there throughout and were looked at twice."""
    nodes = await cluster.do("get", "nodes", "--output=name")
    paths = [f"/api/v1/nodes/{node.removeprefix('node/')}/proxy/stats/summary" for node in nodes.split()]
    found = {name: Usage(workload) for name, workload in (await _workloads(cluster)).items()}
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        for answer in await asyncio.gather(*(cluster.do("get", "--raw", path) for path in paths)):
            for pod in json.loads(answer)["pods"]:
                usage = found.get(pod["podRef"]["name"])
                if usage is not None and pod["podRef"]["namespace"] == NAMESPACE:
                    note(usage, pod)
        await asyncio.sleep(SAMPLED_EVERY_S)
    there = await _workloads(cluster)
    return [usage for name, usage in found.items() if name in there and len(usage.samples) > 1]


def note(usage: Usage, pod: dict[str, Any]) -> None:
    """Add what a kubelet says of a pod, unless that is what it has said before."""
    at = datetime.fromisoformat(pod["cpu"]["time"]).timestamp()
    if not usage.samples or at > usage.samples[-1][0]:
        usage.samples.append((at, pod["cpu"]["usageCoreNanoSeconds"] / 1e9))
    usage.memory.append(pod["memory"]["workingSetBytes"])


async def _workloads(cluster: Cluster) -> dict[str, str]:
    """The workload of each pod of the platform that is up, by the pod's name."""
    return {pod["metadata"]["name"]: name for name in PLATFORM for pod in await cluster.pods(name)}


async def rows(cluster: Cluster, usages: Sequence[Usage]) -> list[Row]:
    """A row for each workload."""
    found: list[Row] = []
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
    sections: list[str] = []

    async def run(stage: Stage[Cluster]) -> None:
        cluster = stage.platform
        with step("at rest"):
            await asyncio.sleep(SETTLED_AFTER_S)
            sections.append(f"## At rest\n\n{table(await rows(cluster, await watched(cluster, seconds)))}")
        with step("under load") as result:
            stage.admit()
            await asyncio.sleep(SETTLED_AFTER_S)
            sent, began = stage.client.sent, time.monotonic()
            usages = await watched(cluster, seconds)
            rate = (stage.client.sent - sent) / (time.monotonic() - began)
            result.text = f"{SHOPPERS} shoppers without a pause, {rate:.0f} requests a second, for {seconds:.0f} s"
            sections.append(f"## Under load\n\n{result.text}.\n\n{table(await rows(cluster, usages))}")
        await stage.close()
        sections.append(
            f"- Command: `make bench-cluster`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n"
            f"- Machine: {os.cpu_count()} cores, on which the cluster and the shoppers run\n"
            f"- Versions: Kubernetes {await _kubernetes(cluster)}"
        )

    drill = Drill("resources", "What the platform takes.", seconds, run, in_cluster, SHOPPERS)
    with tempfile.TemporaryDirectory(prefix="souk-bench-") as folder:
        evidence = await perform(drill, Length(seconds, full=True), seed=1, folder=Path(folder))
    if evidence.violations:
        raise PlatformError("\n".join(evidence.violations))
    return "\n\n".join(sections) + f", {evidence.versions}"


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
