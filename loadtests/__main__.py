"""`python -m loadtests --target local --shape steady`: behind `make load`.

Exit status 0 where everything is within the shape's limits and the books are right, 1 where not, 2 where nothing could
be run, 3 where the generator was the bottleneck, so that nothing can be said of the shop, 130 where it was interrupted.
"""

import argparse
import os
import platform as machine
import shlex
import signal
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import randrange
from types import FrameType
from typing import NoReturn
from uuid import uuid4

import httpx2

from deploy.commands import CommandFailed
from deploy.terminal import Failed, say, step
from loadtests import findings, preflight, report, shape, target
from loadtests.findings import Findings, Verdict
from loadtests.generator import ENDS_WITHIN_S, Generator, Jobs, Processes, run
from loadtests.preflight import Keeper
from loadtests.record import Rows, kept
from loadtests.shape import Shape
from loadtests.shelves import HOT_SKU
from loadtests.target import INSIDE, Target

FOLDER = Path("var/load")
STATUS = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.INVALID: 3, Verdict.INTERRUPTED: 130}
COULD_NOT_RUN = 2
STARTS_WITHIN_S = 240.0
"""Until the first shopper comes: Locust's own start, and in a cluster that of its pods."""
PACKAGES = ("locust", "gevent", "geventhttpclient", "psutil")
MOST_REASONS = 20
SAID_EVERY_S = 10.0


def main() -> None:
    """Do what the command line asks."""
    parser = _parser()
    arguments = parser.parse_args()
    unknown = [name for name in arguments.journeys.split(",") if name not in shape.JOURNEYS]
    if unknown:
        parser.error(f"no such journey: {', '.join(unknown)}; there are {', '.join(shape.JOURNEYS)}")
    for each in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # the first too: a shell lets what it puts into the background ignore it
        signal.signal(each, _interrupt)
    try:
        status = perform(arguments)
    except (Failed, CommandFailed) as error:
        print(f"load: {error}", file=sys.stderr)
        status = COULD_NOT_RUN
    except KeyboardInterrupt:
        print("load: interrupted, without a report", file=sys.stderr)
        status = STATUS[Verdict.INTERRUPTED]
    sys.exit(status)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests", description="Load a shop, and say honestly how it went."
    )
    named = ", ".join(target.NAMED)
    parser.add_argument("--target", default="local", help=f"{named}, or an origin such as http://127.0.0.1:8000")
    parser.add_argument("--shape", default="steady", choices=shape.names())
    parser.add_argument("--rate", type=_positive, help="shoppers a second at the shape's peak, instead of its own")
    parser.add_argument("--seconds", type=_positive, help="how long it is measured, instead of the shape's own length")
    parser.add_argument("--think", type=_positive, help="seconds of a pause on average, instead of the shape's own")
    parser.add_argument("--users", type=int, help="a closed loop instead: so many users at the shape's peak")
    parser.add_argument("--seed", type=int, help="repeat a run: what is drawn by chance follows from it")
    parser.add_argument("--journeys", default=",".join(shape.JOURNEYS), help="those who come, separated by commas")
    parser.add_argument("--processes", type=int, default=1, help="generator processes; inside the cluster: workers")
    parser.add_argument("--most-in-shop", type=int, default=2000, help="shoppers that a process has at a time")
    parser.add_argument("--shown-only", action="store_true", help="show times and judge none: this machine is busy")
    parser.add_argument("--data", type=Path, default=Path("var"), help="the data folder of a local shop")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the run's own folder goes")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that may begin: everything was looked at, and what it needs is there."""

    shape: Shape
    name: str
    shop: Target
    keeper: Keeper | None
    """None where nobody said the admin's password, and nobody needs it."""
    seed: int
    arguments: argparse.Namespace

    @property
    def command(self) -> str:
        """What runs this again."""
        told = self.arguments
        values = {
            "TARGET": told.target,
            "SHAPE": told.shape,
            "SEED": self.seed,
            "RATE": told.rate,
            "SECONDS": told.seconds,
            "THINK": told.think,
            "USERS": told.users,
            "JOURNEYS": None if told.journeys == ",".join(shape.JOURNEYS) else told.journeys,
            "PROCESSES": None if told.processes == 1 else told.processes,
            "DATA": None if str(told.data) == "var" else told.data,
        }
        shown = (f"{name}={_plain(value)}" for name, value in values.items() if value is not None)
        return f"make load {' '.join(shown)}"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else shlex.quote(str(value))


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Look at the target and at what is asked of it; raises Failed."""
    journeys: list[str] = arguments.journeys.split(",")
    chosen = shape.load(arguments.shape).scaled(
        peak_rate=arguments.rate, seconds=arguments.seconds, think_s=arguments.think
    )
    mix = chosen.mix
    chosen = chosen.only(journeys)
    if not chosen.mix:
        raise Failed(f"{arguments.shape} has none of the journeys {arguments.journeys}: it has {', '.join(mix)}")
    shop = target.find(arguments.target, arguments.data)
    preflight.check(shop)
    needed = "admin" in chosen.mix or chosen.hot_units is not None
    keeper = preflight.sign_in(shop) if needed or shop.admin_password else None
    seed = randrange(10**6) if arguments.seed is None else arguments.seed  # noqa: S311 - printed, to be given again
    return Prepared(chosen, arguments.shape, shop, keeper, seed, arguments)


def perform(arguments: argparse.Namespace) -> int:
    """Prepare, run, clear away, audit, report; the exit status. Raises Failed where nothing could be run."""
    prepared = prepare(arguments)
    began = datetime.now(UTC)
    folder: Path = arguments.folder / f"{began:%Y%m%d-%H%M%S}-{prepared.name}"
    folder.mkdir(parents=True)
    ends_s = prepared.shape.ends_s
    say(f"{prepared.name} at {prepared.shop.origin}, seed {prepared.seed}, {ends_s:,.0f} s with the warm-up")
    if prepared.keeper is not None:
        with step("shelves") as result:
            result.text = prepared.keeper.deliver(prepared.shape.hot_units)
    rows, generator = Rows(), _generator(prepared, folder / "locust.log")
    interrupted = False
    try:
        with step("load") as result, kept(folder / "requests.csv", rows) as keep:
            within_s, progress = STARTS_WITHIN_S + ends_s + ENDS_WITHIN_S, Progress(rows)
            interrupted = run(generator, keep, within_s=within_s, tick=lambda: result.progress(progress()))
            result.text = f"{progress(now=True)}{', interrupted' if interrupted else ''}"
    finally:
        _clear_away(prepared)
    violations, audit = _audit(prepared.shop)
    judged = replace(prepared.shape, limits=()) if arguments.shown_only else prepared.shape
    found = findings.find(rows, judged, interrupted=interrupted, violations=violations)
    if rows.end is None and not interrupted:
        found.doubts.append(f"the generator said last: {generator.last_words()}")
    about = report.About(
        name=prepared.name,
        shape=prepared.shape,
        command=prepared.command,
        seed=prepared.seed,
        loop=_loop(prepared),
        target=f"{prepared.shop.name}, {prepared.shop.origin}",
        began_at=began.isoformat(timespec="seconds").replace("+00:00", "Z"),
        machine=f"{machine.system()} {machine.release()}, {machine.machine()}, {os.cpu_count()} cores",
        versions=", ".join((f"Python {machine.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES))),
        audit=audit,
    )
    page = report.write(folder, about, found)
    _tell(found, page)
    return STATUS[found.verdict]


def _generator(prepared: Prepared, log: Path) -> Generator:
    told = prepared.arguments
    options = [
        "--shape", prepared.name, "--seed", str(prepared.seed), "--journeys", ",".join(prepared.shape.mix),
        "--run-id", uuid4().hex[:12], "--most-in-shop", str(told.most_in_shop),
        "--admin-email", prepared.shop.admin_email,
    ]  # fmt: skip
    for name, value in (("--peak-rate", told.rate), ("--seconds", told.seconds), ("--think", told.think)):
        options += [] if value is None else [name, str(value)]
    options += [] if told.users is None else ["--loop", "closed", "--most-users", str(told.users)]
    options += [] if prepared.shape.hot_units is None else ["--hot-sku", HOT_SKU]
    if prepared.shop.name == INSIDE:
        return Jobs(options, told.processes, log)
    return Processes(options, prepared.shop, told.processes, log)


class Progress:
    """How far a run is, said anew every ten seconds; what was counted once is not looked at again."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._counted = self._failed = 0
        self._said_s = -1.0
        self._text = ""

    def __call__(self, *, now: bool = False) -> str:
        at_s = self._rows.samples[-1].at_s if self._rows.samples else 0.0
        if now or at_s >= self._said_s + SAID_EVERY_S:
            self._said_s = at_s // SAID_EVERY_S * SAID_EVERY_S
            counted = len(self._rows.requests)
            self._failed += sum(bool(request.failure) for request in self._rows.requests[self._counted : counted])
            self._counted = counted
            self._text = f"{at_s:,.0f} s, {counted:,} requests, {self._failed:,} failed"
        return self._text


