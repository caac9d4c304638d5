"""PostgreSQL: one pool a service, statements that commit by themselves, and one transaction a request where it takes
more.

The pool is of our own. asyncpg's makes a task and a proxy for each statement, and resets what it takes back; here no
statement sets a session variable, listens or leaves a cursor open, so a connection whose block ended in good order is
as new: docs/decisions/sql-without-an-orm.md has the measurement.

Isolation is READ COMMITTED: everything scarce changes by one guarded statement, which re-reads the row that it locks,
so no statement decides on a value that another transaction has changed: docs/decisions/isolation.md names the proofs.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import asyncpg
import orjson
from fastapi import Depends, Request

from chassis.problems import Unavailable
from chassis.settings import ServiceSettings

SESSION = {
    "jit": "off",  # compiling costs more than our short statements take
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "10s",  # a replica that hangs must not hold row locks
    "lock_timeout": "4s",
    "default_transaction_isolation": "read committed",  # what the guards are written for, whatever a server's default
}

OUTAGES = (
    OSError,  # refused, reset, no such socket
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,  # the connection was closed under the statement
    asyncpg.InternalClientError,  # the server has said farewell, and the connection is not closed yet
    asyncpg.OperatorInterventionError,  # shut down, cancelled, starting up
    asyncpg.InsufficientResourcesError,  # too many connections, disk full, out of memory
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.PostgresIOError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""What says that the database cannot serve now, and never that the statement was wrong."""


if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

IDLE_TIMEOUT_S = 300.0
CLOSE_TIMEOUT_S = 1.0


class Statements(Protocol):
    """What runs SQL: the database itself, where each statement commits by itself, or a transaction."""

    async def fetch(self, query: str, *args: Any) -> Sequence[asyncpg.Record]:
        """All rows."""
        ...

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """The first row, or none."""
        ...

    async def fetchval(self, query: str, *args: Any) -> Any:
        """The first column of the first row, or none."""
        ...

    async def execute(self, query: str, *args: Any) -> str:
        """The command tag, such as `UPDATE 1`."""
        ...

    async def executemany(self, command: str, args: Sequence[Sequence[Any]]) -> None:
        """The same statement for many rows, in one transaction and one round trip."""
        ...


async def _prepare(connection: Any) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, encoder=_dumps, decoder=orjson.loads, schema="pg_catalog", format="text")


