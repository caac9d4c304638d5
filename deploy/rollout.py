"""What is applied in which order, and whether it comes up.

    namespace -> secrets -> what needs no release: network policies, services, the database
    -> roles and databases -> migrations -> the services -> [the catalogue] -> the edge -> who watches

Each stage waits for the one before it, and each does nothing where nothing has changed.
"""

from collections.abc import Sequence
from time import monotonic, sleep

from deploy.commands import CommandFailed, Kubectl, Object
from deploy.manifests import APPLIED_MARK, COMPONENT, MONITORING, component, identity, of_kind
from deploy.target import NAMESPACE
from deploy.terminal import Failed, Result, say

EVERY_S = 1.0
ROLLOUT_TIMEOUT_S = 300.0
JOB_TIMEOUT_S = 600.0
NAMESPACE_TIMEOUT_S = 90.0
PATIENCE_S = 25.0
"""How long a pod may say that it cannot start before that is believed: a Secret may come a moment after it."""
CRASHES = 3
"""A container that has ended so often right after its start will again."""
HOPELESS = frozenset(
    {
        "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError",
        "CreateContainerError", "RunContainerError", "CrashLoopBackOff",
    }
)  # fmt: skip
PRUNED = (
    "deployments.apps", "replicasets.apps", "statefulsets.apps", "horizontalpodautoscalers.autoscaling", "jobs.batch",
    "poddisruptionbudgets.policy", "networkpolicies.networking.k8s.io", "ingresses.networking.k8s.io", "services",
    "serviceaccounts", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io",
)  # fmt: skip
"""What is deleted when the manifests do not have it any more: all but data, secrets, and the settings that the release
before needs, if it should come back.
"""
PRUNED_OF_MONITORING = "clusterroles.rbac.authorization.k8s.io,clusterrolebindings.rbac.authorization.k8s.io"
"""Belongs to no namespace, and goes with the monitoring."""


def make_namespace(objects: Sequence[Object], kubectl: Kubectl) -> None:
    """Make the namespace, after one that is being deleted is gone; raises Failed."""
    ends_at = monotonic() + NAMESPACE_TIMEOUT_S
    while True:
        found = kubectl.get("namespace", NAMESPACE)
        if found.get("status", {}).get("phase") != "Terminating":
            break
        if monotonic() > ends_at:
            raise Failed(
                f"the namespace {NAMESPACE} is being deleted and does not end; what holds it is in "
                f"kubectl --context {kubectl.context} get namespace {NAMESPACE} --output=yaml, under conditions"
            )
        sleep(EVERY_S)
    kubectl.apply(of_kind(objects, "Namespace"))


def stages(objects: Sequence[Object]) -> dict[str, list[Object]]:
    """The objects by the stage in which they are applied."""
    found: dict[str, list[Object]] = {
        "foundations": [], "databases": [], "migration": [], "service": [], "edge": [], MONITORING: []
    }  # fmt: skip
    for item in objects:
        part = component(item)
        # Of the platform what has pods, and all of the monitoring: its rights, its policies, its way in.
        if part == MONITORING or (item["kind"] in {"Deployment", "ReplicaSet", "Job"} and part in found):
            found[part].append(item)
        elif item["kind"] == "HorizontalPodAutoscaler":
            found["service"].append(item)
        elif item["kind"] != "Namespace":
            found["foundations"].append(item)
    return found


def take_from_deployments(objects: Sequence[Object], kubectl: Kubectl) -> None:
    """Before a bare ReplicaSet takes the place of a Deployment: delete that one and leave its pods, which are pruned
    when their successors are up. A Deployment adopts whatever ReplicaSet fits its selector, and would scale ours down.
    """
    for item in of_kind(objects, "ReplicaSet"):
        kubectl("delete", f"deployment/{item['metadata']['name']}", "--cascade=orphan", "--ignore-not-found")


