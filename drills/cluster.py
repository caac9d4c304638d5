"""The platform in a Kubernetes cluster, as drills see it: what `make deploy` brought there, reached from outside.

Shoppers come through the Ingress at 127.0.0.1. What only an operator may see, the services' own ports, is reached
through the API server. Which cluster is meant is said as for `make deploy` (deploy/target.py).
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from chassis.secrets import SERVICES
from deploy.commands import CommandFailed, Kubectl, Object
from deploy.manifests import COMPONENT, MONITORING
from deploy.shop import ADMIN_EMAIL, PORTS, origins
from deploy.target import NAMESPACE, STATE, Target, read_target
from deploy.terminal import Failed
from drills.platform import NotHere, NotReady
from monitoring.prometheus import Prometheus

SETTLES_WITHIN_S = 300.0
LOOKED_AT_EVERY_S = 0.5
EDGE = "edge"


class Cluster:
    """The platform that runs in a cluster already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.target: Target = read_target()
        except Failed as error:
            raise NotHere(str(error)) from None
        self.kubectl = Kubectl(self.target.context, NAMESPACE)

    @property
    def origin(self) -> str:
        """Where the edge answers: kind's port mapping to its node port."""
        return f"http://127.0.0.1:{self.target.http_port}"

    @property
    def secrets(self) -> Path:
        """The folder that holds a folder of secrets for each service, and for the audit."""
        return STATE / "secrets"

    @property
    def admin(self) -> tuple[str, str]:
        """The admin's e-mail and password."""
        try:
            return ADMIN_EMAIL, (self.secrets / "user" / "admin_password").read_text()
        except FileNotFoundError as error:
            raise NotHere(f"{error.filename} is not there: make deploy makes it") from None

    async def start(self) -> None:
        """Return when all workloads are up; raises NotHere where there is no cluster, NotReady where one is not up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            await self.settled(within_s=60)
        except CommandFailed as error:
            raise NotHere(str(error)) from None

    @asynccontextmanager
    async def reached(self) -> AsyncGenerator[Mapping[str, str]]:
        """Where a pod of each service answers, past the edge, while the block lasts."""
        with ExitStack() as stack:
            yield await asyncio.to_thread(origins, self.kubectl, SERVICES, stack)

    @asynccontextmanager
    async def pod_reached(self, pod: Object, service: str) -> AsyncGenerator[str]:
        """Where one pod of a service answers, while the block lasts."""
        with ExitStack() as stack:
            target = f"pod/{pod['metadata']['name']}"
            yield await asyncio.to_thread(lambda: stack.enter_context(self.kubectl.forwarded(target, PORTS[service])))

    async def served(self, service: str, metric: str = "http_requests_total{") -> dict[str, float]:
        """What a metric says of each pod of a service, summed over its series: how many requests it has served."""
        found: dict[str, float] = {}
        async with httpx2.AsyncClient() as client:
            for pod in await self.pods(service):
                async with self.pod_reached(pod, service) as origin:
                    lines = (await client.get(f"{origin}/metrics")).text.splitlines()
                series = [line for line in lines if line.startswith(metric)]
                found[pod["metadata"]["name"]] = sum(float(line.rpartition(" ")[2]) for line in series)
        return found

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[Prometheus | None]:
        """Who watches, while the block lasts; none where nobody does."""
        found = await asyncio.to_thread(self.kubectl.items, "pods", "--selector=app.kubernetes.io/name=prometheus")
        if not any(_is_ready(pod) for pod in found):
            yield None
            return
        with ExitStack() as stack:
            open_way = self.kubectl.forwarded("service/prometheus", 9090)
            origin = await asyncio.to_thread(lambda: stack.enter_context(open_way))
            prometheus = Prometheus(origin)
            try:
                yield prometheus
            finally:
                await prometheus.aclose()

    async def stop(self) -> None:
        """Leave it as it is."""

    # What drills do

    async def do(self, *arguments: str, timeout_s: float = SETTLES_WITHIN_S) -> str:
        """Run kubectl beside the shoppers; raises CommandFailed."""
        return await asyncio.to_thread(lambda: self.kubectl(*arguments, timeout_s=timeout_s))

    async def pods(self, name: str) -> list[Object]:
        """The pods of a workload that are ready and not on their way out."""
        found = await asyncio.to_thread(self.kubectl.items, "pods", f"--selector=app.kubernetes.io/name={name}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"] and _is_ready(pod)]

    async def at_least(self, count: int, name: str) -> list[Object]:
        """Wait until a workload has so many ready pods, and return them; raises NotReady."""
        deadline = asyncio.get_running_loop().time() + SETTLES_WITHIN_S
        while len(pods := await self.pods(name)) < count:
            if asyncio.get_running_loop().time() > deadline:
                raise NotReady(f"{name} has {len(pods)} of {count} pods after {SETTLES_WITHIN_S:.0f} s")
            await asyncio.sleep(LOOKED_AT_EVERY_S)
        return pods

    async def workers(self) -> list[str]:
        """The names of the nodes that are no control plane."""
        found = await asyncio.to_thread(
            self.kubectl.items, "nodes", "--selector=!node-role.kubernetes.io/control-plane"
        )
        return sorted(node["metadata"]["name"] for node in found)

    async def settled(self, *, within_s: float = SETTLES_WITHIN_S) -> float:
        """Wait until every workload has all its replicas, of its newest template; return the seconds it took."""
        began = asyncio.get_running_loop().time()
        while True:
            # Those who watch are not the platform: what ails them is no reason to wait.
            chosen = ("deployments,statefulsets,replicasets", f"--selector={COMPONENT}!={MONITORING}")
            waiting = _unsettled(await asyncio.to_thread(self.kubectl.items, *chosen))
            waited_s = asyncio.get_running_loop().time() - began
            if not waiting:
                return waited_s
            if waited_s > within_s:
                raise NotReady(f"not up within {within_s:.0f} s: {', '.join(waiting)}")
            await asyncio.sleep(LOOKED_AT_EVERY_S)


def _is_ready(pod: Object) -> bool:
    conditions: Sequence[Mapping[str, Any]] = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _unsettled(workloads: Sequence[Object]) -> list[str]:
    """The workloads that are not as they are wanted, each with its replicas."""
    found: list[str] = []
    for each in workloads:
        owned = "ownerReferences" in each["metadata"]
        spec, status = each["spec"], each.get("status", {})
        wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
        old = each["kind"] != "ReplicaSet" and status.get("updatedReplicas", 0) != wanted
        late = status.get("observedGeneration", 0) < each["metadata"].get("generation", 0)
        if not owned and (ready != wanted or status.get("replicas", 0) != wanted or old or late):
            found.append(f"{each['metadata']['name']} {ready}/{wanted}")
    return found if workloads else ["nothing is deployed: make deploy"]


def in_cluster(folder: Path, _length: object) -> Cluster:
    """The platform in the cluster that the environment names."""
    return Cluster(folder)
