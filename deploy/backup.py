"""A backup: PostgreSQL's files as they were at one moment, of all four databases at once, with the secrets beside them.

A dump of each database would be of four moments, and an audit of what is restored would find orders without payments.
And what is encrypted in it, and the roles' passwords, are worth nothing without the secrets. So a backup is as secret
as they are.
"""

import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

from chassis.migrations import ROOT
from deploy import credentials
from deploy.commands import Kubectl, Object
from deploy.manifests import component, of_kind
from deploy.rollout import await_workloads, explain, illness, pods
from deploy.target import STATE
from deploy.terminal import Failed, Result, say, step

BACKUPS = ROOT / "backups"
FILES = "postgres.tar.gz"
SECRETS = STATE / "secrets"
TRANSFER_TIMEOUT_S = 3600.0
STOP_TIMEOUT_S = 120.0
POD = "pod/postgres-0"
DATA = "/var/lib/postgresql/souk/18"
SERVICES_SELECTOR = "app.kubernetes.io/component=service"


def backup(kubectl: Kubectl, folder: Path | None) -> Path:
    """Write a backup of the running shop, which goes on selling, and return its folder; raises Failed."""
    folder = folder or BACKUPS / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    if folder.exists() and any(folder.iterdir()):
        raise Failed(f"{folder} is not empty; nothing was written")
    folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    with step("secrets") as result:
        credentials.recover(SECRETS, kubectl)
        shutil.copytree(SECRETS, folder / "secrets", dirs_exist_ok=True)
        (folder / "secrets").chmod(stat.S_IRWXU)
        result.text = f"{sum(path.is_file() for path in (folder / 'secrets').rglob('*'))} files"
    with step("databases") as result:
        unfinished = folder / f"{FILES}.unfinished"
        # By the Unix socket, which only the pod itself has. `fetch` puts into the archive the log that was written
        # meanwhile, without which the files are of no moment at all.
        command = ("pg_basebackup", "--pgdata=-", "--format=tar", "--gzip", "--wal-method=fetch", "--checkpoint=fast")
        with unfinished.open("wb") as file:
            unfinished.chmod(stat.S_IRUSR | stat.S_IWUSR)
            kubectl("exec", POD, "--", *command, "--username=postgres", timeout_s=TRANSFER_TIMEOUT_S, output=file)
        unfinished.replace(folder / FILES)
        result.text = f"{(folder / FILES).stat().st_size / 2**20:.1f} MiB"
    return folder


def restore(kubectl: Kubectl, folder: Path, objects: list[Object], *, overwrite: bool) -> None:
    """Put a backup in place of what the cluster's databases hold; raises Failed."""
    for part in (FILES, "secrets"):
        if not (folder / part).exists():
            raise Failed(f"{folder} is not a backup: {part} is missing in it")
    if not overwrite:
        orders = _orders(kubectl)
        if orders:
            raise Failed(
                f"the shop has {orders} orders, which would be lost; to mean it: OVERWRITE=1 make restore FROM={folder}"
            )
    with step("stop") as result:
        _scale_services(kubectl, 0)
        kubectl("scale", "statefulset/postgres", "--replicas=0")
        _await_no_pods(kubectl, result)
    with step("secrets"):
        shutil.rmtree(SECRETS, ignore_errors=True)
        shutil.copytree(folder / "secrets", SECRETS)
        credentials.make(SECRETS)  # what a backup of an earlier release lacks
        kubectl.apply(credentials.secrets(SECRETS))
    with step("databases") as result:
        _unpack(kubectl, folder / FILES, objects, result)
    with step("start") as result:
        kubectl("scale", "statefulset/postgres", "--replicas=1")
        await_workloads([item for item in objects if component(item) == "database"], objects, kubectl, result)
        _scale_services(kubectl, 1)
        services = [item for item in objects if component(item) == "service"]
        await_workloads(
            [item for item in services if item["kind"] in {"Deployment", "ReplicaSet"}], objects, kubectl, result
        )


