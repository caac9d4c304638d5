import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from local.postgres import (
    SETTINGS,
    DataFolderForeign,
    DataFolderInUse,
    DataFolderVersionMismatch,
    EmbeddedPostgres,
    ServerFailed,
)

Server = Callable[..., EmbeddedPostgres]

OWNER = """
import sys
from pathlib import Path
from local.postgres import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1]))
postgres.start()
postgres.execute("CREATE TABLE note (text text)")
postgres.execute("INSERT INTO note VALUES ('kept')")
print(postgres.pid, postgres.url("postgres"), flush=True)
sys.stdin.read()
"""
"""A process that owns a server until its standard input closes."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Make a server on the test's own folder, and end it after the test."""
    made: list[EmbeddedPostgres] = []

    def make(data_dir: Path = tmp_path / "postgres") -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(data_dir))
        return made[-1]

    yield make
    for postgres in made:
        postgres.kill()


@pytest.fixture(scope="module")
def throwaway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One server for the tests that neither end nor break it."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("throwaway") / "postgres", durable=False)
    postgres.start()
    yield postgres
    postgres.stop()


@pytest.fixture
def owner(tmp_path: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another process that owns a server on the test's folder."""
    command = (sys.executable, "-c", OWNER, str(tmp_path / "postgres"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


async def test_starts_and_answers_over_asyncpg(server: Server) -> None:
    postgres = server()
    postgres.start()
    connection = await asyncpg.connect(postgres.url("postgres"))
    assert await connection.fetchval("SHOW server_version_num") >= "180000"
    assert await connection.fetchval("SHOW data_checksums") == "on"
    for name, value in SETTINGS.items():
        shown = await connection.fetchval(
            "SELECT setting = $2 OR current_setting($1) = $2 FROM pg_settings WHERE lower(name) = $1",
            name,
            value,
        )
        assert shown, name
    await connection.close()


def test_takes_connections_from_its_own_account_and_over_no_network(server: Server) -> None:
    postgres = server()
    postgres.start()
    assert postgres.pid is not None
    sockets = psutil.Process(postgres.pid).net_connections("inet")
    assert not [socket for socket in sockets if socket.status == psutil.CONN_LISTEN]
    socket_dir = Path(postgres.url("postgres").partition("host=")[2])
    assert socket_dir.stat().st_mode & 0o777 == 0o700


def test_throwaway_server_does_not_wait_for_the_disk(throwaway: EmbeddedPostgres) -> None:
    assert throwaway.execute("SHOW fsync") == "off"
    assert throwaway.execute("SHOW synchronous_commit") == "off"


def test_keeps_data_and_address_across_a_restart(server: Server) -> None:
    postgres = server()
    postgres.start()
    url = postgres.url("shop")
    postgres.create_database("shop")
    postgres.execute("CREATE TABLE note AS SELECT 'kept' AS text", "shop")
    postgres.stop()
    assert postgres.pid is None
    postgres.start()
    assert postgres.url("shop") == url
    assert postgres.execute("SELECT text FROM note", "shop") == "kept"


def test_survives_sigkill_with_what_was_committed(server: Server) -> None:
    postgres = server()
    postgres.start()
    postgres.execute("CREATE TABLE note (text text)")
    for _ in range(5):
        postgres.execute("INSERT INTO note VALUES ('acknowledged')")
    postgres.kill()
    assert (postgres.data_dir / "postmaster.pid").exists()
    postgres.start()
    assert postgres.execute("SELECT count(*) FROM note") == "5"


def test_pid_file_whose_pid_went_to_another_process_is_stale(server: Server) -> None:
    postgres = server()
    postgres.start()
    postgres.kill()
    pid_file = postgres.data_dir / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    postgres.start()
    assert postgres.execute("SELECT 1") == "1"


def test_starts_again_after_the_server_alone_was_killed(server: Server) -> None:
    postgres = server()
    postgres.start()
    first = postgres.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first)], 10)
    postgres.start()
    assert postgres.pid not in (None, first)
    assert postgres.execute("SELECT 1") == "1"


