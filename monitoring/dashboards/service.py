"""Service: one of the four by rate, errors and duration, then what it runs out of, then each of its replicas."""

from monitoring.dashboards.board import Board, Row, Variable
from monitoring.dashboards.panels import (
    A_MINUTE,
    A_SECOND,
    BYTES,
    COUNT,
    MUST_BE_ONE,
    ONLY_IN_A_CLUSTER,
    REQUESTS_A_SECOND,
    SECONDS,
    SHARE,
    Column,
    Query,
    bars,
    falling,
    lines,
    rising,
    rows,
    single,
)

OF = 'job="souk",service="$service"'
"""The replicas of the chosen service."""
PODS = 'job="cadvisor",service="$service",container="service"'
"""Their containers, as the kubelets see them."""

CPUS = (
    f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{PODS}}}[$__rate_interval]))"
    f" or sum by (pod) (rate(process_cpu_seconds_total{{{OF}}}[$__rate_interval]))"
)
MEMORY = (
    f"sum by (pod) (container_memory_working_set_bytes{{{PODS}}})"
    f" or sum by (pod) (process_resident_memory_bytes{{{OF}}})"
)
"""What the kubelet says of a pod, and where there is none what the process says of itself."""

NOW = Row(
    "",
    [
        single(
            1,
            "Replicas that answer",
            "How many replicas Prometheus can ask. Fewer than two: the next loss is an outage. Alert: SoukReplicaDown.",
            Query(f"sum(up{{{OF}}})", ""),
            unit=COUNT,
            width=4,
            height=4,
            steps=falling(orange=2, red=1),
        ),
        single(
            2,
            "Load",
            "Requests a second, those of other services included.",
            Query('sum(souk:requests:rate1m{service="$service"})', ""),
            unit=REQUESTS_A_SECOND,
            width=4,
            height=4,
            empty="no requests",
        ),
        single(
            3,
            "Error rate",
            "The share of answers of the last five minutes with a status of 5xx; below is which status."
            " Alert: SoukErrorBudgetBurn.",
            Query('souk:errors:ratio_rate5m{service="$service"}', ""),
            unit=SHARE,
            decimals=2,
            width=4,
            height=4,
            steps=rising(orange=0.001, red=0.01),
            empty="no requests for five minutes",
        ),
        single(
            4,
            "Response time, p99",
            "99 of 100 answers began within it; the promise is 0.5 s. Alert: SoukLatencyBudgetBurn.",
            Query('souk:latency_seconds:p99{service="$service"}', ""),
            unit=SECONDS,
            width=4,
            height=4,
            steps=rising(orange=0.5, red=1),
            empty="no requests for five minutes",
        ),
        single(
            5,
            "Error budget left, three days",
            "What is left of the 0.1 % of requests at the edge that may fail. Below nothing: no release that is not a"
            " remedy. Alert: SoukErrorBudgetBurn.",
            Query('1 - souk:edge_errors:ratio_rate3d{service="$service"} / 0.001', ""),
            unit=SHARE,
            decimals=0,
            width=4,
            height=4,
            steps=falling(orange=0.5, red=0),
            empty="no requests for three days",
        ),
        single(
            6,
            "Pool in use, the fullest replica",
            "The share of a replica's database connections that serve a statement now. Full: requests wait for one, for"
            " two seconds at most, and are then refused. Alert: SoukPoolSaturated.",
            Query(f"max(souk_database_connections_in_use{{{OF}}} / souk_database_pool_size{{{OF}}})", ""),
            unit=SHARE,
            decimals=0,
            width=4,
            height=4,
            steps=rising(orange=0.7, red=0.9),
            empty="no database",
        ),
    ],
)

RED_SIGNALS = Row(
    "Rate, errors, duration",
    [
        lines(
            11,
            "Answers a second, by status",
            "4xx are the callers' own: 401 signed out, 402 card declined, 409 no stock or a request in progress. 503 is"
            " a refusal that says when to come back; 500 is a defect, and its log line has the trace id.",
            Query(f"sum by (status) (rate(http_requests_total{{{OF}}}[$__rate_interval]))", "{{status}}"),
            unit=A_SECOND,
            width=12,
            empty="no requests",
        ),
        lines(
            12,
            "Response time: p50, p95, p99",
            "All three high: everything is slow. Only p99: some requests wait, for a connection, a lock or a peer.",
            Query('souk:latency_seconds:p50{service="$service"}', "p50"),
            Query('souk:latency_seconds:p95{service="$service"}', "p95"),
            Query('souk:latency_seconds:p99{service="$service"}', "p99"),
            unit=SECONDS,
            width=12,
            steps=rising(orange=0.5, red=1),
            empty="no requests for five minutes",
        ),
        lines(
            14,
            "Requests a second, by operation",
            "What is asked for. `none` are paths that no route knows: many of them are a scanner or a client's"
            " mistake.",
            Query(
                f"sum by (method, handler) (rate(http_requests_total{{{OF}}}[$__rate_interval]))",
                "{{method}} {{handler}}",
            ),
            unit=REQUESTS_A_SECOND,
            width=16,
            height=11,
            empty="no requests",
        ),
        bars(
            13,
            "Slowest operations, p95",
            "The ten operations of the last five minutes that took longest.",
            Query(
                "topk(10, histogram_quantile(0.95, sum by (le, method, handler)"
                f" (rate(http_request_duration_seconds_bucket{{{OF}}}[5m]))))",
                "{{method}} {{handler}}",
            ),
            unit=SECONDS,
            width=8,
            height=11,
            steps=rising(orange=0.25, red=1),
            empty="no requests for five minutes",
        ),
    ],
)

