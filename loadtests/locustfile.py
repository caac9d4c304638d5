"""What Locust runs: the four journeys, as an open loop by the schedule of a shape, or as users that come again.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000             Locust's page, a closed loop
    locust -f loadtests/locustfile.py --host ... --headless --shape steady     an open loop, as `make load` has it

`make load` starts this and keeps what it prints (loadtests/record.py). README.md explains Locust's own page.
"""

import json
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import gevent
import psutil
from gevent.pool import Pool
from locust import LoadTestShape, User, task
from locust import events as locust_events
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
from locust.event import EventHook
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from loadtests import shape as shapes
from loadtests.admin import Admin
from loadtests.buyer import Buyer
from loadtests.floor import LEAD_S, Floor, Plan
from loadtests.record import End, Sample, line
from loadtests.returner import Returner
from loadtests.schedule import Arrival, arrivals, share
from loadtests.shape import Leg, Shape
from loadtests.shelves import MOST_PRODUCTS, OWN_CATEGORY, PAGE
from loadtests.shopper import TIMEOUT_S, Shopper
from loadtests.visitor import Visitor

WATCHED_EVERY_S = 1.0
TICK_S = 0.05
"""How often the event loop is asked whether it is on time."""
DRAINS_WITHIN_S = TIMEOUT_S + 5
"""From the end of the schedule until everybody who is still in the shop has had an answer, or has given up."""
MOST_IN_SHOP = 2000
REPORT = "souk"
"""The key of ours in what a worker reports to its master, every three seconds."""
BEGIN = "souk-begin"
TOLD = (
    "shape", "loop", "peak_rate", "seconds", "think", "seed", "journeys", "run_id", "hot_sku", "admin_email",
    "most_in_shop",
)  # fmt: skip
"""The options of ours that a master tells its workers, whatever they were started with: all but the password."""
OPEN, CLOSED = "open", "closed"
SHOPPERS: dict[str, type[Shopper]] = {each.journey: each for each in (Visitor, Buyer, Returner, Admin)}
FREE = Shape(title="As many users as are asked for.", legs=(Leg(365 * 86400.0, 1),), warm_up_s=0, most_failed_share=0)
"""Where no shape is named: Locust's page or command line says how many users, and for how long."""
events: Any = locust_events
"""Typed by half."""


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    """What this file asks of the command line, beside Locust's own."""
    ours = parser.add_argument_group("Souk")
    ours.add_argument(
        "--shape", default="", help=f"one of {', '.join(shapes.names())}; none for users as Locust has them"
    )
    ours.add_argument("--loop", default=OPEN, choices=(OPEN, CLOSED), help="what a shape is: arrivals, or users")
    ours.add_argument("--peak-rate", type=float, default=0.0, help="shoppers a second at the shape's peak; 0: its own")
    ours.add_argument("--seconds", type=float, default=0.0, help="how long the shape lasts; 0: its own length")
    ours.add_argument("--think", type=float, default=0.0, help="seconds of a pause on average; 0: the shape's own")
    ours.add_argument("--most-users", type=int, default=50, help="in a closed loop: users at the shape's peak")
    ours.add_argument("--seed", type=int, default=1, help="repeats a run: what is drawn by chance follows from it")
    ours.add_argument("--journeys", default=",".join(shapes.JOURNEYS), help="those who come, separated by commas")
    ours.add_argument("--most-in-shop", type=int, default=MOST_IN_SHOP, help="shoppers that a process has at a time")
    ours.add_argument("--run-id", default="", help="tells this run's customers from every other's")
    ours.add_argument("--hot-sku", default="", help="the product of a flash sale")
    ours.add_argument("--admin-email", default="admin@souk.example")
    ours.add_argument("--admin-password-file", default="", help="a file; none: the variable ADMIN_PASSWORD")


def plan_of(options: Namespace) -> Plan:
    """What the command line says."""
    shape = shapes.load(options.shape) if options.shape else FREE
    shape = shape.scaled(
        peak_rate=options.peak_rate or None, seconds=options.seconds or None, think_s=options.think or None
    )
    file: str = options.admin_password_file
    password = Path(file).read_text(encoding="utf-8").strip() if file else os.environ.get("ADMIN_PASSWORD", "")
    return Plan(
        shape=shape.only(options.journeys.split(",")),
        seed=options.seed,
        run=options.run_id or uuid4().hex[:12],
        admin_email=options.admin_email,
        admin_password=password,
        hot_sku=options.hot_sku or None,
        most_in_shop=options.most_in_shop,
    )


