"""What goes wrong before the shop is up, each in a line that says what to do, with programs that only pretend."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import cluster, credentials, images, rollout
from deploy.commands import Kubectl, Object
from deploy.target import Target, read_target
from deploy.terminal import Failed, step

KUBECTL = Kubectl("kind-souk", "souk")
ANSWERS = """
case "$*" in
  "config get-contexts "*) echo kind-souk;;
  *"get --raw=/readyz"*) echo ok;;
  *"configmap kube-proxy"*) echo '{"data": {"config.conf": "mode: iptables"}}';;
  *"get namespace"*) echo '{"status": {"phase": "Terminating"}}';;
  *) exit 1;;
esac"""
Programs = Callable[..., list[str]]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Put programs of these names, which do as these scripts say, in the place of all others. What is returned holds,
    after a call, the command lines so far.
    """
    calls = tmp_path / "calls"
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(cluster, "STATE", tmp_path / "state")
    monkeypatch.setattr(images, "STATE", tmp_path / "state")

    def put(**scripts: str) -> list[str]:
        for name, script in scripts.items():
            path = folder / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{script}\n')
            path.chmod(0o755)
        return calls.read_text().splitlines() if calls.exists() else []

    return put


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    """The kind cluster, on a machine whose ports are free."""

    def is_free(_: int) -> bool:
        return True

    monkeypatch.setattr("deploy.preflight.is_free", is_free)
    return read_target({"KIND_NODE_IMAGE": "node:1"})


DOCKER = """
case "$*" in
  "info "*) echo 8589934592;;
  "image inspect "*) {inspect};;
  "pull "*) echo "Error response from daemon: manifest unknown" >&2; exit 1;;
  "run "*) exit 1;;
  *) exit 1;;
esac"""
THERE, MISSING = "exit 0", "exit 1"


def test_a_node_image_that_is_nowhere(programs: Programs, target: Target) -> None:
    programs(docker=DOCKER.format(inspect=MISSING), kind="exit 0")
    with pytest.raises(Failed, match="KIND_NODE_IMAGE=node:1 is not there: docker pull node:1: Error response"):
        cluster.ensure(target, KUBECTL)
    assert not any("create" in call for call in programs())


def test_ipvs_where_the_kernel_has_none(programs: Programs, target: Target) -> None:
    programs(docker=DOCKER.format(inspect=THERE), kind="exit 0")
    with pytest.raises(Failed, match=r"no IPVS .*Choose iptables or nftables"):
        cluster.ensure(replace(target, proxy_mode="ipvs"), KUBECTL)
    assert not any("create" in call for call in programs())


def test_no_half_of_a_cluster_stays_behind(programs: Programs, target: Target) -> None:
    failing = 'test "$1" != create || { echo "ERROR: failed to create cluster: no space left" >&2; exit 1; }'
    programs(docker=DOCKER.format(inspect=THERE), kind=failing)
    with pytest.raises(Failed, match=r"all that it said is in .*kind\.log"):
        cluster.ensure(target, KUBECTL)
    assert programs()[-1] == "kind delete cluster --name=souk"


def there(programs: Programs) -> None:
    """The cluster is there, and its nodes run."""
    programs(kind="echo souk", docker="echo souk", kubectl=ANSWERS)


def test_a_cluster_of_another_proxy_mode(programs: Programs, target: Target) -> None:
    there(programs)
    cluster.ensure(target, KUBECTL)
    with pytest.raises(Failed, match="in iptables mode, not nftables: make undeploy first"):
        cluster.ensure(replace(target, proxy_mode="nftables"), KUBECTL)


