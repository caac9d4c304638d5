"""PostgreSQL, as each service sees its own database through PostgreSQL's views."""

from monitoring.dashboards import alike
from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import (
    A_SECOND,
    BYTES,
    COUNT,
    ONLY_IN_A_CLUSTER,
    SECONDS,
    SHARE,
    Query,
    bars,
    falling,
    lines,
    rising,
    single,
)

NO_STATEMENTS = "this PostgreSQL has no pg_stat_statements (the embedded one never has)"
IN_POD = 'job="cadvisor",container="postgres"'
# Every replica of a service tells the same of their database, so that one is enough: the largest, by service.
CONNECTIONS = "sum by (service) (max by (service, state) (souk_postgres_connections))"

NOW = Row(
    "",
    [
        single(
            1,
            "Connections in use",
            "The share of max_connections that the four services hold. Near 100 % the next replica that starts finds"
            " none: fewer replicas, smaller pools, or a larger max_connections.",
            Query(f"sum({CONNECTIONS}) / max(souk_postgres_connections_max)", ""),
            unit=SHARE,
            decimals=0,
            width=4,
            height=4,
            steps=rising(orange=0.7, red=0.9),
            empty="no database answers",
        ),
        single(
            2,
            "Sessions that wait for a lock",
            "A few for moments are what locks are for. For long: the longest transaction beside it holds one; find"
            " it in"
            " pg_stat_activity, and pg_terminate_backend it.",
            Query("sum(max by (service) (souk_postgres_locks_waited_for))", ""),
            unit=COUNT,
            width=4,
            height=4,
            steps=rising(orange=3, red=10),
            empty="no database answers",
        ),
        single(
            3,
            "Longest transaction",
            "No transaction of the shop takes seconds, since none is held across a call. Minutes are somebody with"
            " psql, or a backup.",
            Query("max(souk_postgres_longest_transaction_seconds)", ""),
            unit=SECONDS,
            decimals=1,
            width=4,
            height=4,
            steps=rising(orange=5, red=60),
            empty="no database answers",
        ),
        single(
            4,
            "Transactions a second",
            "All four databases, committed and rolled back.",
            Query("sum(max by (service, outcome) (rate(souk_postgres_transactions_total[1m])))", ""),
            unit=A_SECOND,
            decimals=0,
            width=4,
            height=4,
            empty="no database answers",
        ),
        single(
            5,
            "Blocks found in the cache",
            "The share of blocks that need no read of the disk. Below 99 % for long the tables that are in use have"
            " outgrown shared_buffers.",
            Query(
                'sum(max by (service) (rate(souk_postgres_blocks_total{from="cache"}[5m])))'
                " / sum(max by (service, from) (rate(souk_postgres_blocks_total[5m])))",
                "",
            ),
            unit=SHARE,
            decimals=1,
            width=4,
            height=4,
            steps=falling(orange=0.99, red=0.9),
            empty="no database answers",
        ),
        single(
            6,
            "Size of all tables",
            "With their indexes. What grows without orders is bloat: see dead rows.",
            Query("sum(max by (service, table) (souk_postgres_table_bytes))", ""),
            unit=BYTES,
            width=4,
            height=4,
            empty="no database answers",
        ),
    ],
)

