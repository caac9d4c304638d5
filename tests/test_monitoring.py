"""Rules, alerts, dashboards and runbooks agree with each other and with what the platform exposes; promtool proves that
each alert fires when it should and is silent when it should not.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from chassis.app import Service
from chassis.migrations import ROOT
from chassis.secrets import SERVICES, generate
from deploy.shop import ADMIN_EMAIL
from drills.storms.cluster import CLUSTER_DRILLS
from local.shop import create_services
from tests import promql
from tests.manifests import container, of_kind, overlay
from tests.pages import fenced
from tests.promtool import promtool
from tests.test_compose import SERVED

MONITORING = ROOT / "k8s" / "monitoring"
RULES = sorted((MONITORING / "rules").glob("*.yml"))
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
RUNBOOKS = ROOT / "docs" / "runbooks"
TESTS = sorted((ROOT / "tests" / "monitoring").glob("*.yml"))
REFERENCE = ROOT / "docs" / "metrics.md"
SCRAPING: Any = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
JOBS: dict[str, Any] = {job["job_name"]: job for job in SCRAPING["scrape_configs"]}

OF_PROMETHEUS = frozenset(
    {"up", "ALERTS", "ALERTS_FOR_STATE", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_series_added"}
)
OF_TRAEFIK = frozenset(
    {
        "traefik_config_last_reload_success",
        "traefik_entrypoint_requests_total",
        *(f"traefik_entrypoint_request_duration_seconds_{part}" for part in ("bucket", "sum", "count")),
        "traefik_open_connections",
        "traefik_router_requests_total",
        "traefik_service_requests_total",
        *(f"traefik_service_request_duration_seconds_{part}" for part in ("bucket", "sum", "count")),
        "traefik_service_retries_total",
        "traefik_service_server_up",
        "traefik_tls_certs_not_after",
    }
)
"""As its manual lists them. tests/cluster/test_alerts.py finds those that rules use in a real exposition."""
OF_KUBELETS = frozenset(
    {
        "container_cpu_cfs_periods_total",
        "container_cpu_cfs_throttled_periods_total",
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
    }
)
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}

Rule = dict[str, Any]


def groups() -> Iterator[dict[str, Any]]:
    """All groups of rules."""
    for path in RULES:
        yield from cast("list[dict[str, Any]]", yaml.safe_load(path.read_text())["groups"])


def rules() -> Iterator[Rule]:
    """All rules."""
    for group in groups():
        yield from group["rules"]


ALERTS = sorted({str(rule["alert"]) for rule in rules() if "alert" in rule})


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Service]:
    """The four services, built and not started."""
    folder = tmp_path_factory.mktemp("secrets")
    generate(folder)
    ports = {service: 8001 + place for place, service in enumerate(SERVICES)}
    urls = {str(service): "postgresql://nobody@localhost:1/none" for service in SERVICES}
    return create_services(urls, folder, ports, admin_email=ADMIN_EMAIL)


def families(exposition: str) -> Iterator[str]:
    """The names of the series of each family, whether it has any yet or not."""
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.MULTILINE):
        for suffix in SUFFIXES.get(kind, ("",)):
            yield f"{name}{suffix}"


def documented() -> set[str]:
    """The families of the reference, which a test of its own compares with what a platform under load exposes."""
    return {
        f"{name}{suffix}"
        for name in re.findall(r"`([a-z][a-z0-9_]+)(?:\{[^`]*\})?`", REFERENCE.read_text())
        for suffix in ("", "_bucket", "_sum", "_count")
    }


@pytest.fixture(scope="module")
def known(services: dict[str, Service]) -> set[str]:
    """Every metric that there is."""
    exposed = {name for service in services.values() for name in families(service.telemetry.exposition().decode())}
    recorded = {str(rule["record"]) for rule in rules() if "record" in rule}
    return exposed | documented() | recorded | OF_PROMETHEUS | OF_TRAEFIK | OF_KUBELETS


def expressions(node: Any, place: str) -> Iterator[tuple[str, str]]:
    """Each expression of a dashboard, with the panel or variable that it is of."""
    match node:
        case dict():
            item = cast("dict[str, Any]", node)
            title = item.get("title") or item.get("name")
            here = f"{place}, {title}" if title and ("type" in item or "targets" in item) else place
            query = item.get("query")
            if isinstance(query, str) and {"datasource", "refId"} & item.keys():
                yield here, query
            if isinstance(item.get("expr"), str):
                yield here, item["expr"]
            for key, value in item.items():
                if key not in {"expr", "title"}:
                    yield from expressions(value, here)
        case list():
            for value in cast("list[Any]", node):
                yield from expressions(value, place)
        case _:
            pass


@cache
def users() -> dict[str, set[str]]:
    """Who uses each metric: rules, panels and variables, runbooks."""
    found: defaultdict[str, set[str]] = defaultdict(set)

    def note(place: str, expression: str) -> None:
        for metric in promql.metrics(expression):
            found[metric].add(place)

    for rule in rules():
        note(f"rule {rule.get('record') or rule.get('alert')}", rule["expr"])
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        for place, expression in expressions(dashboard, f"dashboard {dashboard['title']}"):
            note(place, expression)
    for path in RUNBOOKS.glob("Souk*.md"):
        text = path.read_text()
        for expression in fenced(path, "promql"):
            note(f"runbook {path.stem}", expression)
        for name in re.findall(r"`(souk_[a-z_]+|souk:[a-z0-9_:]+)`", text):
            note(f"runbook {path.stem}", name)
    return dict(found)


def missing(there: Iterable[str]) -> dict[str, list[str]]:
    """The metrics that are used and not there, each with all who use it."""
    absent = users().keys() - set(there)
    return {metric: sorted(users()[metric]) for metric in sorted(absent)}


def test_each_metric_that_somebody_uses_is_there(known: set[str]) -> None:
    lost = [f"{metric} is used by {place}" for metric, places in missing(known).items() for place in places]
    assert not lost, "\n" + "\n".join(lost)


def test_a_metric_that_is_renamed_names_all_that_used_it(known: set[str]) -> None:
    assert missing(known - {"souk_database_pool_size"}) == {
        "souk_database_pool_size": sorted(users()["souk_database_pool_size"])
    }
    assert {"rule SoukPoolSaturated", "runbook SoukPoolSaturated"} <= users()["souk_database_pool_size"]
    assert "rule souk:requests:rate1m" in users()["http_requests_total"]
    assert "runbook SoukErrorBudgetBurn" in users()["traefik_router_requests_total"]


@pytest.mark.parametrize(
    ("expression", "metrics"),
    [
        ('sum by (le) (rate(a_bucket{b="c d", e=~".*"}[$__rate_interval]))', {"a_bucket"}),
        ("a unless b offset 1m and on (pod) c == 1", {"a", "b", "c"}),
        ("10 * sum_over_time(souk:a:b[1h]) > bool 1e3", {"souk:a:b"}),
        ("a / ignoring (x) group_left (y) b{$filter} or vector(0)", {"a", "b"}),
        ('label_values(up{job="souk"}, service)', {"up"}),
        ("label_values(service)", set[str]()),
        ("topk(5, max_over_time(a[1h:10s])) # b", {"a"}),
    ],
)
def test_metrics_are_found_in_an_expression(expression: str, metrics: set[str]) -> None:
    assert promql.metrics(expression) == metrics


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_urgent_it_is_and_where_help_is(alert: str) -> None:
    of_it = [rule for rule in rules() if rule.get("alert") == alert]
    for rule in of_it:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{alert}.md"
    told = [json.dumps(rule["labels"], sort_keys=True) for rule in of_it]
    assert len(set(told)) == len(told), "two rules of one alert would be one alert"


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_names_the_panel_the_command_and_the_remedy(alert: str) -> None:
    path = RUNBOOKS / f"{alert}.md"
    page = path.read_text()
    assert re.findall(r"^#+ (.+)$", page, re.MULTILINE) == [alert, "What it means", "Look", "Do"]
    assert re.search(r"/grafana/d/souk-(shop|service|balancing|postgres|load)`", page)
    assert fenced(path, "promql")
    assert fenced(path, "sh")
    severities = {rule["labels"]["severity"] for rule in rules() if rule.get("alert") == alert}
    assert {severity for severity in ("page", "ticket") if f"**{severity}**" in page} == severities
    *_, remedy = page.partition("## Do")
    assert re.search(r"`(kubectl|make|docker) [^`]+`", remedy)


def test_each_runbook_is_of_an_alert_and_listed() -> None:
    assert sorted(path.stem for path in RUNBOOKS.glob("Souk*.md")) == ALERTS
    assert sorted(re.findall(r"^\| \[(\w+)\]", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)) == ALERTS


def test_what_a_runbook_types_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    objects = {item["metadata"]["name"] for item in overlay("kind")}
    for path in RUNBOOKS.glob("*.md"):
        code = "\n".join(re.findall(r"```.*?```|`[^`]+`", path.read_text(), re.DOTALL))
        assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets, path.name
        named = re.findall(r"\b(?:deployment|hpa|service|networkpolicy|pod)[/ ]([a-z][a-z0-9-]+)\b", code)
        assert {re.sub(r"-\d$", "", name) for name in named} <= objects, path.name


def test_the_files_that_are_there_are_those_that_are_deployed() -> None:
    listed = {
        generator["name"]: sorted(generator["files"])
        for generator in yaml.safe_load((MONITORING / "kustomization.yaml").read_text())["configMapGenerator"]
    }
    assert listed["prometheus-rules"] == [f"rules/{path.name}" for path in RULES]
    assert listed["grafana-dashboards"] == [f"dashboards/{path.name}" for path in DASHBOARDS]


def test_a_point_of_a_long_window_is_as_long_as_the_interval_of_its_group() -> None:
    points = {rule["record"]: group["interval"] for group in groups() for rule in group["rules"] if "record" in rule}
    counted = [rule for rule in rules() if ":count_" in rule.get("record", "")]
    assert counted
    for rule in counted:
        assert rule["expr"].startswith("10 * ")
        assert {points[metric] for metric in promql.metrics(rule["expr"])} == {"10s"}
    assert SCRAPING["global"]["evaluation_interval"] == SCRAPING["global"]["scrape_interval"] == "10s"


def test_the_alert_on_an_autoscaler_knows_its_maximum() -> None:
    maxima = {scaler["spec"]["maxReplicas"] for scaler in of_kind(overlay("kind"), "HorizontalPodAutoscaler").values()}
    (rule,) = (rule for rule in rules() if rule.get("alert") == "SoukAutoscalerAtMaximum")
    assert {int(number) for number in re.findall(r">= (\d+)", rule["expr"])} == maxima


def relabelled(job: str, source: str, value: str) -> str | None:
    """What a label of a scraped series is made of another one's value; none where the value does not match."""
    (rule,) = (
        rule
        for rule in JOBS[job]["metric_relabel_configs"]
        if rule.get("source_labels") == [source] and rule.get("target_label") == "service"
    )
    found = re.fullmatch(rule["regex"], value)
    return found and found[1]


