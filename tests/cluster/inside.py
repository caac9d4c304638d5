"""The cluster from within: pods by name, and programs that run in them."""

import json
import warnings
from typing import Any, cast

import kr8s.asyncio
from kr8s.asyncio.objects import Pod

from deploy.commands import Object
from deploy.target import NAMESPACE
from drills.cluster import Cluster

CONNECT = """
import json, socket, sys
found = {}
for target in json.loads(sys.argv[1]):
    host, port = target
    try:
        socket.create_connection((host, port), timeout=2).close()
        found[f"{host}:{port}"] = "open"
    except TimeoutError:
        found[f"{host}:{port}"] = "closed"
    except OSError as error:
        found[f"{host}:{port}"] = type(error).__name__
print(json.dumps(found))
"""
RESOLVE = """
import json, socket, sys
found = socket.getaddrinfo(sys.argv[1], None, family=socket.AF_INET, type=socket.SOCK_STREAM)
print(json.dumps(sorted({address[0] for *_, address in found})))
"""
ASK = """
import json, sys, urllib.request
url, times = sys.argv[1], int(sys.argv[2])
statuses = []
for _ in range(times):  # each on a connection of its own
    with urllib.request.urlopen(url, timeout=5) as answer:
        statuses.append(answer.status)
print(json.dumps(statuses))
"""


def restricted(name: str, image: str, code: str, namespace: str = NAMESPACE, port: int | None = None) -> Object:
    """A pod that runs Python, as restricted as those of the platform, and that none of its policies knows but by this
    name. Where it has a port, it is ready when that is open.
    """
    container: Object = {
        "name": "python",
        "image": image,
        "command": ["python", "-c", code],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    if port is not None:
        container |= {"ports": [{"containerPort": port}], "readinessProbe": {"tcpSocket": {"port": port}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }


class Inside:
    """Pods of the platform, through the API server."""

    def __init__(self, api: Any) -> None:
        self.api = api

    @classmethod
    async def of(cls, cluster: Cluster) -> "Inside":
        """Reach the cluster of a drill."""
        with warnings.catch_warnings():
            # It names the versions that it was tested with, and the newest Kubernetes is never among them.
            warnings.filterwarnings("ignore", message="Kubernetes version .* is not supported")
            return cls(await kr8s.asyncio.api(context=cluster.target.context, namespace=NAMESPACE))

    async def aclose(self) -> None:
        """Close the connections to the API server, which kr8s keeps until its process ends."""
        await self.api._session.aclose()

    async def pods(self, name: str, namespace: str = NAMESPACE) -> list[Pod]:
        """The ready pods of a workload that are not on their way out."""
        found = [
            pod
            async for pod in self.api.get("pods", namespace=namespace, label_selector=f"app.kubernetes.io/name={name}")
        ]
        return [pod for pod in found if "deletionTimestamp" not in pod.metadata and await pod.ready()]

    async def addresses(self, name: str) -> list[str]:
        """The addresses of a workload's pods, sorted."""
        return sorted(str(cast("Object", pod.status)["podIP"]) for pod in await self.pods(name))

    async def image(self, name: str) -> str:
        """The image of a workload."""
        pod, *_ = await self.pods(name)
        return str(cast("Object", pod.spec)["containers"][0]["image"])

    async def python(self, pod: Pod, code: str, *arguments: str) -> Any:
        """Run Python in a pod of ours, and return what it printed as JSON."""
        ended = await pod.exec(["python", "-c", code, *arguments])
        return json.loads(ended.stdout)

    async def resolved(self, pod: Pod, name: str) -> list[str]:
        """The addresses that a name has for a pod."""
        return await self.python(pod, RESOLVE, name)

    async def asked(self, pod: Pod, url: str, times: int) -> list[int]:
        """The statuses of so many answers, each on a connection of its own."""
        return await self.python(pod, ASK, url, str(times))

    async def connected(self, pod: Pod, targets: list[tuple[str, int]]) -> dict[str, str]:
        """Whether a pod can connect to each of these addresses: `open`, or how it cannot."""
        return await self.python(pod, CONNECT, json.dumps(targets))
