"""`python -m bench.cluster [--write]`: what the platform in a cluster takes, at rest and under load, pod by pod.

The kubelets say it (their `stats/summary`): CPU as seconds used so far, memory as the working set, which is what an
eviction looks at. Load is the drills' shoppers, through the edge; their oracle and the audit judge what they got.
"""

import argparse
import asyncio
import json
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
from deploy.terminal import say, step
from drills.cluster import Cluster, in_cluster
from drills.evidence import Evidence
from drills.platform import PlatformError
from drills.stage import Drill, Length, Stage
from drills.storms.cluster import SHOPPERS

PAGE = ROOT / "docs" / "resources.md"
SECONDS = 90.0
SAMPLED_EVERY_S = 10.0
"""The kubelet looks about as often itself."""
MEBI = 2**20
UNITS = {"Ki": 2**10, "Mi": MEBI, "Gi": 2**30}
PLATFORM = ("edge", "user", "product", "payment", "order", "postgres")
INTRODUCTION = """\
# Resources

What each pod takes in a kind cluster of a control plane and three workers, beside what its manifest asks for. *Mean* is
the CPU of one pod over the whole time, of all its replicas; *most* is the busiest ten seconds, or the largest working
set, of any of them. `make bench-cluster` measures it again and writes this page.
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
    nodes = await asyncio.to_thread(
        cluster.kubectl.items, "nodes", "--selector=node-role.kubernetes.io/control-plane"
    )
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


def quantity(text: str) -> float:
    """A quantity as Kubernetes writes them: CPUs, or bytes."""
    for suffix, factor in UNITS.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)
