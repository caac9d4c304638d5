"""The kind cluster: made where there is none, and otherwise left as it is."""

import json
from time import monotonic, sleep
from typing import Any, cast

import yaml

from chassis.migrations import ROOT
from deploy.commands import CommandFailed, Kubectl, run, run_logged, succeeds
from deploy.preflight import check_machine
from deploy.target import PROXY_MODES, STATE, Target
from deploy.terminal import Failed, Result, step

CREATE_TIMEOUT_S = 600.0
PULL_TIMEOUT_S = 900.0
ANSWER_TIMEOUT_S = 90.0


def clusters() -> list[str]:
    """The names of kind's clusters."""
    return run(("kind", "get", "clusters")).split()


def nodes(cluster: str) -> list[str]:
    """The containers that are a cluster's nodes."""
    return run(("kind", "get", "nodes", f"--name={cluster}")).split()


def ensure(target: Target, kubectl: Kubectl) -> None:
    """Make the cluster where it is not there, and see that it answers; raises Failed."""
    cluster = target.kind_cluster
    if cluster is not None and cluster not in clusters():
        if target.existing:
            raise Failed(f"there is no kind cluster {cluster}, to which the context {target.context} would belong")
        check_machine(target)
        _create(target, cluster)
    elif cluster is not None:
        with step(f"cluster {cluster}") as result:
            _wake(cluster, result)
    check_answer(target, kubectl)
    if target.proxy_mode is not None:
        _check_proxy_mode(target.proxy_mode, kubectl)


def _create(target: Target, cluster: str) -> None:
    with step("node image") as result:
        result.text = "there" if _has(target.node_image) else "pulled"
        if not _has(target.node_image):
            result.progress(f"pulling {target.node_image}")
            try:
                run(("docker", "pull", "--quiet", target.node_image), timeout_s=PULL_TIMEOUT_S)
            except CommandFailed as error:
                raise Failed(f"KIND_NODE_IMAGE={target.node_image} is not there: {error}") from None
    if target.proxy_mode == "ipvs":
        check_ipvs(target.node_image)
    with step(f"cluster {cluster}") as result:
        result.progress("a control plane and three workers are being made, a minute or two")
        config = configuration(target)
        file = STATE / "kind.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        command = ("kind", "create", "cluster", f"--name={cluster}", f"--image={target.node_image}")
        try:
            run_logged(
                (*command, f"--config={file}", "--wait=120s"), STATE / "logs" / "kind.log", timeout_s=CREATE_TIMEOUT_S
            )
        except Failed:
            succeeds(("kind", "delete", "cluster", f"--name={cluster}"))  # no half of one stays behind
            raise
        result.text = f"made, kube-proxy in {config['networking']['kubeProxyMode']} mode"


def configuration(target: Target) -> dict[str, Any]:
    """k8s/kind.yaml with what the target says."""
    config = cast("dict[str, Any]", yaml.safe_load((ROOT / "k8s" / "kind.yaml").read_text()))
    config["name"] = target.kind_cluster
    config["networking"]["kubeProxyMode"] = target.proxy_mode or PROXY_MODES[0]
    web, websecure = config["nodes"][0]["extraPortMappings"]
    web["hostPort"] = target.http_port
    websecure["hostPort"] = target.https_port
    return config


def _has(image: str) -> bool:
    return succeeds(("docker", "image", "inspect", image))


def check_ipvs(node_image: str) -> None:
    """IPVS is a part of the kernel that Docker runs on, which may be a virtual machine's."""
    script = "modprobe ip_vs 2>/dev/null; test -e /proc/net/ip_vs"
    probe = ("docker", "run", "--rm", "--privileged", "--network=host", "--volume=/lib/modules:/lib/modules:ro")
    if not succeeds((*probe, "--entrypoint=sh", node_image, "-c", script)):
        raise Failed(
            "KUBE_PROXY_MODE=ipvs: the kernel under Docker has no IPVS (no module ip_vs). "
            "Choose iptables or nftables; Kubernetes deprecates ipvs since 1.35"
        )


def _wake(cluster: str, result: Result) -> None:
    """Start the nodes that are stopped, as they are after a restart of the machine."""
    names = nodes(cluster)
    running = set(run(("docker", "ps", "--format={{.Names}}")).split())
    stopped = [name for name in names if name not in running]
    if stopped:
        run(("docker", "start", *stopped))
    result.text = f"there, {len(stopped)} nodes started" if stopped else "there"
    if not _known(f"kind-{cluster}"):
        run(("kind", "export", "kubeconfig", f"--name={cluster}"))


def _known(context: str) -> bool:
    return context in run(("kubectl", "config", "get-contexts", "--output=name")).split()


def check_answer(target: Target, kubectl: Kubectl) -> None:
    """See that the cluster is there and answers; raises Failed."""
    if not _known(target.context):
        mend = "kubectl config get-contexts" if target.existing else "make deploy makes that cluster"
        raise Failed(f"the context {target.context} is not in the kubeconfig: {mend}")
    ends_at = monotonic() + (ANSWER_TIMEOUT_S if target.kind_cluster else 15)
    while True:
        try:
            kubectl("get", "--raw=/readyz", timeout_s=20)
            return
        except CommandFailed as error:
            if monotonic() > ends_at:
                mend = "make undeploy, then make deploy" if target.kind_cluster else "is it on, and may you reach it?"
                raise Failed(f"the cluster of the context {target.context} does not answer: {mend} ({error})") from None
            sleep(1)


def _check_proxy_mode(asked: str, kubectl: Kubectl) -> None:
    """A cluster keeps the mode that it was made with."""
    found = kubectl.get("configmap", "kube-proxy", "--namespace=kube-system")
    config = yaml.safe_load(found.get("data", {}).get("config.conf", "{}"))
    mode = config.get("mode") or "iptables"
    if mode != asked:
        raise Failed(f"the cluster was made with kube-proxy in {mode} mode, not {asked}: make undeploy first")


def ports(cluster: str) -> dict[int, int]:
    """The ports of this machine that lead to the edge's node ports."""
    found = json.loads(
        run(("docker", "inspect", "--format={{json .HostConfig.PortBindings}}", f"{cluster}-control-plane"))
    )
    return {
        int(inside.partition("/")[0]): int(bindings[0]["HostPort"]) for inside, bindings in found.items() if bindings
    }


def delete(cluster: str) -> None:
    """Delete the cluster with all that is in it, and after the last one the network that kind has made for them."""
    run(("kind", "delete", "cluster", f"--name={cluster}"), timeout_s=CREATE_TIMEOUT_S)
    if not clusters():
        succeeds(("docker", "network", "rm", "kind"))