def apply(objects: Sequence[Object], kubectl: Kubectl, result: Result) -> None:
    """Apply a stage and wait until its workloads are up; raises Failed."""
    changed = kubectl.apply(objects)
    _wake(objects, kubectl)
    await_workloads(of_kind(objects, "Deployment", "ReplicaSet", "StatefulSet"), objects, kubectl, result)
    result.text = f"{len(changed)} of {len(objects)} objects changed" if changed else "nothing to change"


def _wake(objects: Sequence[Object], kubectl: Kubectl) -> None:
    """An autoscaler leaves alone what somebody has scaled to nothing, such as a restore that was interrupted."""
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = f"{scaler['spec']['scaleTargetRef']['kind']}/{scaler['spec']['scaleTargetRef']['name']}"
        if kubectl.get(target)["spec"]["replicas"] == 0:
            kubectl("scale", target, f"--replicas={scaler['spec']['minReplicas']}")


def await_workloads(workloads: Sequence[Object], objects: Sequence[Object], kubectl: Kubectl, result: Result) -> None:
    """Wait until every replica is up and of the newest release; raises Failed, and shows the pod that is in the way."""
    least = {
        item["spec"]["scaleTargetRef"]["name"]: item["spec"]["minReplicas"]
        for item in of_kind(objects, "HorizontalPodAutoscaler")
    }
    ends_at = monotonic() + ROLLOUT_TIMEOUT_S
    watched = any(component(workload) == MONITORING for workload in workloads)
    ill_since: dict[str, float] = {}
    while True:
        waiting: list[str] = []
        for workload in workloads:
            kind, namespace, name = identity(workload)
            found = kubectl.get(f"{kind}/{name}", f"--namespace={namespace}")
            ready, wanted, done = state(found, least.get(name, 0))
            if not done:
                waiting.append(f"{name} {ready}/{wanted}")
        if not waiting:
            return
        result.progress(", ".join(waiting))
        _look_for_the_hopeless(kubectl, ill_since, monitoring=watched)
        if monotonic() > ends_at:
            for pod in pods(kubectl, monitoring=watched):
                if not is_ready(pod):
                    explain(pod, kubectl)
            raise Failed(f"did not come up within {ROLLOUT_TIMEOUT_S:.0f} s: {', '.join(waiting)}")
        sleep(EVERY_S)


def state(workload: Object, least: int) -> tuple[int, int, bool]:
    """The replicas that are ready, those that there shall be, and whether that is all."""
    spec, status = workload.get("spec", {}), workload.get("status", {})
    wanted = max(spec.get("replicas", 1), least)
    ready: int = status.get("readyReplicas", 0)
    done = (
        ready >= wanted
        and status.get("observedGeneration", 0) >= workload.get("metadata", {}).get("generation", 0)
        and status.get("replicas", 0) == ready
        and (workload.get("kind") == "ReplicaSet" or status.get("updatedReplicas", 0) == status.get("replicas", 0))
        and status.get("availableReplicas", 0) >= wanted
    )
    return ready, wanted, done


def pods(kubectl: Kubectl, *, monitoring: bool = False) -> list[Object]:
    """The platform's pods that are not on their way out, or those that watch it: what ails these is none of the
    platform's business.
    """
    which = "=" if monitoring else "!="
    return [
        pod
        for pod in kubectl.items("pods", f"--selector=app.kubernetes.io/part-of=souk,{COMPONENT}{which}{MONITORING}")
        if "deletionTimestamp" not in pod["metadata"]
    ]


