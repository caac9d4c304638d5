"""Shop: whether it is well. The five signals on top, then what must be zero, then the business."""

from monitoring.dashboards import alike
from monitoring.dashboards.board import Board, Row
from monitoring.dashboards.panels import (
    A_MINUTE,
    COUNT,
    REQUESTS_A_SECOND,
    SECONDS,
    SHARE,
    Column,
    Query,
    falling,
    lines,
    rising,
    rows,
    single,
)

EACH_SERVICE = "{{service}}"

SIGNALS = Row(
    "",
    [
        single(
            1,
            "Success rate",
            "The share of requests of the last five minutes that a service did not fail. Below 99.9 % it spends its"
            " error"
            " budget faster than it may: open Service for the one that is not green, and see its answers by status."
            " Alert: SoukErrorBudgetBurn.",
            Query("souk:success:ratio_rate5m", EACH_SERVICE),
            unit=SHARE,
            decimals=2,
            width=5,
            steps=falling(orange=0.999, red=0.99),
            empty="no requests for five minutes",
        ),
        single(
            2,
            "Response time, p99",
            "The time within which 99 of 100 answers began. The promise is 0.5 s (0.25 s for product reads). Above it"
            " look at p50 below: is it high too, everything is slow (CPU, database); is it not, some requests wait"
            " (pool, locks). The user service hashes passwords, and is the slowest when many sign in."
            " Alert: SoukLatencyBudgetBurn.",
            Query("souk:latency_seconds:p99", EACH_SERVICE),
            unit=SECONDS,
            width=5,
            steps=rising(orange=0.5, red=1),
            empty="no requests for five minutes",
        ),
        single(
            3,
            "Availability",
            "The share of the replicas that are known which answer Prometheus, the edge's too. Below 100 % one is"
            " starting,"
            " gone, or hangs: Load test and drills shows which, and since when. Alerts: SoukReplicaDown,"
            " SoukServiceDown.",
            Query("souk:availability:ratio", EACH_SERVICE),
            unit=SHARE,
            decimals=0,
            width=4,
            steps=falling(orange=1, red=0.5),
        ),
        single(
            4,
            "Load",
            "Requests a second that each service answers, those of other services included. It says nothing of good or"
            " bad; a fall to nothing while shoppers are there is an outage in front of the services.",
            Query("sum by (service) (souk:requests:rate1m)", EACH_SERVICE),
            unit=REQUESTS_A_SECOND,
            width=5,
            empty="no requests",
        ),
        single(
            5,
            "Error rate",
            "The share of answers of the last five minutes with a status of 5xx. 503 with Retry-After is a refusal"
            " under overload or without a database, 500 is a defect: its log line has the trace id."
            " Alert: SoukErrorBudgetBurn.",
            Query("souk:errors:ratio_rate5m", EACH_SERVICE),
            unit=SHARE,
            decimals=2,
            width=5,
            steps=rising(orange=0.001, red=0.01),
            empty="no requests for five minutes",
        ),
    ],
)

MUST_HOLD = Row(
    "What must hold",
    [
        single(
            11,
            "Alerts that fire",
            "More than none: Alertmanager names them, and each has its page in docs/runbooks.",
            Query('count(ALERTS{alertstate="firing"}) or vector(0)', ""),
            unit=COUNT,
            width=4,
            height=4,
            steps=rising(orange=1, red=3),
        ),
        single(
            12,
            "Availability at the edge",
            "The share of what the edge passed on in the last five minutes and was not answered 5xx, connections"
            " refused"
            " included: what customers see, and what the promise of 99.9 % is measured by. Alert: SoukErrorBudgetBurn.",
            Query("min(souk:edge_availability:ratio_rate5m)", ""),
            unit=SHARE,
            decimals=2,
            width=4,
            height=4,
            steps=falling(orange=0.999, red=0.99),
            empty="nothing at the edge",
        ),
        alike.ledger_imbalance(
            13,
            "Minor units by which the payment ledger misses zero. Anything else than 0 is a defect: stop refunds, run"
            " make audit. Alert: SoukLedgerImbalance.",
        ),
        single(
            14,
            "Oldest unfinished order",
            "How long the oldest order has been on its way. A checkout takes seconds at most, and an order whose"
            " replica"
            " was lost is taken up after ten: more than a minute means that nobody takes it up. Alert: SoukSagaStuck.",
            Query("max(souk_order_oldest_unfinished_seconds)", ""),
            unit=SECONDS,
            decimals=0,
            width=4,
            height=4,
            steps=rising(orange=20, red=60),
        ),
        single(
            15,
            "Products nearly reserved",
            "Products of whose stock reservations hold 90 % or more: their next buyers are refused though nothing is"
            " sold yet. Is it many, reservations are not released. Alert: SoukReservationsNearExhaustion.",
            Query("max(souk_products_nearly_reserved)", ""),
            unit=COUNT,
            width=4,
            height=4,
            steps=rising(orange=1, red=10),
        ),
        single(
            16,
            "Certificate expires in",
            "The time until the first of the edge's certificates ends. make deploy renews it."
            " Alert: SoukCertificateExpires.",
            Query('min(traefik_tls_certs_not_after{job="edge"}) - time()', ""),
            unit=SECONDS,
            decimals=0,
            width=4,
            height=4,
            steps=falling(orange=30 * 86400, red=14 * 86400),
            empty="the edge has no certificate",
        ),
    ],
)