def _clear_away(prepared: Prepared) -> None:
    """Retire what was imported, as the admin with a new token: the first one lives for 15 minutes. The run has its
    report also where that fails.
    """
    if prepared.keeper is None:
        return
    with step("clearing away") as result:
        try:
            result.text = preflight.sign_in(prepared.shop).clear_away()
        except (Failed, httpx2.HTTPError) as error:
            result.text = f"not done: {error}"


def _audit(shop: Target) -> tuple[list[str], str]:
    """What is wrong with the books, and what the audit said last."""
    if shop.audit is None:
        return [], "not audited: an address does not say where its books are"
    with step("audit") as result:
        clean, said = target.audit(shop)
        result.text = said[-1] if said else "said nothing"
    violations = [line for line in said if line.startswith("VIOLATION")] or said[-1:]
    return ([] if clean else [f"audit: {line}" for line in violations]), result.text


def _loop(prepared: Prepared) -> str:
    users = prepared.arguments.users
    if users is not None:
        return f"closed loop, {users} users at the peak"
    return f"open loop, Poisson arrivals, {prepared.shape.peak_rate:,.1f} a second at the peak"


def _tell(found: Findings, page: Path) -> None:
    """What came of it, at the terminal; the page has the rest."""
    for call in found.calls:
        say(
            f"  {call.call:<40} {call.sent:>8,} sent {call.failed:>6,} failed   p50 {call.latency.p50_ms:>8,.1f}"
            f"   p95 {call.latency.p95_ms:>8,.1f}   p99 {call.latency.p99_ms:>8,.1f} ms"
        )
    for each in found.judgements:
        say(f"  {'kept' if each.kept else 'BROKEN'}: {each.text}: {each.measured}")
    if found.knee is not None:
        knee = found.knee
        say(f"  knee at {knee.arrival_rate:,.1f} shoppers, {knee.request_rate:,.0f} requests a second: then {knee.why}")
    for reason in [*found.violations, *found.doubts][:MOST_REASONS]:
        say(f"  {reason}")
    say(f"load: {found.verdict.upper()}, {page}")


if __name__ == "__main__":
    main()
