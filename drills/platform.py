"""The platform as processes on this machine: replicas of each service, an embedded PostgreSQL, and an edge.

PlatformError
├── NotHere     this machine does not give what the drill needs
└── NotReady    a process ended, or did not become ready in time; the message ends with its log
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx2

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from local.edge import STOREFRONT
from local.ports import free_ports
from local.postgres import EmbeddedPostgres
from local.shop import make_databases, make_secrets, migrate

REPLICAS = {"user": 2, "product": 3, "payment": 2, "order": 3}
"""How many processes of each service a drill runs: three of what the order of two could hide. Its shoppers call the
API, so there is no storefront, unless a topology names it.
"""
ADMIN_EMAIL = "admin@souk.example"
ADMIN_PASSWORD = "the admin of the drills"  # noqa: S105 - of a platform that lives for a minute, on this machine only
READY_WITHIN_S = 60.0
ENDS_WITHIN_S = 30.0
LOOKED_FOR_EVERY_S = 0.02
EDGE = "edge"


class PlatformError(Exception):
    """The platform cannot be run here; the message is for whoever started the drill."""


class NotHere(PlatformError):
    """This machine does not give what the drill needs."""


class NotReady(PlatformError):
    """A process ended, or did not become ready in time."""


@dataclass(frozen=True, slots=True)
class Link:
    """One caller's way to one replica: where the caller connects, and where the replica listens."""

    name: str
    """As `order-1->product-2`."""
    port: int
    target_port: int


@dataclass(slots=True, eq=False)
class Replica:
    """One process of a service."""

    service: str
    number: int
    port: int
    log: Path
    environment: dict[str, str]
    harmed: bool = False
    """Whether it is started by `drills.harmed`."""
    process: "subprocess.Popen[bytes] | None" = None
    serving: bool = False
    """Whether it was seen ready since it was started."""

    @property
    def name(self) -> str:
        """As `order-1`."""
        return f"{self.service}-{self.number}"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process; `Platform.ready` says when it serves."""
        command = ("drills.harmed", self.service) if self.harmed else (f"services.{self.service}",)
        with self.log.open("ab") as log:
            self.process = _start(command, log, self.environment)

    def end(self) -> None:
        """SIGTERM, and wait until it has finished what it was serving."""
        self.serving = False
        if self.process is not None:
            self.process.terminate()
            self.process.wait(ENDS_WITHIN_S)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.serving = False
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def _start(arguments: Sequence[str], log: BinaryIO, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        (sys.executable, "-m", *arguments), cwd=ROOT, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT
    )


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


@dataclass(slots=True)
class Topology:
    """What is to run: how many replicas, their settings beyond the usual, and whether links can be harmed.

    With `linked` each caller reaches each replica by a port of its own, which something has to forward: `links` says
    where to.
    """

    replicas: Mapping[str, int] = field(default_factory=lambda: dict(REPLICAS))
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """By service, or by replica as `order-1`."""
    harmed: frozenset[str] = frozenset()
    """Services whose processes are started by `drills.harmed`."""
    linked: bool = False


class Ground(Protocol):
    """A platform that can be drilled, whatever it is made of."""

    @property
    def origin(self) -> str:
        """Where the edge answers."""
        ...

    @property
    def secrets(self) -> Path:
        """The folder that holds a folder of secrets for each service, and for the audit."""
        ...

    @property
    def admin(self) -> tuple[str, str]:
        """The admin's e-mail and password."""
        ...

    async def start(self) -> None:
        """Return when it is ready; raises PlatformError."""
        ...

    def reached(self) -> AbstractAsyncContextManager[Mapping[str, str]]:
        """Where a replica of each service answers, past the edge, while the block lasts."""
        ...

    async def stop(self) -> None:
        """End what was started."""
        ...


