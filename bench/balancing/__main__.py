"""`python -m bench.balancing`: compare who chooses a pod, in the cluster that has the pods of k8s/labs/balancing.

Each way is gone by connections that are kept and by one for each request, and prints a line of the table when it is
through. `seen` judges what the page says of the last table. `undo` takes away what a run that was killed has left.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from bench.balancing import report, seen, ways
from bench.balancing.run import CALLERS, RATE, Stage
from chassis.migrations import ROOT
from deploy import cluster
from deploy.commands import Kubectl
from deploy.target import NAMESPACE, Target, read_target
from deploy.terminal import Failed, say

KEPT_IN = ROOT / "var" / "lab" / "balancing.json"
SECONDS = 8.0
SEED = 7
SETTLE_S = 6.0
"""Who stands outside begins with all nodes, and takes so long to find that one of them has no pod."""
BUSY_CORES = 0.9
"""A generator that used as much has measured itself."""


def compare(
    kubectl: Kubectl, target: Target, found: Sequence[ways.Way], connections: Sequence[str], seconds: float, seed: int
) -> None:
    """Go all ways and print the table; raises Failed, also where the generator had too much to do."""
    rows: list[report.Row] = []
    stage = Stage(kubectl, seconds, seed)
    for each in report.HEAD:
        say(each.rstrip())
    for way in found:
        reason = ways.absent(way, target)
        if reason:
            say(f"{way.who:10}  {way.how:17}  not here: {reason}")
            continue
        settle_s = SETTLE_S if way.who in {"nginx", "HAProxy"} else 0.0
        with ways.opened(way, kubectl) as place:
            for kind in connections:
                result = stage.perform(place, anew=kind == report.ANEW, settle_s=settle_s)
                rows.append(report.row(way.who, way.how, kind, result))
                report.write(rows, KEPT_IN)
                say(report.line(rows[-1]))
                settle_s = 0.0
    busiest, latest = max(row.cores for row in rows), max(row.latest_s for row in rows)
    requests = sum(each.requests for row in rows for each in (row.equal, row.slow, row.dead, row.added))
    say()
    say(
        f"{requests:,} requests, {RATE:.0f} a second of {CALLERS} callers, {seconds:.0f} s for each situation,"
        f" seed {seed}; the callers took {busiest * 100:.0f}% of a core at most, and were {latest * 1000:.0f} ms late"
        " at most"
    )
    if busiest > BUSY_CORES:
        raise Failed("the callers had no time left, so these figures are their own: --ways, or another machine")


def undo(kubectl: Kubectl) -> None:
    """Take away what there is of a run outside the manifests: a mode of kube-proxy, balancers beside the nodes."""
    mode = ways.switch_back(kubectl)
    say(f"kube-proxy has {mode} again" if mode else "kube-proxy is as it was")
    ways.compose("down", "--timeout=1")
    say("no balancer outside")


def main() -> None:
    """Do what the command line asks; exit status 1 where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m bench.balancing", description="Compare who chooses a pod.")
    parser.add_argument("command", nargs="?", choices=("compare", "seen", "undo"), default="compare")
    parser.add_argument("--ways", default="", help="parts of their names, separated by commas: iptables,haproxy")
    parser.add_argument("--connections", choices=report.CONNECTIONS, help="both without it")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each of the four situations")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)  # so that what was made is taken away
    try:
        if arguments.command == "seen":
            for each in seen.judged(report.read(KEPT_IN)):
                say(each)
            return
        target = read_target()
        kubectl = Kubectl(target.context, NAMESPACE)
        cluster.check_answer(target, kubectl)
        if arguments.command == "undo":
            undo(kubectl)
            return
        connections = (arguments.connections,) if arguments.connections else report.CONNECTIONS
        compare(kubectl, target, ways.chosen(arguments.ways), connections, arguments.seconds, arguments.seed)
    except Failed as error:
        sys.exit(f"souk: {error}")
    except KeyboardInterrupt:
        sys.exit("souk: interrupted; kube-proxy and the balancers outside are as they were")


if __name__ == "__main__":
    main()
