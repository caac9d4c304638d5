"""The roles that k8s/base/databases.sh makes: one owns the schema, the other works with it and cannot change it."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from chassis.migrations import ROOT, expected_revision
from chassis.secrets import SERVICES
from local.postgres import SUPERUSER, program, run_sql
from tests.databases import MIGRATE, Databases

SCRIPT = ROOT / "k8s" / "base" / "databases.sh"
FORBIDDEN = (
    "CREATE TABLE another (id int)",
    "CREATE TEMPORARY TABLE another (id int)",
    "CREATE SCHEMA another",
    "ALTER TABLE alembic_version ADD COLUMN another int",
    "DROP TABLE alembic_version",
    "TRUNCATE alembic_version",
)


def run_script(server: str, secrets: Path) -> None:
    """Run the script against the server of the tests, as the Job does against that of the cluster."""
    (socket_folder,) = parse_qs(urlsplit(server).query)["host"]
    environment = {
        "PATH": f"{Path(program('psql')).parent}{os.pathsep}{os.environ['PATH']}",
        "SECRETS_DIR": str(secrets),
        "PGHOST": socket_folder,
        "PGUSER": SUPERUSER,
    }
    subprocess.run(("sh", str(SCRIPT)), env=environment, check=True, capture_output=True)


def migrate(service: str, url: str) -> None:
    """Migrate in a process of its own, since the event loop of a test is running in this one."""
    subprocess.run((sys.executable, "-c", MIGRATE, service, url), cwd=ROOT, check=True)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_can_work_with_its_database_and_not_change_the_schema(
    service: str, postgres: Databases, tmp_path: Path
) -> None:
    name = f"{service}{uuid4().hex[:8]}"  # the server is shared by all tests
    for file in ("password", f"{name}_password", f"{name}_owner_password"):
        (tmp_path / file).write_text(f"the {file} of 'nobody'")
    run_script(postgres.url, tmp_path)
    parts = urlsplit(postgres.url)
    host = parts.netloc.rpartition("@")[2]
    owner, app = (
        parts._replace(netloc=f"{role}@{host}", path=f"/souk_{name}").geturl()
        for role in (f"souk_{name}_owner", f"souk_{name}")
    )
    migrate(service, owner)
    run_script(postgres.url, tmp_path)  # as at every deploy
    connection = await asyncpg.connect(app)
    try:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == expected_revision(service)
        may_not = await connection.fetch(
            "SELECT relname, privilege "
            "FROM pg_class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege "
            "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND NOT has_table_privilege(oid, privilege)"
        )
        assert may_not == []
        for statement in FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
        run_sql(postgres.url, f'DROP DATABASE "souk_{name}" WITH (FORCE)')


async def test_a_service_cannot_look_into_the_database_of_another(postgres: Databases, tmp_path: Path) -> None:
    one, other = (f"{word}{uuid4().hex[:8]}" for word in ("one", "other"))
    for file in ("password", *(f"{name}{role}_password" for name in (one, other) for role in ("", "_owner"))):
        (tmp_path / file).write_text("secret of this test")
    run_script(postgres.url, tmp_path)
    parts = urlsplit(postgres.url)
    host = parts.netloc.rpartition("@")[2]
    for role in (f"souk_{one}", f"souk_{one}_owner"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(parts._replace(netloc=f"{role}@{host}", path=f"/souk_{other}").geturl())
    for name in (one, other):
        run_sql(postgres.url, f'DROP DATABASE "souk_{name}" WITH (FORCE)')
