"""The labs: each does what its page says, and leaves the cluster as it was, also where it fails in the middle."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from deploy.commands import Object
from drills.cluster import Cluster
from tests import labs

pytestmark = pytest.mark.cluster

SOME_WAYS = "iptables,haproxy round,haproxy least,chassis"
"""Of those that the balancing lab compares, as many as its sentences are about, since all of them take half an hour."""
KINDS = (
    "deployments,statefulsets,jobs,services,ingresses,networkpolicies,horizontalpodautoscalers,poddisruptionbudgets,"
    "configmaps,secrets,serviceaccounts,roles,rolebindings,resourcequotas,limitranges,persistentvolumeclaims"
)


@pytest.fixture(scope="session")
def surroundings(cluster: Cluster) -> Generator[dict[str, str]]:
    """The environment that the pages are written for."""
    with labs.surroundings(cluster.target) as environment:
        yield environment | {"LAB_WAYS": SOME_WAYS}


def told(item: Object) -> list[Any]:
    """What somebody has asked for in an object. Of its data a digest, since what is in a Secret is printed nowhere."""
    digest = hashlib.sha256(json.dumps(item.get("data"), sort_keys=True).encode()).hexdigest()
    return [digest, *(item.get(part) for part in ("spec", "rules", "subjects", "type"))]


async def state(cluster: Cluster) -> dict[str, Any]:
    """What there is in the shop's namespace, and how many pods of which template."""
    found = await asyncio.to_thread(cluster.kubectl.items, KINDS)
    pods = await asyncio.to_thread(cluster.kubectl.items, "pods", "--field-selector=status.phase=Running")
    labels = [pod["metadata"]["labels"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    templates = Counter((each.get("app.kubernetes.io/name"), each.get("pod-template-hash")) for each in labels)
    return {f"{each['kind']}/{each['metadata']['name']}": told(each) for each in found} | {"pods": templates}


@pytest.mark.parametrize("name", labs.names())
async def test_a_lab_does_what_its_page_says_and_leaves_the_cluster_as_it_was(
    cluster: Cluster, surroundings: dict[str, str], name: str
) -> None:
    found = labs.blocks(labs.page(name).read_text())
    before = await state(cluster)
    done = await asyncio.to_thread(labs.perform, found, surroundings, print)
    await cluster.settled()
    assert "\n\n".join((*done.failures, *done.differences)) == ""
    assert await state(cluster) == before


@pytest.mark.parametrize("name", labs.names())
async def test_a_lab_that_fails_in_the_middle_leaves_the_cluster_as_it_was(
    cluster: Cluster, surroundings: dict[str, str], name: str
) -> None:
    *steps, undo = labs.blocks(labs.page(name).read_text())
    middle = len(steps) // 2
    broken = replace(steps[middle], commands=f"{steps[middle].commands}false\n")
    before = await state(cluster)
    done = await asyncio.to_thread(labs.perform, [*steps[:middle], broken, undo], surroundings, print)
    await cluster.settled()
    assert len(done.failures) == 1
    assert await state(cluster) == before
