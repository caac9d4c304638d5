"""What the deploy tool decides, without a cluster."""

import base64
import os
import shutil
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from deploy import backup, cluster, credentials, images, manifests, preflight, rollout
from deploy.commands import CommandFailed, Kubectl, Object, run
from deploy.target import read_target
from deploy.terminal import Failed
from local.edge import STOREFRONT
from tests.manifests import overlay

STREAM = """
kind: Namespace
metadata: {name: souk}
---
kind: Deployment
metadata: {name: order, namespace: souk, labels: {app.kubernetes.io/component: service}}
spec:
  template:
    metadata: {labels: {a: b}}
    spec:
      containers: [{name: service, image: "souk/order:dev"}]
      volumes: [{name: secrets, projected: {sources: [{secret: {name: order}}]}}]
---
kind: Job
metadata: {name: migrate-order, namespace: souk, labels: {app.kubernetes.io/component: migration}}
spec:
  template:
    metadata: {}
    spec:
      containers: [{name: migrate, image: "souk/order:dev"}]
---
kind: HorizontalPodAutoscaler
metadata: {name: order, namespace: souk}
spec: {minReplicas: 3, scaleTargetRef: {name: order}}
---
kind: Deployment
metadata: {name: edge, namespace: souk, labels: {app.kubernetes.io/component: edge}}
spec:
  template:
    metadata: {}
    spec:
      containers: [{name: traefik, image: "traefik:v3.7.15"}]
---
kind: StatefulSet
metadata: {name: prometheus, namespace: souk, labels: {app.kubernetes.io/component: monitoring}}
spec:
  template:
    metadata: {}
    spec:
      containers: [{name: prometheus, image: "prom/prometheus:v3.5.3"}]
---
kind: Service
metadata: {name: prometheus, namespace: souk, labels: {app.kubernetes.io/component: monitoring}}
"""


def test_without_a_word_it_is_the_kind_cluster_souk() -> None:
    target = read_target({})
    assert (target.context, target.kind_cluster, target.overlay) == ("kind-souk", "souk", "kind")
    assert (target.http_port, target.https_port, target.proxy_mode, target.existing) == (8080, 8443, None, False)
    assert target.monitoring == "yes"
    assert cluster.configuration(target)["networking"]["kubeProxyMode"] == "iptables"


def test_the_environment_says_otherwise() -> None:
    target = read_target({"KIND_NODE_IMAGE": "node:1", "KUBE_PROXY_MODE": "nftables", "HTTP_PORT": "9080"})
    assert (target.node_image, target.proxy_mode, target.http_port) == ("node:1", "nftables", 9080)


@pytest.mark.parametrize(
    ("environment", "word"),
    [
        ({"CLUSTER": "prod"}, "CLUSTER=prod"),
        ({"CONTEXT": "prod"}, "CLUSTER=existing"),
        ({"CLUSTER": "existing", "CONTEXT": "prod"}, "REGISTRY is not set"),
        ({"KUBE_PROXY_MODE": "userspace"}, "iptables, nftables, ipvs"),
        ({"OVERLAY": "nowhere"}, "replicaset"),
        ({"MONITORING": "off"}, "MONITORING=off: is one of yes, prometheus, no"),
        ({"HTTP_PORT": "http"}, "HTTP_PORT=http"),
        ({"HTTPS_PORT": "70000"}, "1 to 65535"),
    ],
    ids=str,
)
def test_what_is_wrong_in_the_environment_is_refused_in_a_line(environment: dict[str, str], word: str) -> None:
    with pytest.raises(Failed, match=word) as refusal:
        read_target(environment)
    assert "\n" not in str(refusal.value)


def test_an_existing_cluster_gets_the_base_and_pulls_from_the_registry() -> None:
    target = read_target({"CLUSTER": "existing", "CONTEXT": "prod", "REGISTRY": "registry.example/shop/"})
    assert (target.context, target.kind_cluster, target.overlay) == ("prod", None, "base")
    assert images.names(target)["souk/user"].startswith("registry.example/shop/souk/user:")


