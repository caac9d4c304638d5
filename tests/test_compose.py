"""docker-compose.yml keeps what it promises; no Docker is needed to read it."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from chassis.migrations import ROOT
from chassis.secrets import SERVICES, generate
from chassis.settings import ApplicationSettings
from local.edge import NOT_PAGES, ROUTES, STOREFRONT
from local.postgres import SETTINGS
from services.order.settings import OrderSettings
from services.payment.settings import PaymentSettings
from services.product.settings import ProductSettings
from services.storefront.settings import StorefrontSettings
from services.user.settings import UserSettings
from tests.manifests import container as container_of
from tests.manifests import of_kind, overlay

Tree = dict[str, Any]

SETTINGS_OF = {"user": UserSettings, "product": ProductSettings, "payment": PaymentSettings, "order": OrderSettings}
SERVED: dict[str, type[ApplicationSettings]] = {**SETTINGS_OF, STOREFRONT: StorefrontSettings}
"""All that serves, with a database or without."""
PAGES = f"PathPrefix(`/`) && !PathRegexp(`^/({'|'.join(NOT_PAGES)})(/|$)`)"
"""The edge's rule for the storefront, which it asks last."""
STATEMENTS_COUNTED = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.max": "1000",
    "pg_stat_statements.track_utility": "off",
}
"""What the embedded PostgreSQL has no library for."""
OF_ITS_OWN_MODE = {"listen_addresses", "max_connections", *STATEMENTS_COUNTED}
"""Where the embedded PostgreSQL differs: it answers on a socket, and several platforms under test share it."""
RESERVED_CONNECTIONS = 3
"""PostgreSQL's default of `superuser_reserved_connections`."""

BACKEND_BYTES = 5.5 * 2**20
"""What a backend that has served for a while has of its own: of the processes that the kernel listed when it killed one
of 120 in 512 MiB (the drill `scale`), the mean.
"""


def read(path: str) -> Tree:
    """Parse a YAML file of the repository."""
    return cast("Tree", yaml.safe_load((ROOT / path).read_text()))


COMPOSE = read("docker-compose.yml")
CONTAINERS: dict[str, Tree] = COMPOSE["services"]
MONITORING = {"prometheus", "alertmanager", "grafana"}
"""Of the profile of that name."""
OWNERS = {"prometheus": "65534:65534", "alertmanager": "65534:65534"}
"""Whom a folder of the image belongs to that is a volume's, and who therefore has to run there."""
ONE_SHOTS = {"secrets", "databases", *(f"migrate-{service}" for service in SERVICES), "seed"}
EDGE: Tree = read("compose/routes.yml")["http"]


def replicas(service: str) -> int:
    """How many containers a service runs in."""
    return CONTAINERS[service]["deploy"]["replicas"]


def secret_folders(container: str) -> list[str]:
    """The parts of the secrets that a container sees; empty for all of them."""
    found: list[str] = []
    for mount in CONTAINERS[container].get("volumes", []):
        if isinstance(mount, str):
            found += [""] * mount.startswith("secrets:")
        elif mount["source"] == "secrets":
            assert mount["read_only"]
            found.append(mount["volume"]["subpath"])
    return found


def postgres_settings() -> dict[str, str]:
    """What PostgreSQL is started with."""
    _, *options = CONTAINERS["postgres"]["command"]
    return dict(option.removeprefix("-c").split("=", 1) for option in options)


def prefixes(rule: str) -> set[str]:
    """The prefixes of a rule. Each `PathPrefix` ends at a slash and belongs to the `Path` without it."""
    paths = set(re.findall(r"(?<!\w)Path\(`(.+?)`\)", rule))
    below = set(re.findall(r"PathPrefix\(`(.+?)`\)", rule))
    assert below == {f"{path}/" for path in paths - {"/docs"}}
    wanted = [*(f"Path(`{path}`)" for path in paths), *(f"PathPrefix(`{path}`)" for path in below)]
    assert sorted(rule.split(" || ")) == sorted(wanted)
    return paths


@pytest.mark.parametrize("container", CONTAINERS)
def test_each_container_is_hardened(container: str) -> None:
    running = CONTAINERS[container]
    assert running["user"] == OWNERS.get(container, "10001:10001")
    assert running["read_only"] is True
    assert running["cap_drop"] == ["ALL"]
    assert "cap_add" not in running
    assert running["security_opt"] == ["no-new-privileges:true"]
    assert not running.get("privileged")
    assert "/tmp" in running["tmpfs"]  # noqa: S108 - a mount, not a file name that can be guessed
    assert set(running["deploy"]["resources"]["limits"]) == {"cpus", "memory"}


