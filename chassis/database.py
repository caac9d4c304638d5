"""PostgreSQL: one pool a service, statements that commit by themselves, and one transaction a request where it takes
more.

Isolation is PostgreSQL's default, READ COMMITTED: everything scarce changes by one guarded statement, which re-reads
the row that it locks, so no statement decides on a value that another transaction has changed.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy
from fastapi import Depends, Request

from chassis.problems import Unavailable
from chassis.settings import ServiceSettings

SESSION = {
    "jit": "off",  # compiling costs more than our short statements take
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "10s",  # a replica that hangs must not hold row locks
    "lock_timeout": "4s",
}

OUTAGES = (
    OSError,  # refused, reset, no such socket
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,  # the connection was closed under the statement
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


class _Connection(Connection):
    def get_reset_query(self) -> str:
        """Nothing to reset: no statement here sets a session variable, listens or leaves a cursor open."""
        return ""


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

    async def __aenter__(self) -> "PoolConnectionProxy[asyncpg.Record]":
        try:
            self._connection = await self._database.acquire()
        except OUTAGES as error:
            raise Unavailable(OUTAGE) from error
        return self._connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            await self._database.release(self._connection)
        except OUTAGES as failure:
            raise Unavailable(OUTAGE) from failure
        # A DataError is an InterfaceError too, but of the arguments: our fault, not the database's.
        if isinstance(error, OUTAGES) and not isinstance(error, asyncpg.DataError):
            raise Unavailable(OUTAGE) from error


OUTAGE = "the database does not answer"


class Database(Statements):
    """A pool of connections that opens them when they are needed, so a service starts while its database is down.

    An outage is raised as Unavailable, by statements and transactions alike; a connection that died is replaced by the
    next use, so service resumes by itself.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._url = settings.database_url.get_secret_value()
        self._size = settings.database_pool_size
        self._acquire_timeout_s = settings.database_acquire_timeout_s
        self._statement_timeout_s = settings.database_statement_timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._taken = 0
        """Connections in use or waited for."""

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=self._size,
                    max_inactive_connection_lifetime=300,
                    connection_class=_Connection,
                    init=_prepare,
                    timeout=self._acquire_timeout_s,
                    command_timeout=self._statement_timeout_s + 1,
                    server_settings=SESSION | {"statement_timeout": f"{self._statement_timeout_s * 1000:.0f}"},
                )
            return self._pool

    def connection(self) -> "_Lease":
        """A connection of the pool for an `async with` block; each statement on it commits by itself."""
        return _Lease(self)

    async def acquire(self) -> "PoolConnectionProxy[asyncpg.Record]":
        """Take a connection out of the pool; for `connection()`, which gives it back."""
        pool = self._pool or await self._open()
        self._taken += 1
        try:
            if self._taken <= self._size:
                return await pool.acquire()  # one is idle, or is opened, which has a timeout of its own
            # The pool's own timeout would cost a task for each statement.
            async with asyncio.timeout(self._acquire_timeout_s):
                return await pool.acquire()
        except BaseException:
            self._taken -= 1
            raise

    async def release(self, connection: "PoolConnectionProxy[asyncpg.Record]") -> None:
        """Give a connection back; one that is broken is closed."""
        try:
            if self._pool is not None:
                await self._pool.release(connection)
        finally:
            self._taken -= 1

    @asynccontextmanager
    async def transaction(self, **options: Any) -> AsyncGenerator["PoolConnectionProxy[asyncpg.Record]", None]:
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
            return await self.fetchval("SELECT version_num FROM alembic_version") or ""
        except asyncpg.UndefinedTableError:
            return ""

    def in_use(self) -> int:
        """Connections that are serving a statement or a transaction now."""
        return 0 if self._pool is None else self._pool.get_size() - self._pool.get_idle_size()

    async def close(self) -> None:
        """Close all connections; waits for running statements."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None


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