class Arrivals(User):
    """Sends shoppers in when they are due, however those fare who came before: an open loop.

    One for each process. Where as many are in the shop as may be, the next one waits at the door, and every request
    still counts from when it was due.
    """

    @task
    def open_the_doors(self) -> None:
        """Follow the schedule to its end, and wait until everybody has left."""
        floor = Shopper.floor
        inside = Pool(floor.plan.most_in_shop)
        for arrival in share(arrivals(floor.plan.shape, floor.plan.seed), floor.index, floor.processes):
            closed = floor.closing.wait(max(arrival.due_s - floor.now_s(), 0))
            if closed and not floor.over:
                break
            floor.waiting += inside.full()
            inside.spawn(self._visit, arrival)
        inside.join()
        floor.all_have_come = True
        raise StopUser

    def _visit(self, arrival: Arrival) -> None:
        floor = Shopper.floor
        floor.arrivals += 1
        floor.in_shop += 1
        try:
            SHOPPERS[arrival.journey](cast("Environment", self.environment)).arrive(arrival)
        finally:
            floor.in_shop -= 1


class Course(LoadTestShape):
    """A shape as Locust asks for it: how many users there shall be. In an open loop it is one `Arrivals` a process."""

    abstract = True  # else Locust makes one by itself; `prepare` says when there is one

    def __init__(self, environment: Environment, shape: Shape, loop: str, most_users: int) -> None:
        super().__init__()
        self._environment = environment
        self._shape = shape
        self._open = loop == OPEN
        self._most_users = most_users
        self._processes = 0
        self.done: dict[str, bool] = {}
        """By worker, as it said last."""

    def tick(self) -> tuple[int, float] | None:
        """The users and how fast they come; none when the run is over and all that was sent is answered."""
        shape, since_s = self._shape, self.get_run_time() - LEAD_S
        if since_s > shape.ends_s + DRAINS_WITHIN_S or (since_s > shape.ends_s and self._all_have_left()):
            return None
        if not self._processes:
            runner = self._environment.runner
            self._processes = runner.worker_count if isinstance(runner, MasterRunner) else 1
        if self._open:
            return self._processes, self._processes
        users = max(
            1, round(self._most_users * shape.rate_at(min(max(since_s, 0), shape.ends_s - 0.001)) / shape.peak_rate)
        )
        return users, 100.0

    def _all_have_left(self) -> bool:
        if isinstance(self._environment.runner, MasterRunner):
            return len(self.done) >= self._processes and all(self.done.values())
        return Shopper.floor.done


# What happens when


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Say which users there are, and how what they write down gets out."""
    options = cast("Namespace", environment.parsed_options)
    runner: Any = environment.runner
    hooks: Any = environment.events
    chosen: list[type[User]] = [SHOPPERS[name] for name in options.journeys.split(",")]
    if isinstance(runner, WorkerRunner):
        environment.user_classes = [Arrivals, *SHOPPERS.values()]  # its master says which of them
    else:
        environment.user_classes = [Arrivals] if options.shape and options.loop == OPEN else chosen
        if options.shape:
            course = Course(environment, plan_of(options).shape, options.loop, options.most_users)
            course.runner = runner
            environment.shape_class = course
    cast("Any", runner).register_message(BEGIN, begin)
    if not isinstance(runner, MasterRunner):
        gevent.spawn(watch)
    if isinstance(runner, WorkerRunner):
        hooks.report_to_master.add_listener(report)
    else:
        counted = Counted(environment)
        hooks.worker_report.add_listener(counted.take)
        hooks.quitting.add_listener(counted.close)
        gevent.spawn(counted.hand_on)


@events.test_start.add_listener
def say_begin(environment: Environment, **_: Any) -> None:
    """Tell each process which arrivals are its own. Messages keep their order, so this comes before its users."""
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        return
    options = vars(cast("Namespace", environment.parsed_options))
    told = {name: options[name] for name in TOLD}
    told["run_id"] = told["run_id"] or uuid4().hex[:12]
    told["host"] = environment.host  # a worker elsewhere was not started with it
    if isinstance(runner, MasterRunner):
        workers: list[str] = sorted(cast("Any", runner.clients))
        for index, worker in enumerate(workers):
            runner.send_message(BEGIN, {**told, "index": index, "processes": len(workers)}, worker)
    elif runner is not None:
        runner.send_message(BEGIN, {**told, "index": 0, "processes": 1})


def begin(environment: Environment, msg: Any, **_: Any) -> None:
    """Take up this process's part: the clock begins shortly after the word, by each process's own monotonic clock."""
    options = Namespace(**(vars(cast("Namespace", environment.parsed_options)) | msg.data))
    plan, host = plan_of(options), cast("str", msg.data["host"])
    floor = Floor(plan, msg.data["index"], msg.data["processes"], time.monotonic() + LEAD_S)
    floor.all_have_come = not options.shape or options.loop == CLOSED
    Shopper.host, Shopper.floor = host, floor
    read_catalogue(floor, host)
    gevent.spawn(close_at_the_end, floor)


def close_at_the_end(floor: Floor) -> None:
    """When the shape is over, those who think leave; those who wait for an answer get it."""
    floor.closing.wait(max(floor.plan.shape.ends_s - floor.now_s(), 0))
    floor.closing.set()


def read_catalogue(floor: Floor, host: str) -> None:
    """Read what shoppers look at, in the same order in each run; nobody's requests, which are not written down."""
    session = FastHttpSession(host, EventHook(), None, network_timeout=TIMEOUT_S, connection_timeout=TIMEOUT_S)
    found = [item for item in _listed(session, "") if item["category"] != OWN_CATEGORY]
    own = {item["sku"]: item for item in _listed(session, f"&category={OWN_CATEGORY}")} if floor.plan.hot_sku else {}
    floor.stock(sorted(found, key=lambda item: item["sku"]), own.get(floor.plan.hot_sku or ""))


