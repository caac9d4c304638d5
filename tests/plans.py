"""How PostgreSQL reads for the statements that a repository sends.

They are planned as for a service that has run for a while. A prepared statement is planned for its values five times;
from then on PostgreSQL takes one plan for whatever values come, where that looks no dearer (`choose_custom_plan` in
plancache.c). EXPLAIN of a statement with parameters would show the former only.
"""

from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from chassis.database import Connection, Database
from chassis.settings import ServiceSettings
from chassis.testing import settings_for
from tests.databases import Databases

PLANNED_FOR_VALUES = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes of a plan, those of its subplans included; of one that was run, those that were needed."""

    nodes: tuple[dict[str, Any], ...]

    @property
    def indexes(self) -> set[str]:
        """The indexes that are read."""
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def whole_tables(self) -> set[str]:
        """The tables that are read from one end to the other."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    def rows_looked_at(self, table: str) -> float:
        """How many rows of a table were read, those that a filter refused included; of a plan that was run."""
        return sum(
            (node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0))
            * node["Actual Loops"]
            for node in self.nodes
            if node.get("Relation Name") == table
        )


class Noting(Database):
    """A database that notes what it is asked."""

    def __init__(self, url: str) -> None:
        super().__init__(settings_for(ServiceSettings, "user", url, database_pool_size=1))
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    async def fetch(self, query: str, *args: Any) -> Sequence[asyncpg.Record]:
        self.asked.append((query, args))
        return await super().fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        self.asked.append((query, args))
        return await super().fetchrow(query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        self.asked.append((query, args))
        return await super().fetchval(query, *args)


@asynccontextmanager
async def to_fill(postgres: Databases, service: str) -> AsyncGenerator[tuple[Noting, Connection]]:
    """A migrated database of the service, and a connection to fill it by that has no time limit."""
    url = postgres.clone(service)
    database = Noting(url)
    filling = await asyncpg.connect(url)
    try:
        yield database, filling
    finally:
        await filling.close()
        await database.close()
        postgres.drop(url)


async def plan_of(database: Noting, work: Awaitable[Any]) -> Plan:
    """The plan by which the one statement that `work` sends is run from its sixth time on."""
    database.asked.clear()
    await work
    [(query, args)] = database.asked
    values = f"({', '.join(map(_literal, args))})" if args else ""
    async with database.connection() as connection:
        await connection.execute(f"PREPARE asked AS {query}")
        for _ in range(PLANNED_FOR_VALUES):
            await connection.execute(f"EXPLAIN EXECUTE asked {values}")
        [(plans,)] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked {values}")
        await connection.execute("DEALLOCATE asked")
    return Plan(tuple(_nodes(plans[0]["Plan"])))


async def plan_without_running(database: Database, query: str, *args: Any) -> Plan:
    """The plan of a statement for these values; for one that writes, or that is sent once in a while."""
    async with database.connection() as connection:
        [(plans,)] = await connection.fetch(f"EXPLAIN (FORMAT JSON) {query}", *args)
    return Plan(tuple(_nodes(plans[0]["Plan"])))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if plan.get("Actual Loops") == 0:
        return
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _literal(value: Any) -> str:
    """A value as EXECUTE takes it, which has no parameters of its own."""
    match value:
        case None:
            return "NULL"
        case bool() | int() | float():
            return str(value)
        case [*items]:
            return f"'{{{','.join(map(str, items))}}}'"
        case str() | UUID():
            return "'" + str(value).replace("'", "''") + "'"
        case _:
            return f"'{value}'"