def _dumps(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


class _Lease:
    """A connection for the length of a block. What says that the database cannot serve is raised as Unavailable."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: "Database") -> None:
        self._database = database

    async def __aenter__(self) -> Connection:
        try:
            self._connection = await self._database.acquire()
        except OUTAGES as error:
            raise Unavailable(OUTAGE) from error
        return self._connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            self._database.release(self._connection)
            return
        # Cancelled, timed out or cut off: PostgreSQL may still be at the statement.
        if isinstance(error, Exception) and not isinstance(error, BROKEN):
            self._database.release(self._connection)
        else:
            await self._database.discard(self._connection)
        # A DataError is an InterfaceError too, but of the arguments: our fault, not the database's.
        if isinstance(error, OUTAGES) and not isinstance(error, asyncpg.DataError):
            raise Unavailable(OUTAGE) from error


OUTAGE = "the database does not answer"
BROKEN = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What leaves a connection in a state in which nothing more can be asked of it."""


class Database(Statements):
    """A pool of connections that opens them when they are needed, so a service starts while its database is down.

    An outage is raised as Unavailable, by statements and transactions alike; a connection that died is replaced by the
    next use, so service resumes by itself.
    """

    def __init__(self, settings: ServiceSettings, connection_class: type[Connection] = Connection) -> None:
        self._connection_class = connection_class
        self._url = settings.database_url.get_secret_value()
        self._size = settings.database_pool_size
        self._acquire_timeout_s = settings.database_acquire_timeout_s
        self._statement_timeout_s = settings.database_statement_timeout_s
        self._slots = asyncio.Semaphore(self._size)
        self._in_use = 0
        self._idle: deque[tuple[Connection, float]] = deque()
        """Connections and since when they are idle, the one used last at the end."""

    def connection(self) -> "_Lease":
        """A connection of the pool for an `async with` block; each statement on it commits by itself."""
        return _Lease(self)

    async def acquire(self) -> Connection:
        """Take a connection out of the pool; for `connection()`, which gives it back."""
        if self._slots.locked():
            async with asyncio.timeout(self._acquire_timeout_s):
                await self._slots.acquire()
        else:
            await self._slots.acquire()
        self._in_use += 1
        try:
            while self._idle:
                connection, _ = self._idle.pop()
                if not connection.is_closed():
                    return connection
            return await self._open()
        except BaseException:
            self._give_slot_back()
            raise

    async def warm(self) -> None:
        """Open half of the pool, so that the first requests find connections; raises Unavailable.

        A replica that joins under load is sent its share in the same second, and each connection costs a process of the
        server, a key derivation and four round trips.
        """
        async with AsyncExitStack() as held:
            for _ in range((self._size + 1) // 2):
                await held.enter_async_context(self.connection())

    async def _open(self) -> Connection:
        connection: Connection = await asyncpg.connect(
            self._url,
            connection_class=self._connection_class,
            timeout=self._acquire_timeout_s,
            command_timeout=self._statement_timeout_s + 1,
            server_settings=SESSION | {"statement_timeout": f"{self._statement_timeout_s * 1000:.0f}"},
        )
        try:
            await _prepare(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def release(self, connection: Connection) -> None:
        """Give back a connection on which nothing is under way."""
        now = monotonic()
        self._idle.append((connection, now))
        while now - self._idle[0][1] >= IDLE_TIMEOUT_S:
            self._idle.popleft()[0].terminate()
        self._give_slot_back()

    async def discard(self, connection: Connection) -> None:
        """Close a connection on which a statement may be under way; it is cancelled first. The connection counts until
        that is done, so that PostgreSQL is never at more statements than the pool has connections.
        """
        try:
            with suppress(asyncpg.PostgresError, *BROKEN):
                await connection.close(timeout=CLOSE_TIMEOUT_S)
        finally:
            self._give_slot_back()

    def _give_slot_back(self) -> None:
        self._in_use -= 1
        self._slots.release()

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncGenerator[Connection, None]:
        """A transaction: committed when the block ends, rolled back when it raises. Never held over a network call."""
        async with self.connection() as connection, connection.transaction(**options):
            yield connection

    async def fetch(self, query: str, *args: Any) -> Sequence[asyncpg.Record]:
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        async with self.connection() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        async with self.connection() as connection:
            return await connection.fetchval(query, *args)

    async def execute(self, query: str, *args: Any) -> str:
        async with self.connection() as connection:
            return await connection.execute(query, *args)

    async def executemany(self, command: str, args: Sequence[Sequence[Any]]) -> None:
        async with self.connection() as connection:
            await connection.executemany(command, args)

    async def revision(self) -> str:
        """The schema's revision as Alembic noted it; empty where nothing was migrated yet."""
        try:
            return await self.fetchval("SELECT /* revision */ version_num FROM alembic_version") or ""
        except asyncpg.UndefinedTableError:
            return ""

    def in_use(self) -> int:
        """Connections that are serving a statement or a transaction now."""
        return self._in_use

    async def close(self) -> None:
        """Close all connections; waits for running statements."""
        for _ in range(self._size):
            await self._slots.acquire()
        while self._idle:
            with suppress(asyncpg.PostgresError, *BROKEN):
                await self._idle.pop()[0].close(timeout=CLOSE_TIMEOUT_S)
        for _ in range(self._size):
            self._slots.release()


async def database(request: Request) -> Database:
    """The service's database, for a route whose work is one statement."""
    return request.app.state.database


async def _transaction(request: Request) -> AsyncGenerator[Statements, None]:
    async with request.app.state.database.transaction() as connection:
        yield connection


Autocommit = Annotated[Database, Depends(database)]
"""For a route whose work is one statement: it commits when it ends."""

Transaction = Annotated[Statements, Depends(_transaction, scope="function")]
"""One request, one transaction, committed before the response is sent: with `scope="function"` FastAPI leaves the
dependency before it sends the answer, so a commit that fails is answered as an error."""
