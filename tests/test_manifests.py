"""k8s/ keeps what it promises; kustomize renders it, and no cluster is needed to read it."""

import json
import re
from collections.abc import Iterable
from typing import Any

import kubernetes_validate  # pyright: ignore[reportMissingTypeStubs] - it has none
import pytest
import yaml

from chassis.migrations import ROOT
from chassis.origins import RESOLVE_EVERY_S, origins
from chassis.secrets import SERVICES
from chassis.server import GRACE_S, KEEP_ALIVE_S
from deploy import credentials
from deploy.commands import Object
from deploy.images import LOAD
from deploy.manifests import MEBI, MONITORING, WORKLOADS, component, monitored, quantity, secrets_of
from deploy.target import UNWATCHED, WATCHED, WITHOUT_GRAFANA
from local.edge import ROUTES, STOREFRONT
from tests.manifests import (
    OVERLAYS,
    container,
    environment,
    labels,
    name_of,
    of_kind,
    overlay,
    pod,
    selects,
)
from tests.test_compose import BACKEND_BYTES, PAGES, RESERVED_CONNECTIONS, SERVED, SETTINGS_OF, postgres_settings

KUBERNETES = "1.36"
"""The version of the node image in deploy/target.py."""
LASTING = ("Deployment", "ReplicaSet", "StatefulSet")
UNKNOWN_KINDS = frozenset({"APIService"})
"""Not Kubernetes' own, but of the API server's aggregator, whose schema kubernetes-validate does not carry."""
CPUS_AT_MOST = 1.0
BYTES_AT_MOST = 1.2 * 2**30
"""Of the platform; those who watch it come on top, and may be left out."""
CPUS_OF_MONITORING = 0.1
BYTES_OF_MONITORING = 300 * MEBI
COLLECTOR = "http://collector:4318"
KIND = overlay("kind")
BASE = overlay("base")
DEPLOYMENTS = of_kind(BASE, "Deployment")
JOBS = of_kind(BASE, "Job")
AUTOSCALERS = of_kind(BASE, "HorizontalPodAutoscaler")
POSTGRES = of_kind(BASE, "StatefulSet")["postgres"]
EDGE: Any = yaml.safe_load((ROOT / "k8s/base/edge/traefik.yml").read_text())


def every(*kinds: str) -> list[Any]:
    """Each object of these kinds that any overlay has, each form of it once."""
    found: dict[str, Any] = {}
    for name in OVERLAYS:
        for item in overlay(name):
            if not kinds or item["kind"] in kinds:
                found.setdefault(json.dumps(item, sort_keys=True), pytest.param(item, id=f"{name}-{name_of(item)}"))
    return list(found.values())


@pytest.mark.parametrize("item", every())
def test_each_object_is_as_its_schema_says(item: Object) -> None:
    if item["kind"] not in UNKNOWN_KINDS:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_object_is_there_twice_or_in_a_namespace_by_accident(name: str) -> None:
    objects = overlay(name)
    assert len({(item["kind"], item["metadata"]["name"]) for item in objects}) == len(objects)
    assert {item["metadata"].get("namespace", "souk") for item in objects} <= {"souk", "kube-system"}
    assert all(item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "souk" for item in objects)