def test_a_cluster_that_does_not_answer(programs: Programs, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    there(programs)
    programs(kubectl=ANSWERS.replace("echo ok", "echo 'connection refused' >&2; exit 1"))
    monkeypatch.setattr(cluster, "ANSWER_TIMEOUT_S", 0)
    with pytest.raises(Failed, match=r"does not answer: make undeploy, then make deploy .*connection refused"):
        cluster.ensure(target, KUBECTL)


def test_a_context_that_is_not_there(programs: Programs, target: Target) -> None:
    there(programs)
    elsewhere = replace(target, context="prod", kind_cluster=None, existing=True)
    with pytest.raises(Failed, match="the context prod is not in the kubeconfig"):
        cluster.ensure(elsewhere, Kubectl("prod", "souk"))


def test_an_existing_cluster_is_never_made(programs: Programs, target: Target) -> None:
    programs(kind="echo another", docker=DOCKER.format(inspect=THERE), kubectl=ANSWERS)
    with pytest.raises(Failed, match="no kind cluster souk"):
        cluster.ensure(replace(target, existing=True), KUBECTL)
    assert not any("create" in call for call in programs())


def test_stopped_nodes_are_started(programs: Programs, target: Target) -> None:
    docker = """case "$1" in ps) echo souk-worker;; start) exit 0;; *) exit 1;; esac"""
    programs(
        kind='test "$2" = clusters && echo souk || echo "souk-worker souk-worker2"', docker=docker, kubectl=ANSWERS
    )
    cluster.ensure(target, KUBECTL)
    assert "docker start souk-worker2" in programs()


def test_a_namespace_that_is_half_deleted(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    there(programs)
    monkeypatch.setattr(rollout, "NAMESPACE_TIMEOUT_S", 0)
    with pytest.raises(Failed, match="the namespace souk is being deleted and does not end"):
        rollout.make_namespace([], KUBECTL)


def test_an_image_of_somebody_else_s_that_cannot_be_pulled(programs: Programs) -> None:
    programs(docker=DOCKER.format(inspect=MISSING))
    with (
        pytest.raises(Failed, match=r"the image traefik:v0 cannot be pulled: .*manifest unknown"),
        step("pull") as result,
    ):
        images.pull(["traefik:v0"], result)


def test_grafana_s_image_that_cannot_be_pulled_names_the_way_without_it(programs: Programs) -> None:
    programs(docker=DOCKER.format(inspect=MISSING))
    with (
        pytest.raises(Failed, match=r"grafana/grafana:v0 cannot be pulled: .*; MONITORING=prometheus make deploy"),
        step("pull") as result,
    ):
        images.pull(["grafana/grafana:v0"], result)


def test_who_watches_goes_with_its_rights_in_the_cluster(programs: Programs) -> None:
    labels = {"app.kubernetes.io/part-of": "souk", "app.kubernetes.io/component": "monitoring"}
    role: Object = {"kind": "ClusterRole", "metadata": {"name": "souk-prometheus", "labels": labels}}
    answers = f"""
case "$*" in
  *clusterroles*component=monitoring*) echo '{json.dumps({"items": [role]})}';;
  *" get "*) echo '{{"items": []}}';;
  *) exit 0;;
esac"""
    programs(kubectl=answers)
    assert rollout.prune([role], KUBECTL) == []
    assert rollout.prune([], KUBECTL) == ["ClusterRole/souk-prometheus"]
    assert programs()[-1].endswith("delete --wait=false ClusterRole/souk-prometheus")


def test_who_watches_and_cannot_start_is_no_hindrance_to_the_shop(programs: Programs) -> None:
    programs(kubectl="""echo '{"items": []}'""")
    rollout.pods(KUBECTL)
    rollout.pods(KUBECTL, monitoring=True)
    platform, watching = programs()
    assert "app.kubernetes.io/component!=monitoring" in platform
    assert "app.kubernetes.io/component=monitoring" in watching


def test_images_are_brought_to_those_nodes_that_lack_them(programs: Programs) -> None:
    docker = """case "$2" in souk-worker) echo docker.io/library/traefik:v3 docker.io/souk/user:1;; *) exit 0;; esac"""
    programs(kind='test "$2" != nodes || echo "souk-worker souk-worker2"', docker=docker)
    with step("load") as result:
        images.load("souk", ["souk/user:1", "traefik:v3"], result)
    (loaded,) = (call for call in programs() if call.startswith("kind load"))
    assert loaded == "kind load docker-image --name=souk --nodes=souk-worker2 souk/user:1 traefik:v3"


def test_secrets_that_are_missing_here_are_taken_from_the_cluster(programs: Programs, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    credentials.make(folder)
    before = credentials.secrets(folder)
    listed = tmp_path / "secrets.json"
    listed.write_text(json.dumps({"items": before}))
    programs(kubectl=f"cat {listed}")
    (folder / "postgres" / "password").unlink()
    (folder / "user" / "key_encryption_key").unlink()
    assert credentials.recover(folder, KUBECTL) == 2
    credentials.make(folder)
    assert credentials.secrets(folder) == before
