"""The HorizontalPodAutoscalers: more replicas under load, at once; and back again when it is over, slowly."""

import asyncio
from collections import Counter

import httpx2
import pytest

from deploy.commands import CommandFailed
from drills.cluster import Cluster
from tests.cluster.operated import Customer

pytestmark = pytest.mark.cluster

CUSTOMERS = 16
UP_WITHIN_S = 120.0
SHARES_WITHIN_S = 15.0
DOWN_WITHIN_S = 420.0
LOOKED_AT_EVERY_S = 2.0


async def replicas(cluster: Cluster, name: str) -> tuple[int, int]:
    """How many replicas the autoscaler wants, and how many are ready."""
    found = await asyncio.to_thread(cluster.kubectl.get, "horizontalpodautoscaler", name)
    return found["status"].get("desiredReplicas", 0), len(await cluster.pods(name))


async def sign_in(cluster: Cluster, stop: asyncio.Event) -> Counter[int]:
    """Register, and sign in again and again, which costs the service 20 ms of CPU and whoever asks next to nothing;
    return how many answers of each status there were.
    """
    customer = Customer(cluster)
    await customer.register()
    answers = Counter[int]()
    async with httpx2.AsyncClient(base_url=cluster.origin, timeout=30) as client:
        while not stop.is_set():
            answer = await client.post("/api/v1/auth/token", data=customer.form)
            answers[answer.status_code] += 1
    return answers


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
    least, _ = await replicas(cluster, "user")
    stop = asyncio.Event()
    customers = [asyncio.create_task(sign_in(cluster, stop)) for _ in range(CUSTOMERS)]
    try:
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(UP_WITHIN_S):
            while True:
                wanted, ready = await replicas(cluster, "user")
                if wanted > least and ready > least:
                    break
                await asyncio.sleep(LOOKED_AT_EVERY_S)
        print(f"from {least} to {ready} replicas after {asyncio.get_running_loop().time() - began:.0f} s of load")
        await asyncio.sleep(SHARES_WITHIN_S)
        before = await cluster.served("user")
        await asyncio.sleep(SHARES_WITHIN_S)
        after = await cluster.served("user")
        shares = sorted(after[name] - before[name] for name in before if name in after)
        print(f"requests of each replica in {SHARES_WITHIN_S:.0f} s: {[round(share) for share in shares]}")
        assert shares[0] >= sum(shares) / len(shares) / 2
    finally:
        stop.set()
        answers = sum(await asyncio.gather(*customers), Counter[int]())
    print(f"answers: {dict(answers)}")
    assert answers[200] > 0
    assert set(answers) <= {200, 503}
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(DOWN_WITHIN_S):
        while (await replicas(cluster, "user"))[1] > least:  # noqa: ASYNC110 - a cluster sets no event of ours
            await asyncio.sleep(LOOKED_AT_EVERY_S)
    print(f"back to {least} replicas {asyncio.get_running_loop().time() - began:.0f} s after the load")
