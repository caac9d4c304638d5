"""Which cluster is meant, as the environment says."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chassis.migrations import ROOT
from deploy.commands import CommandFailed, run
from deploy.terminal import Failed

NAMESPACE = "souk"
STATE = ROOT / "var" / "k8s"
"""Secrets, certificates, logs and the manifests that were applied last. Not in the repository."""
NODE_IMAGE = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"
"""As the release notes of kind v0.33.0 list it."""
PROXY_MODES = ("iptables", "nftables", "ipvs")
KIND, EXISTING = "kind", "existing"
WATCHED, WITHOUT_GRAFANA, UNWATCHED = MONITORING = ("yes", "prometheus", "no")
"""What MONITORING may be. Grafana alone can be left out: it shows, the others watch."""


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster, and what is to be there."""

    context: str
    existing: bool
    """Whether it is somebody else's, and so neither made nor deleted here."""
    kind_cluster: str | None
    """The name of the kind cluster; none for a cluster of another kind."""
    overlay: str
    registry: str | None
    """Where images are pushed and the nodes pull them from; none where they are loaded into kind's nodes."""
    node_image: str
    proxy_mode: str | None
    """None where nobody asked for one: then a new cluster gets the first, and one that is there keeps its own."""
    http_port: int
    https_port: int
    monitoring: str
    """One of MONITORING."""


def read_target(environment: Mapping[str, str] = os.environ) -> Target:
    """Read the environment; raises Failed for what is wrong in it."""

    def told(name: str, default: str) -> str:
        return environment.get(name, "").strip() or default

    cluster = told("CLUSTER", KIND)
    if cluster not in {KIND, EXISTING}:
        raise Failed(f"CLUSTER={cluster}: is {KIND} (the default) or {EXISTING}")
    proxy_mode = told("KUBE_PROXY_MODE", "") or None
    if proxy_mode not in {None, *PROXY_MODES}:
        raise Failed(f"KUBE_PROXY_MODE={proxy_mode}: is one of {', '.join(PROXY_MODES)}")
    overlay = told("OVERLAY", "kind")
    overlays = ROOT / "k8s" / "overlays"
    known = sorted(path.parent.name for path in overlays.glob("*/kustomization.yaml"))
    if overlay not in {*known, "base"}:
        raise Failed(f"OVERLAY={overlay}: there is none of that name; there are {', '.join(known)}")
    monitoring = told("MONITORING", "yes")
    if monitoring not in MONITORING:
        raise Failed(f"MONITORING={monitoring}: is one of {', '.join(MONITORING)}")
    registry = told("REGISTRY", "").rstrip("/") or None
    name = told("KIND_CLUSTER_NAME", "souk")
    context = told("CONTEXT", f"kind-{name}" if cluster == KIND else "")
    if cluster == EXISTING:
        context = context or current_context()
        if "OVERLAY" not in environment:
            overlay = "base"
        if registry is None and not context.startswith("kind-"):
            raise Failed(
                f"REGISTRY is not set: where do the nodes of {context} pull from? REGISTRY=host/path make deploy"
            )
    elif not context.startswith("kind-"):
        raise Failed(f"the context {context} is not kind's, so nothing was touched; if it is meant: CLUSTER=existing")
    return Target(
        context=context,
        existing=cluster == EXISTING,
        kind_cluster=context.removeprefix("kind-") if context.startswith("kind-") else None,
        overlay=overlay,
        registry=registry,
        node_image=told("KIND_NODE_IMAGE", NODE_IMAGE),
        proxy_mode=proxy_mode,
        http_port=_port(environment, "HTTP_PORT", 8080),
        https_port=_port(environment, "HTTPS_PORT", 8443),
        monitoring=monitoring,
    )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    told = environment.get(name, "").strip() or str(default)
    if not told.isdigit() or not 1 <= int(told) <= 65535:
        raise Failed(f"{name}={told}: is not a port, 1 to 65535")
    return int(told)


def current_context() -> str:
    """The context that kubectl uses when nobody names one; raises Failed."""
    try:
        return run(("kubectl", "config", "current-context")).strip()
    except CommandFailed:
        raise Failed("CLUSTER=existing: kubectl has no current context; kubectl config use-context NAME") from None


def overlay_folder(overlay: str) -> Path:
    """Where an overlay's kustomization is."""
    return ROOT / "k8s" / (overlay if overlay == "base" else f"overlays/{overlay}")
