"""Whether this machine can do it, asked before anything is changed."""

import json
import re
import socket
from errno import EADDRINUSE

from deploy.commands import CommandFailed, run
from deploy.target import Target
from deploy.terminal import Failed

LEAST = {"docker": (24, 0), "kind": (0, 32), "kubectl": (1, 33)}
"""kubectl from 1.33 on brings a kustomize that knows all that is used; kind from 0.32 on makes clusters of 1.36."""
WHERE = {
    "docker": "https://docs.docker.com/get-docker/",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
}
MEMORY_BYTES = 4 * 2**30
"""Four nodes take 1.3 GB, the platform as much again, and a build some."""
VERSIONS = {
    "docker": ("docker", "version", "--format={{.Server.Version}}"),
    "kind": ("kind", "version"),
    "kubectl": ("kubectl", "version", "--client", "--output=json"),
}


def check_programs(*, kind: bool) -> str:
    """Find the programs that are needed, of versions that work, and name them; raises Failed."""
    return ", ".join(f"{name} {'.'.join(map(str, version_of(name)))}" for name in LEAST if kind or name != "kind")


def version_of(name: str) -> tuple[int, ...]:
    """The version of a program; raises Failed where it is not there, does not answer, or is too old."""
    try:
        printed = run(VERSIONS[name], timeout_s=30)
    except CommandFailed as error:
        if error.output.endswith("is not installed"):
            raise Failed(f"{name} is not installed: {WHERE[name]}") from None
        if name == "docker":
            raise Failed(f"Docker does not answer; is it running? ({error})") from None
        raise
    if name == "kubectl":
        printed = json.loads(printed)["clientVersion"]["gitVersion"]
    version = parsed_version(printed)
    if version < LEAST[name]:
        least = ".".join(map(str, LEAST[name]))
        raise Failed(f"{name} {'.'.join(map(str, version))} is too old, it takes {least} or newer: {WHERE[name]}")
    return version


def parsed_version(text: str) -> tuple[int, ...]:
    """The first version number in a text."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups("0")) if found else (0,)


def check_machine(target: Target) -> None:
    """Whether a cluster can be made here; raises Failed."""
    memory_bytes = int(run(("docker", "info", "--format={{.MemTotal}}")))
    if memory_bytes < MEMORY_BYTES:
        raise Failed(
            f"Docker has {memory_bytes / 2**30:.1f} GiB of memory, the cluster takes {MEMORY_BYTES / 2**30:.0f}: "
            "give it more (Docker Desktop: Settings, Resources)"
        )
    for name, port in (("HTTP_PORT", target.http_port), ("HTTPS_PORT", target.https_port)):
        if not is_free(port):
            raise Failed(
                f"port {port} is taken: stop what listens there, or choose another, {name}={port + 1000} make deploy"
            )


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno != EADDRINUSE
    return True