def test_second_start_is_refused_and_disturbs_nothing(server: Server) -> None:
    postgres = server()
    postgres.start()
    with pytest.raises(DataFolderInUse, match=f"in use by the process {os.getpid()}"):
        server().start()
    with pytest.raises(DataFolderInUse):
        postgres.start()
    assert postgres.execute("SELECT 1") == "1"


def test_start_is_refused_while_another_process_owns_the_folder(server: Server, owner: "subprocess.Popen[str]") -> None:
    assert owner.stdout is not None
    assert owner.stdout.readline()
    with pytest.raises(DataFolderInUse, match=f"in use by the process {owner.pid}"):
        server().start()


def test_server_ends_with_an_owner_that_was_killed_and_the_next_start_finds_its_data(
    server: Server, owner: "subprocess.Popen[str]"
) -> None:
    assert owner.stdout is not None
    pid, url = owner.stdout.readline().split()
    orphan = psutil.Process(int(pid))
    owner.kill()
    owner.wait()
    postgres = server()
    postgres.start()  # at once: it waits for the orphan's shutdown
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert postgres.execute("SELECT text FROM note") == "kept"
    assert not Path(url.partition("host=")[2]).exists()


def test_folder_of_another_major_version_is_refused_untouched(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    folder.mkdir()
    (folder / "PG_VERSION").write_text("17\n")
    with pytest.raises(DataFolderVersionMismatch, match=r"made by PostgreSQL 17, this is 18"):
        server().start()
    assert [path.name for path in folder.iterdir()] == ["PG_VERSION"]


def test_folder_of_something_else_is_refused_untouched(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(DataFolderForeign, match="neither empty nor"):
        server().start()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_initdb_that_did_not_finish_leaves_no_trace(server: Server, tmp_path: Path) -> None:
    incomplete = tmp_path / "postgres.incomplete-earlier"
    incomplete.mkdir()
    (incomplete / "PG_VERSION").write_text("18\n")
    server().start()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["postgres", "postgres.lock"]


def test_failed_start_names_the_reason_and_frees_the_folder(server: Server) -> None:
    postgres = server()
    postgres.start()
    postgres.stop()
    control = postgres.data_dir / "global" / "pg_control"
    saved = control.read_bytes()
    control.write_bytes(bytes(len(saved)))
    with pytest.raises(ServerFailed, match=r"did not start: (PANIC|FATAL): "):
        postgres.start()
    assert postgres.pid is None
    control.write_bytes(saved)
    server().start()


def test_long_path_of_data_folder(server: Server, tmp_path: Path) -> None:
    deep = tmp_path / "a-folder-with-a-long-name" / ("n" * 100) / "postgres"
    postgres = server(deep)
    postgres.start()
    assert postgres.execute("SELECT 1") == "1"


def test_folder_below_one_that_is_closed_to_others(server: Server, tmp_path: Path) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    postgres = server(closed / "postgres")
    postgres.start()
    assert postgres.execute("SELECT 1") == "1"


@pytest.mark.parametrize("name", ["shop", 'quoted "name"', "emoji-\N{SHOPPING TROLLEY}", "a/b?c"])
def test_create_database_is_idempotent_and_its_url_leads_to_it(throwaway: EmbeddedPostgres, name: str) -> None:
    throwaway.create_database(name)
    throwaway.create_database(name)
    assert throwaway.execute("SELECT current_database()", name) == name


def test_create_database_copies_its_template(throwaway: EmbeddedPostgres) -> None:
    throwaway.create_database("first")
    throwaway.execute("CREATE TABLE note AS SELECT 'copied' AS text", "first")
    throwaway.create_database("second", template="first")
    assert throwaway.execute("SELECT text FROM note", "second") == "copied"


def test_failed_statement_names_its_sqlstate(throwaway: EmbeddedPostgres) -> None:
    with pytest.raises(ServerFailed, match="42P01"):
        throwaway.execute("SELECT * FROM nothing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to root")
def test_folder_that_root_copied_works(server: Server, tmp_path: Path) -> None:
    postgres = server()
    postgres.start()
    postgres.execute("CREATE TABLE note AS SELECT 'kept' AS text")
    postgres.stop()
    shutil.copytree(postgres.data_dir, tmp_path / "copy")
    copy = server(tmp_path / "copy")
    copy.start()
    assert copy.execute("SELECT text FROM note") == "kept"
