"""`python -m deploy [up | down | audit | backup | restore]`: behind `make deploy` and its like.

The environment says which cluster: CLUSTER, CONTEXT, REGISTRY, OVERLAY, KIND_NODE_IMAGE, KUBE_PROXY_MODE, HTTP_PORT,
HTTPS_PORT, MONITORING (deploy/target.py).
"""

import argparse
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from deploy import backup, cluster, credentials, images, manifests, rollout, shop
from deploy.commands import CommandFailed, Kubectl, Object
from deploy.preflight import check_programs
from deploy.target import NAMESPACE, STATE, UNWATCHED, WATCHED, Target, read_target
from deploy.terminal import Failed, say, step

SECRETS = STATE / "secrets"
EDGE_TIMEOUT_S = 60.0


def up(target: Target) -> None:
    """Bring the shop of this working tree into the cluster; raises Failed."""
    started_at = monotonic()
    kubectl = Kubectl(target.context, NAMESPACE)
    say(f"Souk, overlay {target.overlay}, to the context {target.context}")
    with step("tools") as result:
        result.text = check_programs(kind=target.kind_cluster is not None)
        plain = wanted(target)
    cluster.ensure(target, kubectl)
    ours = images.names(target)
    third_party = [image for image in manifests.images_of(plain) if image.rpartition(":")[0] not in ours]
    with step("images of the services") as result:
        images.build(ours, result)
    if target.registry is not None:
        with step("push") as result:
            images.push(ours.values(), result)
    elif target.kind_cluster is not None:
        with step("images of others") as result:
            images.pull(third_party, result)
        with step("images to the nodes") as result:
            images.load(target.kind_cluster, [*ours.values(), *third_party], result)
    with step("secrets and certificates") as result:
        rollout.make_namespace(plain, kubectl)
        recovered = credentials.recover(SECRETS, kubectl)
        credentials.make(SECRETS)
        secrets = credentials.secrets(SECRETS)
        kubectl.apply(secrets)
        result.text = f"in {relative(SECRETS)}" + (f", {recovered} of them from the cluster" if recovered else "")
    objects = manifests.release(plain, ours, credentials.digests(secrets))
    (STATE / "manifests.json").write_text(json.dumps(objects, indent=1))
    stages = rollout.stages(objects)
    with step("network, services, database") as result:
        rollout.apply(stages["foundations"], kubectl, result)
    with step("roles and databases") as result:
        rollout.run_jobs(stages["databases"], kubectl, result)
    with step("migrations") as result:
        rollout.run_jobs(stages["migration"], kubectl, result)
    with step("user, product, payment, order, storefront") as result:
        rollout.take_from_deployments(stages["service"], kubectl)
        rollout.apply(stages["service"], kubectl, result)
    with step("catalogue") as result:
        shop.put_on_shelves(kubectl, SECRETS, result)
    with step("edge") as result:
        rollout.apply(stages["edge"], kubectl, result)
    if stages[manifests.MONITORING]:
        with step("monitoring") as result:
            rollout.apply(stages[manifests.MONITORING], kubectl, result)
    left = rollout.prune(objects, kubectl)
    if left:
        say(f"          deleted, since the manifests do not have it any more: {', '.join(left)}")
    tell(target, started_at)


def wanted(target: Target) -> list[Object]:
    """The overlay's objects, without what MONITORING leaves out; raises CommandFailed."""
    return manifests.monitored(manifests.rendered(target.overlay), target.monitoring)


def tell(target: Target, started_at: float) -> None:
    """Wait until the edge answers from outside, and say where, and what to try."""
    if target.kind_cluster is None:
        say(f"\nThe shop is up, after {monotonic() - started_at:.0f} s. The ways in:")
        say(f"    kubectl --context {target.context} -n {NAMESPACE} get service edge edge-loadbalancer")
        tell_who_watches(target, "/grafana/")
        return
    ports = cluster.ports(target.kind_cluster)
    web = f"http://127.0.0.1:{ports[30080]}"
    await_edge(f"{web}/")
    authority = relative(SECRETS / "authority" / "ca.crt")
    say(f"\nThe shop is up, after {monotonic() - started_at:.0f} s:")
    say(f"    {web}/")
    say(f"    https://127.0.0.1:{ports[30443]}/    curl --cacert {authority} ...")
    say(f"    the admin is {shop.ADMIN_EMAIL}, the password is in {relative(SECRETS / 'user' / 'admin_password')}")
    tell_who_watches(target, f"{web}/grafana/")
    say("\nNext:")
    say(f"    SHOP={web}    and then the purchase of the README")
    say(f"    kubectl --context {target.context} -n {NAMESPACE} get pods -o wide")
    say("    make audit CLUSTER=kind, make backup, make undeploy")


