"""`python -m drills NAME ...`: break the platform on purpose, and prove that nothing was lost.

Exit status 1 where a drill failed, 2 where none could be run, or the platform did not start. One that this machine does
not allow, among others that it does, is left out, and the last line says so.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from random import randrange
from typing import Any

import uvloop

from chassis.migrations import ROOT
from chassis.telemetry import configure_logging
from deploy.terminal import Failed
from drills import report
from drills.crash_points import CRASH_POINTS
from drills.evidence import Evidence
from drills.network import NetworkFailed
from drills.platform import NotHere, PlatformError
from drills.stage import Drill, Length, perform
from drills.storms.clock import CLOCK
from drills.storms.cluster import CLUSTER_DRILLS
from drills.storms.database import DATABASE
from drills.storms.double_charge import DOUBLE_CHARGE
from drills.storms.full_disk import FULL_DISK
from drills.storms.kill import KILL
from drills.storms.network import FLAKY_NETWORK, SLOW
from drills.storms.outage import OUTAGE
from drills.storms.overload import OVERLOAD
from drills.storms.oversell import OVERSELL
from drills.storms.rotate import ROTATE
from local.postgres import EmbeddedPostgresError

DRILLS: dict[str, Drill[Any]] = {
    drill.name: drill
    for drill in (
        CRASH_POINTS,
        KILL,
        DATABASE,
        OUTAGE,
        SLOW,
        FLAKY_NETWORK,
        OVERLOAD,
        OVERSELL,
        DOUBLE_CHARGE,
        ROTATE,
        CLOCK,
        FULL_DISK,
    )
}
"""Those of processes on this machine, which run where none is named."""
IN_CLUSTER: dict[str, Drill[Any]] = {drill.name: drill for drill in CLUSTER_DRILLS}
"""Those of what `make deploy` brought into a cluster."""
ALL = DRILLS | IN_CLUSTER
COULD_NOT_RUN = 2
PAGE = ROOT / "docs/drills.md"
MOST_PRINTED = 20


class Verdict(StrEnum):
    """How a drill went."""

    PASSED = "passed"
    FAILED = "failed"
    LEFT_OUT = "left out"


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(
        prog="python -m drills",
        description="Break the platform on purpose, and prove that nothing was lost.",
        epilog=f"on this machine:\n{_listed(DRILLS)}\n\nin the cluster of make deploy:\n{_listed(IN_CLUSTER)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="drills to run; all on this machine where none is named"
    )
    parser.add_argument("--seconds", type=float, help="a short run: the harm lasts this long, and times are not judged")
    parser.add_argument("--seed", type=int, help="repeat a run: what is drawn by chance follows from it")
    parser.add_argument("--folder", type=Path, default=Path("var/drills"), help="where reports go")
    parser.add_argument("--write", action="store_true", help="keep all reports of the folder in docs/drills.md")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in ALL]
    if unknown:
        parser.error(f"no such drill: {', '.join(unknown)}; there are {', '.join(ALL)}")
    configure_logging("drills", "warning")
    chosen = [ALL[name] for name in arguments.names or DRILLS]
    seed = randrange(10**6) if arguments.seed is None else arguments.seed  # noqa: S311 - printed, to be given again
    verdicts = Counter(_performed(drill, arguments.seconds, seed, arguments.folder) for drill in chosen)
    index = report.index(arguments.folder)
    if arguments.write:
        PAGE.write_text(report.markdown(arguments.folder), encoding="utf-8")
    print("drills: " + ", ".join(f"{verdicts[each]} {each}" for each in Verdict if verdicts[each]) + f", {index}")
    if verdicts[Verdict.FAILED]:
        sys.exit(1)
    sys.exit(0 if verdicts[Verdict.PASSED] else COULD_NOT_RUN)


def _listed(drills: Mapping[str, Drill[Any]]) -> str:
    return "\n".join(f"  {drill.name:<18}{drill.title}" for drill in drills.values())


def _performed(drill: Drill[Any], seconds: float | None, seed: int, folder: Path) -> Verdict:
    """Run a drill, write its report, and say how it went."""
    length = Length(drill.seconds if seconds is None else min(seconds, drill.seconds), full=seconds is None)
    began = time.monotonic()
    try:
        evidence = uvloop.run(perform(drill, length, seed, folder / "run" / drill.name))
    except NotHere as error:
        print(f"{drill.name} cannot be run here: {error}")
        return Verdict.LEFT_OUT
    except (PlatformError, EmbeddedPostgresError, NetworkFailed, Failed, OSError) as error:
        print(f"{drill.name} could not be run: {error}", file=sys.stderr)
        sys.exit(COULD_NOT_RUN)
    try:
        page = report.write(evidence, folder)
    except report.Incomplete as error:
        print(f"{drill.name}: FAILED, without a report: {error}")
        return Verdict.FAILED
    _say(evidence, time.monotonic() - began, page)
    return Verdict.FAILED if evidence.broken else Verdict.PASSED


def _say(evidence: Evidence, took_s: float, page: Path) -> None:
    failures = ", ".join(f"{count} {kind}" for kind, count in sorted(evidence.failures.items())) or "none"
    orders = ", ".join(f"{count} {status}" for status, count in sorted(evidence.orders.items())) or "none"
    print(f"{evidence.name}: {evidence.sent} requests, failed: {failures}; orders: {orders}; {took_s:.0f} s")
    for promise in evidence.promises:
        kept = ("kept" if promise.kept else "BROKEN") if promise.judged else "not judged in a short run"
        print(f"  {kept}: {promise.text}: {promise.measured}")
    for reason in evidence.broken[:MOST_PRINTED]:
        print(f"  VIOLATION {reason}")
    if len(evidence.broken) > MOST_PRINTED:
        print(f"  and {len(evidence.broken) - MOST_PRINTED} more, in the report")
    print(f"{evidence.name}: {'FAILED' if evidence.broken else 'PASSED'}, {page}")


if __name__ == "__main__":
    main()
