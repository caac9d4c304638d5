"""`python -m local [--port 8000] [--data var]`: the whole shop in one process on an embedded PostgreSQL."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from pathlib import Path
from time import perf_counter

import orjson
import uvloop

from chassis.app import Application, Service
from chassis.secrets import SERVICES
from chassis.server import Server
from chassis.settings import InvalidSettings
from chassis.telemetry import configure_logging
from local.edge import STOREFRONT, Edge
from local.postgres import EmbeddedPostgres, EmbeddedPostgresError
from local.seed import CUSTOMER_EMAIL, CUSTOMER_PASSWORD, SeedFailed, SignInRefused, register_customer, seed
from local.shop import (
    MigrationFailed,
    behind,
    create_services,
    create_storefront,
    make_databases,
    make_secrets,
    migrate,
)

HOST = "127.0.0.1"
ADMIN_EMAIL = "admin@souk.example"
ADMIN_PASSWORD = "admin of souk"  # noqa: S105 - of a shop that answers on this machine only
LOG_LEVELS = ("debug", "info", "warning", "error")
STARTED = perf_counter()


class CannotStart(Exception):
    """Why the shop cannot start, in one line."""


def say(text: str) -> None:
    """Tell the person at the terminal what is going on, and how long it took so far."""
    print(f"{perf_counter() - STARTED:5.1f} s  {text}", flush=True)


def check_ports(first: int) -> dict[str, int]:
    """Find the edge's port and the five after it free, and return them by name; raises CannotStart."""
    if not 1 <= first <= 65535 - len(SERVICES) - 1:
        raise CannotStart(f"port {first}: the shop takes six ports in a row between 1 and 65535")
    ports = {name: first + offset for offset, name in enumerate(("edge", *SERVICES, STOREFRONT))}
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                reason = "is taken" if error.errno == EADDRINUSE else error.strerror
                raise CannotStart(
                    f"port {port} (for the {name}) {reason}: choose another, make run PORT=9000"
                ) from None
    return ports


class LocalServer(Server):
    """One of several servers in a process: the process handles the signals, for all of them."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextmanager
def postgres(data: Path) -> Generator[EmbeddedPostgres, None, None]:
    """The embedded server while the shop runs."""
    server = EmbeddedPostgres(data / "postgres")
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def serve(ports: dict[str, int], data: Path, server: EmbeddedPostgres) -> None:
    """Run the shop until SIGINT or SIGTERM."""
    urls = await asyncio.to_thread(make_databases, server)
    outdated = await behind(urls)
    if outdated:
        say(f"migrating {', '.join(outdated)}")
        await asyncio.to_thread(migrate, urls, outdated)
    secrets = make_secrets(data / "secrets")
    admin_email = os.environ.get("ADMIN_EMAIL") or ADMIN_EMAIL
    admin_password = os.environ.get("ADMIN_PASSWORD") or ADMIN_PASSWORD
    services = create_services(urls, secrets, ports, admin_email=admin_email, admin_password=admin_password)
    applications: dict[str, Application] = {**services, STOREFRONT: create_storefront(services, ports)}
    stopping = [application.stopping for application in applications.values()]
    servers = [LocalServer(application, HOST, ports[name], []) for name, application in applications.items()]
    servers.append(LocalServer(Edge(applications), HOST, ports["edge"], stopping, lifespan="off"))

    def stop() -> None:
        for running in servers:
            running.force_exit = running.should_exit
            running.should_exit = True

    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop)
    serving = asyncio.gather(*(running.serve() for running in servers))
    started = asyncio.gather(*(application.started.wait() for application in applications.values()))
    try:
        await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            new = await seed_once(services, data / "seeded", admin_email, admin_password)
            write_address(data, ports)
            greet(ports, admin_email, ADMIN_PASSWORD if new and admin_password == ADMIN_PASSWORD else "as it was set")
        await serving
    finally:
        stop()
        started.cancel()
        await asyncio.gather(serving, started, return_exceptions=True)
        say("stopped; the data is kept")


async def seed_once(services: Mapping[str, Service], note: Path, admin_email: str, admin_password: str) -> bool:
    """Seed a shop that never was, and note it: an admin who empties the shelves finds them empty at the next start.

    Returns whether it was seeded now, which also proves that the admin has this password; raises SeedFailed.
    """
    if await asyncio.to_thread(note.exists):
        return False
    try:
        await register_customer(services)
        seeded = await seed(services, admin_email, admin_password, say)
    except SignInRefused as refused:
        say(str(refused))
        return False
    await asyncio.to_thread(note.touch)
    return seeded


def write_address(data: Path, ports: dict[str, int]) -> None:
    """Note where the shop answers, for `make audit`."""
    urls = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    (data / "shop.json").write_bytes(orjson.dumps(urls, option=orjson.OPT_INDENT_2))


def greet(ports: dict[str, int], admin_email: str, password: str) -> None:
    """Print the addresses and who may sign in."""
    say(f"ready: http://{HOST}:{ports['edge']}")
    rows = [
        ("shop", f"http://{HOST}:{ports['edge']}/"),
        ("API documentation", f"http://{HOST}:{ports['edge']}/docs"),
        ("demo customer", f"{CUSTOMER_EMAIL} / {CUSTOMER_PASSWORD}"),
        ("admin", f"{admin_email} / {password}"),
        *(
            (f"{name} service", f"http://{HOST}:{ports[name]}  (/livez /readyz /metrics)")
            for name in (*SERVICES, STOREFRONT)
        ),
        ("end", "Ctrl-C"),
    ]
    for name, value in rows:
        print(f"         {name:<18} {value}", flush=True)


def main() -> None:
    """Do what the command line asks; what goes wrong is one line on standard error and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m local", description="Run the whole shop in one process.")
    parser.add_argument("--port", type=int, default=8000, help="the edge's port; the services take the five after it")
    parser.add_argument("--data", type=Path, default=Path("var"), help="the folder that keeps the data")
    arguments = parser.parse_args()
    log_level = os.environ.get("LOG_LEVEL") or "warning"
    data: Path = arguments.data
    try:
        if log_level not in LOG_LEVELS:
            raise CannotStart(f"LOG_LEVEL: is not one of {', '.join(LOG_LEVELS)}")
        configure_logging("local", log_level)
        ports = check_ports(arguments.port)
        say("starting PostgreSQL")
        with postgres(data) as server, suppress(KeyboardInterrupt):
            uvloop.run(serve(ports, data, server))
    except (CannotStart, EmbeddedPostgresError, InvalidSettings, MigrationFailed, OSError, SeedFailed) as error:
        sys.exit(f"souk: {error}")


if __name__ == "__main__":
    main()
