"""Load balancing: whether replicas get like shares, whom callers know, whom they leave out, and what they repeat."""

from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import (
    A_MINUTE,
    A_SECOND,
    COUNT,
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

ALL_CALLS = 'sum by (service, peer) (rate(souk_peer_requests_total{job="souk"}[5m]))'

EVENNESS = Row(
    "",
    [
        single(
            1,
            "Busiest replica, times the mean",
            "1 is even. A little above is chance at a low load; 2 of three replicas' worth of load on one is not. High"
            " for long: callers do not know all replicas (endpoints below), or keep one connection (a client past the"
            " edge).",
            Query("souk:balance:max_over_mean", "{{service}}"),
            unit=COUNT,
            decimals=2,
            width=6,
            height=7,
            steps=rising(orange=1.3, red=1.7),
            empty="no requests",
        ),
        single(
            3,
            "Endpoints left out now",
            "How many addresses the callers of each peer leave out at this moment, the caller that leaves out most. A"
            " second or two after a loss is what it is for; longer: the replica is ill, see its log.",
            Query('max by (peer) (souk_peer_endpoints_ejected{job="souk"})', "{{peer}}"),
            unit=COUNT,
            width=4,
            height=7,
            steps=rising(orange=1, red=2),
        ),
        single(
            4,
            "Endpoints known, at least",
            "How many addresses of each peer the caller knows that knows fewest. It must be the number of replicas that"
            " are ready, five seconds after one has come or gone.",
            Query('min by (peer) (souk_peer_endpoints{job="souk"})', "{{peer}}"),
            unit=COUNT,
            width=5,
            height=7,
            steps=falling(orange=2, red=1),
        ),
        lines(
            5,
            "Busiest replica, times the mean",
            "As above, over time.",
            Query("souk:balance:max_over_mean", "{{service}}"),
            unit=COUNT,
            width=9,
            height=7,
            least=1,
            steps=rising(orange=1.3, red=1.7),
            empty="no requests",
        ),
        bars(
            2,
            "Requests a second of each replica, now",
            "Replicas of one service should have bars alike. One that is short has just started, is slow and avoided"
            " for"
            " that, or is not known to its callers.",
            Query("sort_desc(sum by (pod) (souk:requests:rate1m))", "{{pod}}"),
            unit=REQUESTS_A_SECOND,
            width=12,
            height=12,
            empty="no requests",
        ),
        lines(
            6,
            "Requests in flight, by replica",
            "What the power of two choices looks at: alike even where replicas are not equally fast.",
            Query("souk:load:in_flight", "{{pod}}"),
            unit=COUNT,
            width=12,
            height=12,
        ),
    ],
)

NO_PAGES = "nobody opens the shop's pages"

REQUESTS = Row(
    "Requests of each replica",
    [
        lines(
            10 + number,
            f"{service}: requests a second",
            "The lines of one service should lie on each other. One that is 0 while its replica is up is not known to"
            " its callers; one that fell is avoided for being slow or failing.",
            Query(f'sum by (pod) (souk:requests:rate1m{{service="{service}"}})', "{{pod}}"),
            unit=REQUESTS_A_SECOND,
            width=6,
            empty=NO_PAGES if service == "storefront" else "no requests",
        )
        for number, service in enumerate(("user", "product", "payment", "order", "storefront"), 1)
    ],
)

CALLS = Row(
    "Calls between services",
    [
        rows(
            21,
            "Who calls whom",
            "Failed calls are 5xx, timeouts and addresses that nobody listens on; a retry on another replica that was"
            " answered is none for the caller. Endpoints are those of the caller that knows fewest.",
            ("service", "peer"),
            (
                Column("calls", ALL_CALLS, A_SECOND),
                Column(
                    "failed",
                    'sum by (service, peer) (rate(souk_peer_requests_total{job="souk",'
                    f'outcome=~"failed|timeout|unreachable"}}[5m])) / ({ALL_CALLS} > 0)',
                    SHARE,
                    rising(orange=0.001, red=0.01),
                    decimals=2,
                ),
                Column(
                    "repeated",
                    f'sum by (service, peer) (rate(souk_peer_retries_total{{job="souk"}}[5m])) / ({ALL_CALLS} > 0)',
                    SHARE,
                    rising(orange=0.01, red=0.1),
                    decimals=2,
                ),
                Column(
                    "p95",
                    "histogram_quantile(0.95, sum by (le, service, peer)"
                    ' (rate(souk_peer_request_seconds_bucket{job="souk"}[5m])))',
                    SECONDS,
                    rising(orange=0.25, red=1),
                ),
                Column(
                    "endpoints",
                    'min by (service, peer) (souk_peer_endpoints{job="souk"})',
                    COUNT,
                    falling(orange=2, red=1),
                ),
                Column(
                    "left out",
                    'max by (service, peer) (souk_peer_endpoints_ejected{job="souk"})',
                    COUNT,
                    rising(orange=1, red=2),
                ),
            ),
            height=8,
        ),
        lines(
            22,
            "Ejections a minute, by peer",
            "How often an endpoint was left out for failing or being slow. A few when a replica is lost or started; all"
            " the time: that replica is ill.",
            Query(
                '60 * sum by (peer) (rate(souk_peer_ejections_total{job="souk"}[$__rate_interval]))',
                "{{peer}}",
            ),
            unit=A_MINUTE,
            width=8,
            steps=rising(orange=1, red=30),
        ),
        lines(
            23,
            "Calls repeated a minute, by what came of it",
            "A call whose replica did not answer is sent once to another. Those answered are failures that no customer"
            " saw; budget_exhausted are those that were not repeated, since a fifth of all calls were already.",
            Query('60 * sum by (outcome) (rate(souk_peer_retries_total{job="souk"}[$__rate_interval]))', "{{outcome}}"),
            unit=A_MINUTE,
            width=8,
        ),
        lines(
            24,
            "Calls a second, by outcome",
            "Refused is a definite no, such as missing stock; timeout is no answer in time, and is asked again.",
            Query('sum by (outcome) (rate(souk_peer_requests_total{job="souk"}[$__rate_interval]))', "{{outcome}}"),
            unit=A_SECOND,
            width=8,
            empty="no calls",
        ),
    ],
)

AT_THE_EDGE = Row(
    "At the edge",
    [
        lines(
            31,
            "Open connections of each edge replica",
            "Clients keep theirs, so these need not be even; the requests on them are balanced one by one.",
            Query('sum by (pod, entrypoint) (traefik_open_connections{job="edge"})', "{{pod}} {{entrypoint}}"),
            unit=COUNT,
            width=8,
            empty="no edge is scraped",
        ),
        lines(
            32,
            "Requests a second of each edge replica",
            "A Service of Kubernetes gives each connection to one of them: they even out over many clients only.",
            Query('sum by (pod) (rate(traefik_entrypoint_requests_total{job="edge"}[$__rate_interval]))', "{{pod}}"),
            unit=REQUESTS_A_SECOND,
            width=8,
            empty="nothing at the edge",
        ),
        lines(
            33,
            "Availability at the edge, by service",
            "What customers see of each service: 1 less the share of 5xx, those of the edge itself included.",
            Query("souk:edge_availability:ratio_rate5m", "{{service}}"),
            unit=SHARE,
            width=8,
            least=0.95,
            most=1,
            steps=falling(orange=0.999, red=0.99),
            empty="nothing at the edge",
        ),
    ],
)

BALANCING = Board(
    uid="souk-balancing",
    title="Load balancing",
    description="Whether each replica gets its share. Look at the first number: near 1 is even. Then at whom callers"
    " know and leave out.",
    rows=(EVENNESS, REQUESTS, CALLS, AT_THE_EDGE),
)