@pytest.mark.parametrize("container", CONTAINERS)
def test_each_image_is_built_here_or_pinned_to_a_version(container: str) -> None:
    image: str = CONTAINERS[container]["image"]
    built = {CONTAINERS[service]["image"]: service for service in SERVED}
    if image in built:
        assert CONTAINERS[built[image]]["build"] == {"context": ".", "args": {"SERVICE": built[image]}}
    else:
        assert re.fullmatch(r"[a-z/]+:v?\d[\w.-]*", image)


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_secret_is_in_an_environment(container: str, tmp_path: Path) -> None:
    generate(tmp_path, database_host="postgres")
    secrets = {file.name.upper() for file in tmp_path.glob("*/*")} | {"POSTGRES_PASSWORD", "PGPASSWORD"}
    assert secrets > {"SERVICE_KEY", "DATABASE_URL", "ADMIN_PASSWORD", "KEY_ENCRYPTION_KEY"}
    assert not secrets & set(CONTAINERS[container].get("environment", {}))


def test_each_container_sees_its_own_secrets_only() -> None:
    expected = {service: [service] for service in SERVICES}
    expected |= {f"migrate-{service}": [service] for service in SERVICES}
    expected |= {"postgres": ["postgres"], "databases": ["postgres"], "audit": ["audit"]}
    expected |= {"seed": ["user/admin_password"], "secrets": [""], "edge": [], STOREFRONT: []}
    expected |= {"prometheus": [], "alertmanager": [], "grafana": ["grafana"]}
    assert {container: secret_folders(container) for container in CONTAINERS} == expected


@pytest.mark.parametrize("service", SERVED)
def test_each_service_runs_in_two_replicas_that_stop_in_peace(service: str) -> None:
    assert replicas(service) == 2
    assert CONTAINERS[service]["stop_grace_period"] == "45s"
    assert "/readyz" in CONTAINERS[service]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("service", SERVED)
def test_a_service_is_told_only_what_it_has_a_setting_for(service: str) -> None:
    every_setting = {name.upper() for settings in SERVED.values() for name in settings.model_fields}
    own = {name.upper() for name in SERVED[service].model_fields}
    told: dict[str, str] = CONTAINERS[service]["environment"]
    assert told.keys() <= every_setting
    assert told.keys() - own <= {"USER_URL", "PRODUCT_URL", "PAYMENT_URL"}  # the same for all
    for peer in SERVICES[:3] if service in SERVICES else SERVICES:
        assert told[f"{peer.upper()}_URL"] == f"http://{peer}:{CONTAINERS[peer]['environment']['PORT']}"
    if service in SERVICES:
        assert CONTAINERS[f"migrate-{service}"]["environment"] == told


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_when_its_schema_is_there(service: str) -> None:
    completed = {"condition": "service_completed_successfully"}
    assert CONTAINERS[service]["depends_on"] == {f"migrate-{service}": completed}
    assert CONTAINERS[f"migrate-{service}"]["command"] == "migrate"
    assert CONTAINERS[f"migrate-{service}"]["depends_on"] == {"databases": completed}


def test_the_storefront_reaches_the_services_and_no_database() -> None:
    assert CONTAINERS[STOREFRONT]["networks"] == ["services"]
    assert "depends_on" not in CONTAINERS[STOREFRONT], "it is ready, and says what is missing, without them"


def test_something_waits_for_each_one_shot() -> None:
    """`docker compose up --wait` takes a container that has ended for a failure, unless another one waits for that."""
    waited_for = {
        dependency
        for container in CONTAINERS.values()
        for dependency, wait in container.get("depends_on", {}).items()
        if wait["condition"] == "service_completed_successfully"
    }
    assert waited_for == ONE_SHOTS
    assert {name for name, container in CONTAINERS.items() if container["restart"] == "no"} == ONE_SHOTS | {"audit"}


def test_the_edge_routes_what_it_routes_in_local_mode() -> None:
    routers: dict[str, Tree] = EDGE["routers"]
    routed = {
        prefix: routers[service]["service"] for service in SERVICES for prefix in prefixes(routers[service]["rule"])
    }
    assert routed == ROUTES
    assert routers.keys() - set(SERVICES) == {STOREFRONT, "grafana"}
    assert routers[STOREFRONT].items() >= {"rule": PAGES, "priority": 1, "service": STOREFRONT}.items()
    assert prefixes(routers["grafana"]["rule"]) == {"/grafana"}


