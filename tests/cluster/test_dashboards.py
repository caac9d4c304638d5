"""The dashboards on what the cluster's own Prometheus knows: the kubelets' account too, which processes have not."""

import asyncio
import re
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import pytest

from drills.cluster import Cluster, in_cluster
from drills.stage import Drill, Length, Stage, perform, storm
from drills.storms.cluster import SHOPPERS
from monitoring.faults import faults
from monitoring.preview import SCRAPED_EVERY_IN_A_CLUSTER_S
from monitoring.prometheus import Prometheus
from monitoring.queries import documents

pytestmark = pytest.mark.cluster

SECONDS = 90.0
"""Some rules are evaluated once a minute, and what lies on the shelves is counted as often."""
LOOKS_EVERY_S = 0.5
NOT_OF_THE_STOREFRONT = re.compile(r'no data: .*(souk_database_|souk_worker_)\w+\{job="souk",service="storefront"')
"""It has no database and no background work, and its dashboard says so in these panels."""
PORT = 9090


async def test_every_expression_of_every_panel_and_variable_has_an_answer_under_load(
    cluster: Cluster, tmp_path: Path
) -> None:
    wrong: list[str] = []

    async def browse() -> None:
        """The drill's shoppers call the API, so somebody has to open the shop's pages."""
        async with httpx2.AsyncClient(base_url=cluster.origin) as reader:
            while True:
                (await reader.get("/")).raise_for_status()
                await asyncio.sleep(LOOKS_EVERY_S)

    async def look(stage: Stage[Cluster]) -> None:
        nonlocal wrong
        since = time.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                await browse()
        with ExitStack() as stack:
            forwarded = stage.platform.kubectl.forwarded("service/prometheus", PORT)
            prometheus = Prometheus(await asyncio.to_thread(stack.enter_context, forwarded))
            # Without a drill there is no event.
            wrong, _ = await faults(
                prometheus,
                documents(),
                since=since,
                scraped_every_s=SCRAPED_EVERY_IN_A_CLUSTER_S,
                with_events=False,
            )
            await prometheus.aclose()

    async def run(stage: Stage[Cluster]) -> None:
        await storm(stage, look)

    await cluster.settled()
    title = "The shop in the cluster under load: do the dashboards show it?"
    drill: Drill[Cluster] = Drill("dashboards", title, SECONDS, run, in_cluster, shoppers=SHOPPERS)
    await perform(drill, Length(SECONDS, full=False), seed=1, folder=tmp_path / "dashboards")
    assert [fault for fault in wrong if not NOT_OF_THE_STOREFRONT.search(fault)] == []
