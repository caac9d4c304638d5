"""Each type of Service, live: what its name resolves to, and who answers behind it."""

import asyncio
from collections.abc import Sequence

import httpx2
import pytest

from drills.cluster import Cluster
from tests.cluster.inside import Inside
from tests.cluster.operated import Customer

pytestmark = pytest.mark.cluster

CONNECTIONS = 90
"""That one of three pods gets none of them by chance: 3 x (2/3)^90, once in 10^15."""


def more_each(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What came to each pod in between."""
    return {name: after[name] - before[name] for name in before.keys() & after.keys()}


async def test_clusterip_one_address_behind_which_all_ready_pods_answer(cluster: Cluster, inside: Inside) -> None:
    caller, *_ = await inside.pods("order")
    service = cluster.kubectl.get("service", "product")
    assert service["spec"]["type"] == "ClusterIP"
    assert await inside.resolved(caller, "product") == [service["spec"]["clusterIP"]]
    before = await cluster.served("product")
    assert await inside.asked(caller, "http://product:8002/api/v1/categories", CONNECTIONS) == [200] * CONNECTIONS
    more = more_each(before, await cluster.served("product"))
    assert len(more) >= 2
    assert min(more.values()) > 0, more
    assert sum(more.values()) >= CONNECTIONS


async def test_headless_the_name_gives_the_address_of_every_pod(inside: Inside) -> None:
    caller, *_ = await inside.pods("order")
    for name in ("user", "product", "payment"):
        addresses = await inside.addresses(name)
        assert len(addresses) >= 2
        assert await inside.resolved(caller, f"{name}-headless") == addresses


async def fill_carts(cluster: Cluster, times: int) -> None:
    """Put something into a cart again and again: each time an order pod asks product for a quote."""
    customer = Customer(cluster)
    await customer.register()
    headers = await customer.headers()
    async with httpx2.AsyncClient(base_url=cluster.origin, timeout=10) as client:
        (product,) = (await client.get("/api/v1/products", params={"limit": 1, "in_stock": "true"})).json()["items"]
        for _ in range(times):
            path = f"/api/v1/cart/items/{product['id']}"
            answer = await client.put(path, json={"quantity": 1}, headers=headers)
            assert answer.status_code == 200


async def test_headless_the_client_balances_each_call_over_all_pods(cluster: Cluster) -> None:
    count = len(await cluster.pods("product"))
    before = await cluster.served("product")
    await fill_carts(cluster, CONNECTIONS)
    more = more_each(before, await cluster.served("product"))
    assert min(more.values()) > 0, more
    for pod, endpoints in (await cluster.served("order", 'souk_peer_endpoints{peer="product"}')).items():
        assert endpoints == count, f"{pod} knows {endpoints} of {count} product pods"


async def node_addresses(cluster: Cluster) -> dict[str, str]:
    """The internal address of each node."""
    nodes = await asyncio.to_thread(cluster.kubectl.items, "nodes")
    return {
        node["metadata"]["name"]: next(
            each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"
        )
        for node in nodes
    }


async def test_nodeport_every_node_answers_whether_it_runs_an_edge_or_not(
    cluster: Cluster, client: httpx2.AsyncClient
) -> None:
    addresses = await node_addresses(cluster)
    edges = {pod["spec"]["nodeName"] for pod in await cluster.pods("edge")}
    assert set(addresses) - edges, "some node runs no edge"
    for node, address in addresses.items():
        answer = await client.get(f"http://{address}:30080/api/v1/categories")
        assert answer.status_code == 200, node


async def test_loadbalancer_an_external_address_where_a_provider_gives_one(
    cluster: Cluster, client: httpx2.AsyncClient
) -> None:
    service = cluster.kubectl.get("service", "edge-loadbalancer")
    assert service["spec"]["type"] == "LoadBalancer"
    given: Sequence[dict[str, str]] = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    if not given:
        print("no provider of load balancers is here: the Service waits, and has a node port meanwhile")
        port = next(each["nodePort"] for each in service["spec"]["ports"] if each["name"] == "web")
        given, web = [{"ip": address} for address in (await node_addresses(cluster)).values()], port
    else:
        web = 80
        print(f"the provider gave {given}")
    for each in given:
        host = each.get("ip") or each["hostname"]
        assert (await client.get(f"http://{host}:{web}/api/v1/categories")).status_code == 200