@pytest.mark.parametrize("service", SERVED)
def test_a_request_at_the_edge_is_counted_for_the_service_that_it_was_meant_for(service: str) -> None:
    port = of_kind(overlay("base"), "Service")[service]["spec"]["ports"][0]["name"]
    assert relabelled("edge", "exported_service", f"souk-{service}-{port}@kubernetes") == service
    assert relabelled("edge", "exported_service", f"{service}@file") == service
    assert relabelled("edge", "exported_service", "noop@internal") is None


@pytest.mark.parametrize("service", SERVED)
def test_prometheus_finds_each_service_by_its_headless_name(service: str) -> None:
    name = f"{service}-headless"
    (port,) = of_kind(overlay("base"), "Service")[name]["spec"]["ports"]
    keep, *_ = JOBS["souk"]["relabel_configs"]
    assert re.fullmatch(keep["regex"], f"{name};{port['name']}")
    assert not re.fullmatch(keep["regex"], f"{service};{port['name']}"), "each replica once"
    assert port["port"] == SERVED[service].model_fields["port"].default


def test_prometheus_finds_the_edge_by_its_inner_port() -> None:
    (keep, *_) = JOBS["edge"]["relabel_configs"]
    ports = {each["name"] for each in container(of_kind(overlay("base"), "Deployment")["edge"])["ports"]}
    assert [name for name in ports if re.fullmatch(keep["regex"], f"edge;{name}")] == ["internal"]


