"""kube-proxy in each of its modes: the rules that it writes, and that all pods are reached by them."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator

import httpx2
import pytest

from deploy.cluster import check_ipvs
from deploy.commands import run
from deploy.terminal import Failed
from drills.cluster import Cluster
from tests.cluster.inside import Inside
from tests.cluster.test_services import CONNECTIONS, more_each, node_addresses

pytestmark = pytest.mark.cluster

SYSTEM = "--namespace=kube-system"
MODE = re.compile(r"^mode: *\"?(\w*)\"?$", re.MULTILINE)
RULES = {
    "iptables": ("iptables-save", "-t", "nat"),
    # kube-proxy's own table: the kernel keeps those of iptables as tables of nftables too.
    "nftables": ("sh", "-c", "nft list table ip kube-proxy || true"),
    "ipvs": ("ipvsadm", "-Ln"),
}


@pytest.fixture
async def as_it_was(cluster: Cluster) -> AsyncGenerator[str]:
    """The mode that the cluster was made with, which it has again afterwards."""
    if cluster.target.kind_cluster is None:
        pytest.skip("the nodes of a cluster that is not kind's are not looked into")
    mode = configured(cluster)
    yield mode
    if configured(cluster) != mode:
        await switch(cluster, mode)


def configured(cluster: Cluster) -> str:
    """The mode that kube-proxy is told."""
    config = cluster.kubectl.get("configmap", "kube-proxy", SYSTEM)["data"]["config.conf"]
    found = MODE.search(config)
    assert found is not None
    return found[1] or "iptables"


async def switch(cluster: Cluster, mode: str) -> None:
    """Give kube-proxy another mode, on all nodes. It takes away what it wrote in the one before."""
    found = cluster.kubectl.get("configmap", "kube-proxy", SYSTEM)
    found["data"]["config.conf"] = MODE.sub(f"mode: {mode}", found["data"]["config.conf"])
    # Not by server-side apply: kubeadm owns these fields.
    patch = json.dumps({"data": found["data"]})
    await cluster.do("patch", "configmap/kube-proxy", SYSTEM, f"--patch={patch}")
    await cluster.do("rollout", "restart", "daemonset/kube-proxy", SYSTEM)
    await cluster.do("rollout", "status", "daemonset/kube-proxy", SYSTEM, "--timeout=120s")


async def rules(cluster: Cluster, mode: str, address: str) -> list[str]:
    """What kube-proxy has written for an address in the kernel of a worker, in the form of a mode."""
    shown = await written(f"{cluster.target.kind_cluster}-worker", mode)
    return [line for line in shown.splitlines() if address in line]


async def written(node: str, mode: str) -> str:
    """The rules of a mode in the kernel of a node."""
    return await asyncio.to_thread(run, ("docker", "exec", node, *RULES[mode]))


async def all_rules(node: str) -> str:
    """What kube-proxy has written in the kernel of a node, in whichever mode it is."""
    return "".join([await written(node, mode) for mode in ("iptables", "nftables")])


async def until_written(cluster: Cluster, mode: str, address: str) -> list[str]:
    """Wait until there are rules for an address; raises TimeoutError."""
    async with asyncio.timeout(60):
        while not (found := await rules(cluster, mode, address)):  # noqa: ASYNC110 - a kernel sets no event of ours
            await asyncio.sleep(0.5)
    return found


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
async def test_each_mode_reaches_all_pods(
    cluster: Cluster, inside: Inside, client: httpx2.AsyncClient, as_it_was: str, mode: str
) -> None:
    if mode != configured(cluster):
        await switch(cluster, mode)
    address: str = cluster.kubectl.get("service", "product")["spec"]["clusterIP"]
    found = await until_written(cluster, mode, address)
    print(f"kube-proxy in {mode} mode (the cluster was made with {as_it_was}): {len(found)} rules for {address}")
    for other in {"iptables", "nftables"} - {mode}:
        assert not await rules(cluster, other, address), f"there are rules of {other} still"
    caller, *_ = await inside.pods("order")
    before = await cluster.served("product")
    assert await inside.asked(caller, "http://product:8002/api/v1/categories", CONNECTIONS) == [200] * CONNECTIONS
    more = more_each(before, await cluster.served("product"))
    assert len(more) >= 2
    assert min(more.values()) > 0, more
    for node, place in (await node_addresses(cluster)).items():
        assert (await client.get(f"http://{place}:30080/api/v1/categories")).status_code == 200, node


async def test_ipvs_works_or_is_refused_in_a_line_that_says_why(
    cluster: Cluster, inside: Inside, client: httpx2.AsyncClient, as_it_was: str
) -> None:
    refusal = ""
    try:
        await asyncio.to_thread(check_ipvs, cluster.target.node_image)
    except Failed as failed:
        refusal = str(failed)
    print(f"kube-proxy in ipvs mode: {refusal or 'works here'}")
    if refusal:
        assert re.search(r"kernel under Docker has no IPVS.* Choose iptables or nftables", refusal)
    else:
        await test_each_mode_reaches_all_pods(cluster, inside, client, as_it_was, "ipvs")