def test_kind_is_told_what_the_target_says() -> None:
    target = read_target({"KUBE_PROXY_MODE": "nftables", "HTTP_PORT": "9080", "HTTPS_PORT": "9443"})
    config = cluster.configuration(target)
    assert config["networking"]["kubeProxyMode"] == "nftables"
    assert [each["hostPort"] for each in config["nodes"][0]["extraPortMappings"]] == [9080, 9443]
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker", "worker"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what images are made of."""
    for name in {*images.RECIPE, *images.RECIPE_OF_LOAD, "pyproject.toml"}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("chassis", "services", "loadtests"):
        left_out = shutil.ignore_patterns("pictures", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=left_out, dirs_exist_ok=True)
    return tmp_path


def releases(root: Path) -> dict[str, str]:
    """The tag of each service, and of the load tests."""
    return {name: images.release(name, root) for name in (*SERVICES, STOREFRONT, images.LOAD)}


def changed(tree: Path, path: str) -> set[str]:
    """Those whose tag is another one when a file has changed."""
    before = releases(tree)
    with (tree / path).open("a") as file:
        file.write("\n# changed\n")
    return {name for name, tag in releases(tree).items() if tag != before[name]}


def test_a_change_of_code_is_a_new_image_of_those_whom_it_concerns(tree: Path) -> None:
    assert releases(tree) == releases(tree)
    assert changed(tree, "services/order/saga.py") == {"order"}
    assert changed(tree, "chassis/app.py") == {*SERVICES, STOREFRONT}
    assert changed(tree, "requirements.txt") == {*SERVICES, STOREFRONT}
    assert changed(tree, "services/user/tests/test_domain.py") == set()
    assert changed(tree, "pyproject.toml") == set()
    assert changed(tree, "loadtests/visitor.py") == {images.LOAD}
    assert changed(tree, "requirements-dev.txt") == {images.LOAD}
    assert changed(tree, "loadtests/tests/test_shape.py") == set()


def test_the_image_of_the_load_tests_is_built_for_the_overlay_that_has_them() -> None:
    assert "souk/loadtest" not in images.names(read_target({}))
    assert images.names(read_target({"OVERLAY": "loadtest"}))["souk/loadtest"].startswith("souk/loadtest:")


def test_a_new_dependency_is_a_new_image_of_the_service_that_names_it(tree: Path) -> None:
    before = releases(tree)
    project = tree / "pyproject.toml"
    project.write_text(project.read_text().replace("\nuser = [\n", '\nuser = [\n    "segno>=1.6",\n'))
    assert {service for service, tag in releases(tree).items() if tag != before[service]} == {"user"}


def test_what_is_left_out_of_the_tag_is_left_out_of_the_image() -> None:
    ignored = {line.rpartition("/")[2] for line in (ROOT / ".dockerignore").read_text().splitlines() if "**/" in line}
    assert ignored == images.NOT_IN_AN_IMAGE


def test_an_image_is_known_to_a_node_by_its_full_name() -> None:
    full = {
        "traefik:v3": "docker.io/library/traefik:v3",
        "souk/order:1": "docker.io/souk/order:1",
        "registry.k8s.io/metrics-server/metrics-server:v0": "registry.k8s.io/metrics-server/metrics-server:v0",
        "localhost/a:1": "localhost/a:1",
    }
    assert {image: images.full_name(image) for image in full} == full


def test_the_release_is_put_into_the_manifests() -> None:
    objects = manifests.release(manifests.parsed(STREAM), {"souk/order": "r/souk/order:42"}, {"order": "digest"})
    assert manifests.images_of(objects) == ["prom/prometheus:v3.5.3", "r/souk/order:42", "traefik:v3.7.15"]


def pod_marks(secrets: dict[str, str], host: str = "here") -> list[Any]:
    """The annotations of the pods of each workload, for these digests of secrets and this place of the database."""
    place: Object = {"kind": "Service", "metadata": {"name": "order-database"}, "spec": {"externalName": host}}
    objects = manifests.release([*manifests.parsed(STREAM), place], {}, secrets)
    return [item["spec"]["template"]["metadata"].get("annotations") for item in manifests.workloads(objects)]


def test_a_changed_secret_rolls_the_pods_that_read_it() -> None:
    order, *others = pod_marks({"order": "one"})
    other, *unchanged = pod_marks({"order": "another"})
    assert order != other
    assert unchanged == others
    assert pod_marks({"order": "one", "user": "x"})[0] == order


def test_a_database_that_has_moved_rolls_the_pods_that_work_with_it() -> None:
    before, after = pod_marks({}), pod_marks({}, host="elsewhere")
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, True, False, False]