SATURATION = Row(
    "What it runs out of",
    [
        lines(
            21,
            "Requests in flight, by replica",
            "Requests being served at this moment. It grows when answers take longer; at its bound (256) more are"
            " refused.",
            Query('souk:load:in_flight{service="$service"}', "{{pod}}"),
            unit=COUNT,
            width=8,
            steps=rising(orange=128, red=256),
        ),
        lines(
            22,
            "Refused a minute, by class of work",
            "Requests answered 503 since as many were being served. Without overload all are 0.",
            Query(f"60 * sum by (work) (rate(souk_requests_refused_total{{{OF}}}[$__rate_interval]))", "{{work}}"),
            unit=A_MINUTE,
            width=8,
        ),
        lines(
            23,
            "Database connections in use, by replica",
            "Of the pool of each replica. At the pool's size for long: longer statements, or more load than the pool is"
            " for; see PostgreSQL.",
            Query(f"sum by (pod) (souk_database_connections_in_use{{{OF}}})", "{{pod}}"),
            Query(f"max(souk_database_pool_size{{{OF}}})", "size of a pool"),
            unit=COUNT,
            width=8,
            empty="no database",
        ),
        lines(
            24,
            "CPUs, by replica",
            "A replica is one process with one event loop: at one CPU it is full, and at 0.3 on average the autoscaler"
            " adds replicas.",
            Query(CPUS, "{{pod}}"),
            unit=COUNT,
            width=8,
            steps=rising(orange=0.7, red=0.95),
        ),
        lines(
            25,
            "Memory, by replica",
            "The working set. It is bounded; one that grows for hours is a leak, and ends at the container's limit.",
            Query(MEMORY, "{{pod}}"),
            unit=BYTES,
            width=8,
        ),
        lines(
            26,
            "Throttled, by replica",
            "The share of periods in which a container was stopped by its CPU limit. Above a tenth it answers late"
            " though the node is idle: raise the limit.",
            Query(
                f"sum by (pod) (rate(container_cpu_cfs_throttled_periods_total{{{PODS}}}[$__rate_interval]))"
                f" / sum by (pod) (rate(container_cpu_cfs_periods_total{{{PODS}}}[$__rate_interval]))",
                "{{pod}}",
            ),
            unit=SHARE,
            width=8,
            steps=rising(orange=0.1, red=0.3),
            empty=ONLY_IN_A_CLUSTER,
        ),
    ],
)

EACH_REPLICA = Row(
    "Its replicas",
    [
        rows(
            31,
            "Replicas",
            "One that differs from the others is ill itself: delete its pod. All alike: the service, its database, or a"
            " peer.",
            ("pod",),
            (
                Column("up", f"up{{{OF}}}", COUNT, MUST_BE_ONE),
                Column("runs for", f"time() - process_start_time_seconds{{{OF}}}", SECONDS, decimals=0),
                Column("load", 'souk:requests:rate1m{service="$service"}', REQUESTS_A_SECOND),
                Column(
                    "error rate",
                    'souk:pod_errors:ratio_rate5m{service="$service"}',
                    SHARE,
                    rising(orange=0.001, red=0.01),
                    decimals=2,
                ),
                Column("p50", 'souk:pod_latency_seconds:p50{service="$service"}', SECONDS),
                Column(
                    "p99",
                    'souk:pod_latency_seconds:p99{service="$service"}',
                    SECONDS,
                    rising(orange=0.5, red=1),
                ),
                Column("in flight", 'souk:load:in_flight{service="$service"}', COUNT),
                Column(
                    "pool in use",
                    f"souk_database_connections_in_use{{{OF}}} / souk_database_pool_size{{{OF}}}",
                    SHARE,
                    rising(orange=0.7, red=0.9),
                    decimals=0,
                ),
                Column("CPUs", CPUS.replace("$__rate_interval", "1m"), COUNT, rising(orange=0.7, red=0.95), decimals=2),
                Column("memory", MEMORY, BYTES),
                Column("open files", f"process_open_fds{{{OF}}}", COUNT),
            ),
            height=9,
        ),
        lines(
            32,
            "Rounds of background work that failed, a minute",
            "Recovery of sagas and refunds, expiry of reservations, the ledger's check. One that fails again and again"
            " leaves its work undone: its log line `worker_round_failed` says why.",
            Query(
                f'60 * sum by (worker) (rate(souk_worker_runs_total{{{OF},outcome="failed"}}[$__rate_interval]))',
                "{{worker}}",
            ),
            unit=A_MINUTE,
            width=12,
            steps=rising(orange=1, red=10),
            empty="no background work",
        ),
        lines(
            33,
            "Response time of each replica, p99",
            "One line above the others is one ill replica.",
            Query('max by (pod) (souk:pod_latency_seconds:p99{service="$service"})', "{{pod}}"),
            unit=SECONDS,
            width=12,
            empty="no requests for five minutes",
        ),
    ],
)

SERVICE = Board(
    uid="souk-service",
    title="Service",
    description="One service. Look at the top first; then at rate, errors and duration, which say what its callers see;"
    " then at what it runs out of, which says why.",
    rows=(NOW, RED_SIGNALS, SATURATION, EACH_REPLICA),
    variable=Variable("service", 'label_values(up{job="souk"}, service)', "order"),
)
