"""Those who watch, in the cluster: whom Prometheus asks, what its rules make of it, and one alert from its cause to
Alertmanager and back.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

import httpx2
import pytest

from chassis.secrets import SERVICES
from deploy.commands import Object, run
from drills.cluster import Cluster
from monitoring.prometheus import Prometheus, Series
from tests import promql
from tests.cluster.operated import Customer
from tests.test_monitoring import OF_KUBELETS, OF_TRAEFIK, rules

pytestmark = pytest.mark.cluster

SCRAPED_WITHIN_S = 60.0
FIRES_WITHIN_S = 150.0
RESOLVES_WITHIN_S = 240.0
LOOKED_AT_EVERY_S = 2.0


@pytest.fixture
async def prometheus(cluster: Cluster) -> AsyncGenerator[Prometheus]:
    """Prometheus, where it is deployed."""
    async with cluster.watched() as found:
        if found is None:
            pytest.skip("there is no Prometheus: it was deployed with MONITORING=no")
        yield found


@pytest.fixture
async def alertmanager(cluster: Cluster) -> AsyncGenerator[httpx2.AsyncClient]:
    """Alertmanager's API."""
    way = cluster.kubectl.forwarded("service/alertmanager", 9093)
    origin = await asyncio.to_thread(way.__enter__)
    try:
        async with httpx2.AsyncClient(base_url=f"{origin}/api/v2", timeout=10) as client:
            yield client
    finally:
        await asyncio.to_thread(way.__exit__, None, None, None)


async def found_within(prometheus: Prometheus, expression: str, least: int, seconds: float) -> Sequence[Series]:
    """The series of an expression, when there are as many; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            samples = (await prometheus.now(expression)).series
            if len(samples) >= least:
                return samples
            await asyncio.sleep(LOOKED_AT_EVERY_S)


async def test_every_replica_every_edge_and_every_kubelet_is_asked(cluster: Cluster, prometheus: Prometheus) -> None:
    for name in (*SERVICES, "edge"):
        pods = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in await cluster.pods(name)}
        samples = await found_within(prometheus, f'up{{service="{name}"}} == 1', len(pods), SCRAPED_WITHIN_S)
        assert {each.labels["pod"]: each.labels["node"] for each in samples} == pods
    nodes = (await cluster.do("get", "nodes", "--output=name")).split()
    kubelets = await found_within(prometheus, 'up{job="cadvisor"} == 1', len(nodes), SCRAPED_WITHIN_S)
    assert {f"node/{each.labels['node']}" for each in kubelets} == set(nodes)


async def test_what_rules_use_of_the_edge_and_the_kubelets_is_exposed(cluster: Cluster, prometheus: Prometheus) -> None:
    customer = Customer(cluster)
    await customer.register()
    await customer.buy()
    used = {metric for rule in rules() for metric in promql.metrics(rule["expr"])} & OF_TRAEFIK
    assert used
    for metric in sorted(used | OF_KUBELETS):
        samples = await found_within(prometheus, f"count({metric})", 1, SCRAPED_WITHIN_S)
        print(f"{metric:<50} {samples[0].newest:.0f} series")


async def test_the_signals_of_a_purchase_are_recorded(cluster: Cluster, prometheus: Prometheus) -> None:
    customer = Customer(cluster)
    await customer.register()
    stop = time.monotonic() + 30
    while time.monotonic() < stop:
        await customer.buy()
    for record in (
        "souk:requests:rate1m", "souk:success:ratio_rate5m", "souk:errors:ratio_rate5m", "souk:latency_seconds:p99",
        "souk:availability:ratio", "souk:load:in_flight", "souk:balance:max_over_mean",
        "souk:edge_availability:ratio_rate5m", "souk:edge_errors:ratio_rate1h", "souk:slow:ratio_rate1h",
    ):  # fmt: skip
        samples = await found_within(prometheus, f'{record}{{service="order"}}', 1, SCRAPED_WITHIN_S)
        print(f"{record:<40} {[each.newest for each in samples]}")


async def hang(pod: Object) -> None:
    """Stop a replica's process where it stands, as nothing within its container could: it neither answers nor ends."""
    identifier = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    inside = ("docker", "exec", pod["spec"]["nodeName"])
    listed = await asyncio.to_thread(run, (*inside, "ctr", "--namespace=k8s.io", "tasks", "ls"))
    (process,) = (line.split()[1] for line in listed.splitlines() if line.startswith(identifier))
    await asyncio.to_thread(run, (*inside, "sh", "-c", f"kill -STOP {process}"))


async def told(alertmanager: httpx2.AsyncClient, alert: str, pod: str, *, of_it: bool, within_s: float) -> list[Object]:
    """Wait until Alertmanager knows of an alert on a pod, or no longer; return what it knows. Raises TimeoutError."""
    filters = [f'alertname="{alert}"', f'pod="{pod}"']
    async with asyncio.timeout(within_s):
        while True:
            answer = await alertmanager.get("/alerts", params={"filter": filters, "active": "true"})
            assert answer.status_code == 200, answer.text
            found: list[Object] = answer.json()
            if bool(found) == of_it:
                return found
            await asyncio.sleep(LOOKED_AT_EVERY_S)


@pytest.mark.usefixtures("prometheus")
async def test_a_replica_that_hangs_is_told_and_taken_back(cluster: Cluster, alertmanager: httpx2.AsyncClient) -> None:
    if cluster.target.kind_cluster is None:
        pytest.skip("a process is stopped on a node of a kind cluster only")
    pod, *_ = await cluster.pods("payment")
    name = pod["metadata"]["name"]
    customer = Customer(cluster)
    await customer.register()
    await hang(pod)
    began = time.monotonic()
    alert, *_ = await told(alertmanager, "SoukReplicaDown", name, of_it=True, within_s=FIRES_WITHIN_S)
    print(f"SoukReplicaDown {time.monotonic() - began:.0f} s after {name} hung: {alert['annotations']['summary']}")
    assert alert["labels"].items() >= {"service": "payment", "severity": "ticket", "job": "souk"}.items()
    assert alert["annotations"]["runbook"] == "docs/runbooks/SoukReplicaDown.md"
    await customer.buy()  # the others serve
    # Liveness ends it, and Kubernetes starts another process in its place.
    await told(alertmanager, "SoukReplicaDown", name, of_it=False, within_s=RESOLVES_WITHIN_S)
    print(f"resolved {time.monotonic() - began:.0f} s after it hung")
    assert name in [each["metadata"]["name"] for each in await cluster.pods("payment")]


async def test_without_those_who_watch_the_shop_sells_on(cluster: Cluster) -> None:
    customer = Customer(cluster)
    await customer.register()
    async with cluster.watched() as watching:
        if watching is None:
            pytest.skip("there is no Prometheus: it was deployed with MONITORING=no")
    try:
        await cluster.do("scale", "statefulset/prometheus", "statefulset/alertmanager", "--replicas=0")
        await cluster.do("wait", "pod/prometheus-0", "--for=delete", "--timeout=90s")
        await customer.buy()
        await cluster.settled(within_s=10)
    finally:
        await cluster.do("scale", "statefulset/prometheus", "statefulset/alertmanager", "--replicas=1")
        await cluster.do("rollout", "status", "statefulset/prometheus", "--timeout=180s")
