"""Running shops for tests: real processes on real sockets, or four applications of this process."""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from chassis.migrations import ROOT
from chassis.secrets import SERVICES, generate
from local.edge import STOREFRONT
from local.ports import free_ports

ADMIN_EMAIL = "admin@souk.example"
ADMIN_PASSWORD = "the admin of these tests"
START_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop that runs: its edge, its services' own addresses (the first replica's), and its admin."""

    origin: str
    services: dict[str, str]
    replicas: dict[str, list[str]]
    secrets: Path
    admin_email: str = ADMIN_EMAIL
    admin_password: str = ADMIN_PASSWORD


@contextmanager
def running_shop(
    database_urls: Mapping[str, str],
    folder: Path,
    replicas: Mapping[str, int] | None = None,
    settings: Mapping[str, str] | None = None,
    harmed: Collection[str] = (),
) -> Generator[Shop, None, None]:
    """Run each service in `replicas` processes (one where it is not named, and no storefront where that is not) behind
    a reverse proxy, until the block ends; all of them with these settings beyond the usual ones, and those that are
    `harmed` by `drills.harmed`.
    """
    generate(folder / "secrets")
    counts = dict.fromkeys(SERVICES, 1) | dict(replicas or {})
    edge_port = free_ports(1 + sum(counts.values()))
    ahead = iter(range(edge_port + 1, edge_port + 1 + sum(counts.values())))
    ports = {name: [next(ahead) for _ in range(count)] for name, count in counts.items()}
    urls = {name: [f"http://127.0.0.1:{port}" for port in found] for name, found in ports.items()}
    processes: list[subprocess.Popen[bytes]] = []
    with (folder / "shop.log").open("wb") as log:
        try:
            for name in counts:
                for port in ports[name]:
                    kept: dict[str, str] = {}
                    if name != STOREFRONT:
                        kept = {"DATABASE_URL": database_urls[name], "SECRETS_DIR": str(folder / "secrets" / name)}
                    environment = os.environ | {
                        **kept,
                        "PORT": str(port),
                        "ADMIN_EMAIL": ADMIN_EMAIL,
                        "ADMIN_PASSWORD": ADMIN_PASSWORD,
                        "MAX_CHECKOUTS": "64",  # tests send fifty at once, and ask what becomes of each
                        **{f"{peer.upper()}_URL": found[0] for peer, found in urls.items()},
                        **(settings or {}),
                    }
                    module = ("drills.harmed", name) if name in harmed else (f"services.{name}",)
                    command = (sys.executable, "-m", *module)
                    processes.append(
                        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
                    )
            pairs = [f"{name}={url}" for name, found in urls.items() for url in found]
            command = (sys.executable, "-m", "drills.edge", "--port", str(edge_port), *pairs)
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT))
            for found in urls.values():
                for url in found:
                    _wait_until(f"{url}/readyz", 200, processes, folder)
            origin = f"http://127.0.0.1:{edge_port}"
            _wait_until(f"{origin}/docs", 200, processes, folder)
            yield Shop(origin, {name: found[0] for name, found in urls.items()}, urls, folder / "secrets")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)


def _wait_until(url: str, status: int, processes: list["subprocess.Popen[bytes]"], folder: Path) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        ended = [process for process in processes if process.poll() is not None]
        if ended:
            break
        try:
            if httpx2.get(url, timeout=5).status_code == status:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{url} does not answer {status}:\n{(folder / 'shop.log').read_text()[-4000:]}")
