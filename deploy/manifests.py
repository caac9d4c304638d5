"""k8s/ as the API server shall have it: rendered by kustomize, with the images of this release and a mark of the
secrets that each pod reads, so that a changed one rolls the pods that read it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import yaml

from deploy.commands import Object, run
from deploy.target import WATCHED, WITHOUT_GRAFANA, overlay_folder

SECRETS_MARK = "souk.example/secrets"
DATABASES_MARK = "souk.example/databases"
APPLIED_MARK = "souk.example/applied"
COMPONENT = "app.kubernetes.io/component"
MONITORING = "monitoring"
"""The component of those who watch, and of all that is there for them alone."""
MEBI = 2**20
UNITS = {"Ki": 2**10, "Mi": MEBI, "Gi": 2**30}
WORKLOADS = frozenset({"Deployment", "ReplicaSet", "StatefulSet", "Job"})


def rendered(overlay: str) -> list[Object]:
    """An overlay's objects as kustomize makes them; raises CommandFailed."""
    return parsed(run(("kubectl", "kustomize", str(overlay_folder(overlay)))))


def monitored(objects: Iterable[Object], monitoring: str) -> list[Object]:
    """The objects with as much of the monitoring as is wanted."""
    return [
        item
        for item in objects
        if component(item) != MONITORING
        or monitoring == WATCHED
        # Its objects are named for it: `grafana`, `grafana-dashboards-5h7t2`, `edge-to-grafana`.
        or (monitoring == WITHOUT_GRAFANA and "grafana" not in item["metadata"]["name"].split("-"))
    ]


def parsed(text: str) -> list[Object]:
    """The objects of a YAML stream."""
    return [cast("Object", document) for document in yaml.safe_load_all(text) if document]


def release(objects: Iterable[Object], images: Mapping[str, str], secrets: Mapping[str, str]) -> list[Object]:
    """The objects with `images` in place of the names that stand in the manifests, and the digests of `secrets`."""
    found = list(objects)
    # Whoever works with the databases begins anew where they have moved: a service has open connections to where they
    # were, and has to prepare the ones where they are; a Job has to run again.
    places = [item["spec"] for item in of_kind(found, "Service") if item["metadata"]["name"].endswith("-database")]
    for workload in workloads(found):
        template = workload["spec"]["template"]
        for container in containers(workload):
            name = container["image"].rpartition(":")[0]
            container["image"] = images.get(name, container["image"])
        read = secrets_of(workload)
        if read and workload["kind"] != "StatefulSet":  # each of these reads a password once, for its files
            digest = hashlib.sha256("".join(secrets.get(name, "") for name in sorted(read)).encode()).hexdigest()
            template["metadata"].setdefault("annotations", {})[SECRETS_MARK] = digest[:16]
        if component(workload) in {"service", "migration", "databases"}:
            digest = hashlib.sha256(json.dumps(places, sort_keys=True).encode()).hexdigest()
            template["metadata"].setdefault("annotations", {})[DATABASES_MARK] = digest[:16]
    for job in of_kind(found, "Job"):
        whole = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
        job["metadata"].setdefault("annotations", {})[APPLIED_MARK] = whole[:16]
    return found


def workloads(objects: Iterable[Object]) -> list[Object]:
    """What has pods."""
    return [item for item in objects if item["kind"] in WORKLOADS]


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [item for item in objects if item["kind"] in kinds]


def component(item: Object) -> str:
    """What part of the platform an object is: `service`, `migration`, `databases`, `database`, `edge`, `monitoring` or
    none.
    """
    return item["metadata"].get("labels", {}).get(COMPONENT, "")


def containers(workload: Object) -> list[Object]:
    """The containers of a workload's pods."""
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def secrets_of(workload: Object) -> set[str]:
    """The Secrets that a workload's pods mount."""
    found: set[str] = set()
    for volume in workload["spec"]["template"]["spec"].get("volumes", []):
        if "secret" in volume:
            found.add(volume["secret"]["secretName"])
        for source in volume.get("projected", {}).get("sources", []):
            if "secret" in source:
                found.add(source["secret"]["name"])
    return found


def images_of(objects: Iterable[Object]) -> list[str]:
    """All images, each once."""
    return sorted({container["image"] for workload in workloads(objects) for container in containers(workload)})


def identity(item: Object) -> tuple[str, str, str]:
    """What an object is known by."""
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def quantity(text: str) -> float:
    """A quantity as Kubernetes writes them: CPUs, or bytes."""
    for suffix, factor in UNITS.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)
