"""The shop in one process: the four services, wired to each other without a network, on an embedded PostgreSQL.

They are the same applications, with the same clients, credentials, deadlines and problems as over a network; only the
transport under the clients differs.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
from pydantic import ValidationError

from chassis.app import Application, Service
from chassis.in_process import InProcessTransport
from chassis.migrations import ROOT, expected_revision
from chassis.secrets import SERVICES, generate
from chassis.settings import InvalidSettings
from local.postgres import EmbeddedPostgres
from services.order.app import create_app as create_order
from services.order.settings import OrderSettings
from services.payment.app import create_app as create_payment
from services.payment.settings import PaymentSettings
from services.product.app import create_app as create_product
from services.product.settings import ProductSettings
from services.storefront.app import create_app as create_storefront_app
from services.storefront.settings import StorefrontSettings
from services.user.app import create_app as create_user
from services.user.settings import UserSettings


class LocalTransport(httpx2.AsyncBaseTransport):
    """httpx's transport interface straight into another application of this process, which may be built later."""

    def __init__(self, name: str, services: Mapping[str, Service]) -> None:
        self._name = name
        self._services = services

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await InProcessTransport(self._services[self._name]).handle_async_request(request)


def create_services(
    urls: Mapping[str, str], secrets: Path, ports: Mapping[str, int], **admin: str
) -> dict[str, Service]:
    """Build the four applications on the databases at `urls`, with the secrets in a folder for each.

    `admin` may hold `admin_email` and `admin_password`. Raises InvalidSettings.
    """
    services: dict[str, Service] = {}
    transports = {name: LocalTransport(name, services) for name in SERVICES}

    def told(name: str) -> dict[str, Any]:
        files = {file.name: file.read_text() for file in (secrets / name).iterdir()}
        return files | {"port": ports[name], "database_url": urls[name], "log_level": "warning", "server_timing": True}

    try:
        services["user"] = create_user(UserSettings.model_validate(told("user") | admin), transports)
        services["product"] = create_product(ProductSettings.model_validate(told("product")), transports)
        services["payment"] = create_payment(PaymentSettings.model_validate(told("payment")), transports)
        services["order"] = create_order(OrderSettings.model_validate(told("order")), transports)
    except ValidationError as error:
        raise InvalidSettings(error) from None
    return services


def create_storefront(services: dict[str, Service], ports: Mapping[str, int]) -> Application:
    """Build the storefront on these services. Streams go to their ports, as no transport within a process streams."""
    urls = {f"{name}_url": f"http://127.0.0.1:{ports[name]}" for name in services}
    told = {"port": ports["storefront"], "log_level": "warning", "server_timing": True, **urls}
    settings = StorefrontSettings.model_validate(told)
    return create_storefront_app(settings, {name: LocalTransport(name, services) for name in services})


def make_secrets(folder: Path) -> Path:
    """Make the secrets that are missing and return the folder."""
    generate(folder)
    return folder


def make_databases(server: EmbeddedPostgres) -> dict[str, str]:
    """Create the four databases where they are missing, and return their URLs by service."""
    for name in SERVICES:
        server.create_database(f"souk_{name}")
    return {name: server.url(f"souk_{name}") for name in SERVICES}


async def behind(urls: Mapping[str, str]) -> list[str]:
    """Name the services whose schema is not at the revision that this code expects."""
    found: list[str] = []
    for name, url in urls.items():
        connection = await asyncpg.connect(url)
        try:
            revision = await connection.fetchval("SELECT version_num FROM alembic_version")
        except asyncpg.UndefinedTableError:
            revision = ""
        finally:
            await connection.close()
        if revision < expected_revision(name):
            found.append(name)
    return found


def migrate(urls: Mapping[str, str], names: list[str]) -> None:
    """Migrate these services, all at once and in processes of their own, since serving needs nothing of Alembic."""
    code = "import sys; from chassis.migrations import migrate; migrate(*sys.argv[1:])"
    running = [subprocess.Popen((sys.executable, "-c", code, name, urls[name]), cwd=ROOT) for name in names]
    for name, process in zip(names, running, strict=True):
        if process.wait():
            raise MigrationFailed(name)


class MigrationFailed(Exception):
    """A schema could not be brought to the revision that this code expects; its process has said why."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the schema of the {name} service could not be migrated")
