"""nginx and HAProxy in front of the node ports: all nodes get requests, and one that is dead is taken out."""

import asyncio
import re
from collections.abc import Generator

import httpx2
import pytest

from chassis.migrations import ROOT
from deploy.commands import run
from drills.cluster import Cluster
from tests.cluster.test_kube_proxy import all_rules

pytestmark = pytest.mark.cluster

COMPOSE = ("docker", "compose", f"--file={ROOT / 'k8s/load-balancers/compose.yml'}")
ORIGINS = {"nginx": "http://127.0.0.1:8090", "haproxy": "http://127.0.0.1:8091"}
STATISTICS = "http://127.0.0.1:8092/;csv"
REQUESTS = 40
NOTICED_WITHIN_S = 90.0


@pytest.fixture(scope="module")
def balancers(cluster: Cluster) -> Generator[None]:
    """Both, in front of the cluster."""
    if cluster.target.kind_cluster != "souk":
        pytest.skip("their configuration names the nodes of the kind cluster souk")
    run((*COMPOSE, "up", "--detach", "--wait"), timeout_s=120)
    try:
        yield
    finally:
        run((*COMPOSE, "down"), timeout_s=60)


async def answered(client: httpx2.AsyncClient, origin: str, times: int) -> list[int]:
    """The statuses of so many requests, one after the other."""
    return [(await client.get(f"{origin}/api/v1/categories")).status_code for _ in range(times)]


@pytest.mark.usefixtures("balancers")
@pytest.mark.parametrize("name", ORIGINS)
async def test_the_shop_answers_through_it(client: httpx2.AsyncClient, name: str) -> None:
    assert await answered(client, ORIGINS[name], REQUESTS) == [200] * REQUESTS
    assert (await client.get(f"{ORIGINS[name]}/metrics")).status_code == 404
    assert (await client.post(f"{ORIGINS[name]}/api/v1/auth/token", data={"grant_type": "password"})).status_code == 422


async def states(client: httpx2.AsyncClient) -> dict[str, str]:
    """Each node as HAProxy sees it, such as `UP`."""
    head, *lines = (await client.get(STATISTICS)).text.splitlines()
    columns = head.removeprefix("# ").split(",")
    rows = [dict(zip(columns, line.split(","), strict=False)) for line in lines]
    return {row["svname"]: row["status"] for row in rows if row["pxname"] == "nodes" and row["svname"] != "BACKEND"}


async def until(client: httpx2.AsyncClient, node: str, state: str) -> None:
    """Wait until HAProxy sees a node so; raises TimeoutError."""
    async with asyncio.timeout(NOTICED_WITHIN_S):
        while not (await states(client))[node].startswith(state):  # noqa: ASYNC110 - HAProxy sets no event of ours
            await asyncio.sleep(0.2)


async def until_noticed(cluster: Cluster, node: str, addresses: list[str]) -> None:
    """Wait until no other node's kube-proxy sends to what is on a node: Kubernetes notices after some 50 s that it is
    dead, and each kube-proxy a moment later. Raises TimeoutError.
    """
    others = [each.removeprefix("node/") for each in (await cluster.do("get", "nodes", "--output=name")).split()]
    others.remove(node)
    async with asyncio.timeout(NOTICED_WITHIN_S):
        for other in others:
            while await sends_to(addresses, other):  # noqa: ASYNC110 - a kernel sets no event of ours
                await asyncio.sleep(0.5)


async def sends_to(addresses: list[str], node: str) -> bool:
    """Whether the rules of a node's kube-proxy name one of these addresses."""
    rules = await all_rules(node)
    return any(re.search(rf"\b{re.escape(address)}\b", rules) for address in addresses)


@pytest.mark.usefixtures("balancers")
async def test_a_dead_node_is_taken_out_and_comes_back(cluster: Cluster, client: httpx2.AsyncClient) -> None:
    # One that runs an edge, to which the other nodes send as well.
    edges = await cluster.pods("edge")
    node: str = edges[0]["spec"]["nodeName"]
    there: list[str] = [edge["status"]["podIP"] for edge in edges if edge["spec"]["nodeName"] == node]
    name_there = node.removeprefix("souk-")
    await until(client, name_there, "UP")
    # Its power fails. A node whose processes hang would go on: its kernel alone sends a node port's packets on.
    await asyncio.to_thread(run, ("docker", "kill", node))
    try:
        await until(client, name_there, "DOWN")
        await until_noticed(cluster, node, there)
        for name, origin in ORIGINS.items():
            statuses = await answered(client, origin, REQUESTS)
            print(f"{name}, with a dead node: {statuses.count(200)} of {REQUESTS} answered")
            assert statuses == [200] * REQUESTS
    finally:
        await asyncio.to_thread(run, ("docker", "start", node))
    await until(client, name_there, "UP")
    await cluster.settled()
