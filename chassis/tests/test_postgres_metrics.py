"""What PostgreSQL's own views tell, as the service's role sees them, and that no scrape waits for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from chassis.database import Database
from chassis.migrations import expected_revision
from chassis.postgres_metrics import FAMILIES, TOLD_S, PostgresMetrics
from chassis.problems import Unavailable
from chassis.settings import ServiceSettings
from chassis.telemetry import LABELS
from chassis.testing import client, settings_for
from chassis.tests import application
from chassis.tests.conftest import Build
from local.postgres import EmbeddedPostgres, run_sql
from tests.databases import Databases

ABSENT = {"souk_postgres_statement_seconds"}
"""The embedded PostgreSQL has not got the library."""
# The columns that are read of the extension's view; it stands where the real one would.
VIEW_OF_STATEMENTS = """
CREATE TABLE pg_stat_statements (dbid oid, userid oid, query text, total_exec_time float8);
INSERT INTO pg_stat_statements
SELECT d.oid, r.oid, query, milliseconds
FROM pg_database d, pg_roles r, (
    SELECT 'SELECT /* word ' || chr(96 + n) || ' */ $1', n * 1000.0 FROM generate_series(1, 20) n
    UNION ALL VALUES
        ('UPDATE orders /* word t */ SET a = $1 WHERE b IN ($2 /*, ... */)', 500.0),
        ('SELECT /* a-name@of.a.user */ 1', 70000.0),
        ('SELECT 2 WHERE a IN ($2 /*, ... */)', 30000.0)
) AS s (query, milliseconds)
WHERE d.datname = current_database() AND r.rolname = current_user;
INSERT INTO pg_stat_statements VALUES (0, 0, 'SELECT /* of others */ 1', 1e9);
"""


class Views:
    """One reader, and what a scrape would find of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.metrics = PostgresMetrics(database)
        self._registry = CollectorRegistry()
        self._registry.register(self.metrics)

    def told(self, family: str, **labels: str) -> float | None:
        """The value of a series, or none where there is none."""
        return self._registry.get_sample_value(family, labels)

    def series(self, family: str) -> dict[str, float]:
        """The values of a family by its one label."""
        samples = [each for metric in self.metrics.collect() for each in metric.samples if each.name == family]
        return {next(iter(sample.labels.values())): sample.value for sample in samples}


OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
def own_url(postgres: Databases) -> Iterator[str]:
    """A database of this test's own, with the notes in it."""
    url = postgres.create()
    run_sql(url, application.SCHEMA)
    yield url
    postgres.drop(url)


@pytest.fixture
async def views(own_url: str) -> AsyncIterator[Views]:
    database = Database(settings_for(ServiceSettings, "product", own_url))
    async with asyncio.timeout(10):
        while await database.fetchval(OTHERS):  # noqa: ASYNC110 - a backend ends a moment after its client, and tells nobody
            await asyncio.sleep(0.01)
    yield Views(database)
    await database.close()


async def test_every_family_but_that_of_statements_is_there(views: Views) -> None:
    await views.metrics.read()
    found = {metric.name: metric for metric in views.metrics.collect()}
    assert set(found) == set(FAMILIES) - ABSENT
    assert all(metric.documentation for metric in found.values())
    assert views.told("souk_postgres_connections_max") == 200
    assert views.series("souk_postgres_connections") == {
        "active": 0,
        "idle": 1,  # which asks
        "idle in transaction": 0,
        "other": 0,
    }
    assert views.told("souk_postgres_locks_waited_for") == 0
    assert views.told("souk_postgres_longest_transaction_seconds") == 0
    blocks = views.series("souk_postgres_blocks_total")
    assert set(blocks) == {"cache", "disk"}
    assert blocks["cache"] > 0


async def test_an_open_transaction_and_who_waits_for_it(views: Views, own_url: str) -> None:
    await views.database.execute("INSERT INTO note (title) VALUES ('locked')")
    update = "UPDATE note SET title = title"
    holder, waiter = await asyncpg.connect(own_url), await asyncpg.connect(own_url)
    try:
        async with holder.transaction():
            await holder.execute(update)
            waiting = asyncio.create_task(waiter.execute(update))
            async with asyncio.timeout(10):
                while views.told("souk_postgres_locks_waited_for") != 1:
                    await views.metrics.read()
            sessions = views.series("souk_postgres_connections")
            assert (sessions["active"], sessions["idle in transaction"]) == (1, 1)
            assert (views.told("souk_postgres_longest_transaction_seconds") or 0) > 0
        await waiting
    finally:
        await holder.close()
        await waiter.close()


async def test_transactions_and_dead_rows_are_counted(views: Views, own_url: str) -> None:
    async def ended() -> dict[str, float]:
        await views.metrics.read()
        return views.series("souk_postgres_transactions_total")

    await views.database.execute("ALTER TABLE note SET (autovacuum_enabled = off)")
    before = await ended()
    other = await asyncpg.connect(own_url)  # a session tells what it has done when it ends, at the latest
    await other.execute("INSERT INTO note (title) SELECT n::text FROM generate_series(1, 100) n")
    await other.execute("DELETE FROM note")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await other.execute("SELECT 1 / 0")
    await other.close()
    async with asyncio.timeout(10):
        while views.series("souk_postgres_dead_rows")["note"] != 100:
            await views.metrics.read()
    after = await ended()
    assert after["committed"] > before["committed"]
    assert after["rolled back"] > before["rolled back"]
    sizes = views.series("souk_postgres_table_bytes")
    assert set(sizes) == {"note", "comment"}
    assert sizes["note"] > sizes["comment"] > 0