BUSINESS = Row(
    "Business",
    [
        alike.orders(
            21,
            "Orders that came to an end. Rejected ones are refused cards and missing stock; when confirmed falls and"
            " nothing else rises, checkouts do not end: see the saga's steps beside.",
            width=8,
        ),
        lines(
            22,
            "Seconds of a step of the saga, p95",
            "Which step checkouts wait for: reserve and confirm are the product service and its database, authorise is"
            " the payment provider, undo is taking back.",
            Query(
                "histogram_quantile(0.95, sum by (le, step)"
                " (rate(souk_checkout_step_seconds_bucket[$__rate_interval])))",
                "{{step}}",
            ),
            unit=SECONDS,
            width=8,
            steps=rising(orange=0.5, red=2),
            empty="no checkout yet",
        ),
        lines(
            23,
            "Payments a minute, by outcome",
            "Declined is the customers' banks; voided are those of orders that were taken back. Many of them: see why"
            " orders are rejected.",
            Query("60 * sum by (outcome) (rate(souk_payments_total[$__rate_interval]))", "{{outcome}}"),
            Query("60 * sum(rate(souk_refunds_total[$__rate_interval]))", "refunded"),
            unit=A_MINUTE,
            width=8,
        ),
        lines(
            24,
            "Reservations a minute, by what became of them",
            "Held and committed go together; expired are those of orders that nobody finished, refused those for which"
            " there was no stock.",
            Query("60 * sum by (outcome) (rate(souk_reservations_total[$__rate_interval]))", "{{outcome}}"),
            unit=A_MINUTE,
            width=8,
        ),
        lines(
            25,
            "Stock held by reservations",
            "The share of all units on the shelves that reservations hold. It follows the load; when it stays while the"
            " load goes, they are not released.",
            Query("max(souk_stock_reserved_units) / (max(souk_stock_on_hand_units) > 0)", "reserved of on hand"),
            unit=SHARE,
            width=8,
            empty="no stock",
        ),
        lines(
            26,
            "Sign-ins a minute, by outcome",
            "Failed ones in number are somebody who tries passwords; throttled are those that were not even tried.",
            Query("60 * sum by (outcome) (rate(souk_logins_total[$__rate_interval]))", "{{outcome}}"),
            unit=A_MINUTE,
            width=8,
        ),
    ],
)

OVER_TIME = Row(
    "The five signals over time",
    [
        lines(
            31,
            "Success rate",
            "As above, over time: whether it began with a release, a drill, or a rush.",
            Query("souk:success:ratio_rate5m", EACH_SERVICE),
            unit=SHARE,
            width=8,
            least=0.95,
            most=1,
            steps=falling(orange=0.999, red=0.99),
            empty="no requests for five minutes",
        ),
        lines(
            32,
            "Response time of the slowest service: p50, p95, p99",
            "All three high: everything is slow. Only p99: some requests wait.",
            Query("max(souk:latency_seconds:p50)", "p50"),
            Query("max(souk:latency_seconds:p95)", "p95"),
            Query("max(souk:latency_seconds:p99)", "p99"),
            unit=SECONDS,
            width=8,
            steps=rising(orange=0.5, red=1),
            empty="no requests for five minutes",
        ),
        lines(
            33,
            "Availability",
            "As above, over time, and at the edge as customers see it.",
            Query("souk:availability:ratio", "replicas of {{service}}"),
            Query("min(souk:edge_availability:ratio_rate5m)", "at the edge, the worst"),
            unit=SHARE,
            width=8,
            most=1,
        ),
        lines(
            34,
            "Load",
            "As above, over time.",
            Query("sum by (service) (souk:requests:rate1m)", EACH_SERVICE),
            unit=REQUESTS_A_SECOND,
            width=8,
            empty="no requests",
        ),
        lines(
            35,
            "Error rate",
            "As above, over time.",
            Query("souk:errors:ratio_rate5m", EACH_SERVICE),
            unit=SHARE,
            width=8,
            steps=rising(orange=0.001, red=0.01),
            empty="no requests for five minutes",
        ),
        alike.answers_at_the_edge(
            36,
            "502 and 504 are given by the edge itself when no replica answers: the services' own metrics never see"
            " them.",
            width=8,
        ),
    ],
)

EACH_REPLICA = Row(
    "The five signals of each replica",
    [
        rows(
            41,
            "Replicas",
            "One replica that differs from the others of its service is ill itself: delete its pod. All alike: the"
            " service, its database, or a peer.",
            ("service", "pod"),
            (
                Column(
                    "success rate", "souk:pod_success:ratio_rate5m", SHARE, falling(orange=0.999, red=0.99), decimals=2
                ),
                Column("p50", "souk:pod_latency_seconds:p50", SECONDS),
                Column("p95", "souk:pod_latency_seconds:p95", SECONDS),
                Column("p99", "souk:pod_latency_seconds:p99", SECONDS, rising(orange=0.5, red=1)),
                Column(
                    "availability, 5 min",
                    'souk:pod_availability:ratio_5m{service!="edge"}',
                    SHARE,
                    falling(orange=1, red=0.5),
                    decimals=0,
                ),
                Column("load", "souk:requests:rate1m", REQUESTS_A_SECOND),
                Column("in flight", "souk:load:in_flight", COUNT),
                Column("error rate", "souk:pod_errors:ratio_rate5m", SHARE, rising(orange=0.001, red=0.01), decimals=2),
            ),
            height=12,
        ),
    ],
)

SHOP = Board(
    uid="souk-shop",
    title="Shop",
    description="Whether the shop is well. Look at the top first: the five signals of each service, green where its"
    " promise is kept; then at what must hold; then at what it sells.",
    rows=(SIGNALS, MUST_HOLD, BUSINESS, OVER_TIME, EACH_REPLICA),
)
