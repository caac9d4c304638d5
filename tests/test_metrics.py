"""docs/metrics.md lists what the services tell, each family and label; and what they tell stays small."""

import time
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from chassis.app import Service
from chassis.migrations import ROOT
from chassis.postgres_metrics import PostgresMetrics
from chassis.secrets import SERVICES
from chassis.telemetry import LABELS
from chassis.testing import answer_in_every_way, settings_for
from local.edge import STOREFRONT
from services.order.app import create_app as create_order
from services.order.settings import OrderSettings
from services.payment.app import create_app as create_payment
from services.payment.settings import PaymentSettings
from services.product.app import create_app as create_product
from services.product.settings import ProductSettings
from services.user.app import create_app as create_user
from services.user.settings import UserSettings
from tests.shop import Shop

PAGE = ROOT / "docs/metrics.md"
WHERE_THE_SERVER_HAS_IT = {"souk_postgres_statement_seconds"}
"""The embedded PostgreSQL has no `pg_stat_statements`; tests/cluster/test_metrics.py sees it."""
OF_THE_SAMPLE = {"le", "quantile"}
MOST_SERIES = 1500
MOST_BYTES = 150_000
WITHIN_S = 30


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the page, without its head."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def words(cell: str) -> frozenset[str]:
    """What a cell lists."""
    return frozenset(cell.replace("`", "").split())


def documented(service: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of each family of a service, as the page has them; a counter without its `_total`."""
    return {
        family.strip("`").removesuffix("_total"): (kind, words(labels))
        for family, labels, kind, services, _ in rows("Families")
        if {"all", service} & words(services)
    }


def told(text: str) -> dict[str, Metric]:
    """The families of an exposition that have series, without the times of creation that the client library adds."""
    families = {family.name: family for family in text_string_to_metric_families(text) if family.samples}
    return {name: family for name, family in families.items() if not name.endswith("_created")}


def labels_of(family: Metric) -> frozenset[str]:
    """The labels of a family's series."""
    return frozenset(label for sample in family.samples for label in sample.labels) - OF_THE_SAMPLE


def scraped(origin: str, last: str) -> str:
    """What a service tells once there is a family that comes last."""
    deadline = time.monotonic() + WITHIN_S
    text = ""
    while f"\n{last}{{" not in text and time.monotonic() < deadline:
        text = httpx2.get(f"{origin}/metrics").text
        time.sleep(0.05)
    return text


@pytest.mark.parametrize("service", [*SERVICES, STOREFRONT])
def test_the_page_lists_what_a_running_service_tells(service: str, shop: Shop) -> None:
    httpx2.get(f"{shop.services[service]}/docs")
    httpx2.get(f"{shop.services[service]}/")  # the storefront asks another one for this
    has_a_database = service in SERVICES
    families = told(
        scraped(shop.services[service], "souk_postgres_connections" if has_a_database else "souk_peer_requests_total")
    )
    page = documented(service)
    assert set(page) - set(families) == (WHERE_THE_SERVER_HAS_IT if has_a_database else set())
    assert set(families) - set(page) == set()
    found = {name: (family.type, labels_of(family)) for name, family in families.items()}
    assert found == {name: row for name, row in page.items() if name in found}


def test_no_family_is_listed_twice() -> None:
    names = [row[0] for row in rows("Families")]
    assert sorted(set(names)) == sorted(names)
    assert all(len(row) == 5 and row[4] for row in rows("Families"))


def test_the_page_lists_the_labels_that_there_are() -> None:
    assert {row[0].strip("`"): int(row[1]) for row in rows("Labels")} == LABELS
    assert set().union(*(words(row[1]) for row in rows("Families"))) | {"le"} == set(LABELS)


@pytest.fixture
async def services(database_url: Callable[[str], str]) -> AsyncIterator[dict[str, Service]]:
    """The four applications, each on a database of its own."""
    key = "c291ayBwbGF0Zm9ybSB0ZXN0cywgMzIgYnl0ZXMhISE="
    made = (
        create_user(settings_for(UserSettings, "user", database_url("user"), key_encryption_key=key)),
        create_product(settings_for(ProductSettings, "product", database_url("product"))),
        create_payment(settings_for(PaymentSettings, "payment", database_url("payment"))),
        create_order(settings_for(OrderSettings, "order", database_url("order"))),
    )
    yield {service.service_name: service for service in made}
    for service in made:
        await service.database.close()


@pytest.mark.parametrize("service", SERVICES)
async def test_a_replica_that_has_answered_in_every_way_tells_little(
    service: str, services: dict[str, Service]
) -> None:
    filled = services[service]
    answer_in_every_way(filled)
    postgres = PostgresMetrics(filled.database)
    filled.telemetry.registry.register(postgres)  # the service's own tells nothing: its worker does not run
    await postgres.read()
    exposition = filled.telemetry.exposition()
    series = [line for line in exposition.decode().splitlines() if not line.startswith("#")]
    values: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition.decode()):
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(f"{family.name} {label}", set()).add(value)
    assert {name for name, found in values.items() if len(found) > LABELS[name.split()[1]]} == set()
    assert len(series) + LABELS["statement"] < MOST_SERIES
    assert len(exposition) < MOST_BYTES