def tell_who_watches(target: Target, grafana: str) -> None:
    """Say how to get to those who watch, where anybody does."""
    if target.monitoring == WATCHED:
        password = relative(SECRETS / "grafana" / "admin_password")
        say(f"    {grafana} shows how it is; who wants to be admin there: the password is in {password}")
    if target.monitoring != UNWATCHED:
        forward = f"kubectl --context {target.context} -n {NAMESPACE} port-forward"
        say(f"    {forward} service/prometheus 9090      # or service/alertmanager 9093")


def await_edge(url: str) -> None:
    """Wait until it answers; raises Failed."""
    ends_at = monotonic() + EDGE_TIMEOUT_S
    while True:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http, to this machine
            if answer.status == 200:
                return
        if monotonic() > ends_at:
            raise Failed(f"the edge is up, but {url} does not answer: is something between it and this machine?")
        sleep(0.5)


def down(target: Target) -> None:
    """Take everything away that `up` has made, the data with it; raises Failed."""
    if target.kind_cluster is not None and not target.existing:
        check_programs(kind=True)
        with step(f"cluster {target.kind_cluster}") as result:
            if target.kind_cluster in cluster.clusters():
                cluster.delete(target.kind_cluster)
                result.text = "deleted"
            else:
                result.text = "is not there"
        with step("images of the services") as result:
            result.text = f"{images.remove()} removed"
    else:
        kubectl = Kubectl(target.context, NAMESPACE)
        with step(f"namespace {NAMESPACE} of {target.context}") as result:
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", timeout_s=300)
            selected = ("--selector=app.kubernetes.io/part-of=souk", "--ignore-not-found")
            kubectl("delete", "ingressclasses,clusterroles,clusterrolebindings", *selected)
            result.text = "deleted"
    shutil.rmtree(STATE, ignore_errors=True)


def objects_of(target: Target) -> list[Object]:
    """The platform as the manifests have it now."""
    return manifests.release(wanted(target), images.names(target), {})


def relative(path: Path) -> str:
    """A path as a person would type it."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m deploy", description="The shop on Kubernetes.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="make the cluster where there is none, and bring the shop into it")
    commands.add_parser("down", help="take it all away")
    commands.add_parser("audit", help="check the books of the shop in the cluster")
    backing = commands.add_parser("backup", help="write the databases and the secrets into a folder")
    backing.add_argument("--to", type=Path, help="an empty folder; backups/<time> where none is named")
    restoring = commands.add_parser("restore", help="put a backup in place of what the databases hold")
    restoring.add_argument("--from", type=Path, required=True, dest="source", help="a folder that `backup` has written")
    arguments = parser.parse_args()
    status = 0
    try:
        target = read_target()
        kubectl = Kubectl(target.context, NAMESPACE)
        if arguments.command not in {"up", "down"}:
            cluster.check_answer(target, kubectl)
        match arguments.command:
            case "up":
                up(target)
            case "down":
                down(target)
            case "audit":
                credentials.recover(SECRETS, kubectl)
                status = shop.audit(kubectl, SECRETS)
            case "backup":
                backup.tell(backup.backup(kubectl, arguments.to))
            case _:
                overwrite = bool(os.environ.get("OVERWRITE"))
                backup.restore(kubectl, arguments.source, objects_of(target), overwrite=overwrite)
                say("\nRestored. make audit CLUSTER=kind asks whether the books are right.")
    except (Failed, CommandFailed) as error:
        sys.exit(f"souk: {error}")
    except KeyboardInterrupt:
        sys.exit("souk: interrupted; make deploy goes on from here")
    sys.exit(status)


if __name__ == "__main__":
    main()
