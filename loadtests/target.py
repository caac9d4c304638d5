"""The shop that is loaded: where it answers, who its admin is, and what audits it."""

import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from chassis.migrations import ROOT
from deploy import cluster, credentials
from deploy.commands import CommandFailed, Kubectl, run
from deploy.target import NAMESPACE, STATE, read_target
from deploy.terminal import Failed
from local.__main__ import ADMIN_EMAIL, ADMIN_PASSWORD

LOCAL, COMPOSE, CLUSTER, INSIDE = NAMED = ("local", "compose", "cluster", "inside")
"""Targets by name. The last two are one shop: loaded through its edge from outside, or from pods beside it."""
COMPOSE_ORIGIN = "http://127.0.0.1:8000"
SECRETS = STATE / "secrets"
AUDIT_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Target:
    """A shop, as this machine reaches it."""

    name: str
    origin: str
    admin_email: str
    admin_password: str
    """Empty where nobody said it."""
    audit: Sequence[str] | None
    """The command that audits it; none where it is not known where its books are."""


def find(name: str, data: Path, environment: Mapping[str, str] = os.environ) -> Target:
    """The target of this name or address; raises Failed for what is not there or is not to be loaded."""
    email = environment.get("ADMIN_EMAIL") or ADMIN_EMAIL
    password = environment.get("ADMIN_PASSWORD", "")
    match name:
        case "local":
            return Target(LOCAL, _edge_of(data), email, password or ADMIN_PASSWORD, _audit_of(data))
        case "compose":
            audit = ("docker", "compose", "run", "--rm", "audit")
            return Target(COMPOSE, COMPOSE_ORIGIN, email, password or _compose_password(), audit)
        case "cluster" | "inside":
            return _in_cluster(name, email, password, environment)
        case _:
            return _at(name.rstrip("/"), data, email, password, environment)


def _edge_of(data: Path) -> str:
    try:
        urls: dict[str, str] = json.loads((data / "shop.json").read_text())
    except FileNotFoundError:
        raise Failed(
            f"local: no shop was ever run with the data folder {data}: make run, in another terminal"
        ) from None
    return urls["edge"]


def _audit_of(data: Path) -> Sequence[str]:
    return (sys.executable, "-m", "drills.audit", "--data", str(data))


def _compose_password() -> str:
    try:
        return run(("docker", "compose", "exec", "-T", "user", "cat", "/run/secrets/admin_password")).strip()
    except CommandFailed as error:
        raise Failed(f"compose: the admin's password cannot be read, is the shop up (make up)? {error}") from None


def _in_cluster(name: str, email: str, password: str, environment: Mapping[str, str]) -> Target:
    target = read_target(environment)
    kubectl = Kubectl(target.context, NAMESPACE)
    cluster.check_answer(target, kubectl)
    if target.kind_cluster is None:
        raise Failed(f"{name}: {target.context} is no kind cluster; where does its edge answer? TARGET=http://...")
    credentials.recover(SECRETS, kubectl)
    file = SECRETS / "user" / "admin_password"
    if not password and not file.exists():
        raise Failed(f"{name}: nothing is deployed: make deploy")
    origin = f"http://127.0.0.1:{cluster.ports(target.kind_cluster)[30080]}"
    return Target(name, origin, email, password or file.read_text(), (sys.executable, "-m", "deploy", "audit"))


def _at(url: str, data: Path, email: str, password: str, environment: Mapping[str, str]) -> Target:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query:
        raise Failed(f"TARGET={url}: is one of {', '.join(NAMED)}, or an origin such as http://127.0.0.1:8000")
    if not is_local(parts.hostname) and environment.get("ALLOW_REMOTE") != "yes":
        raise Failed(
            f"TARGET={url}: is not this machine. Load only what is yours, and whose owner knows: ALLOW_REMOTE=yes"
        )
    try:
        known = _edge_of(data) == url
    except Failed:
        known = False
    return Target(url, url, email, password, _audit_of(data) if known else None)


def is_local(host: str) -> bool:
    """Whether a host is this machine by its name or address alone: nobody is asked."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3: always the loopback
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def audit(target: Target) -> tuple[bool, list[str]]:
    """Run the target's audit: whether it was clean, and the lines that it printed."""
    assert target.audit is not None
    try:
        done = subprocess.run(
            target.audit, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=AUDIT_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, [f"the audit could not be run: {error}"]
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == 0:
        return True, lines
    return False, lines or [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["the audit failed"]