SESSIONS = Row(
    "Connections, transactions, locks",
    [
        lines(
            11,
            "Connections, by state",
            "Active ones run a statement. Idle in transaction is a transaction that waits for its client: more than"
            " moments of it is a defect.",
            Query("sum by (state) (max by (service, state) (souk_postgres_connections))", "{{state}}"),
            unit=COUNT,
            width=8,
            empty="no database answers",
        ),
        lines(
            12,
            "Transactions a second",
            "Rolled back ones are refusals and collisions; as many as committed ones are a defect, or an attack.",
            Query(
                "max by (service, outcome) (rate(souk_postgres_transactions_total[$__rate_interval]))",
                "{{service}} {{outcome}}",
            ),
            unit=A_SECOND,
            width=8,
            empty="no database answers",
        ),
        alike.pool_in_use(
            13,
            "At 100 % requests wait for a connection: longer statements, or more load than the pool is for."
            " Alert: SoukPoolSaturated.",
        ),
        lines(
            14,
            "Sessions that wait for a lock",
            "By service. Rows are locked in the order of their ids, so there are no deadlocks; many who buy one product"
            " do wait for each other.",
            Query("max by (service) (souk_postgres_locks_waited_for)", "{{service}}"),
            unit=COUNT,
            width=8,
            steps=rising(orange=3, red=10),
            empty="no database answers",
        ),
        lines(
            15,
            "Longest transaction",
            "By service.",
            Query("max by (service) (souk_postgres_longest_transaction_seconds)", "{{service}}"),
            unit=SECONDS,
            width=8,
            steps=rising(orange=5, red=60),
            empty="no database answers",
        ),
        lines(
            16,
            "Blocks read from the disk a second",
            "What the cache did not have, by service.",
            Query('max by (service) (rate(souk_postgres_blocks_total{from="disk"}[$__rate_interval]))', "{{service}}"),
            unit=A_SECOND,
            width=8,
            empty="no database answers",
        ),
    ],
)

CONTENT = Row(
    "Statements and tables",
    [
        bars(
            21,
            "Time in a second, by statement",
            "Those that take the most time together: 1 s is a whole CPU or disk for one of them. Named as in the"
            " services' repository.py, where EXPLAIN is for.",
            Query(
                "topk(10, max by (service, statement) (rate(souk_postgres_statement_seconds_total[5m])))",
                "{{service}} {{statement}}",
            ),
            unit=SECONDS,
            width=8,
            height=10,
            empty=NO_STATEMENTS,
        ),
        bars(
            22,
            "Largest tables",
            "With their indexes.",
            Query(
                "topk(10, max by (service, table) (souk_postgres_table_bytes))",
                "{{service}} {{table}}",
            ),
            unit=BYTES,
            width=8,
            height=10,
            empty="no database answers",
        ),
        bars(
            23,
            "Dead rows",
            "What updates and deletes have left and autovacuum has not cleared away. Some always; ones that only grow:"
            " an old transaction keeps them.",
            Query("topk(10, max by (service, table) (souk_postgres_dead_rows))", "{{service}} {{table}}"),
            unit=COUNT,
            width=8,
            height=10,
            steps=rising(orange=100_000, red=1_000_000),
            empty="no database answers",
        ),
    ],
)

THE_POD = Row(
    "The server's pod",
    [
        lines(
            31,
            "CPUs",
            "Of the container, with its share of throttled periods beside.",
            Query(f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{IN_POD}}}[$__rate_interval]))", "{{pod}}"),
            unit=COUNT,
            width=8,
            empty=ONLY_IN_A_CLUSTER,
        ),
        lines(
            32,
            "Throttled",
            "The share of periods in which its CPU limit stopped it: every statement waits then.",
            Query(
                f"sum by (pod) (rate(container_cpu_cfs_throttled_periods_total{{{IN_POD}}}[$__rate_interval]))"
                f" / sum by (pod) (rate(container_cpu_cfs_periods_total{{{IN_POD}}}[$__rate_interval]))",
                "{{pod}}",
            ),
            unit=SHARE,
            width=8,
            steps=rising(orange=0.1, red=0.3),
            empty=ONLY_IN_A_CLUSTER,
        ),
        lines(
            33,
            "Memory",
            "The working set: shared_buffers, the sessions, and pages of files that are in use.",
            Query(f"sum by (pod) (container_memory_working_set_bytes{{{IN_POD}}})", "{{pod}}"),
            unit=BYTES,
            width=8,
            empty=ONLY_IN_A_CLUSTER,
        ),
    ],
)

POSTGRES = Board(
    uid="souk-postgres",
    title="PostgreSQL",
    description="The four databases. Look at the first number and at locks:"
    " nearly all that goes wrong is one of the two.",
    rows=(NOW, SESSIONS, CONTENT, THE_POD),
)
