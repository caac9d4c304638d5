"""The HorizontalPodAutoscalers: more replicas under load, at once; and back again when it is over, slowly."""

import asyncio

import httpx2
import pytest

from deploy.commands import CommandFailed
from drills.cluster import Cluster

pytestmark = pytest.mark.cluster

READERS = 48
UP_WITHIN_S = 120.0
SHARES_WITHIN_S = 15.0
DOWN_WITHIN_S = 420.0
LOOKED_AT_EVERY_S = 2.0


async def replicas(cluster: Cluster, name: str) -> tuple[int, int]:
    """How many replicas the autoscaler wants, and how many are ready."""
    found = await asyncio.to_thread(cluster.kubectl.get, "horizontalpodautoscaler", name)
    return found["status"].get("desiredReplicas", 0), len(await cluster.pods(name))


async def read(cluster: Cluster, stop: asyncio.Event) -> int:
    """Read pages of the catalogue that no cache has, one after the other; return how many."""
    count = 0
    async with httpx2.AsyncClient(base_url=cluster.origin, timeout=30) as client:
        while not stop.is_set():
            answer = await client.get("/api/v1/products", params={"min_price": count % 997, "limit": 100})
            assert answer.status_code in {200, 503}
            count += 1
    return count


async def test_metrics_server_says_what_each_pod_uses(cluster: Cluster) -> None:
    async with asyncio.timeout(120):
        while True:
            try:
                lines = (await cluster.do("top", "pods", "--no-headers")).splitlines()
            except CommandFailed:  # a pod that has just started has no figures yet
                lines = []
            if any(line.startswith("order-") for line in lines):
                break
            await asyncio.sleep(LOOKED_AT_EVERY_S)
    print(*lines, sep="\n")


async def test_more_replicas_under_load_and_fewer_afterwards(cluster: Cluster) -> None:
    least, _ = await replicas(cluster, "product")
    stop = asyncio.Event()
    readers = [asyncio.create_task(read(cluster, stop)) for _ in range(READERS)]
    try:
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(UP_WITHIN_S):
            while True:
                wanted, ready = await replicas(cluster, "product")
                if wanted > least and ready > least:
                    break
                await asyncio.sleep(LOOKED_AT_EVERY_S)
        print(f"from {least} to {ready} replicas after {asyncio.get_running_loop().time() - began:.0f} s of load")
        await asyncio.sleep(SHARES_WITHIN_S)
        before = await cluster.served("product")
        await asyncio.sleep(SHARES_WITHIN_S)
        after = await cluster.served("product")
        shares = sorted(after[name] - before[name] for name in before if name in after)
        print(f"requests of each replica in {SHARES_WITHIN_S:.0f} s: {[round(share) for share in shares]}")
        assert shares[0] >= sum(shares) / len(shares) / 2
    finally:
        stop.set()
        counts = await asyncio.gather(*readers)
    assert min(counts) > 0
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(DOWN_WITHIN_S):
        while (await replicas(cluster, "product"))[1] > least:  # noqa: ASYNC110 - a cluster sets no event of ours
            await asyncio.sleep(LOOKED_AT_EVERY_S)
    print(f"back to {least} replicas {asyncio.get_running_loop().time() - began:.0f} s after the load")
