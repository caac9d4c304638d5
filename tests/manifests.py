"""The manifests as kustomize renders them, for the tests that read them without a cluster.

`python -m tests.manifests FOLDER` writes each overlay into a file there, for a checker that reads files.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, cast

from chassis.migrations import ROOT
from deploy.commands import Object
from deploy.manifests import identity, parsed
from deploy.target import overlay_folder

OVERLAYS = ("base", *sorted(path.parent.name for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml")))


def rendered(name: str) -> str:
    """An overlay as YAML."""
    return kustomized(overlay_folder(name))


@cache
def kustomized(folder: Path) -> str:
    """A kustomization as YAML, by the kubectl of the virtual environment, whatever is installed beside it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ("kubectl", "kustomize", str(folder))
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def overlay(name: str) -> list[Object]:
    """An overlay's objects."""
    return parsed(rendered(name))


def of_kind(objects: Iterable[Object], *kinds: str) -> dict[str, Object]:
    """The objects of these kinds by their names."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] in kinds}


def pod(workload: Object) -> dict[str, Any]:
    """What a workload's pods are."""
    return cast("dict[str, Any]", workload["spec"]["template"]["spec"])


def container(workload: Object) -> dict[str, Any]:
    """The one container of each workload here."""
    (only,) = pod(workload)["containers"]
    return only


def labels(workload: Object) -> dict[str, str]:
    """The labels of a workload's pods."""
    return workload["spec"]["template"]["metadata"]["labels"]


def environment(workload: Object) -> dict[str, str]:
    """What a workload's container is told."""
    return {each["name"]: each["value"] for each in container(workload).get("env", [])}


def selects(selector: dict[str, Any], found: dict[str, str]) -> bool:
    """Whether a label selector, of the forms that are used here, matches these labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if found.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] in {"In", "NotIn"}
        if (found.get(expression["key"]) in expression["values"]) != (expression["operator"] == "In"):
            return False
    return True


def name_of(item: Object) -> str:
    """A test's name for an object."""
    kind, _, name = identity(item)
    return f"{kind}/{name}"


def main() -> None:
    """Write each overlay into a file."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in OVERLAYS:
        (folder / f"{name}.yaml").write_text(rendered(name))


if __name__ == "__main__":
    main()
