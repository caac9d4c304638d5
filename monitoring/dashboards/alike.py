"""Panels that stand on more than one dashboard: the same question, with a word on what to do where it stands."""

from monitoring.dashboards.panels import (
    A_MINUTE,
    A_SECOND,
    COUNT,
    MUST_BE_NOUGHT,
    SHARE,
    Panel,
    Query,
    lines,
    rising,
    single,
)


def ledger_imbalance(panel_id: int, what_to_do: str) -> Panel:
    """Minor units by which the payment ledger misses zero."""
    return single(
        panel_id,
        "Ledger imbalance",
        what_to_do,
        Query("max(abs(souk_ledger_imbalance_minor))", ""),
        unit=COUNT,
        width=4,
        height=4,
        steps=MUST_BE_NOUGHT,
    )


def answers_at_the_edge(panel_id: int, what_to_do: str, width: int) -> Panel:
    """What clients got, by status."""
    return lines(
        panel_id,
        "Answers a second at the edge, by status",
        what_to_do,
        Query(
            "sum by (code) (rate(traefik_entrypoint_requests_total"
            '{job="edge",entrypoint=~"web|websecure"}[$__rate_interval]))',
            "{{code}}",
        ),
        unit=A_SECOND,
        width=width,
        empty="nothing at the edge",
    )


def orders(panel_id: int, what_to_do: str, width: int) -> Panel:
    """Orders that came to an end."""
    return lines(
        panel_id,
        "Orders a minute, by outcome",
        what_to_do,
        Query("60 * sum by (outcome) (rate(souk_orders_total[$__rate_interval]))", "{{outcome}}"),
        unit=A_MINUTE,
        stacked=True,
        width=width,
        empty="no order ended yet",
    )


def pool_in_use(panel_id: int, what_to_do: str) -> Panel:
    """How much of its connections the fullest replica of each service uses."""
    return lines(
        panel_id,
        "Pool in use, the fullest replica of each service",
        what_to_do,
        Query(
            'max by (service) (souk_database_connections_in_use{job="souk"} / souk_database_pool_size{job="souk"})',
            "{{service}}",
        ),
        unit=SHARE,
        width=8,
        most=1,
        steps=rising(orange=0.7, red=0.9),
    )