def test_a_job_is_marked_by_what_it_is_and_where_the_databases_are() -> None:
    def mark(tag: str, host: str = "here") -> str:
        place: Object = {"kind": "Service", "metadata": {"name": "order-database"}, "spec": {"externalName": host}}
        objects = [*manifests.parsed(STREAM), place]
        (job,) = manifests.of_kind(manifests.release(objects, {"souk/order": f"souk/order:{tag}"}, {}), "Job")
        return job["metadata"]["annotations"][manifests.APPLIED_MARK]

    assert mark("1") == mark("1") != mark("2")
    assert mark("1") != mark("1", host="elsewhere")


def test_each_object_has_its_stage() -> None:
    stages = rollout.stages(manifests.parsed(STREAM))
    names = {stage: [f"{item['kind']}/{item['metadata']['name']}" for item in found] for stage, found in stages.items()}
    assert names == {
        "foundations": [],
        "databases": [],
        "migration": ["Job/migrate-order"],
        "service": ["Deployment/order", "HorizontalPodAutoscaler/order"],
        "edge": ["Deployment/edge"],
        "monitoring": ["StatefulSet/prometheus", "Service/prometheus"],
    }


def workload(**status: int) -> Object:
    """A Deployment of three that is at its second change."""
    return {"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status}


UP = {"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3, "availableReplicas": 3}


@pytest.mark.parametrize(
    ("status", "done"),
    [
        (UP, True),
        (UP | {"observedGeneration": 1}, False),  # the change was not looked at yet
        (UP | {"readyReplicas": 2, "availableReplicas": 2}, False),
        (UP | {"replicas": 4, "readyReplicas": 4}, False),  # an old one is still there
        (UP | {"updatedReplicas": 2}, False),
        (UP | {"availableReplicas": 2}, False),  # ready for less than `minReadySeconds`
        ({}, False),
    ],
)
def test_a_workload_is_up_when_all_replicas_are_of_the_newest_release(status: dict[str, int], done: bool) -> None:
    assert rollout.state(workload(**status), 0)[2] is done


def test_a_workload_is_up_when_there_are_as_many_as_its_autoscaler_wants_at_least() -> None:
    assert rollout.state(workload(**UP), 4) == (3, 4, False)


def test_a_pod_that_cannot_start_says_why() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    pod: Object = {"status": {"containerStatuses": [{"state": {"waiting": waiting}}]}}
    assert rollout.illness(pod) == "ImagePullBackOff: no such image"
    assert rollout.illness({"status": {"containerStatuses": [{"state": {"running": {}}}]}}) is None


def test_the_secrets_of_a_cluster_are_made_once(tmp_path: Path) -> None:
    credentials.make(tmp_path)
    first = credentials.secrets(tmp_path)
    credentials.make(tmp_path)
    assert credentials.secrets(tmp_path) == first
    data = {item["metadata"]["name"]: item["data"] for item in first}
    assert set(data["user"]) == {"service_key", "service_jwks", "key_encryption_key", "admin_password"}
    url = base64.b64decode(data["order-database"]["database_url"]).decode()
    assert url.startswith("postgresql://souk_order:")
    assert url.endswith("@order-database/souk_order")
    owner = base64.b64decode(data["order-owner"]["database_url"]).decode()
    assert owner.startswith("postgresql://souk_order_owner:")
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def certificate(path: Path) -> x509.Certificate:
    """A certificate of a file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_certificate_is_renewed_before_it_ends_by_the_same_authority(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    credentials.make_certificate(tmp_path, now)
    first = (tmp_path / "edge" / "tls.crt").read_bytes()
    credentials.make_certificate(tmp_path, now + timedelta(days=30))
    assert (tmp_path / "edge" / "tls.crt").read_bytes() == first
    authority = (tmp_path / "authority" / "ca.crt").read_bytes()
    credentials.make_certificate(tmp_path, now + timedelta(days=200))  # long after it has expired
    assert (tmp_path / "edge" / "tls.crt").read_bytes() != first
    assert (tmp_path / "authority" / "ca.crt").read_bytes() == authority
    assert certificate(tmp_path / "edge" / "tls.crt").not_valid_after_utc > now + timedelta(days=280)


def test_a_damaged_certificate_or_one_of_another_authority_is_made_anew(tmp_path: Path) -> None:
    credentials.make_certificate(tmp_path)
    (tmp_path / "edge" / "tls.crt").write_text("damaged")
    credentials.make_certificate(tmp_path)
    shutil.rmtree(tmp_path / "authority")
    credentials.make_certificate(tmp_path)
    issuer = certificate(tmp_path / "authority" / "ca.crt")
    certificate(tmp_path / "edge" / "tls.crt").verify_directly_issued_by(issuer)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "souk.localhost"])
def test_a_client_that_trusts_the_authority_trusts_the_edge(host: str, tmp_path: Path) -> None:
    credentials.make_certificate(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "edge" / "tls.crt", tmp_path / "edge" / "tls.key")
    trusting = ssl.create_default_context(cafile=tmp_path / "authority" / "ca.crt")
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def answer() -> None:
            with serving.wrap_socket(theirs, server_side=True) as connection:
                connection.send(b"x")

        server = threading.Thread(target=answer)
        server.start()
        with trusting.wrap_socket(ours, server_hostname=host) as connection:
            assert connection.recv(1) == b"x"
        server.join()


@pytest.mark.parametrize(
    ("text", "version"),
    [("kind v0.33.0 go1.27.2 linux/amd64", (0, 33, 0)), ("v1.36.3", (1, 36, 3)), ("28.1", (28, 1, 0)), ("?", (0,))],
)
def test_versions_are_found_in_what_programs_print(text: str, version: tuple[int, ...]) -> None:
    assert preflight.parsed_version(text) == version


def program(folder: Path, name: str, script: str) -> None:
    """A program of this name that does as the script says."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_program_that_is_missing_silent_or_old_is_named_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match="docker is not installed: https://"):
        preflight.version_of("docker")
    program(tmp_path, "docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(Failed, match="Docker does not answer"):
        preflight.version_of("docker")
    program(tmp_path, "docker", "echo 19.3.1")
    with pytest.raises(Failed, match=r"docker 19\.3\.1 is too old, it takes 24\.0"):
        preflight.version_of("docker")
    program(tmp_path, "kubectl", """echo '{"clientVersion": {"gitVersion": "v1.36.3"}}'""")
    assert preflight.version_of("kubectl") == (1, 36, 3)


def docker_with(folder: Path, memory_bytes: int) -> None:
    """A Docker that has so much memory."""
    program(folder, "docker", f"echo {memory_bytes}")


def test_too_little_memory_and_a_taken_port_are_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    docker_with(tmp_path, 2 * 2**30)
    with pytest.raises(Failed, match=r"2\.0 GiB of memory"):
        preflight.check_machine(read_target({}))
    docker_with(tmp_path, 8 * 2**30)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert not preflight.is_free(port)
        with pytest.raises(Failed, match=f"port {port} is taken: .* HTTP_PORT="):
            preflight.check_machine(read_target({"HTTP_PORT": str(port)}))


def test_a_failure_is_the_line_that_tells_most(tmp_path: Path) -> None:
    program(
        tmp_path, "failing", "echo 'Using context x'; echo 'ERROR: no such image' >&2; echo 'see the docs' >&2; exit 1"
    )
    with pytest.raises(CommandFailed) as failure:
        run((str(tmp_path / "failing"), "now"))
    assert str(failure.value).endswith("failing now: ERROR: no such image")
    with pytest.raises(CommandFailed, match="is not installed"):
        run(("no-such-program",))


def test_a_backup_is_unpacked_by_a_pod_that_is_the_database_s_but_for_what_it_runs() -> None:
    database = next(item for item in overlay("kind") if manifests.identity(item)[::2] == ("StatefulSet", "postgres"))
    pod = backup.restoring_pod([database])["spec"]
    theirs = database["spec"]["template"]["spec"]
    (ours,) = pod["containers"]
    assert ours["command"] == ["sleep", "infinity"]
    assert "livenessProbe" not in ours
    for part in ("securityContext", "serviceAccountName", "nodeSelector", "tolerations"):
        assert pod[part] == theirs[part]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-postgres-0"}} in pod["volumes"]
    assert ours["volumeMounts"] == theirs["containers"][0]["volumeMounts"]
    assert "app.kubernetes.io/component" not in backup.restoring_pod([database])["metadata"]["labels"]


def test_what_is_no_backup_is_refused_before_anything_stops(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"is not a backup: postgres\.tar\.gz is missing"):
        backup.restore(Kubectl("nowhere", "souk"), tmp_path, [], overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(Failed, match="is not empty"):
        backup.backup(Kubectl("nowhere", "souk"), tmp_path)
