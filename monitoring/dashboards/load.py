"""Load test and drills: what was done to the shop, by lines through all panels, and what came of it.

A drill tells Grafana nothing. It works from outside, and what it does is seen from inside: a replica that is not
scraped, a process that began anew, an endpoint that is left out, a saga that another replica took up.
"""

from monitoring.dashboards import alike
from monitoring.dashboards.board import Board, Event, Row
from monitoring.dashboards.panels import (
    A_MINUTE,
    A_SECOND,
    COUNT,
    REQUESTS_A_SECOND,
    SECONDS,
    SHARE,
    Query,
    falling,
    lines,
    rising,
    single,
)

EVENTS = (
    Event("not scraped", 'max by (pod) (1 - up{job="souk"}) > 0', "{{pod}} does not answer", "red"),
    Event(
        "started", 'max by (pod) (time() - process_start_time_seconds{job="souk"}) < 15', "{{pod}} has started", "green"
    ),
    Event(
        "left out",
        'max by (service, peer) (souk_peer_endpoints_ejected{job="souk"}) > 0',
        "{{service}} leaves out a replica of {{peer}}",
        "orange",
    ),
    Event("sagas taken up", "sum(increase(souk_sagas_recovered_total[30s])) > 0", "orders taken up", "blue"),
)

NOW = Row(
    "",
    [
        single(
            1,
            "Load",
            "Requests a second that the services answer, calls between them included.",
            Query("sum(souk:requests:rate1m)", ""),
            unit=REQUESTS_A_SECOND,
            decimals=0,
            width=4,
            height=4,
            empty="no requests",
        ),
        single(
            2,
            "Success rate, the worst service",
            "Of the last five minutes.",
            Query("min(souk:success:ratio_rate5m)", ""),
            unit=SHARE,
            decimals=2,
            width=4,
            height=4,
            steps=falling(orange=0.999, red=0.99),
            empty="no requests for five minutes",
        ),
        single(
            3,
            "Response time, p99, all services",
            "Of the last minute.",
            Query(
                "histogram_quantile(0.99, sum by (le)"
                ' (rate(http_request_duration_highr_seconds_bucket{job="souk"}[1m])))',
                "",
            ),
            unit=SECONDS,
            width=4,
            height=4,
            steps=rising(orange=0.5, red=1),
            empty="no requests",
        ),
        single(
            4,
            "Replicas that do not answer",
            "Of those that Prometheus was told of.",
            Query('count(up{job="souk"} == 0) or vector(0)', ""),
            unit=COUNT,
            width=4,
            height=4,
            steps=rising(orange=1, red=2),
        ),
        single(
            5,
            "Orders on their way",
            "Orders that are not final now. After the load has gone it must go to 0.",
            Query("max(souk_orders_unfinished)", ""),
            unit=COUNT,
            width=4,
            height=4,
        ),
        alike.ledger_imbalance(
            6,
            "0, whatever a drill does.",
        ),
    ],
)

FROM_OUTSIDE = Row(
    "What shoppers see",
    [
        alike.answers_at_the_edge(
            11,
            "The load as it arrives. 5xx beside a line are its harm; those long after it are a defect.",
            width=12,
        ),
        lines(
            12,
            "Response time of all requests: p50, p95, p99",
            "It may peak at a line, and must come back.",
            *(
                Query(
                    f"histogram_quantile(0.{percent}, sum by (le)"
                    ' (rate(http_request_duration_highr_seconds_bucket{job="souk"}[$__rate_interval])))',
                    f"p{percent}",
                )
                for percent in (50, 95, 99)
            ),
            unit=SECONDS,
            width=12,
            steps=rising(orange=0.5, red=1),
            empty="no requests",
        ),
        alike.orders(
            13,
            "The business under harm: confirmed may dip, and must come back.",
            width=12,
        ),
        lines(
            14,
            "Answers of 5xx a second, by service",
            "Which service failed. 503 with Retry-After is a refusal, not a defect.",
            Query(
                'sum by (service) (rate(http_requests_total{job="souk",status=~"5.."}[$__rate_interval]))'
                ' or 0 * sum by (service) (up{job="souk"})',
                "{{service}}",
            ),
            unit=A_SECOND,
            width=12,
            steps=rising(orange=0.1, red=1),
        ),
    ],
)

FROM_INSIDE = Row(
    "What goes on inside",
    [
        lines(
            21,
            "Replicas that answer, by service",
            "What a drill takes away, and when it is back; with the autoscaler on, what it adds.",
            Query('sum by (service) (up{job="souk"})', "{{service}}"),
            unit=COUNT,
            width=8,
        ),
        lines(
            22,
            "CPUs, by workload",
            "Of their containers in a cluster, else of the services' processes.",
            Query(
                'sum by (service) (rate(container_cpu_usage_seconds_total{job="cadvisor"}[$__rate_interval]))'
                ' or sum by (service) (rate(process_cpu_seconds_total{job="souk"}[$__rate_interval]))',
                "{{service}}",
            ),
            unit=COUNT,
            width=8,
        ),
        lines(
            23,
            "Requests in flight, by service",
            "It grows when answers take longer: the first sign of overload.",
            Query("sum by (service) (souk:load:in_flight)", "{{service}}"),
            unit=COUNT,
            width=8,
        ),
        lines(
            24,
            "Orders on their way, and the oldest",
            "An order whose replica was lost waits until its lease ends, ten seconds, and is then taken up by another.",
            Query("max(souk_orders_unfinished)", "orders"),
            Query("max(souk_order_oldest_unfinished_seconds)", "seconds of the oldest"),
            unit=COUNT,
            width=8,
        ),
        lines(
            25,
            "Sagas taken up and taken back, a minute",
            "What recovery does: orders of a lost replica, and orders that could not be finished and were undone.",
            Query("60 * sum(rate(souk_sagas_recovered_total[$__rate_interval]))", "taken up"),
            Query("60 * sum(rate(souk_compensations_total[$__rate_interval]))", "taken back"),
            unit=A_MINUTE,
            width=8,
        ),
        lines(
            26,
            "Refused a minute, by class of work",
            "503, since as many were being served: the bound that keeps an overload from being an outage.",
            Query('60 * sum by (work) (rate(souk_requests_refused_total{job="souk"}[$__rate_interval]))', "{{work}}"),
            unit=A_MINUTE,
            width=8,
        ),
        lines(
            27,
            "Calls repeated and endpoints left out, a minute",
            "How the callers get around a lost replica.",
            Query('60 * sum(rate(souk_peer_retries_total{job="souk"}[$__rate_interval]))', "repeated"),
            Query('60 * sum(rate(souk_peer_ejections_total{job="souk"}[$__rate_interval]))', "left out"),
            unit=A_MINUTE,
            width=8,
        ),
        alike.pool_in_use(
            28,
            "At 100 % requests wait for a connection to the database.",
        ),
        lines(
            29,
            "Calls to the payment provider without an answer, a minute",
            "The simulated provider loses answers to tok_timeout. Each is asked again until its outcome is known.",
            Query("60 * sum(rate(souk_provider_timeouts_total[$__rate_interval]))", "no answer"),
            unit=A_MINUTE,
            width=8,
        ),
    ],
)

LOAD = Board(
    uid="souk-load",
    title="Load test and drills",
    description="What a load or a drill did, and what came of it. Look for the lines through all panels: red, a replica"
    " does not answer; green, one has started; orange, its callers leave it out; blue, its orders were taken up.",
    rows=(NOW, FROM_OUTSIDE, FROM_INSIDE),
    since="now-15m",
    events=EVENTS,
)
