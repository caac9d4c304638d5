"""The platform of the drills with what watches it: Traefik as its edge, and a Prometheus that scrapes both.

What only a cluster has, the kubelets' account of CPU and memory, is not here.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from deploy.credentials import make_certificate
from drills.evidence import Evidence
from drills.harmed import arm
from drills.platform import ENDS_WITHIN_S, Platform, PlatformError, Topology
from drills.stage import Drill, Length, Stage, perform, storm
from local.edge import ROUTES
from local.ports import free_ports
from monitoring.prometheus import Server, Target, await_answer, program

SCRAPED_EVERY_S = 2
"""So often that a minute's drill is more than four points of a line."""
GONE_S = 5.0
TAKEN_UP_WITHIN_S = 20.0
"""The lease of an order whose replica was lost, 10 s, a round of recovery, and scrapes that see it."""
SHOPPERS = 12
DIES_AT = "order.reserved"
ORDERED_WITHIN_S = 10.0


class Watched(Platform):
    """A platform of processes behind Traefik, scraped by a Prometheus."""

    def __init__(self, folder: Path, topology: Topology, others: Sequence[Target] = ()) -> None:
        super().__init__(folder, topology)
        taken = {self.edge_port, *(replica.port for replica in self.replicas)}
        self._front_port = free_ports(3)
        while not taken.isdisjoint(range(self._front_port, self._front_port + 3)):
            self._front_port = free_ports(3)
        targets = [
            Target(
                replica.url.removeprefix("http://"),
                "souk",
                {"service": replica.service, "pod": replica.name, "node": "this-machine"},
            )
            for replica in self.replicas
        ]
        front = {"service": "edge", "pod": "edge-1", "node": "this-machine"}
        targets.append(Target(f"127.0.0.1:{self._front_port + 1}", "edge", front))
        self.prometheus = Server(folder / "prometheus", self._front_port + 2, [*targets, *others], SCRAPED_EVERY_S)
        self._front: subprocess.Popen[bytes] | None = None

    @property
    def origin(self) -> str:
        """Where Traefik answers."""
        return f"http://127.0.0.1:{self._front_port}"

    async def start(self) -> None:
        """Start the platform, then what watches it; raises PlatformError, or EmbeddedPostgresError."""
        traefik, _ = program("traefik"), program("prometheus")  # what is missing is said before anything starts
        await super().start()
        await asyncio.to_thread(self._start_front, traefik)
        await asyncio.to_thread(self.prometheus.start)

    async def stop(self) -> None:
        """End everything."""
        await asyncio.to_thread(self.prometheus.stop)
        if self._front is not None:
            self._front.terminate()
            await asyncio.to_thread(self._front.wait, ENDS_WITHIN_S)
        await super().stop()

    def _start_front(self, traefik: str) -> None:
        folder = self.folder / "traefik"
        make_certificate(folder)
        routes, settings, log = folder / "routes.yml", folder / "traefik.yml", folder / "traefik.log"
        routes.write_text(json.dumps(self._routes(folder)))  # JSON is YAML
        settings.write_text(json.dumps(self._front_settings(routes)))
        with log.open("wb") as to:
            self._front = subprocess.Popen((traefik, f"--configFile={settings}"), stdout=to, stderr=subprocess.STDOUT)
        await_answer(self._front, f"{self.origin}/api/v1/products", log)

    def _front_settings(self, routes: Path) -> dict[str, Any]:
        return {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "log": {"level": "WARN"},
            "entryPoints": {
                "web": {"address": f"127.0.0.1:{self._front_port}"},
                "traefik": {"address": f"127.0.0.1:{self._front_port + 1}"},
            },
            "metrics": {"prometheus": {"entryPoint": "traefik", "addRoutersLabels": True}},
            "providers": {"file": {"filename": str(routes), "watch": False}},
        }

    def _routes(self, folder: Path) -> dict[str, Any]:
        """As the edge of a cluster routes, its services called as Traefik calls those of an Ingress there."""
        paths: dict[str, list[str]] = {}
        for path, service in ROUTES.items():
            paths.setdefault(service, []).append(path)
        tls = {"certFile": str(folder / "edge" / "tls.crt"), "keyFile": str(folder / "edge" / "tls.key")}
        return {
            "http": {
                "routers": {
                    service: {
                        "rule": " || ".join(f"Path(`{path}`) || PathPrefix(`{path}/`)" for path in found),
                        "service": f"souk-{service}-http",
                        "middlewares": ["another-replica"],
                    }
                    for service, found in paths.items()
                },
                "middlewares": {"another-replica": {"retry": {"attempts": 5, "initialInterval": "20ms"}}},
                "services": {
                    f"souk-{service}-http": {
                        "loadBalancer": {
                            "servers": [{"url": replica.url} for replica in self.of(service)],
                            "healthCheck": {"path": "/readyz", "interval": "1s", "timeout": "1s"},
                        }
                    }
                    for service in paths
                },
            },
            "tls": {"stores": {"default": {"defaultCertificate": tls}}},
        }


async def harm(stage: Stage[Watched]) -> None:
    """Take a product replica away for a while, and let one of the order replicas die in the middle of an order: each
    leaves traces of another kind.

    Raises PlatformError where nobody orders anything.
    """
    product = stage.platform.of("product")[-1]
    calm_s = max(0.0, stage.length.seconds - GONE_S - TAKEN_UP_WITHIN_S) / 2
    await asyncio.sleep(calm_s)
    with stage.harm(f"{product.name} gone"):
        product.kill()
        await asyncio.sleep(GONE_S)
    await stage.platform.restart(product)
    await asyncio.sleep(calm_s)
    arm(stage.platform.doom, DIES_AT)
    order = await stage.platform.died(ORDERED_WITHIN_S)
    if order is None:
        raise PlatformError(f"nobody came to {DIES_AT} in {ORDERED_WITHIN_S:.0f} s")
    if order.service != "order":
        raise PlatformError(f"{order.name} has ended by itself: {order.log}")
    with stage.harm(f"{order.name} dies at {DIES_AT}"):
        order.kill()
    await stage.platform.restart(order)
    await asyncio.sleep(TAKEN_UP_WITHIN_S)


async def watch(
    folder: Path,
    seconds: float,
    look: Callable[[str, float], Awaitable[None]],
    others: Sequence[Target] = (),
) -> Evidence:
    """Run the platform under shoppers and a little harm for so many seconds, then `look` while they still shop: at the
    Prometheus of this URL, since when they have warmed up, in seconds since 1970.

    Raises PlatformError where it cannot be run.
    """

    async def harm_and_look(stage: Stage[Watched]) -> None:
        since = time.time()
        await harm(stage)
        await look(stage.platform.prometheus.url, since)

    async def run(stage: Stage[Watched]) -> None:
        await storm(stage, harm_and_look)

    drill: Drill[Watched] = Drill(
        "watched",
        "A platform under load loses a replica, and one in the middle of an order: what do the dashboards show?",
        seconds,
        run,
        lambda at, _: Watched(at, Topology(harmed=frozenset({"order"})), others),
        shoppers=SHOPPERS,
    )
    return await perform(drill, Length(seconds, full=False), seed=1, folder=folder)
