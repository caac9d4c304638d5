"""The overlays, each deployed over the usual one and taken back."""

import asyncio

import pytest

from chassis.migrations import ROOT
from deploy.commands import Object, run
from deploy.target import UNWATCHED
from drills.cluster import Cluster
from tests.cluster.inside import Inside
from tests.cluster.operated import Customer, deploy, overlay

pytestmark = pytest.mark.cluster

DATABASE = ("docker", "compose", f"--file={ROOT / 'k8s/overlays/external-database/compose.yml'}")
NEW_IMAGE = "souk/payment:another"


async def test_a_second_deploy_changes_nothing(cluster: Cluster) -> None:
    before = await cluster.pods("order")
    printed = await deploy("up", OVERLAY=cluster.target.overlay)
    assert "user, product, payment, order, storefront: nothing to change" in printed
    assert "edge: nothing to change" in printed
    assert cluster.target.monitoring == UNWATCHED or "monitoring: nothing to change" in printed
    assert names(await cluster.pods("order")) == names(before)


async def test_a_cluster_of_somebody_else_is_deployed_to_by_its_context(cluster: Cluster) -> None:
    printed = await deploy("up", CLUSTER="existing", CONTEXT=cluster.target.context, OVERLAY=cluster.target.overlay)
    assert f"to the context {cluster.target.context}" in printed
    assert "user, product, payment, order, storefront: nothing to change" in printed


async def test_those_who_watch_are_taken_away_and_come_back(cluster: Cluster) -> None:
    if cluster.target.monitoring == UNWATCHED:
        pytest.skip("nobody watches: MONITORING=no")
    try:
        printed = await deploy("up", MONITORING=UNWATCHED)
        for name in ("StatefulSet/prometheus", "NetworkPolicy/scraped-services", "ClusterRole/souk-prometheus"):
            assert name in printed
        assert not cluster.kubectl.items("statefulset", "prometheus")
        customer = Customer(cluster)
        await customer.register()
        await customer.buy()
    finally:
        print(await deploy("up"))
    async with cluster.watched() as prometheus:
        assert prometheus is not None


def names(pods: list[Object]) -> set[str]:
    """The names of pods."""
    return {pod["metadata"]["name"] for pod in pods}


def images(pods: list[Object]) -> dict[str, str]:
    """The image of each pod."""
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in pods}


async def test_bare_replicasets_heal_and_roll_nothing(cluster: Cluster) -> None:
    if cluster.target.kind_cluster is None:
        pytest.skip("a new image is brought to the nodes of a kind cluster only")
    async with overlay(cluster, "replicaset"):
        assert not cluster.kubectl.items("deployment", "payment")
        before = await cluster.pods("payment")
        assert {pod["metadata"]["ownerReferences"][0]["kind"] for pod in before} == {"ReplicaSet"}
        assert cluster.kubectl.get("replicaset", "payment")["metadata"].get("ownerReferences") is None

        # A pod that is deleted comes back.
        await cluster.do("delete", f"pod/{before[0]['metadata']['name']}")
        await cluster.settled()
        healed = await cluster.pods("payment")
        assert len(healed) == len(before)
        assert len(names(healed) - names(before)) == 1

        # A new image rolls nothing ...
        (old,) = set(images(healed).values())
        await asyncio.to_thread(run, ("docker", "tag", old, NEW_IMAGE))
        load = ("kind", "load", "docker-image", f"--name={cluster.target.kind_cluster}", NEW_IMAGE)
        await asyncio.to_thread(lambda: run(load, timeout_s=300))
        await cluster.do("set", "image", "replicaset/payment", f"*={NEW_IMAGE}")
        await cluster.settled()  # the controller has seen it
        assert images(await cluster.pods("payment")) == images(healed)
        # ... and is only in a pod that is made from then on.
        await cluster.do("delete", f"pod/{healed[0]['metadata']['name']}")
        await cluster.settled()
        rolled = images(await cluster.pods("payment"))
        assert sorted(rolled.values()) == sorted([*[old] * (len(healed) - 1), NEW_IMAGE])
    await asyncio.to_thread(run, ("docker", "rmi", NEW_IMAGE))
    (pod, *_) = await cluster.pods("payment")
    owner = cluster.kubectl.get("replicaset", pod["metadata"]["ownerReferences"][0]["name"])
    assert owner["metadata"]["ownerReferences"][0]["kind"] == "Deployment"


async def test_externalname_the_databases_are_outside_the_cluster(cluster: Cluster, inside: Inside) -> None:
    if cluster.target.kind_cluster is None:
        pytest.skip("the container is beside the nodes of a kind cluster only")
    stays = Customer(cluster)
    await stays.register()
    await asyncio.to_thread(lambda: run((*DATABASE, "up", "--detach", "--wait"), timeout_s=180))
    try:
        template = "{{.NetworkSettings.Networks.kind.IPAddress}}"
        address = (await asyncio.to_thread(run, ("docker", "inspect", f"--format={template}", "souk-database"))).strip()
        async with overlay(cluster, "external-database"):
            for name in ("user", "product", "payment", "order"):
                service = cluster.kubectl.get("service", f"{name}-database")
                assert (service["spec"]["type"], service["spec"]["externalName"]) == ("ExternalName", "souk-database")
                pod, *_ = await inside.pods(name)
                assert await inside.resolved(pod, f"{name}-database") == [address]
            assert not await stays.known(), "the shop begins empty there"
            guest = Customer(cluster)
            await guest.register()
            order = await guest.buy()
            assert await guest.orders() == [order]
            assert "audit: clean" in await deploy("audit")
        assert await stays.known(), "the database within the cluster has kept what it held"
    finally:
        await asyncio.to_thread(lambda: run((*DATABASE, "down", "--volumes"), timeout_s=60))
