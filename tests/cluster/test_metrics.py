"""What the services tell of their databases in the cluster, where PostgreSQL counts statements."""

import asyncio

import httpx2
import pytest

from chassis.migrations import ROOT
from chassis.postgres_metrics import FAMILIES, READ_EVERY_S
from chassis.secrets import SERVICES
from chassis.telemetry import LABELS, OTHER
from drills.cluster import Cluster
from tests.test_metrics import told
from tests.test_statements import MODULES, NAME, literals

pytestmark = pytest.mark.cluster

WITHIN_S = 3 * READ_EVERY_S


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_names_the_slowest_statements_of_its_own(service: str, cluster: Cluster) -> None:
    pod, *_ = await cluster.pods(service)
    async with cluster.pod_reached(pod, service) as origin, httpx2.AsyncClient() as client, asyncio.timeout(WITHIN_S):
        while True:
            families = told((await client.get(f"{origin}/metrics")).text)
            if "souk_postgres_statement_seconds" in families:
                break
            await asyncio.sleep(1)
    assert FAMILIES.keys() <= families.keys()
    names = {sample.labels["statement"] for sample in families["souk_postgres_statement_seconds"].samples}
    assert 0 < len(names) <= LABELS["statement"]
    print(f"{service}: {', '.join(sorted(names))}")
    modules = [module for module in MODULES if module.startswith(("chassis/", f"services/{service}/"))]
    known = {name for module in modules for text in literals(ROOT / module) for name in NAME.findall(text)}
    assert set() < names - {OTHER} <= known