def _listed(session: FastHttpSession, query: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None and len(items) < MOST_PRODUCTS:
        after = f"&cursor={cursor}" if cursor else ""
        answer = cast("Any", session.get(f"/api/v1/products?limit={PAGE}&sort=name{query}{after}"))
        page: dict[str, Any] = json.loads(answer.content)
        items += page["items"]
        cursor = page["next_cursor"]
    return items[:MOST_PRODUCTS]


@events.test_stopping.add_listener
def close(**_: Any) -> None:
    """Nobody begins anything any more, in whatever process."""
    if hasattr(Shopper, "floor"):
        Shopper.floor.closing.set()


def watch() -> None:
    """Write down, every second, what this process and its machine are at, and how late its event loop is."""
    process = psutil.Process()
    process.cpu_percent()
    psutil.cpu_percent()
    name = f"{os.uname().nodename}-{process.pid}"
    while True:
        lag_s, until = 0.0, time.monotonic() + WATCHED_EVERY_S
        while (before := time.monotonic()) < until:
            gevent.sleep(TICK_S)
            lag_s = max(lag_s, time.monotonic() - before - TICK_S)
        if hasattr(Shopper, "floor") and not Shopper.floor.done:
            floor = Shopper.floor
            cpu, machine_cpu = process.cpu_percent() / 100, psutil.cpu_percent() / 100
            floor.write(Sample(floor.now_s(), name, cpu, machine_cpu, lag_s, floor.in_shop, floor.waiting))


def report(client_id: str, data: dict[str, Any], **_: Any) -> None:  # noqa: ARG001 - Locust calls it by these names
    """Hand on to the master what was written down since the last time."""
    if hasattr(Shopper, "floor"):
        floor = Shopper.floor
        done = floor.done  # before the lines are taken, so that none is written after it was said
        counts = {"requests": floor.requests, "arrivals": floor.arrivals}
        data[REPORT] = {"lines": floor.take_lines(), "done": done, **counts}


class Counted:
    """The pen of the process that prints: the rows of all, and what each of them has counted."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._counts: dict[str, tuple[int, int]] = {}

    def take(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        """Print what a worker hands on."""
        reported = data.get(REPORT)
        if reported is None:
            return
        self._print(reported["lines"])
        self._counts[client_id] = (reported["requests"], reported["arrivals"])
        course = self._environment.shape_class
        if isinstance(course, Course):
            course.done[client_id] = reported["done"]

    def hand_on(self) -> None:
        """Print what this process itself writes down, every second, where it has no workers."""
        while True:
            gevent.sleep(WATCHED_EVERY_S)
            self._own()

    def close(self, **_: Any) -> None:
        """Print the last line, when Locust has ended everything."""
        runner = self._environment.runner
        if runner is not None:
            runner.quit()
        self._own()
        requests, came = (
            (sum(column) for column in zip(*self._counts.values(), strict=True)) if self._counts else (0, 0)
        )
        self._print([line(End(requests, came))])

    def _own(self) -> None:
        if hasattr(Shopper, "floor"):
            self._print(Shopper.floor.take_lines())
            self._counts["local"] = (Shopper.floor.requests, Shopper.floor.arrivals)

    def _print(self, lines: list[str]) -> None:
        for text in lines:
            print(text, flush=False)
        if lines:
            print(end="", flush=True)
