"""The entry point of a service: `python -m services.<name> [serve | migrate | openapi | ...]`."""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from socket import socket
from typing import Any, Literal, TypeVar

import uvicorn

from chassis.app import Application, Service, openapi_bytes
from chassis.migrations import migrate
from chassis.settings import ApplicationSettings, InvalidSettings, ServiceSettings
from chassis.telemetry import configure_logging

KEEP_ALIVE_S = 120
"""Longer than any client or proxy of ours keeps an idle connection, so that it is never the server that closes
first.
"""
GRACE_S = 20
BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted."""

Settings = TypeVar("Settings", bound=ServiceSettings)
AnySettings = TypeVar("AnySettings", bound=ApplicationSettings)


class Server(uvicorn.Server):
    """A uvicorn server that tells the application when it begins to stop, so that open event streams end by
    themselves.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        stopping: Sequence[asyncio.Event],
        *,
        lifespan: Literal["on", "off"] = "on",
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan=lifespan,
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        for event in self._stopping:
            event.set()
        await super().shutdown(sockets)


def serve(service: Application, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is being served."""
    Server(service, host, port, [service.stopping]).run()


def main(
    name: str,
    settings_class: type[Settings],
    create_app: Callable[[Settings], Service],
    commands: Mapping[str, Callable[[Settings], None]] | None = None,
) -> None:
    """Do what the command line asks: serve (without an argument), migrate, openapi, or one of the service's own
    `commands`.
    """
    served: dict[str, Callable[[Settings], None]] = {
        "serve": lambda settings: serve(create_app(settings), settings.host, settings.port),
        "migrate": lambda settings: migrate(name, settings.database_url.get_secret_value()),
        "openapi": lambda settings: print_bytes(openapi_bytes(create_app(settings))),
        **(commands or {}),
    }
    command_line(name, settings_class, served)


def command_line(
    name: str, settings_class: type[AnySettings], known: Mapping[str, Callable[[AnySettings], None]]
) -> None:
    """Do the one of `known` that the command line names, `serve` where it names none."""
    arguments = sys.argv[1:] or ["serve"]
    if len(arguments) != 1 or arguments[0] not in known:
        sys.exit(f"usage: python -m services.{name} [{' | '.join(known)}]")
    try:
        settings = settings_class.load()
    except InvalidSettings as error:
        sys.exit(str(error))
    configure_logging(name, settings.log_level)
    known[arguments[0]](settings)


def print_bytes(content: bytes) -> None:
    """Write to standard output as it is."""
    sys.stdout.buffer.write(content)
