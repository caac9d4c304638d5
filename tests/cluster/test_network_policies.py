"""Who may talk to whom: every pair of workloads is tried both ways, and exactly the flows that exist are open."""

import httpx2
import pytest
from kr8s.asyncio.objects import Pod

from deploy.target import NAMESPACE
from drills.cluster import Cluster
from tests.cluster.inside import Inside, restricted

pytestmark = pytest.mark.cluster

PORTS = {
    "user": 8001, "product": 8002, "payment": 8003, "order": 8004, "storefront": 8005, "postgres": 5432, "edge": 8000,
    "prometheus": 9090, "alertmanager": 9093, "grafana": 3000,
}  # fmt: skip
WATCHING = frozenset({"prometheus", "alertmanager", "grafana"})
"""They may be left out, as MONITORING says."""
OPEN = {
    ("edge", "user"), ("edge", "product"), ("edge", "payment"), ("edge", "order"), ("edge", "storefront"),
    ("storefront", "user"), ("storefront", "product"), ("storefront", "payment"), ("storefront", "order"),
    ("order", "user"), ("order", "product"), ("order", "payment"),
    ("product", "user"), ("payment", "user"),
    ("user", "postgres"), ("product", "postgres"), ("payment", "postgres"), ("order", "postgres"),
    ("prometheus", "user"), ("prometheus", "product"), ("prometheus", "payment"), ("prometheus", "order"),
    ("prometheus", "storefront"),
    ("prometheus", "alertmanager"), ("grafana", "prometheus"), ("edge", "grafana"),
}  # fmt: skip
"""All flows between two workloads. The edge lets everybody in, as it is the way in, but nobody is let out to it."""
EDGE_INNER = 8080
"""Where the edge answers its probes and Prometheus."""
BASH_CONNECTS = "if timeout 2 bash -c '</dev/tcp/{host}/{port}' 2>/dev/null; then echo open; else echo closed; fi"
BUSYBOX_CONNECTS = """\
said=$(wget -T 2 -q -O /dev/null http://{host}:{port}/ 2>&1) || true
case $said in *"timed out"* | *"can't connect"*) echo closed ;; *) echo open ;; esac"""
SHELLS = {"postgres": ("bash", BASH_CONNECTS), **dict.fromkeys(WATCHING, ("sh", BUSYBOX_CONNECTS))}
"""What connects in an image that has no Python."""


async def addresses(inside: Inside) -> dict[str, str]:
    """The address of a pod of each workload that is there."""
    found = {name: await inside.addresses(name) for name in PORTS}
    assert all(of_one for name, of_one in found.items() if name not in WATCHING)
    return {name: of_one[0] for name, of_one in found.items() if of_one}


async def connected(inside: Inside, name: str, pod: Pod, to: dict[str, str]) -> dict[str, str]:
    """What becomes of a connection from a pod to each workload but its own."""
    if name in SHELLS:
        shell, script = SHELLS[name]
        found: dict[str, str] = {}
        for callee, host in to.items():
            ended = await pod.exec([shell, "-c", script.format(host=host, port=PORTS[callee])])
            found[callee] = ended.stdout.decode().strip()
        return found
    answered = await inside.connected(pod, [(host, PORTS[callee]) for callee, host in to.items()])
    return {callee: answered[f"{host}:{PORTS[callee]}"] for callee, host in to.items()}


@pytest.mark.parametrize("caller", [name for name in PORTS if name != "edge"])
async def test_exactly_the_flows_that_exist_are_open(inside: Inside, caller: str) -> None:
    there = await addresses(inside)
    if caller not in there:
        pytest.skip(f"there is no {caller}, as MONITORING says")
    to = {name: host for name, host in there.items() if name != caller}
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


async def test_only_prometheus_reaches_what_the_edge_says_of_itself(inside: Inside) -> None:
    edge, *_ = await inside.addresses("edge")
    pod, *_ = await inside.pods("order")
    assert set((await inside.connected(pod, [(edge, EDGE_INNER)])).values()) == {"closed"}
    watching = await inside.pods("prometheus")
    if not watching:
        pytest.skip("there is no prometheus, as MONITORING says")
    ended = await watching[0].exec(["sh", "-c", BUSYBOX_CONNECTS.format(host=edge, port=EDGE_INNER)])
    assert ended.stdout.decode().strip() == "open"


async def test_nobody_is_let_out_of_the_cluster_or_to_its_control_plane(inside: Inside) -> None:
    api = (await inside.api.get("services", "kubernetes", namespace="default").__anext__()).spec["clusterIP"]
    for name in ("user", "product", "payment", "order", "storefront"):
        pod, *_ = await inside.pods(name)
        found = await inside.connected(pod, [(api, 443), ("192.0.2.1", 443), ("192.0.2.1", 80)])
        assert set(found.values()) == {"closed"}, f"{name}: {found}"


@pytest.mark.parametrize("namespace", [NAMESPACE, "default"])
async def test_a_pod_of_no_workload_reaches_nobody_but_the_edge(inside: Inside, namespace: str) -> None:
    image = await inside.image("order")
    pod = await Pod(restricted("stranger", image, "import time; time.sleep(600)", namespace), api=inside.api)
    await pod.create()
    try:
        await pod.wait("condition=Ready", timeout=60)
        found = await connected(inside, "stranger", pod, await addresses(inside))
        print(f"a stranger in {namespace}: {found}")
        # In its own namespace a pod is let out nowhere; from another one it gets as far as it is let in.
        assert found == {name: "open" if name == "edge" and namespace != NAMESPACE else "closed" for name in found}
    finally:
        await pod.delete()
