"""The ways from callers to pods that are compared, and what has to be done so that each is there."""

import json
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from chassis.migrations import ROOT
from deploy.cluster import check_ipvs
from deploy.commands import Kubectl, run
from deploy.target import Target
from deploy.terminal import Failed

OUTSIDE = ROOT / "k8s" / "labs" / "balancing" / "outside" / "compose.yml"
SYSTEM = "--namespace=kube-system"
MODE = re.compile(r"^mode: *\"?(\w*)\"?$", re.MULTILINE)
MARK = "souk.example/mode-before-the-lab"
"""At kube-proxy's settings: what they said before, so that it is known after this program was killed, too."""
PORTS = {"round robin": 8081, "least connections": 8082, "two choices": 8083}
"""Where nginx has which strategy: k8s/labs/balancing/outside/nginx.conf."""
BALANCE = {"round robin": "roundrobin", "least connections": "leastconn", "two choices": "random(2)"}
"""What HAProxy calls them."""


@dataclass(frozen=True, slots=True)
class Way:
    """Somebody who chooses a pod, and how."""

    who: str
    how: str

    def __str__(self) -> str:
        return f"{self.who} {self.how}"


WAYS: Sequence[Way] = (
    Way("kube-proxy", "iptables"),
    Way("Traefik", "wrr"),
    Way("Traefik", "p2c"),
    Way("Traefik", "hrw"),
    Way("Traefik", "leasttime"),
    *(Way("nginx", how) for how in PORTS),
    *(Way("HAProxy", how) for how in BALANCE),
    Way("chassis", "two choices"),
    # The last, since the mode is the whole cluster's.
    Way("kube-proxy", "nftables"),
    Way("kube-proxy", "ipvs"),
)


def chosen(names: str) -> list[Way]:
    """The ways of which one of these words, separated by commas, is a part; raises Failed for a word of none."""
    words = [word.strip().lower() for word in names.split(",") if word.strip()]
    for word in words:
        if not any(word in str(way).lower() for way in WAYS):
            raise Failed(f"{word}: is no way; there are {'; '.join(map(str, WAYS))}")
    return [way for way in WAYS if not words or any(word in str(way).lower() for word in words)]


def absent(way: Way, target: Target) -> str:
    """Why a way is not to be had here; empty where it is."""
    if way == Way("kube-proxy", "ipvs"):
        try:
            check_ipvs(target.node_image)
        except Failed:
            return "the kernel has no ip_vs"
    return ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where callers send their requests."""

    url: str
    host: str | None = None


@contextmanager
def opened(way: Way, kubectl: Kubectl) -> Generator[Place, None, None]:
    """Make a way, and take away what was made for it; kube-proxy has the mode of before again."""
    if way.who == "kube-proxy":
        switch(kubectl, way.how)
        try:
            yield Place(f"http://{_address(kubectl, 'balancing')}:8002")
        finally:
            switch_back(kubectl)
    elif way.who == "Traefik":
        yield Place(f"http://{_pod(kubectl, 'balancing-traefik')}:8000", host=way.how)
    elif way.who == "chassis":
        yield Place("http://balancing-headless:8002")
    else:
        service = way.who.lower()
        compose("up", "--detach", "--wait", service, balance=BALANCE[way.how])
        try:
            port = PORTS[way.how] if way.who == "nginx" else PORTS["round robin"]
            yield Place(f"http://{_container(service)}:{port}")
        finally:
            compose("rm", "--stop", "--force", service)


def _address(kubectl: Kubectl, service: str) -> str:
    """A Service's own address: the caller asks nobody for a name."""
    return kubectl.get("service", service)["spec"]["clusterIP"]


def _pod(kubectl: Kubectl, name: str) -> str:
    """The address of the one pod of a workload."""
    (pod,) = kubectl.items("pods", f"--selector=app.kubernetes.io/name={name}", "--field-selector=status.phase=Running")
    return pod["status"]["podIP"]


def _container(service: str) -> str:
    """The address that Docker has given to a balancer, on the network of kind's nodes."""
    found = compose("ps", "--quiet", service).strip()
    networks = json.loads(run(("docker", "inspect", "--format={{json .NetworkSettings.Networks}}", found)))
    return networks["kind"]["IPAddress"]


def compose(*arguments: str, balance: str = "roundrobin") -> str:
    """Run docker compose on the balancers outside; raises Failed."""
    return run(("env", f"BALANCE={balance}", "docker", "compose", f"--file={OUTSIDE}", *arguments))


# kube-proxy


def mode_of(config: str) -> str:
    """The mode that kube-proxy's settings name; raises Failed where they name none."""
    found = MODE.search(config)
    if found is None:
        raise Failed("kube-proxy's settings name no mode")
    return found[1] or "iptables"


def switch(kubectl: Kubectl, mode: str) -> None:
    """Give kube-proxy a mode, on all nodes, unless it has it; what it had before is marked."""
    found = kubectl.get("configmap", "kube-proxy", SYSTEM)
    before = mode_of(found["data"]["config.conf"])
    if mode == before:
        return
    config = MODE.sub(f"mode: {mode}", found["data"]["config.conf"])
    mark = found["metadata"].get("annotations", {}).get(MARK) or before
    _patch(kubectl, config, mark)


def switch_back(kubectl: Kubectl) -> str:
    """Give kube-proxy the mode that it had before, and return it; empty where it has it."""
    found = kubectl.get("configmap", "kube-proxy", SYSTEM)
    before = found["metadata"].get("annotations", {}).get(MARK)
    if before is None:
        return ""
    _patch(kubectl, MODE.sub(f"mode: {before}", found["data"]["config.conf"]), None)
    return before


def _patch(kubectl: Kubectl, config: str, mark: str | None) -> None:
    # Not by server-side apply: kubeadm owns these fields.
    patch = {"metadata": {"annotations": {MARK: mark}}, "data": {"config.conf": config}}
    kubectl("patch", "configmap/kube-proxy", SYSTEM, f"--patch={json.dumps(patch)}")
    kubectl("rollout", "restart", "daemonset/kube-proxy", SYSTEM)
    kubectl("rollout", "status", "daemonset/kube-proxy", SYSTEM, "--timeout=120s", timeout_s=130)
