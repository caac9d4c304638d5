"""Two transactions that meet: the second is given its statement while the first has executed its own and not ended.

What makes them meet is PostgreSQL's own account of who waits for whom, read on a third connection, and not time.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from chassis.database import Connection, Database
from chassis.problems import Problem, Unavailable
from chassis.settings import ServiceSettings
from chassis.testing import settings_for
from services.order.domain import Superseded
from tests.databases import Databases

Work = Callable[[Database], Awaitable[Any]]

IS_BLOCKED = "SELECT $1 = ANY (pg_blocking_pids($2))"

ends_either_way = pytest.mark.parametrize("commit", [True, False], ids=["first-commits", "first-rolls-back"])


class OneTransaction(Database):
    """A database on one connection, in whose open transaction all is done that a repository does with it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def acquire(self) -> Connection:
        return self._connection

    def release(self, connection: Connection) -> None:
        """Keep it: it is given back when the transaction ends."""

    async def discard(self, connection: Connection) -> None:
        """Keep it: what went wrong is raised, and ends the transaction."""


@dataclass(frozen=True, slots=True)
class Met:
    """What each of the two was answered, a refusal included, and whether the second waited for the first to end."""

    first: Any
    second: Any
    waited: bool


@asynccontextmanager
async def _transaction(connection: Connection, *, commit: bool) -> AsyncGenerator[Database, None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield OneTransaction(connection)
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.commit() if commit else transaction.rollback())


async def _answer(work: Work, database: Database) -> Any:
    try:
        return await work(database)
    except Unavailable:  # a deadlock, or a wait without end
        raise
    except (Problem, Superseded) as refusal:
        return refusal


async def _second(work: Work, connection: Connection) -> Any:
    async with _transaction(connection, commit=True) as database:
        return await _answer(work, database)


class Meeting:
    """Where transactions of one service meet."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def of(self, first: Work, second: Work, *, commit: bool) -> Met:
        """Let two meet. The first ends, by a commit or a rollback, once the second waits for it or is done."""
        async with (
            self.database.connection() as one,
            self.database.connection() as other,
            self.database.connection() as watcher,
            asyncio.TaskGroup() as group,
        ):
            waited = False
            async with _transaction(one, commit=commit) as database:
                answer = await _answer(first, database)
                seconds = group.create_task(_second(second, other))
                while not waited and not seconds.done():
                    waited = await watcher.fetchval(IS_BLOCKED, one.get_server_pid(), other.get_server_pid())
            return Met(answer, await seconds, waited)


@asynccontextmanager
async def meeting_place(postgres: Databases, service: str) -> AsyncGenerator[Meeting, None]:
    """A migrated database of the service, and a pool as the service has it."""
    url = postgres.clone(service)
    database = Database(settings_for(ServiceSettings, service, url))
    yield Meeting(database)
    await database.close()
    postgres.drop(url)