@pytest.mark.parametrize("workload", every(*WORKLOADS))
def test_each_workload_is_restricted(workload: Object) -> None:
    of_pod, of_container = pod(workload)["securityContext"], container(workload)["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] == of_pod["runAsGroup"] == 10001
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount["name"] for mount in container(workload)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
    assert "emptyDir" in volumes[mounts["/tmp"]]  # noqa: S108 - a mount, not a file name that can be guessed
    assert not any(pod(workload).get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    assert not any("hostPath" in volume for volume in volumes.values())


@pytest.mark.parametrize("workload", every(*WORKLOADS))
def test_no_pod_gets_a_token_unasked(workload: Object) -> None:
    if workload["metadata"]["name"] == "metrics-server":
        return  # reads the kubelets' figures, as its account may
    assert pod(workload)["automountServiceAccountToken"] is False
    asked = [
        source
        for volume in pod(workload)["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    ]
    assert bool(asked) == (workload["metadata"]["name"] in {"edge", "prometheus"})


@pytest.mark.parametrize("workload", every(*WORKLOADS))
def test_each_container_has_requests_and_limits(workload: Object) -> None:
    resources = container(workload)["resources"]
    for kind in ("requests", "limits"):
        assert set(resources[kind]) == {"cpu", "memory"}
    for name in ("cpu", "memory"):
        assert 0 < quantity(resources["requests"][name]) <= quantity(resources["limits"][name])


@pytest.mark.parametrize("workload", every(*WORKLOADS))
def test_each_image_is_built_here_or_pinned_to_a_version(workload: Object) -> None:
    image = container(workload)["image"]
    built = image in {f"souk/{name}:dev" for name in (*SERVED, LOAD)}  # `make deploy` puts the release in its place
    assert built or re.fullmatch(r"[a-z0-9./-]+:v?\d[\w.-]*", image)
    assert container(workload)["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("workload", every(*LASTING))
def test_what_serves_is_probed(workload: Object) -> None:
    probes = {kind: container(workload)[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
    if component(workload) == "service":
        paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}
        assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] >= 60


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_serves_has_a_disruption_budget_that_lets_the_ill_go(name: str) -> None:
    budgets = of_kind(overlay(name), "PodDisruptionBudget").values()
    for workload in of_kind(overlay(name), *LASTING).values():
        if workload["metadata"]["namespace"] == "souk":
            (budget,) = (each for each in budgets if selects(each["spec"]["selector"], labels(workload)))
            assert budget["spec"]["maxUnavailable"] == 1
            assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("workload", every("Deployment", "ReplicaSet"))
def test_replicas_are_spread_over_nodes_release_by_release(workload: Object) -> None:
    if workload["metadata"]["name"] == "metrics-server":
        return  # one replica
    (spread,) = pod(workload)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["maxSkew"] == 1
    assert "pod-template-hash" in spread["matchLabelKeys"]
    assert selects(spread["labelSelector"], labels(workload))
    # Over those of its own service only.
    assert "app.kubernetes.io/name" in {*spread["matchLabelKeys"], *spread["labelSelector"]["matchLabels"]}


@pytest.mark.parametrize("name", [*SERVED, "edge"])
def test_a_roll_out_takes_no_replica_away_before_there_is_another(name: str) -> None:
    spec = DEPLOYMENTS[name]["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert spec["minReadySeconds"] == 5
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 45
    assert container(DEPLOYMENTS[name])["lifecycle"]["preStop"].keys() == {"sleep"}


def test_an_edge_that_goes_waits_until_its_clients_have_gone_to_another() -> None:
    slept_s = container(DEPLOYMENTS["edge"])["lifecycle"]["preStop"]["sleep"]["seconds"]
    for name in ("web", "websecure"):
        transport = EDGE["entryPoints"][name]["transport"]
        open_s, grace_s = (
            float(text.removesuffix("s"))
            for text in (transport["keepAliveMaxTime"], transport["lifeCycle"]["graceTimeOut"])
        )
        # A last connection may come a second or two after the pod was told, and is closed by an answer after 5 s.
        assert slept_s >= 2 + 2 * open_s
        assert pod(DEPLOYMENTS["edge"])["terminationGracePeriodSeconds"] >= slept_s + grace_s + 5


def test_a_pod_that_goes_serves_until_everybody_knows_and_ends_what_it_began() -> None:
    slept_s = container(DEPLOYMENTS["order"])["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert slept_s > RESOLVE_EVERY_S
    assert pod(DEPLOYMENTS["order"])["terminationGracePeriodSeconds"] > slept_s + GRACE_S


def test_the_edge_gives_up_an_idle_connection_before_the_service_does() -> None:
    timeouts = EDGE["serversTransport"]["forwardingTimeouts"]
    assert float(timeouts["idleConnTimeout"].removesuffix("s")) <= KEEP_ALIVE_S / 2


@pytest.mark.parametrize("service", SERVED)
def test_the_number_of_replicas_is_the_autoscaler_s(service: str) -> None:
    assert "replicas" not in DEPLOYMENTS[service]["spec"]
    spec = AUTOSCALERS[service]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": service}
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
    up, down = (spec["behavior"][way]["stabilizationWindowSeconds"] for way in ("scaleUp", "scaleDown"))
    assert up < down
    (metric,) = spec["metrics"]
    limit = quantity(container(DEPLOYMENTS[service])["resources"]["limits"]["cpu"])
    assert quantity(metric["resource"]["target"]["averageValue"]) < limit


def settings_of_postgres() -> dict[str, str]:
    """What PostgreSQL is started with."""
    return dict(option.removeprefix("-c").split("=", 1) for option in container(POSTGRES)["args"])


def test_the_pools_of_all_replicas_fit_into_postgres_while_a_release_rolls() -> None:
    pools = 0
    for service in SERVICES:
        default = str(SETTINGS_OF[service].model_fields["database_pool_size"].default)
        size = int(environment(DEPLOYMENTS[service]).get("DATABASE_POOL_SIZE", default))
        # As many again are on their way out: they serve for up to 45 s after their successors came.
        pools += 2 * AUTOSCALERS[service]["spec"]["maxReplicas"] * size
    migrations = len([job for job in JOBS.values() if component(job) in {"migration", "databases"}])
    assert pools + migrations < int(settings_of_postgres()["max_connections"]) - RESERVED_CONNECTIONS


def test_postgres_is_tuned_as_in_compose_and_has_memory_for_all_its_connections() -> None:
    of_its_own = {"max_connections", "shared_buffers", "effective_cache_size", "wal_level", "max_wal_senders"}
    here = {name: value for name, value in settings_of_postgres().items() if name not in of_its_own}
    assert here == {name: value for name, value in postgres_settings().items() if name not in of_its_own}
    limit = quantity(container(POSTGRES)["resources"]["limits"]["memory"])
    buffers = int(settings_of_postgres()["shared_buffers"].removesuffix("MB")) * MEBI
    assert buffers + int(settings_of_postgres()["max_connections"]) * BACKEND_BYTES < limit


def total(objects: Iterable[Object], replicas: dict[str, int], resource: str) -> float:
    """What all lasting workloads request together."""
    return sum(
        replicas.get(name, int(workload["spec"].get("replicas", 1)))
        * quantity(container(workload)["resources"]["requests"][resource])
        for name, workload in of_kind(objects, *LASTING).items()
    )


def test_all_of_it_with_two_replicas_of_each_asks_for_less_than_a_peer_with_one() -> None:
    """On kind; the autoscalers' least is one replica more, the one that may be lost while another is drained."""
    assert all(scaler["spec"]["minReplicas"] == 3 for scaler in AUTOSCALERS.values())
    two = dict.fromkeys((*AUTOSCALERS, "edge"), 2)
    platform = monitored(KIND, UNWATCHED)
    assert total(platform, two, "cpu") <= CPUS_AT_MOST
    assert total(platform, two, "memory") <= BYTES_AT_MOST


def test_those_who_watch_ask_for_less() -> None:
    watching = [item for item in KIND if component(item) == MONITORING]
    assert set(of_kind(watching, *LASTING)) == {"prometheus", "alertmanager", "grafana"}
    assert total(watching, {}, "cpu") <= CPUS_OF_MONITORING
    assert total(watching, {}, "memory") <= BYTES_OF_MONITORING
    for workload in of_kind(watching, *LASTING).values():
        (claim,) = workload["spec"]["volumeClaimTemplates"]
        assert claim["metadata"]["name"] in {mount["name"] for mount in container(workload)["volumeMounts"]}


def test_as_much_of_the_monitoring_is_deployed_as_is_wanted() -> None:
    def names(wanted: str) -> set[str]:
        return {name_of(item) for item in monitored(BASE, wanted)}

    everything, without_grafana, nothing = (names(wanted) for wanted in (WATCHED, WITHOUT_GRAFANA, UNWATCHED))
    assert everything == {name_of(item) for item in BASE}
    left_out = everything - without_grafana
    assert {"StatefulSet/grafana", "Service/grafana", "Ingress/grafana", "NetworkPolicy/edge-to-grafana"} < left_out
    assert all("grafana" in name for name in left_out)
    assert not [name for name in without_grafana if "grafana" in name]
    assert everything - nothing == {name_of(item) for item in BASE if component(item) == MONITORING}
    assert not [name for name in nothing if "prometheus" in name]


def test_the_edge_routes_what_it_routes_in_local_mode() -> None:
    ingress = of_kind(BASE, "Ingress")["souk"]
    (rule,) = ingress["spec"]["rules"]
    routed: dict[str, str] = {}
    for path in rule["http"]["paths"]:
        assert path["pathType"] == ("Exact" if path["path"] in {"/docs", "/"} else "Prefix")
        assert path["backend"]["service"]["port"] == {"name": "http"}
        routed[path["path"]] = path["backend"]["service"]["name"]
    assert routed == {**ROUTES, "/": STOREFRONT}
    assert EDGE["providers"]["kubernetesIngress"]["strictPrefixMatching"] is True
    routers = file_routes()["routers"]
    (port,) = of_kind(BASE, "Service")[STOREFRONT]["spec"]["ports"]
    assert routers[STOREFRONT] == {
        "entryPoints": ["web", "websecure"],
        "rule": PAGES,
        "priority": 1,
        # As Traefik names what the Ingress leads to.
        "service": f"{ingress['metadata']['namespace']}-{STOREFRONT}-{port['name']}@kubernetes",
    }
    public = [name for name, router in routers.items() if router["entryPoints"] != ["traefik"]]
    assert public == [STOREFRONT]


def file_routes() -> Any:
    """What the edge routes beside the Ingress."""
    return yaml.safe_load((ROOT / "k8s/base/edge/routes.yml").read_text())["http"]


def test_an_edge_is_ready_when_it_has_read_the_ingress() -> None:
    (edge,) = (each for each in DEPLOYMENTS.values() if each["metadata"]["name"] == "edge")
    path, port = (container(edge)["readinessProbe"]["httpGet"][key] for key in ("path", "port"))
    (number,) = (each["containerPort"] for each in container(edge)["ports"] if each["name"] == port)
    assert EDGE["entryPoints"]["traefik"]["address"] == f":{number}"
    ready = file_routes()["routers"]["ready"]
    assert ready["rule"] == f"Path(`{path}`)"
    (asked,) = ready["middlewares"]
    ingress = of_kind(BASE, "Ingress")["souk"]
    names = {
        f"/api/http/routers/web-{ingress['metadata']['namespace']}-{ingress['metadata']['name']}"
        f"{each['path'].replace('/', '-')}@kubernetes"
        for each in ingress["spec"]["rules"][0]["http"]["paths"]
    }
    assert file_routes()["middlewares"][asked]["replacePath"]["path"] in names


def test_of_those_who_watch_only_grafana_is_reached_through_the_edge() -> None:
    ingresses = of_kind(BASE, "Ingress")
    assert set(ingresses) == {"souk", "grafana"}
    (path,) = ingresses["grafana"]["spec"]["rules"][0]["http"]["paths"]
    assert (path["path"], path["pathType"], path["backend"]["service"]["name"]) == ("/grafana", "Prefix", "grafana")
    assert ingresses["grafana"]["spec"]["tls"] == ingresses["souk"]["spec"]["tls"]
    for name in ("prometheus", "alertmanager", "grafana"):
        assert of_kind(BASE, "Service")[name]["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_only_a_cluster_on_one_machine_shows_dashboards_without_a_login() -> None:
    ini = (ROOT / "k8s/monitoring/grafana/grafana.ini").read_text()
    assert "enabled = false" in ini.partition("[auth.anonymous]")[2].partition("[dashboards]")[0]
    assert "admin_password = $__file{/run/secrets/admin_password}" in ini
    assert "env" not in container(of_kind(BASE, "StatefulSet")["grafana"])
    assert environment(of_kind(KIND, "StatefulSet")["grafana"]) == {"GF_AUTH_ANONYMOUS_ENABLED": "true"}


def test_prometheus_may_find_pods_here_and_read_what_kubelets_measure() -> None:
    (role,) = (item for item in BASE if name_of(item) == "Role/prometheus")
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {
        "pods", "services", "endpointslices"
    }  # fmt: skip
    (everywhere,) = (item for item in BASE if name_of(item) == "ClusterRole/souk-prometheus")
    assert {resource for rule in everywhere["rules"] for resource in rule["resources"]} == {"nodes", "nodes/metrics"}
    assert {verb for rule in (*role["rules"], *everywhere["rules"]) for verb in rule["verbs"]} <= {
        "get", "list", "watch"
    }  # fmt: skip


def test_what_the_edge_does_to_a_request_is_what_compose_s_does() -> None:
    here, compose = file_routes(), yaml.safe_load((ROOT / "compose/routes.yml").read_text())["http"]
    assert compose["middlewares"].items() <= here["middlewares"].items()
    used = {name.removesuffix("@file") for name in EDGE["entryPoints"]["web"]["http"]["middlewares"]}
    assert used == compose["middlewares"].keys()
    assert here["routers"][STOREFRONT]["rule"] == compose["routers"][STOREFRONT]["rule"]


@pytest.mark.parametrize(
    ("usual", "traced"),
    [
        ("k8s/base/edge/traefik.yml", "k8s/components/tracing/traefik.yml"),
        ("compose/traefik.yml", "compose/traefik-tracing.yml"),
    ],
)
def test_an_edge_that_traces_is_the_usual_one_and_a_section_more(usual: str, traced: str) -> None:
    beginning, whole = ((ROOT / path).read_text().partition("\n")[2] for path in (usual, traced))
    assert whole.startswith(beginning)
    settings: Any = yaml.safe_load(whole)
    assert settings.pop("tracing")["otlp"] == {"http": {"endpoint": f"{COLLECTOR}/v1/traces"}}
    assert settings == yaml.safe_load((ROOT / usual).read_text())


def test_traces_are_sent_where_the_overlay_tracing_says_and_nowhere_else() -> None:
    objects = overlay("tracing")
    for service in SERVED:
        assert environment(of_kind(objects, "Deployment")[service])["OTEL_EXPORTER_OTLP_ENDPOINT"] == COLLECTOR
    (edge,) = (item for name, item in of_kind(objects, "ConfigMap").items() if name.startswith("edge-"))
    assert set(edge["data"]) == {"traefik.yml", "routes.yml"}
    assert "tracing:" in edge["data"]["traefik.yml"]
    for item in KIND:
        assert "tracing:" not in item.get("data", {}).get("traefik.yml", "")
        assert item["kind"] not in WORKLOADS or "OTEL_EXPORTER_OTLP_ENDPOINT" not in environment(item)


def test_nobody_may_read_the_secrets_of_the_cluster() -> None:
    for item in KIND:
        if item["kind"] == "ClusterRole":
            assert not any({"secrets", "*"} & set(rule["resources"]) for rule in item["rules"])
    assert of_kind(KIND, "RoleBinding")["edge"]["roleRef"]["kind"] == "Role"


@pytest.mark.parametrize("service", SERVED)
def test_each_service_has_an_address_for_all_and_one_for_each_of_its_pods(service: str) -> None:
    port = SERVED[service].model_fields["port"].default
    services = of_kind(BASE, "Service")
    for name in (service, f"{service}-headless"):
        spec = services[name]["spec"]
        assert selects({"matchLabels": spec["selector"]}, labels(DEPLOYMENTS[service]))
        assert [(each["port"], each["targetPort"]) for each in spec["ports"]] == [(port, "http")]
    assert "clusterIP" not in services[service]["spec"]
    assert services[f"{service}-headless"]["spec"]["clusterIP"] == "None"
    assert container(DEPLOYMENTS[service])["ports"] == [{"name": "http", "containerPort": port}]


@pytest.mark.parametrize("service", SERVED)
def test_a_caller_is_told_the_headless_name(service: str) -> None:
    for name, value in environment(DEPLOYMENTS[service]).items():
        if name.endswith("_URL"):
            peer = name.removesuffix("_URL").lower()
            assert origins(value) == [(f"{peer}-headless", SETTINGS_OF[peer].model_fields["port"].default)]


@pytest.mark.parametrize("service", SERVED)
def test_a_service_is_told_only_what_it_has_a_setting_for(service: str) -> None:
    known = {name.upper() for name in SERVED[service].model_fields}
    assert environment(DEPLOYMENTS[service]).keys() <= known
    if service in SERVICES:
        assert environment(JOBS[f"migrate-{service}"]).keys() <= known


def test_the_node_ports_are_those_that_kind_maps() -> None:
    mapped: Any = yaml.safe_load((ROOT / "k8s/kind.yaml").read_text())["nodes"][0]["extraPortMappings"]
    services = of_kind(BASE, "Service")
    assert services["edge"]["spec"]["type"] == "NodePort"
    assert [each["containerPort"] for each in mapped] == [
        each["nodePort"] for each in services["edge"]["spec"]["ports"]
    ]
    assert [(each["hostPort"], each["listenAddress"]) for each in mapped] == [(8080, "127.0.0.1"), (8443, "127.0.0.1")]
    assert services["edge-loadbalancer"]["spec"]["type"] == "LoadBalancer"


@pytest.mark.parametrize("service", SERVICES)
def test_each_pod_sees_the_secrets_that_it_works_with_and_no_other(service: str) -> None:
    assert secrets_of(DEPLOYMENTS[service]) == {service, f"{service}-database"}
    assert secrets_of(JOBS[f"migrate-{service}"]) == {service, f"{service}-owner"}
    assert JOBS[f"migrate-{service}"]["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]


def test_the_storefront_keeps_nothing_and_holds_no_secret() -> None:
    assert secrets_of(DEPLOYMENTS[STOREFRONT]) == set()
    assert f"migrate-{STOREFRONT}" not in JOBS
    assert [volume["name"] for volume in pod(DEPLOYMENTS[STOREFRONT])["volumes"]] == ["tmp"]


def test_each_secret_that_is_mounted_is_made() -> None:
    mounted = {name for item in BASE if item["kind"] in WORKLOADS for name in secrets_of(item)}
    assert mounted == set(credentials.files())
    assert secrets_of(POSTGRES) == {"postgres"}
    assert secrets_of(JOBS["databases"]) == {"postgres", "postgres-roles"}
    assert secrets_of(DEPLOYMENTS["edge"]) == {"edge-tls"}


@pytest.mark.parametrize("workload", every(*WORKLOADS))
def test_no_secret_is_in_an_environment(workload: Object) -> None:
    secret = {key.upper() for keys in credentials.files().values() for key in keys}
    assert all("value" in each for each in container(workload).get("env", []))
    assert not secret & environment(workload).keys()
    assert "envFrom" not in container(workload)


FLOWS = {
    *(("edge", service) for service in SERVED),
    *((STOREFRONT, service) for service in SERVICES),
    *(("order", peer) for peer in ("user", "product", "payment")),
    ("product", "user"),
    ("payment", "user"),
    *((client, "postgres") for client in (*SERVICES, *(f"migrate-{service}" for service in SERVICES), "databases")),
    *(("prometheus", service) for service in SERVED),
    ("prometheus", "alertmanager"),
    ("grafana", "prometheus"),
    ("edge", "grafana"),
}
"""Who calls whom. All services verify access tokens by the user service's keys."""


def lets(policy: Object, way: str, other: Object, port: int) -> bool:
    """Whether a policy lets those whom it selects talk to `other` at a port; `way` is `ingress` or `egress`."""
    ends = {"ingress": "from", "egress": "to"}[way]
    for rule in policy["spec"].get(way, []):
        peers = rule.get(ends)
        ports = [each["port"] for each in rule.get("ports", [])]
        meant = peers is None or any(
            "namespaceSelector" not in peer and selects(peer["podSelector"], labels(other)) for peer in peers
        )
        if meant and (not ports or port in ports):
            return True
    return False


def may_talk(caller: Object, called: Object, port: int, objects: Iterable[Object] = BASE) -> bool:
    """Whether the policies of both ends allow it."""
    policies = list(of_kind(objects, "NetworkPolicy").values())
    for way, whose, other in (("egress", caller, called), ("ingress", called, caller)):
        of_this_end = [
            each
            for each in policies
            if way.capitalize() in each["spec"]["policyTypes"] and selects(each["spec"]["podSelector"], labels(whose))
        ]
        assert of_this_end, "default-deny selects everything"
        if not any(lets(each, way, other, port) for each in of_this_end):
            return False
    return True


def test_exactly_the_flows_that_exist_are_allowed() -> None:
    workloads = of_kind(BASE, *WORKLOADS)
    ports = {name: int(item["spec"]["ports"][0]["port"]) for name, item in of_kind(BASE, "Service").items()}
    watching = ("prometheus", "alertmanager", "grafana")
    called = {name: ports[name] for name in (*SERVED, *watching)} | {"postgres": 5432, "edge": 8000}
    allowed = {
        (caller, name)
        for caller in workloads
        for name, port in called.items()
        if caller != name and may_talk(workloads[caller], workloads[name], port)
    }
    assert allowed == FLOWS
    for caller, name in FLOWS:
        assert not may_talk(workloads[caller], workloads[name], 22)
    inner = container(workloads["edge"])["ports"][-1]
    assert inner == {"name": "internal", "containerPort": 8080}
    told = {caller for caller in workloads if caller != "edge" and may_talk(workloads[caller], workloads["edge"], 8080)}
    assert told == {"prometheus"}


def test_who_loads_the_shop_from_inside_reaches_its_edge_and_nothing_else() -> None:
    objects = overlay(LOAD)
    workloads = of_kind(objects, *WORKLOADS)
    called = {name: 8000 + place for place, name in enumerate(SERVED, 1)} | {"postgres": 5432, "edge": 8000}
    called |= {"load-master": 5557, "prometheus": 9090}
    allowed = {
        (caller, name)
        for caller in ("load-master", "load-workers")
        for name, port in called.items()
        if caller != name and may_talk(workloads[caller], workloads[name], port, objects)
    }
    assert allowed == {("load-workers", "edge"), ("load-workers", "load-master")}
    to_master = {name for name in workloads if may_talk(workloads[name], workloads["load-master"], 5557, objects)}
    assert to_master == {"load-workers"}


def test_a_load_from_inside_begins_when_somebody_says_so_and_sees_one_secret() -> None:
    jobs = of_kind(overlay(LOAD), "Job")
    for name in ("load-master", "load-workers"):
        assert jobs[name]["spec"]["suspend"] is True
    assert secrets_of(jobs["load-master"]) == set()
    (volume,) = (each for each in pod(jobs["load-workers"])["volumes"] if "projected" in each)
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "user", "items": [{"key": "admin_password", "path": "admin_password"}]}}
    ]


def test_those_who_watch_can_be_left_out_and_nothing_else_changes() -> None:
    """A policy that selects the platform's pods and has no `ingress` or `egress` rule of its own would deny."""
    for policy in of_kind([item for item in BASE if component(item) == MONITORING], "NetworkPolicy").values():
        assert set(policy["spec"]["policyTypes"]) <= {"Ingress", "Egress"}
        for way in policy["spec"]["policyTypes"]:
            assert way.lower() in policy["spec"]


def test_the_namespace_enforces_the_restricted_standard_and_denies_by_default() -> None:
    namespace = of_kind(BASE, "Namespace")["souk"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    deny = of_kind(BASE, "NetworkPolicy")["default-deny"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_bare_replicasets_take_the_place_of_the_services_deployments() -> None:
    objects = overlay("replicaset")
    assert set(of_kind(objects, "ReplicaSet")) == set(SERVED)
    assert not set(of_kind(objects, "Deployment")) & set(SERVED)
    for scaler in of_kind(objects, "HorizontalPodAutoscaler").values():
        assert scaler["spec"]["scaleTargetRef"]["kind"] == "ReplicaSet"


def test_databases_outside_the_cluster_are_names_for_other_names() -> None:
    objects = overlay("external-database")
    assert "postgres" not in of_kind(objects, "StatefulSet")
    for service in SERVICES:
        spec = of_kind(objects, "Service")[f"{service}-database"]["spec"]
        assert spec["type"] == "ExternalName"
        assert spec["externalName"]
        assert "selector" not in spec


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "k8s").glob("*/*/kustomization.yaml")), ids=lambda path: path.parent.name
)
def test_each_component_and_overlay_is_explained(folder: Any) -> None:
    assert (folder.parent / "README.md").exists()