def is_ready(pod: Object) -> bool:
    """Whether a pod serves, or has done its work."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return pod["status"].get("phase") == "Succeeded" or conditions.get("Ready") == "True"


def illness(pod: Object) -> str | None:
    """Why a pod cannot start, where it says so."""
    for container in pod["status"].get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in HOPELESS:
            return f"{waiting['reason']}: {waiting.get('message', '')}".removesuffix(": ")
    return None


def crashes(pod: Object) -> int:
    """How often its containers were started again."""
    return sum(container.get("restartCount", 0) for container in pod["status"].get("containerStatuses", []))


def _look_for_the_hopeless(kubectl: Kubectl, since: dict[str, float], *, monitoring: bool = False) -> None:
    """Give up early on a pod that goes on saying that it cannot start."""
    for pod in pods(kubectl, monitoring=monitoring):
        name: str = pod["metadata"]["name"]
        reason = illness(pod)
        if reason is None:
            since.pop(name, None)
        elif crashes(pod) >= CRASHES or monotonic() - since.setdefault(name, monotonic()) > PATIENCE_S:
            explain(pod, kubectl)
            raise Failed(f"the pod {name} does not start: {reason.splitlines()[0][:200]}")


def explain(pod: Object, kubectl: Kubectl) -> None:
    """Show what happened to a pod and what it said last."""
    name: str = pod["metadata"]["name"]
    say(f"\n--- events of {name}")
    events = kubectl.items("events", f"--field-selector=involvedObject.name={name}")
    events.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    for event in events[-8:]:
        say(f"{event.get('type', '')} {event.get('reason', '')}: {event.get('message', '').strip()}")
    say(f"--- last lines of {name}")
    for options in ((), ("--previous",)):
        try:
            lines = kubectl("logs", name, "--all-containers", "--tail=15", *options).strip()
        except CommandFailed:
            continue
        if lines:
            say(lines)
            break
    say("---")


def run_jobs(jobs: Sequence[Object], kubectl: Kubectl, result: Result) -> None:
    """Run the Jobs that have not run as they are now, all at once, and wait for them; raises Failed."""
    due: list[Object] = []
    for job in jobs:
        there = kubectl.get(f"job/{job['metadata']['name']}")
        marks = there.get("metadata", {}).get("annotations", {})
        same = marks.get(APPLIED_MARK) == job["metadata"]["annotations"][APPLIED_MARK]
        if same and there.get("status", {}).get("succeeded"):
            continue
        # A Job's pod cannot be changed: another release's, or one that has given up, makes room.
        if "metadata" in there and not (same and there.get("status", {}).get("active")):
            kubectl("delete", f"job/{job['metadata']['name']}", "--cascade=foreground", "--wait", timeout_s=120)
        due.append(job)
    kubectl.apply(due)
    ends_at = monotonic() + JOB_TIMEOUT_S
    ill_since: dict[str, float] = {}
    waiting = [job["metadata"]["name"] for job in due]
    while waiting:
        for name in list(waiting):
            status = kubectl.get(f"job/{name}").get("status", {})
            failed = [
                each for each in status.get("conditions", []) if each["type"] == "Failed" and each["status"] == "True"
            ]
            if status.get("succeeded"):
                waiting.remove(name)
            elif failed or monotonic() > ends_at:
                for pod in kubectl.items("pods", f"--selector=job-name={name}")[-1:]:
                    explain(pod, kubectl)
                raise Failed(f"{name} failed: {failed[0].get('message', '') if failed else 'it took too long'}")
        if waiting:
            result.progress(", ".join(waiting))
            _look_for_the_hopeless(kubectl, ill_since)
            sleep(EVERY_S)
    result.text = f"{len(due)} of {len(jobs)} run" if due else "nothing to do"


def prune(objects: Sequence[Object], kubectl: Kubectl) -> list[str]:
    """Delete what an earlier release or another overlay has left: ours, owned by nobody, and not in the manifests."""
    kept = {identity(item) for item in objects}
    left = [
        item
        for item in kubectl.items(",".join(PRUNED), "--selector=app.kubernetes.io/part-of=souk")
        if identity(item) not in kept and "ownerReferences" not in item["metadata"]
    ]
    of_monitoring = f"--selector=app.kubernetes.io/part-of=souk,{COMPONENT}={MONITORING}"
    left += [item for item in kubectl.items(PRUNED_OF_MONITORING, of_monitoring) if identity(item) not in kept]
    names = [f"{item['kind']}/{item['metadata']['name']}" for item in left]
    if names:
        kubectl("delete", "--wait=false", *names)
    return names