@pytest.mark.parametrize("metric", sorted(OF_KUBELETS))
def test_what_is_kept_of_a_kubelet_is_what_is_used(metric: str) -> None:
    (kept,) = (
        rule
        for rule in JOBS["cadvisor"]["metric_relabel_configs"]
        if rule.get("source_labels") == ["__name__"] and rule["action"] == "keep"
    )
    assert re.fullmatch(kept["regex"], metric)
    assert not re.fullmatch(kept["regex"], "container_fs_reads_total")


def test_compose_and_kubernetes_name_what_the_edge_counts_alike() -> None:
    compose: Any = yaml.safe_load((ROOT / "compose/monitoring/prometheus.yml").read_text())
    theirs = {job["job_name"]: job for job in compose["scrape_configs"]}["edge"]["metric_relabel_configs"]
    assert theirs == JOBS["edge"]["metric_relabel_configs"]
    assert compose["global"] == SCRAPING["global"]


def test_the_alert_that_a_drill_names_is_there() -> None:
    named = {drill.name: drill.alert for drill in CLUSTER_DRILLS if drill.alert is not None}
    assert {"node-loss", "database-restart", "scale"} <= named.keys()
    assert set(named.values()) <= set(ALERTS)


def test_what_alertmanager_mutes_is_there() -> None:
    told: Any = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    for rule in told["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            found = re.fullmatch(r'(\w+)=~?"([\w|]+)"', matcher)
            assert found, matcher
            assert found[1] != "alertname" or set(found[2].split("|")) <= set(ALERTS)
    assert {"receiver": "nobody"}.items() <= told["route"].items()


def asserted(alert: str) -> Iterator[bool]:
    """Whether each test of an alert sees it fire or sees it silent."""
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for each in test.get("alert_rule_test", ()):
                if each["alertname"] == alert:
                    yield bool(each["exp_alerts"])
            for each in test.get("promql_expr_test", ()):
                if f'ALERTS{{alertname="{alert}"' in each["expr"]:
                    yield bool(each["exp_samples"])


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_proven_to_fire_and_to_be_silent(alert: str) -> None:
    assert set(asserted(alert)) == {True, False}


def test_promtool_reads_the_rules() -> None:
    printed = promtool("check", "rules", files=RULES)
    assert printed.count("SUCCESS") == len(RULES)


@pytest.mark.parametrize("path", ["k8s/monitoring/prometheus.yml", "compose/monitoring/prometheus.yml"])
def test_promtool_reads_the_configuration(path: str, tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / path).read_text())
    settings["rule_files"] = [str(rules_file) for rules_file in RULES]
    for job in settings["scrape_configs"]:
        # Debian builds its Prometheus without this way to find targets; tests/cluster/test_alerts.py sees it find all.
        for discovery in job.pop("kubernetes_sd_configs", ()):
            assert discovery["role"] in {"endpointslice", "pod", "node"}
            assert discovery.keys() <= {"role", "namespaces"}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings))
    promtool("check", "config", "--syntax-only", files=[tmp_path / "prometheus.yml"])


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_promtool_proves_the_rules(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", files=[path])