def test_the_edge_knows_every_replica() -> None:
    for service in SERVED:
        port = CONTAINERS[service]["environment"]["PORT"]
        expected = [f"http://{COMPOSE['name']}-{service}-{n + 1}:{port}" for n in range(replicas(service))]
        assert [server["url"] for server in EDGE["services"][service]["loadBalancer"]["servers"]] == expected


def test_only_the_edge_is_reached_from_outside_and_only_from_this_machine() -> None:
    assert {name: container["ports"] for name, container in CONTAINERS.items() if "ports" in container} == {
        "edge": ["127.0.0.1:8000:8000"]
    }
    assert {name for name, network in COMPOSE["networks"].items() if not network.get("internal")} == {"public"}
    assert [name for name, container in CONTAINERS.items() if "public" in container.get("networks", [])] == ["edge"]


def test_traces_are_sent_by_the_services_and_the_edge_where_they_are_asked_for() -> None:
    traced = read("compose/tracing.yml")["services"]
    assert set(traced) == {*SERVED, "edge"}
    for service in SERVED:
        assert traced[service] == {"environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}}
    mounted = ":/etc/traefik/traefik.yml:ro"
    assert f"./compose/traefik.yml{mounted}" in CONTAINERS["edge"]["volumes"]
    assert traced["edge"]["volumes"] == [f"./compose/traefik-tracing.yml{mounted}"]


def test_the_pools_fit_into_postgres() -> None:
    pools = 0
    for service in SERVICES:
        default = SETTINGS_OF[service].model_fields["database_pool_size"].default
        pools += replicas(service) * int(CONTAINERS[service]["environment"].get("DATABASE_POOL_SIZE", default))
    assert pools < int(postgres_settings()["max_connections"]) - RESERVED_CONNECTIONS


def test_postgres_has_memory_for_all_its_connections() -> None:
    settings = postgres_settings()
    limit = int(CONTAINERS["postgres"]["deploy"]["resources"]["limits"]["memory"].removesuffix("M")) * 2**20
    buffers = int(settings["shared_buffers"].removesuffix("MB")) * 2**20
    assert buffers + int(settings["max_connections"]) * BACKEND_BYTES < limit


def test_postgres_counts_statements_but_for_those_that_may_hold_a_password() -> None:
    assert postgres_settings().items() >= STATEMENTS_COUNTED.items()


def test_postgres_is_tuned_as_in_local_mode() -> None:
    here = {name: value for name, value in postgres_settings().items() if name not in OF_ITS_OWN_MODE}
    assert here == {name: value for name, value in SETTINGS.items() if name not in OF_ITS_OWN_MODE}


def test_those_who_watch_are_there_where_the_profile_is_named() -> None:
    assert {name for name, container in CONTAINERS.items() if container.get("profiles") == ["monitoring"]} == MONITORING
    for name, container in CONTAINERS.items():
        assert name in MONITORING or not MONITORING & set(container.get("depends_on", {}))


def test_those_who_watch_are_those_of_kubernetes() -> None:
    for name in MONITORING:
        workload = of_kind(overlay("base"), "StatefulSet")[name]
        assert CONTAINERS[name]["image"] == container_of(workload)["image"]
        assert CONTAINERS[name].get("command", []) == container_of(workload).get("args", [])
        limits = container_of(workload)["resources"]["limits"]
        assert CONTAINERS[name]["deploy"]["resources"]["limits"]["memory"] == limits["memory"].replace("Mi", "M")


def test_prometheus_asks_every_replica_and_the_edge() -> None:
    jobs = {job["job_name"]: job for job in read("compose/monitoring/prometheus.yml")["scrape_configs"]}
    asked = {each["labels"]["service"]: each["targets"] for job in jobs.values() for each in job["static_configs"]}
    edge = read("compose/traefik.yml")["entryPoints"]["traefik"]["address"]
    assert asked.pop("edge") == [f"{COMPOSE['name']}-edge-1{edge}"]
    for service in SERVED:
        servers = EDGE["services"][service]["loadBalancer"]["servers"]
        assert asked.pop(service) == [server["url"].removeprefix("http://") for server in servers]
    assert not asked
