"""What a request sees of its database: commits before the answer, outages as 503, and service again by itself."""

import asyncio
from pathlib import Path
from time import monotonic
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from chassis.app import Service
from chassis.database import IDLE_TIMEOUT_S, Database
from chassis.problems import Unavailable
from chassis.settings import ServiceSettings
from chassis.testing import client, settings_for
from chassis.tests import application
from chassis.tests.conftest import Build
from chassis.tests.test_problems import problem
from local.postgres import EmbeddedPostgres
from tests.databases import Databases, run_sql

SOCKET = ".s.PGSQL.5432"


async def test_what_was_answered_is_committed(service: Service) -> None:
    title = str(uuid4())
    async with client(service) as http:
        created = await http.post("/notes", json={"title": title})
        assert created.status_code == 201
        assert (await http.get(f"/notes/{created.json()['id']}")).json() == created.json()


async def test_a_commit_that_fails_is_answered_as_an_error_and_leaves_nothing(service: Service) -> None:
    note_id = uuid4()
    async with client(service) as http:
        # The statement succeeds and the route returns 201; the deferred constraint speaks when COMMIT comes.
        answer = await http.post("/comments", json={"note_id": str(note_id)})
    problem(answer, 500, "internal-error")
    assert await service.database.fetchval("SELECT count(*) FROM comment WHERE note_id = $1", note_id) == 0
    assert service.database.in_use() == 0


async def test_a_transaction_that_raises_is_rolled_back(service: Service) -> None:
    title = str(uuid4())

    async def insert_twice() -> None:
        async with service.database.transaction() as transaction:
            for _ in range(2):
                await transaction.execute("INSERT INTO note (title) VALUES ($1)", title)

    with pytest.raises(asyncpg.UniqueViolationError):
        await insert_twice()
    assert await service.database.fetchval("SELECT count(*) FROM note WHERE title = $1", title) == 0


async def test_transactions_are_read_committed_whatever_the_default_of_the_database(postgres: Databases) -> None:
    url = postgres.create()
    name = urlsplit(url).path.removeprefix("/")
    run_sql(url, f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    database = Database(settings_for(ServiceSettings, "user", url))
    assert await database.fetchval("SHOW transaction_isolation") == "read committed"
    async with database.transaction() as transaction:
        assert await transaction.fetchval("SHOW transaction_isolation") == "read committed"
    await database.close()
    postgres.drop(url)


async def test_a_statement_that_takes_too_long_is_ended(build: Build) -> None:
    database = build(database_statement_timeout_s=0.1).database
    with pytest.raises(Unavailable) as refused:
        await database.fetchval("SELECT pg_sleep(60)")
    assert refused.value.headers["Retry-After"]
    assert await database.fetchval("SELECT 1") == 1


async def test_a_request_waits_for_a_connection_only_so_long(build: Build) -> None:
    database = build(database_pool_size=1, database_acquire_timeout_s=0.1).database
    async with database.connection():
        assert database.in_use() == 1
        with pytest.raises(Unavailable):
            await database.fetchval("SELECT 1")
    assert await database.fetchval("SELECT 1") == 1


async def test_a_wrong_argument_is_our_fault_and_no_outage(service: Service) -> None:
    with pytest.raises(asyncpg.DataError):
        await service.database.fetchval("SELECT $1::int", "one")
    assert await service.database.fetchval("SELECT 1") == 1


async def test_a_cancelled_request_gives_its_connection_back(build: Build) -> None:
    database = build(database_pool_size=1).database
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await database.fetchval("SELECT pg_sleep(60)")
    assert await database.fetchval("SELECT 1") == 1


async def test_a_cancelled_statement_is_ended_before_another_takes_its_place(build: Build) -> None:
    database, other = build(database_pool_size=1).database, build().database
    marker = f"SELECT pg_sleep(60) -- {uuid4()}"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await database.execute(marker)
    assert database.in_use() == 0
    running = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND state = 'active'"
    assert await other.fetchval(running, marker) == 0


async def test_a_statement_that_is_refused_keeps_its_connection(build: Build) -> None:
    database = build(database_pool_size=1).database
    backend = await database.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await database.fetchval("SELECT 1 / 0")
    assert await database.fetchval("SELECT pg_backend_pid()") == backend


async def test_a_connection_that_nobody_needs_any_more_is_closed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    database, other = build().database, build().database
    open_now = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)"
    async with database.connection() as first, database.connection() as second:
        backends = [await each.fetchval("SELECT pg_backend_pid()") for each in (first, second)]
    assert await other.fetchval(open_now, backends) == 2
    later = monotonic() + IDLE_TIMEOUT_S
    monkeypatch.setattr("chassis.database.monotonic", lambda: later)
    kept = await database.fetchval("SELECT pg_backend_pid()")
    assert first.is_closed() != second.is_closed()
    assert kept in backends


