"""PostgreSQL for the tests: one throwaway server a run, and a database of its own for each test that asks.

The process that controls the run starts the server, the xdist workers get its address. The first test that
needs a service's schema migrates a template; from then on a database with it is a copy of files, 40 ms.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from chassis.migrations import ROOT
from local.postgres import EmbeddedPostgres, EmbeddedPostgresError, ServerFailed, run_sql

MIGRATE = "import sys; from chassis.migrations import migrate; migrate(*sys.argv[1:])"
UNKNOWN_DATABASE = "3D000"
DUPLICATE_DATABASE = "42P04"


class Databases:
    """The server of this test run. Its calls block for some ten milliseconds, also in a coroutine."""

    def __init__(self, url: str) -> None:
        """`url` leads to the maintenance database `postgres`."""
        self.url = url

    def create(self, template: str = "template1") -> str:
        """Create a copy of `template` with a name of its own and return its URL."""
        name = f"test_{uuid4().hex}"
        # FILE_COPY writes no log, which makes it a fifth faster than the default here. It pays with a
        # checkpoint, which costs little on a server that does not wait for the disk.
        run_sql(self.url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def clone(self, service: str) -> str:
        """Create a database with the service's schema and return its URL."""
        template = f"template_{service}"
        try:
            return self.create(template)
        except ServerFailed as error:
            if not str(error).endswith(UNKNOWN_DATABASE):
                raise
        self._migrate(service, template)
        return self.create(template)

    def _migrate(self, service: str, template: str) -> None:
        """Make a template. Where two workers make it at once the first to give it its name wins."""
        url = self.create()
        # In a process of its own, since the event loop of a test may be running in this one.
        subprocess.run((sys.executable, "-c", MIGRATE, service, url), cwd=ROOT, check=True)
        try:
            run_sql(self.url, f'ALTER DATABASE "{self._name(url)}" RENAME TO "{template}"')
        except ServerFailed as error:
            if not str(error).endswith(DUPLICATE_DATABASE):
                raise
            self.drop(url)

    def drop(self, url: str) -> None:
        """Drop a database, ending what is still connected to it."""
        run_sql(self.url, f'DROP DATABASE "{self._name(url)}" WITH (FORCE)')

    def _name(self, url: str) -> str:
        return urlsplit(url).path.removeprefix("/")


SERVER = pytest.StashKey[EmbeddedPostgres]()
DATABASES = pytest.StashKey[Databases]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the server, or take the address of the one that the controlling process started."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[DATABASES] = Databases(worker["postgres_url"])
    elif not config.option.collectonly:
        server = EmbeddedPostgres(Path(tempfile.mkdtemp(prefix="souk-tests-"), "postgres"), durable=False)
        config.stash[SERVER] = server
        try:
            server.start()
        except EmbeddedPostgresError as error:
            raise pytest.UsageError(str(error)) from error
        config.stash[DATABASES] = Databases(server.url("postgres"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist, before it starts, where the server is."""
    node.workerinput["postgres_url"] = node.config.stash[DATABASES].url


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the server and delete its data."""
    server = config.stash.get(SERVER, None)
    if server is not None:
        server.kill()
        shutil.rmtree(server.data_dir.parent)


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Databases:
    """The server of this run, for databases that outlive a test."""
    return pytestconfig.stash[DATABASES]


@pytest.fixture
def database_url(postgres: Databases) -> Iterator[Callable[[str], str]]:
    """Make databases for this test alone: `database_url("order")` is the URL of one with that schema."""
    made: list[str] = []

    def make(service: str) -> str:
        made.append(postgres.clone(service))
        return made[-1]

    yield make
    for url in made:
        postgres.drop(url)