def _orders(kubectl: Kubectl) -> int:
    query = "SELECT CASE WHEN to_regclass('orders') IS NULL THEN 0 ELSE (SELECT count(*) FROM orders) END"
    command = ("psql", "--username=postgres", "--dbname=souk_order", "--no-psqlrc", "--tuples-only", "--no-align")
    return int(kubectl("exec", POD, "--", *command, f"--command={query}").strip() or 0)


def _scale_services(kubectl: Kubectl, replicas: int) -> None:
    """An autoscaler leaves alone what has no replicas, and takes over again when it has one."""
    for kind in ("deployments", "replicasets"):
        owned = [
            item["metadata"]["name"]
            for item in kubectl.items(kind, f"--selector={SERVICES_SELECTOR}")
            if "ownerReferences" not in item["metadata"]
        ]
        if owned:
            kubectl("scale", kind, *owned, f"--replicas={replicas}")


def _await_no_pods(kubectl: Kubectl, result: Result) -> None:
    ends_at = monotonic() + STOP_TIMEOUT_S
    while True:
        left = [
            pod["metadata"]["name"]
            for part in ("service", "database")
            for pod in kubectl.items("pods", f"--selector=app.kubernetes.io/component={part}")
        ]
        if not left:
            return
        if monotonic() > ends_at:
            raise Failed(f"these pods do not end: {', '.join(left)}")
        result.progress(f"{len(left)} pods are still there")
        sleep(1)


def _unpack(kubectl: Kubectl, archive: Path, objects: list[Object], result: Result) -> None:
    """In a pod that has the database's volume and no database."""
    pod = restoring_pod(objects)
    name = pod["metadata"]["name"]
    kubectl("delete", f"pod/{name}", "--ignore-not-found", "--wait")
    kubectl.apply([pod])
    try:
        ends_at = monotonic() + STOP_TIMEOUT_S
        while True:
            found = next((each for each in pods(kubectl) if each["metadata"]["name"] == name), None)
            if found is not None and found["status"].get("phase") == "Running":
                break
            if monotonic() > ends_at or (found is not None and illness(found)):
                if found is not None:
                    explain(found, kubectl)
                raise Failed(f"the pod {name}, which unpacks the backup, does not start")
            sleep(1)
        result.progress(f"{archive.stat().st_size / 2**20:.1f} MiB are unpacked")
        unpack = f"rm -rf {DATA} && mkdir -p -m 700 {DATA} && tar -xz -C {DATA}"
        script = f"{unpack} && pg_verifybackup --quiet --exit-on-error {DATA}"
        with archive.open("rb") as file:
            kubectl(
                "exec", "--stdin", f"pod/{name}", "--", "sh", "-ec", script, timeout_s=TRANSFER_TIMEOUT_S, source=file
            )
        result.text = "unpacked, every file as its checksum says"
    finally:
        kubectl("delete", f"pod/{name}", "--ignore-not-found", "--wait", "--grace-period=1")


def restoring_pod(objects: list[Object]) -> Object:
    """The database's own pod, but for what it runs: the same volume, account and place."""
    database = next(item for item in of_kind(objects, "StatefulSet") if item["metadata"]["name"] == "postgres")
    template = database["spec"]["template"]
    spec: Object = {**template["spec"], "restartPolicy": "Never"}
    running: Object = spec["containers"][0]
    container: Object = {
        key: value
        for key, value in running.items()
        if key not in {"args", "startupProbe", "readinessProbe", "livenessProbe", "ports"}
    }
    spec["containers"] = [container | {"command": ["sleep", "infinity"]}]
    spec["volumes"] = [*spec["volumes"], {"name": "data", "persistentVolumeClaim": {"claimName": "data-postgres-0"}}]
    spec.pop("topologySpreadConstraints", None)
    labels = {"app.kubernetes.io/name": "restore", "app.kubernetes.io/part-of": "souk"}
    metadata = {"name": "restore", "namespace": database["metadata"]["namespace"], "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def tell(folder: Path) -> None:
    """Say what to do with a backup."""
    say(f"\nThe backup is in {folder}, with the secrets: keep it as you keep those.")
    say(f"    make restore FROM={folder}    into this cluster or another, whose shop is empty")