async def test_json_goes_in_and_comes_out_as_values(service: Service) -> None:
    value = {"a": [1, None, "é"]}
    assert await service.database.fetchval("SELECT $1::jsonb", value) == value
    assert await service.database.fetchval("SELECT $1::json", value) == value


async def test_many_rows_land_in_one_round_trip_or_not_at_all(service: Service) -> None:
    titles = [(str(uuid4()),) for _ in range(3)]
    with pytest.raises(asyncpg.UniqueViolationError):
        await service.database.executemany("INSERT INTO note (title) VALUES ($1)", [*titles, titles[0]])
    await service.database.executemany("INSERT INTO note (title) VALUES ($1)", titles)
    found = await service.database.fetch("SELECT title FROM note WHERE title = ANY($1)", [title for (title,) in titles])
    assert len(found) == 3


async def test_an_outage_is_503_and_service_resumes_by_itself(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    await asyncio.to_thread(server.start)
    try:
        server.execute(application.SCHEMA)
        service = application.create_app(settings_for(ServiceSettings, "product", server.url("postgres")))
        async with client(service) as http:
            path = f"/notes/{(await http.post('/notes', json={'title': 'kept'})).json()['id']}"
            await asyncio.to_thread(server.stop)
            for _ in range(3):
                answer = await http.get(path)
                problem(answer, 503, "unavailable")
                assert answer.headers["retry-after"]
            await asyncio.to_thread(server.start)
            assert (await http.get(path)).json()["title"] == "kept"
        await service.database.close()
    finally:
        await asyncio.to_thread(server.kill)


async def test_a_service_can_be_built_while_its_database_is_down() -> None:
    unreachable = "postgresql://souk@/souk?host=/nowhere"
    service = application.create_app(settings_for(ServiceSettings, "product", unreachable))
    async with client(service) as http:
        assert (await http.get("/livez")).status_code == 200
        problem(await http.get(f"/notes/{uuid4()}"), 503, "unavailable")


async def test_a_connection_that_the_server_has_ended_is_replaced(build: Build) -> None:
    database = build(database_pool_size=1).database
    backend = await database.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(Unavailable):
        await database.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await database.fetchval("SELECT pg_backend_pid()") != backend


async def test_a_statement_after_the_servers_farewell_is_unavailable_and_its_connection_replaced(
    build: Build, notes_url: str, tmp_path: Path
) -> None:
    parts = urlsplit(notes_url)
    server = Path(parse_qs(parts.query)["host"][0], SOCKET)
    said_farewell = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what client and server say, but not that the server has gone."""
        from_server, to_server = await asyncio.open_unix_connection(server)

        async def ask() -> None:
            while content := await reader.read(2**16):
                to_server.write(content)
            to_server.close()

        asking = asyncio.create_task(ask())
        while content := await from_server.read(2**16):
            writer.write(content)
        await writer.drain()
        said_farewell.set()
        await asking
        writer.close()

    async with await asyncio.start_unix_server(relay, tmp_path / SOCKET):
        database = build(database_pool_size=1, database_url=parts._replace(query=f"host={tmp_path}").geturl()).database
        backend = await database.fetchval("SELECT pg_backend_pid()")
        run_sql(notes_url, f"SELECT pg_terminate_backend({backend})")
        await said_farewell.wait()
        with pytest.raises(Unavailable):
            await database.fetchval("SELECT 1")
        assert await database.fetchval("SELECT pg_backend_pid()") != backend
        await database.close()


async def test_a_schema_that_nobody_has_made_has_no_revision(postgres: Databases) -> None:
    url = postgres.create()
    database = Database(settings_for(ServiceSettings, "product", url))
    assert await database.revision() == ""
    await database.close()
    postgres.drop(url)
