"""What PostgreSQL's own views tell of a service's database, for `/metrics`.

A worker reads them; a scrape tells what was read last and asks nobody. docs/decisions/postgres-metrics.md says why
there is no exporter, what the service's role may see, and what it costs.
"""

import asyncio
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import NamedTuple

import asyncpg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chassis.database import Database
from chassis.problems import Unavailable
from chassis.telemetry import LABELS, OTHER

READ_EVERY_S = 15.0
READ_TIMEOUT_S = 2.0
"""Where a migration holds a table's lock, its size has to wait for it: then this round tells nothing."""
TOLD_S = 3 * READ_EVERY_S
"""How old what is told may be. Beyond that there are no series, so that an outage shows as a gap and not as calm."""

# One look at the sessions, so that the figures agree. Of other roles' sessions, such as a migration's, the service's
# role sees only that they are there. Its own is what asks here, and waits otherwise.
VIEWS = f"""
WITH /* postgres metrics */ session AS MATERIALIZED (
    SELECT pid = pg_backend_pid() AS own, xact_start, wait_event_type, CASE
        WHEN pid = pg_backend_pid() THEN 'idle'
        WHEN state IN ('active', 'idle') THEN state
        WHEN state LIKE 'idle in transaction%' THEN 'idle in transaction'
        ELSE '{OTHER}' END AS state
    FROM pg_stat_activity
    WHERE datname = current_database() AND usesysid IS NOT NULL
), stored AS MATERIALIZED (
    SELECT relname::text AS name, pg_total_relation_size(relid) AS bytes, n_dead_tup AS dead_rows
    FROM pg_stat_user_tables WHERE schemaname = 'public'
    ORDER BY bytes DESC NULLS LAST, name LIMIT {LABELS["table"]}
)
SELECT 'souk_postgres_connections' AS family, state AS label, count(own)::float8 AS value
FROM unnest(ARRAY['active', 'idle', 'idle in transaction', '{OTHER}']) AS state LEFT JOIN session USING (state)
GROUP BY state
UNION ALL
SELECT 'souk_postgres_connections_max', NULL, current_setting('max_connections')::float8
UNION ALL
SELECT 'souk_postgres_locks_waited_for', NULL, count(*) FROM session WHERE wait_event_type = 'Lock'
UNION ALL
SELECT 'souk_postgres_longest_transaction_seconds', NULL,
    coalesce(extract(epoch FROM clock_timestamp() - min(xact_start)), 0)
FROM session WHERE NOT own
UNION ALL
SELECT 'souk_postgres_table_bytes', name, bytes FROM stored WHERE bytes IS NOT NULL
UNION ALL
SELECT 'souk_postgres_dead_rows', name, dead_rows FROM stored WHERE bytes IS NOT NULL
UNION ALL
SELECT counted.family, counted.label, counted.value
FROM pg_stat_database, LATERAL (VALUES
    ('souk_postgres_transactions', 'committed', xact_commit),
    ('souk_postgres_transactions', 'rolled back', xact_rollback),
    ('souk_postgres_blocks', 'cache', blks_hit),
    ('souk_postgres_blocks', 'disk', blks_read)
) AS counted (family, label, value)
WHERE datname = current_database()
"""
# The setting is there where the server has loaded the library, without which the view is an error.
COUNTS_STATEMENTS = """
SELECT /* postgres metrics */ to_regclass('public.pg_stat_statements') IS NOT NULL
    AND current_setting('pg_stat_statements.max', true) IS NOT NULL
"""
# Each statement of a repository names itself in a comment, which PostgreSQL keeps where it comes after the first word.
# Statements of other roles are not ours to name.
STATEMENTS = f"""
SELECT /* postgres metrics */ 'souk_postgres_statement_seconds' AS family,
    coalesce(substring(query FROM '/\\* ([a-z ]{{1,40}}) \\*/'), '{OTHER}') AS label,
    sum(total_exec_time) / 1000 AS value
FROM public.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND userid = (SELECT oid FROM pg_roles WHERE rolname = current_user)
GROUP BY label ORDER BY value DESC LIMIT {LABELS["statement"]}
"""


class _Family(NamedTuple):
    kind: type[GaugeMetricFamily | CounterMetricFamily]
    help_text: str
    label: str | None = None


FAMILIES = {
    "souk_postgres_connections": _Family(
        GaugeMetricFamily, "Sessions in the service's database by state; other are those of other roles.", "state"
    ),
    "souk_postgres_connections_max": _Family(
        GaugeMetricFamily, "The most sessions that the server takes, for all of its databases."
    ),
    "souk_postgres_locks_waited_for": _Family(
        GaugeMetricFamily, "Sessions of the service's role that wait for a lock which another one has."
    ),
    "souk_postgres_longest_transaction_seconds": _Family(
        GaugeMetricFamily, "Seconds since the oldest open transaction of the service's role began; 0 without one."
    ),
    "souk_postgres_table_bytes": _Family(
        GaugeMetricFamily, "Size of a table with its indexes, the largest tables only.", "table"
    ),
    "souk_postgres_dead_rows": _Family(
        GaugeMetricFamily, "Versions of rows that nobody sees any more and vacuum has not removed, by table.", "table"
    ),
    "souk_postgres_transactions": _Family(
        CounterMetricFamily, "Transactions that ended in the service's database, by outcome.", "outcome"
    ),
    "souk_postgres_blocks": _Family(
        CounterMetricFamily, "Blocks read from PostgreSQL's own cache, or else from the system's or the disk.", "from"
    ),
    "souk_postgres_statement_seconds": _Family(
        CounterMetricFamily, "Seconds in the ten slowest statements, by their names in the repository.", "statement"
    ),
}
"""By the names that the statements give them; a counter is told with `_total`."""


class PostgresMetrics(Collector):
    """Reads when its worker says so, and tells what it read last for as long as that says something."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: Sequence[asyncpg.Record] = ()
        self._read_at = -TOLD_S

    async def read(self) -> None:
        """One round: at most three statements. Raises Unavailable where the database does not answer in time."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                rows = [*await self._database.fetch(VIEWS)]
                if await self._database.fetchval(COUNTS_STATEMENTS):
                    rows += await self._database.fetch(STATEMENTS)
        except TimeoutError:
            raise Unavailable("PostgreSQL's views took too long") from None
        self._rows, self._read_at = rows, monotonic()

    def collect(self) -> Iterable[Metric]:
        """The families, for one scrape; none where what was read is too old."""
        if monotonic() - self._read_at >= TOLD_S:
            return ()
        families = {
            name: family.kind(name, family.help_text, labels=(family.label,) if family.label else ())
            for name, family in FAMILIES.items()
        }
        for name, label, value in self._rows:
            families[name].add_metric((label,) if label else (), value)
        return [family for family in families.values() if family.samples]
