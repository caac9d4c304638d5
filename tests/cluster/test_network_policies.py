"""Who may talk to whom: every pair of workloads is tried both ways, and exactly the flows that exist are open."""

import httpx2
import pytest
from kr8s.asyncio.objects import Pod

from deploy.target import NAMESPACE
from drills.cluster import Cluster
from tests.cluster.inside import Inside

pytestmark = pytest.mark.cluster

PORTS = {"user": 8001, "product": 8002, "payment": 8003, "order": 8004, "postgres": 5432, "edge": 8000}
OPEN = {
    ("edge", "user"), ("edge", "product"), ("edge", "payment"), ("edge", "order"),
    ("order", "user"), ("order", "product"), ("order", "payment"),
    ("product", "user"), ("payment", "user"),
    ("user", "postgres"), ("product", "postgres"), ("payment", "postgres"), ("order", "postgres"),
}  # fmt: skip
"""All flows between two workloads. The edge lets everybody in, as it is the way in, but nobody is let out to it."""
SHELL_CONNECTS = "if timeout 2 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null; then echo open; else echo closed; fi"


async def addresses(inside: Inside) -> dict[str, str]:
    """The address of a pod of each workload."""
    return {name: (await inside.addresses(name))[0] for name in PORTS}


async def connected(inside: Inside, name: str, pod: Pod, to: dict[str, str]) -> dict[str, str]:
    """What becomes of a connection from a pod to each workload but its own."""
    if name == "postgres":  # whose image has no Python
        found: dict[str, str] = {}
        for callee, host in to.items():
            shell = SHELL_CONNECTS.format(host=host, port=PORTS[callee])
            ended = await pod.exec(["bash", "-c", shell])
            found[callee] = ended.stdout.decode().strip()
        return found
    answered = await inside.connected(pod, [(host, PORTS[callee]) for callee, host in to.items()])
    return {callee: answered[f"{host}:{PORTS[callee]}"] for callee, host in to.items()}


@pytest.mark.parametrize("caller", [name for name in PORTS if name != "edge"])
async def test_exactly_the_flows_that_exist_are_open(inside: Inside, caller: str) -> None:
    to = {name: host for name, host in (await addresses(inside)).items() if name != caller}
    pod, *_ = await inside.pods(caller)
    found = await connected(inside, caller, pod, to)
    for callee, state in found.items():
        print(f"{caller:>9} -> {callee:<9} {state}")
    wanted = {callee: "open" if (caller, callee) in OPEN else "closed" for callee in to}
    assert found == wanted


async def test_the_edge_reaches_each_service(cluster: Cluster) -> None:
    async with httpx2.AsyncClient(base_url=cluster.origin, timeout=10) as client:
        for path in ("/docs/user", "/docs/product", "/docs/payment", "/docs/order"):
            assert (await client.get(path)).status_code == 200


async def test_nobody_is_let_out_of_the_cluster_or_to_its_control_plane(inside: Inside) -> None:
    api = (await inside.api.get("services", "kubernetes", namespace="default").__anext__()).spec["clusterIP"]
    for name in ("user", "product", "payment", "order"):
        pod, *_ = await inside.pods(name)
        found = await inside.connected(pod, [(api, 443), ("192.0.2.1", 443), ("192.0.2.1", 80)])
        assert set(found.values()) == {"closed"}, f"{name}: {found}"


def stranger(namespace: str, image: str) -> dict[str, object]:
    """A pod that no policy of the platform knows, as restricted as its own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stranger", "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "shell",
                    "image": image,
                    "command": ["python", "-c", "import time; time.sleep(600)"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                }
            ],
        },
    }


@pytest.mark.parametrize("namespace", [NAMESPACE, "default"])
async def test_a_pod_of_no_workload_reaches_nobody_but_the_edge(inside: Inside, namespace: str) -> None:
    pod = await Pod(stranger(namespace, await inside.image("order")), api=inside.api)
    await pod.create()
    try:
        await pod.wait("condition=Ready", timeout=60)
        found = await connected(inside, "stranger", pod, await addresses(inside))
        print(f"a stranger in {namespace}: {found}")
        # In its own namespace a pod is let out nowhere; from another one it gets as far as it is let in.
        assert found == {name: "open" if name == "edge" and namespace != NAMESPACE else "closed" for name in PORTS}
    finally:
        await pod.delete()
