"""What is wrong with the dashboards, as a Prometheus that has scraped the platform under load answers their queries."""

import time
from collections.abc import Sequence

from monitoring.prometheus import Answer, Prometheus, QueryRefused
from monitoring.queries import Document, Query, all_queries_of, filled, variables_of

MOST_SERIES = 50
"""More lines than that nobody can tell apart, and a browser draws them slowly."""
MOST_S = 0.2
"""By Prometheus' own account, the least of three answers: what others do on the machine is not the query's fault."""
STEP_S = 5.0


async def faults(
    prometheus: Prometheus,
    found: Sequence[Document],
    *,
    since: float,
    scraped_every_s: int,
    may_be_empty: frozenset[str] = frozenset(),
    with_events: bool = True,
) -> tuple[list[str], int]:
    """Ask every expression of every panel, for every value of each variable, and every event.

    Return what is wrong with the answers, a line each, and how many questions there were. Panels that show one of
    `may_be_empty` where nothing is found may find nothing; events are asked from `since`, and only where some are due.
    """
    wrong: list[str] = []
    asked = 0
    for document in found:
        options = await _choices(prometheus, document)
        if not options:
            wrong.append(f"{document['title']}: its variable has no values")
        for query in all_queries_of(document):
            if query.is_event and not with_events:
                continue
            for values in options:
                asked += 1
                expr = filled(query.expr, values, STEP_S, scraped_every_s)
                fault = await _fault(prometheus, query, expr, since, may_be_empty)
                if fault is not None:
                    wrong.append(f"{query}: {fault}: {expr}")
    return wrong, asked


async def _choices(prometheus: Prometheus, document: Document) -> list[dict[str, str]]:
    """All values that the variable of a dashboard can have; of one without a variable, one choice of nothing."""
    found = variables_of(document)
    if not found:
        return [{}]
    ((name, (label, selector)),) = found.items()
    return [{name: value} for value in await prometheus.values(label, selector)]


async def _fault(
    prometheus: Prometheus, query: Query, expr: str, since: float, may_be_empty: frozenset[str]
) -> str | None:
    now = time.time()

    async def ask() -> Answer:
        return await (prometheus.now(expr, now) if query.instant else prometheus.over(expr, since, now, STEP_S))

    try:
        answer = await ask()
        if answer.seconds > MOST_S:
            least_s = min([(await ask()).seconds for _ in range(2)])
            if least_s > MOST_S:
                return f"{least_s * 1000:.0f} ms"
    except QueryRefused as refused:
        return str(refused)
    if len(answer.series) > MOST_SERIES:
        return f"{len(answer.series)} series"
    if query.empty not in may_be_empty and not any(each.known for each in answer.series):
        return "no data"
    return None
