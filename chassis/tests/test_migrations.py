"""A schema is brought to its newest revision once, however many begin at once, and a service waits for it."""

import asyncio
import subprocess
import sys

import asyncpg
import pytest

from chassis.auth import AccessTokens, JwkSet
from chassis.clients import PeerUnavailable
from chassis.migrations import ROOT, expected_revision, migrations_folder
from chassis.secrets import SERVICES
from chassis.tests.conftest import Build
from tests.databases import MIGRATE, Databases, run_sql

OPEN = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted"
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


async def test_a_migration_rather_fails_than_keeps_requests_waiting_for_a_table(postgres: Databases) -> None:
    url = postgres.clone("order")
    run_sql(url, "ALTER TABLE orders ADD COLUMN trace_id text")
    run_sql(url, "UPDATE alembic_version SET version_num = '0002'")

    async def migrated() -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, "order", url, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        return process.returncode, errors.decode()

    reader, request = await asyncpg.connect(url), await asyncpg.connect(url)
    async with reader.transaction():
        await reader.fetch("SELECT FROM orders")  # and is still at work
        migration = asyncio.create_task(migrated())
        async with asyncio.timeout(30):
            while not await request.fetchval(WAITING):  # noqa: ASYNC110 - PostgreSQL sets no event of ours
                await asyncio.sleep(0.01)
        assert await request.fetchval("SELECT count(*) FROM orders") == 0  # begun behind the migration
        status, errors = await migration
    assert (status, "lock timeout" in errors) == (1, True)
    assert await request.fetchval("SELECT version_num FROM alembic_version") == "0002"
    await reader.close()
    await request.close()
    assert (await migrated())[0] == 0
    assert run_sql(url, "SELECT version_num FROM alembic_version") == expected_revision("order")
    postgres.drop(url)


@pytest.mark.parametrize("service", SERVICES)
def test_the_expected_revision_is_that_of_the_newest_file(service: str) -> None:
    files = sorted((migrations_folder(service) / "versions").glob("*.py"))
    assert expected_revision(service) == files[-1].name[:4]
    for file in files:
        assert f'revision = "{file.name[:4]}"' in file.read_text()


async def test_a_service_is_ready_when_its_schema_is_there(postgres: Databases, build: Build) -> None:
    url = postgres.create()
    asked: list[str] = []

    async def jwks() -> JwkSet:
        asked.append("once")
        return JwkSet(keys=[])

    service = build(database_url=url, database_pool_size=6, access_tokens=AccessTokens(jwks))
    prepared: list[str] = []

    async def prepare() -> None:
        prepared.append("once")

    service.prepare(prepare)
    await service.start()
    assert not service.ready
    assert asked == []
    run_sql(url, "CREATE TABLE alembic_version (version_num text)")
    run_sql(url, f"INSERT INTO alembic_version VALUES ('{expected_revision('product')}')")
    async with asyncio.timeout(10):
        await service.started.wait()
    assert service.ready
    assert prepared == ["once"]
    # What joins under load finds connections and keys at hand for its first requests.
    assert asked == ["once"]
    assert await service.database.fetchval(OPEN) == 3
    async with asyncio.timeout(10):
        while service.database.in_use():  # noqa: ASYNC110 - a worker's first round
            await asyncio.sleep(0.01)
    await service.stop()
    postgres.drop(url)


async def test_a_service_is_ready_while_the_one_that_has_the_keys_is_down(postgres: Databases, build: Build) -> None:
    url = postgres.clone("payment")
    run_sql(url, f"UPDATE alembic_version SET version_num = '{expected_revision('product')}'")

    async def jwks() -> JwkSet:
        raise PeerUnavailable("user", "unreachable")

    service = build(database_url=url, access_tokens=AccessTokens(jwks))
    await service.start()
    async with asyncio.timeout(10):
        await service.started.wait()
    await service.stop()
    postgres.drop(url)


def test_a_serving_process_never_imports_alembic() -> None:
    code = "import sys, chassis.tests.application; print('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    answer = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