class Platform:
    """A platform of processes that lives in a folder of its own, from `start()` to `stop()`."""

    def __init__(self, folder: Path, topology: Topology) -> None:
        self.folder = folder
        self.postgres = EmbeddedPostgres(folder / "postgres")
        self._services = (*SERVICES, *((STOREFRONT,) if STOREFRONT in topology.replicas else ()))
        names = [(service, number) for service in self._services for number in range(1, topology.replicas[service] + 1)]
        callers = [EDGE, *(f"{service}-{number}" for service, number in names)]
        most = 1 + len(names) * (1 + len(callers) * topology.linked)
        ports = count(free_ports(most))
        self.edge_port = next(ports)
        self.replicas = [
            Replica(service, number, next(ports), folder / f"{service}-{number}.log", {}, service in topology.harmed)
            for service, number in names
        ]
        self.links = [
            Link(f"{caller}->{replica.name}", next(ports), replica.port)
            for caller in (callers if topology.linked else ())
            for replica in self.replicas
            if caller != replica.name
        ]
        self._topology = topology
        self._edge: subprocess.Popen[bytes] | None = None
        self._client = httpx2.AsyncClient(timeout=5)

    def move_data(self, folder: Path) -> None:
        """Keep the database's data in another folder; before the start."""
        self.postgres = EmbeddedPostgres(folder)

    @property
    def origin(self) -> str:
        """Where the edge answers."""
        return f"http://127.0.0.1:{self.edge_port}"

    @property
    def secrets(self) -> Path:
        """The folder that holds a folder of secrets for each service, and for the audit."""
        return self.folder / "secrets"

    @property
    def admin(self) -> tuple[str, str]:
        """The admin's e-mail and password."""
        return ADMIN_EMAIL, ADMIN_PASSWORD

    @property
    def doom(self) -> Path:
        """The file that says where a harmed process is to die: `drills.harmed.arm` writes it."""
        return self.folder / "doom.json"

    @asynccontextmanager
    async def reached(self) -> AsyncGenerator[Mapping[str, str]]:
        """Where the first replica of each service that serves answers, past edge and links."""
        yield {each.service: each.url for each in reversed(self.replicas) if each.serving}

    def of(self, service: str) -> list[Replica]:
        """The replicas of a service."""
        return [replica for replica in self.replicas if replica.service == service]

    def reached_by(self, caller: str, service: str) -> list[str]:
        """The origins at which a caller reaches the replicas of a service."""
        ports = {link.name: link.port for link in self.links}
        return [
            f"http://127.0.0.1:{ports.get(f'{caller}->{replica.name}', replica.port)}" for replica in self.of(service)
        ]

    async def start(self) -> None:
        """Start everything and wait until it is ready; raises PlatformError, or EmbeddedPostgresError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self.postgres.start)
        databases = await asyncio.to_thread(make_databases, self.postgres)
        make_secrets(self.secrets)
        await asyncio.to_thread(migrate, databases, list(SERVICES))
        for replica in self.replicas:
            replica.environment = self._environment(replica, databases)
            replica.start()
        await asyncio.gather(*(self.ready(replica) for replica in self.replicas))
        pairs = [f"{service}={url}" for service in self._services for url in self.reached_by(EDGE, service)]
        with (self.folder / "edge.log").open("ab") as log:
            self._edge = _start(("drills.edge", "--port", str(self.edge_port), *pairs), log, {})
        edge = f"http://127.0.0.1:{self.edge_port}"
        await self._wait_until_ready(f"{edge}/livez", self._edge, self.folder / "edge.log", 404)

    def _environment(self, replica: Replica, databases: Mapping[str, str]) -> dict[str, str]:
        usual = {"PORT": str(replica.port)}
        if replica.service in databases:
            usual |= {
                "DATABASE_URL": databases[replica.service],
                "SECRETS_DIR": str(self.secrets / replica.service),
                "ADMIN_EMAIL": ADMIN_EMAIL,
                "ADMIN_PASSWORD": ADMIN_PASSWORD,
            }
        peers = {f"{peer.upper()}_URL": ",".join(self.reached_by(replica.name, peer)) for peer in SERVICES}
        if replica.harmed:
            usual["DOOM"] = str(self.doom)
        special = self._topology.environment
        return {**usual, **peers, **special.get(replica.service, {}), **special.get(replica.name, {})}

    async def ready(self, replica: Replica) -> float:
        """Wait until a replica that was started is ready, and return how long that took; raises NotReady."""
        assert replica.process is not None
        seconds = await self._wait_until_ready(f"{replica.url}/readyz", replica.process, replica.log, 200)
        replica.serving = True
        return seconds

    async def _wait_until_ready(self, url: str, process: "subprocess.Popen[bytes]", log: Path, status: int) -> float:
        began = time.monotonic()
        while time.monotonic() - began < READY_WITHIN_S and process.poll() is None:
            try:
                if (await self._client.get(url)).status_code == status:
                    return time.monotonic() - began
            except httpx2.TransportError:
                pass  # it does not listen yet
            await asyncio.sleep(LOOKED_FOR_EVERY_S)
        raise NotReady(f"{url} does not answer {status}:\n{_end_of(log)}")

    async def restart(self, replica: Replica) -> float:
        """Start a replica that has ended, and return the seconds until it was ready."""
        replica.start()
        return await self.ready(replica)

    async def died(self, within_s: float) -> Replica | None:
        """Wait for a process that ends without having been asked to, and return it; none where all live on."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for each in self.replicas:
                if each.serving and each.process is not None and each.process.poll() is not None:
                    return each
            await asyncio.sleep(LOOKED_FOR_EVERY_S)
        return None

    async def probe(self, replica: Replica, path: str) -> int | None:
        """The status of a replica's probe; none where it does not answer."""
        try:
            return (await self._client.get(replica.url + path)).status_code
        except httpx2.TransportError:
            return None

    async def stop(self) -> None:
        """End everything; what was started and what was not."""
        await self._client.aclose()
        running = [each.process for each in self.replicas if each.process is not None]
        for process in (*running, *([self._edge] if self._edge is not None else ())):
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        await asyncio.to_thread(self.postgres.stop)
