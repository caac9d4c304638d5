"""A schema is brought to its newest revision once, however many begin at once, and a service waits for it."""

import asyncio
import subprocess
import sys

import pytest

from chassis.migrations import ROOT, expected_revision, migrations_folder
from chassis.secrets import SERVICES
from chassis.tests.conftest import Build
from tests.databases import MIGRATE, Databases, run_sql

COLUMNS = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public'"


def test_two_migrations_at_once_make_one_schema(postgres: Databases) -> None:
    url = postgres.create()
    command = (sys.executable, "-c", MIGRATE, "payment", url)
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    once = postgres.clone("payment")
    assert run_sql(url, "SELECT version_num FROM alembic_version") == expected_revision("payment")
    assert run_sql(url, COLUMNS) == run_sql(once, COLUMNS)
    postgres.drop(url)
    postgres.drop(once)


@pytest.mark.parametrize("service", SERVICES)
def test_the_expected_revision_is_that_of_the_newest_file(service: str) -> None:
    files = sorted((migrations_folder(service) / "versions").glob("*.py"))
    assert expected_revision(service) == files[-1].name[:4]
    for file in files:
        assert f'revision = "{file.name[:4]}"' in file.read_text()


async def test_a_service_is_ready_when_its_schema_is_there(postgres: Databases, build: Build) -> None:
    url = postgres.create()
    service = build(database_url=url)
    prepared: list[str] = []

    async def prepare() -> None:
        prepared.append("once")

    service.prepare(prepare)
    await service.start()
    assert not service.ready
    run_sql(url, "CREATE TABLE alembic_version (version_num text)")
    run_sql(url, f"INSERT INTO alembic_version VALUES ('{expected_revision('product')}')")
    async with asyncio.timeout(10):
        await service.started.wait()
    assert service.ready
    assert prepared == ["once"]
    await service.stop()
    postgres.drop(url)


def test_a_serving_process_never_imports_alembic() -> None:
    code = "import sys, chassis.tests.application; print('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    answer = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