async def test_of_more_tables_than_there_is_room_for_the_largest_are_shown(views: Views) -> None:
    await views.database.execute(";".join(f"CREATE TABLE t{n} (id int)" for n in range(LABELS["table"] + 10)))
    await views.database.execute("INSERT INTO note (title) SELECT n::text FROM generate_series(1, 1000) n")
    await views.metrics.read()
    sizes = views.series("souk_postgres_table_bytes")
    assert len(sizes) == LABELS["table"]
    assert "note" in sizes
    assert set(views.series("souk_postgres_dead_rows")) == set(sizes)


async def test_a_role_of_no_rights_sees_its_own_sessions_and_that_there_are_others(
    postgres: Databases, own_url: str
) -> None:
    role = f"app{uuid4().hex[:8]}"
    name = urlsplit(own_url).path.removeprefix("/")
    run_sql(own_url, f"CREATE ROLE {role} LOGIN")
    run_sql(own_url, f'GRANT CONNECT ON DATABASE "{name}" TO {role}')
    host = urlsplit(own_url).netloc.rpartition("@")[2]
    url = urlsplit(own_url)._replace(netloc=f"{role}@{host}").geturl()
    database = Database(settings_for(ServiceSettings, "product", url))
    views = Views(database)
    other = await asyncpg.connect(own_url)
    try:
        async with other.transaction(), database.connection():
            await other.execute("SELECT 1")
            await views.metrics.read()
        assert {metric.name for metric in views.metrics.collect()} == set(FAMILIES) - ABSENT
        sessions = views.series("souk_postgres_connections")
        assert (sessions["other"], sessions["idle in transaction"]) == (1, 0)
        assert set(views.series("souk_postgres_table_bytes")) == {"note", "comment"}
    finally:
        await other.close()
        await database.close()
        run_sql(own_url, f"DROP OWNED BY {role}")
        run_sql(postgres.url, f"DROP ROLE {role}")


async def test_the_ten_slowest_statements_by_the_names_that_they_give_themselves(views: Views, own_url: str) -> None:
    await views.database.execute(VIEW_OF_STATEMENTS)
    await views.metrics.read()
    assert views.series("souk_postgres_statement_seconds_total") == {}, "the library is not loaded"
    name = urlsplit(own_url).path.removeprefix("/")
    run_sql(own_url, f'ALTER DATABASE "{name}" SET pg_stat_statements.max = 1000')
    await views.database.close()  # the next session knows the setting
    await views.metrics.read()
    # 20 s and half a second of `word t`; what names itself in no such way, or not at all, is one.
    assert views.series("souk_postgres_statement_seconds_total") == {
        "other": 100.0,
        "word t": 20.5,
        **{f"word {letter}": float(ord(letter) - 96) for letter in "lmnopqrs"},
    }


async def test_a_scrape_asks_no_database_and_tells_nothing_that_is_too_old(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(views.metrics.collect()) == []
    await views.metrics.read()
    await views.database.close()
    assert list(views.metrics.collect())
    later = monotonic() + TOLD_S
    monkeypatch.setattr("chassis.postgres_metrics.monotonic", lambda: later)
    assert list(views.metrics.collect()) == []


async def test_a_table_that_is_locked_ends_the_round_and_not_the_next(views: Views, own_url: str) -> None:
    migration = await asyncpg.connect(own_url)
    async with migration.transaction():
        await migration.execute("LOCK TABLE note")
        with pytest.raises(Unavailable):
            await views.metrics.read()
    await migration.close()
    await views.metrics.read()
    assert views.told("souk_postgres_locks_waited_for") == 0, "nothing of the round before is left waiting"


async def test_while_the_database_is_away_metrics_answer_without_it_and_no_exception_is_logged(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chassis.app.READ_EVERY_S", 0.05)
    monkeypatch.setattr("chassis.postgres_metrics.TOLD_S", 1.0)
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    await asyncio.to_thread(server.start)
    try:
        server.execute("CREATE TABLE alembic_version (version_num text)")
        server.execute(f"INSERT INTO alembic_version VALUES ('{expected_revision('product')}')")
        service = build(database_url=server.url("postgres"))
        await service.start()
        async with client(service) as http:

            async def told(*, wanted: bool) -> None:
                async with asyncio.timeout(20):
                    while True:
                        answer = await http.get("/metrics")
                        assert answer.status_code == 200
                        if ("souk_postgres_connections_max 200" in answer.text) == wanted:
                            break
                        await asyncio.sleep(0.02)

            await told(wanted=True)
            await asyncio.to_thread(server.stop)
            await told(wanted=False)
            caplog.clear()
            for _ in range(20):
                await told(wanted=False)
            assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
            await asyncio.to_thread(server.start)
            await told(wanted=True)
        await service.stop()
    finally:
        await asyncio.to_thread(server.kill)
