"""Deployments and their ReplicaSets: history, rollback, and a pod that is deleted."""

import asyncio

import pytest

from deploy.commands import Object
from drills.cluster import Cluster

pytestmark = pytest.mark.cluster

REVISION = "deployment.kubernetes.io/revision"


async def replica_sets(cluster: Cluster, name: str) -> dict[int, Object]:
    """The ReplicaSets of a Deployment by their revision."""
    found = await asyncio.to_thread(cluster.kubectl.items, "replicasets", f"--selector=app.kubernetes.io/name={name}")
    # One that a Deployment took over, from overlays/replicaset, and scaled to nothing at once has had no revision.
    numbered = [each for each in found if REVISION in each["metadata"].get("annotations", {})]
    return {int(each["metadata"]["annotations"][REVISION]): each for each in numbered}


async def test_a_deployment_owns_its_replicaset_which_owns_its_pods(cluster: Cluster) -> None:
    pod, *_ = await cluster.pods("order")
    (owner,) = pod["metadata"]["ownerReferences"]
    assert owner["kind"] == "ReplicaSet"
    (above,) = cluster.kubectl.get("replicaset", owner["name"])["metadata"]["ownerReferences"]
    assert (above["kind"], above["name"]) == ("Deployment", "order")


async def test_a_pod_that_is_deleted_comes_back(cluster: Cluster) -> None:
    before = {pod["metadata"]["name"] for pod in await cluster.pods("payment")}
    victim = sorted(before)[0]
    await cluster.do("delete", f"pod/{victim}", "--wait=false")
    await cluster.settled()
    after = {pod["metadata"]["name"] for pod in await cluster.pods("payment")}
    assert len(after) == len(before)
    assert victim not in after
    assert len(after - before) == 1


async def test_a_new_template_is_a_new_replicaset_and_the_old_one_is_kept_for_a_rollback(cluster: Cluster) -> None:
    before = await replica_sets(cluster, "payment")
    path = "{.spec.template.spec.containers[0].image}"
    image = await cluster.do("get", "deployment/payment", f"--output=jsonpath={path}")
    await cluster.do("rollout", "restart", "deployment/payment")
    await cluster.settled()
    after = await replica_sets(cluster, "payment")
    newest = max(after)
    assert newest > max(before)
    assert after[newest]["spec"]["replicas"] >= 2
    assert {each["spec"]["replicas"] for number, each in after.items() if number != newest} == {0}
    history = await cluster.do("rollout", "history", "deployment/payment")
    assert str(newest) in history

    await cluster.do("rollout", "undo", "deployment/payment")
    await cluster.settled()
    assert await cluster.do("get", "deployment/payment", f"--output=jsonpath={path}") == image
    back = await replica_sets(cluster, "payment")
    assert max(back) == newest + 1
    old = before[max(before)]["metadata"]["name"]
    assert back[newest + 1]["metadata"]["name"] == old, "the old ReplicaSet is the newest again"


async def test_pods_are_spread_over_the_workers(cluster: Cluster) -> None:
    for name in ("user", "product", "payment", "order", "storefront", "edge"):
        pods = await cluster.pods(name)
        assert len({pod["spec"]["nodeName"] for pod in pods}) >= 2, name


async def test_no_pod_holds_a_token_but_the_edge(cluster: Cluster) -> None:
    for name in ("user", "product", "payment", "order", "storefront", "postgres"):
        for pod in await cluster.pods(name):
            volumes = [each["name"] for each in pod["spec"]["volumes"]]
            assert not any(volume.startswith("kube-api-access") for volume in volumes), name


async def test_the_namespace_enforces_the_restricted_standard(cluster: Cluster) -> None:
    privileged = '{"spec":{"containers":[{"name":"x","image":"x","securityContext":{"privileged":true}}]}}'
    with pytest.raises(Exception, match="violates PodSecurity"):
        await cluster.do("run", "intruder", "--image=x", f"--overrides={privileged}", "--dry-run=server")
