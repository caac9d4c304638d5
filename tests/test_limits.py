"""docs/decisions/limits.md: its numbers are the code's, and each wait is inside the one that stands around it."""

import re
from inspect import signature

import pytest
import yaml

from chassis import server, transport
from chassis.app import Service
from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from chassis.settings import ServiceSettings
from drills import client
from drills.platform import REPLICAS
from local.postgres import SETTINGS
from services.order import clients, events
from services.order.settings import OrderSettings
from services.product.settings import ProductSettings
from services.user import passwords

PAGE = ROOT / "docs/decisions/limits.md"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
CONNECTIONS_SPARED = 2
"""For migrations, and for a person who looks what is wrong."""


def default(settings: type[ServiceSettings], name: str) -> float:
    """What a setting is where nobody says otherwise."""
    value = settings.model_fields[name].default
    assert isinstance(value, int | float)
    return value


CALL_S = signature(Service.peer).parameters["timeout_s"].default
POOL = default(ServiceSettings, "database_pool_size")
ATTEMPT_S = clients.AGAIN.attempt_timeout_s or 0.0
AUTHORISATION_S = clients.AUTHORISATION.attempt_timeout_s or 0.0
ACQUIRE_S = default(ServiceSettings, "database_acquire_timeout_s")
STATEMENT_S = default(ServiceSettings, "database_statement_timeout_s")
CHECKOUT_S = default(OrderSettings, "checkout_budget_s")
LEASE_S = default(OrderSettings, "lease_s")
RESERVATION_S = default(ProductSettings, "reservation_ttl_s")
EDGE_IDLE_S = 60

NUMBERS = {
    "a connection to a peer": [transport.CONNECT_TIMEOUT_S],
    "one attempt of a call": [ATTEMPT_S],
    "one attempt of an authorisation": [AUTHORISATION_S],
    "a call to a peer, with its repetition": [CALL_S],
    "a connection of the pool": [ACQUIRE_S],
    "one statement": [STATEMENT_S],
    "a checkout": [CHECKOUT_S],
    "a client of the platform, such as a drill's shopper": [client.TIMEOUT_S],
    "a lease on an order": [LEASE_S],
    "a reservation": [RESERVATION_S],
    "what is served when SIGTERM comes": [server.GRACE_S],
    "an idle connection: caller, edge, server": [transport.IDLE_TIMEOUT_S, EDGE_IDLE_S, server.KEEP_ALIVE_S],
    "`POST /api/v1/orders`": [default(OrderSettings, "max_checkouts")],
    "other requests from outside": [default(ServiceSettings, "max_in_flight")],
    "calls between services": [default(ServiceSettings, "max_internal_in_flight")],
    "open event streams": [events.MOST_WATCHES, events.MOST_WATCHES_OF_A_USER],
    "password hashes": [passwords.MOST_THREADS, passwords.WAITING_PER_THREAD],
    "connections not yet accepted": [server.BACKLOG],
}


def rows() -> dict[str, str]:
    """The second cell of each row of the page's tables, by the first."""
    lines = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return {cells[0].strip(): cells[1].strip() for cells in lines}


@pytest.mark.parametrize("row", NUMBERS)
def test_the_page_has_the_numbers_of_the_code(row: str) -> None:
    assert [float(found) for found in re.findall(r"\d+(?:\.\d+)?", rows()[row])] == NUMBERS[row]


def test_a_wait_ends_before_the_one_around_it() -> None:
    assert 2 * transport.CONNECT_TIMEOUT_S < ATTEMPT_S
    assert 2 * ATTEMPT_S <= CALL_S
    assert AUTHORISATION_S < CALL_S < CHECKOUT_S < client.TIMEOUT_S
    assert ACQUIRE_S < CALL_S, "a peer whose database is away has to say so before its caller gives up"
    assert CHECKOUT_S < server.GRACE_S, "SIGTERM would cut off a checkout"
    assert CALL_S + ACQUIRE_S + STATEMENT_S <= LEASE_S, "an order would be taken up while it is worked on"
    assert LEASE_S < RESERVATION_S, "an order that lost its process would lose its units too"


def test_who_sends_gives_an_idle_connection_up_first() -> None:
    edge = yaml.safe_load((ROOT / "compose/traefik.yml").read_text())["serversTransport"]["forwardingTimeouts"]
    assert edge["idleConnTimeout"] == f"{EDGE_IDLE_S}s"
    assert max(transport.IDLE_TIMEOUT_S, EDGE_IDLE_S) < server.KEEP_ALIVE_S


def test_what_is_served_ends_before_its_container_is_killed() -> None:
    for service in SERVICES:
        assert float(COMPOSE[service]["stop_grace_period"].removesuffix("s")) > server.GRACE_S


def test_all_pools_fit_into_the_server() -> None:
    compose = re.findall(r"-cmax_connections=(\d+)", " ".join(COMPOSE["postgres"]["command"]))
    replicas = sum(COMPOSE[service]["deploy"]["replicas"] for service in SERVICES)
    assert replicas * POOL + CONNECTIONS_SPARED <= int(*compose)
    embedded = int(SETTINGS["max_connections"])
    assert max(len(SERVICES), sum(REPLICAS.values())) * POOL + CONNECTIONS_SPARED <= embedded
    assert rows()["`make drill`"] == str(sum(REPLICAS.values()))
