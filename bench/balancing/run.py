"""One way, by one kind of connection, in four situations: three equal pods, one is slow, one dies, one is added."""

import json
import queue
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.balancing import measure
from bench.balancing.measure import Answer, Load
from bench.balancing.ways import Place
from deploy.commands import Kubectl, Object, run
from deploy.terminal import Failed

PROGRAM = Path(__file__).with_name("caller.py").read_text()
CALLERS = 6
RATE = 60.0
"""Requests a second, of all callers."""
TIMEOUT_S = 3.0
"""What a service gives another one: `timeout_s` of chassis/clients.py."""
PATH = "/api/v1/products?limit=100&max_price={number}000"
"""Each request asks for another highest price, above all that there are, so that none is answered from memory."""
BEFORE_S = 2.0
"""How long callers are at it before something happens, or before they are measured."""
LATE_S = 0.5
"""A request that takes longer is harmed, though it is answered."""
SLOW, USUAL = {"requests": "10m", "limits": "10m"}, {"requests": "75m", "limits": "1"}
"""CPU: what a pod is slowed to, which is less than its share of the requests takes, and what its manifest gives it."""
DEPLOYMENT = "deployment/balancing"
COST = "controller.kubernetes.io/pod-deletion-cost"
NOTICED_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one way by one kind of connection. Times are seconds."""

    equal: Sequence[Answer]
    pods: Sequence[str]
    slow: Sequence[Answer]
    """From when the pod was slow."""
    slow_pod: str
    dead: Sequence[Answer]
    """From when the pod was killed."""
    died_at: float
    added: Sequence[Answer]
    """From when the pod was ready."""
    added_pods: Sequence[str]
    new_pod: str
    ready_at: float
    cores: float
    """The most that the generator used."""
    latest_s: float


class Calling:
    """Callers at work in their pod."""

    def __init__(self, stdin: IO[str], lines: "queue.SimpleQueue[str | None]") -> None:
        self._stdin = stdin
        self._queue = lines
        self.lines: list[str] = []

    def began(self) -> float:
        """Wait for the word that they begin; raises Failed."""
        while (line := self._next()) is not None:
            if line.startswith("began,"):
                return float(line.partition(",")[2])
        raise Failed("the callers ended before they began")

    def so_far(self) -> Counter[str]:
        """How many requests each pod has answered by now."""
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.lines.append(line)
        answers = [line.rstrip("\n").split(",") for line in self.lines if line.startswith("answer,")]
        return Counter(cells[5] for cells in answers if cells[5])

    def _next(self) -> str | None:
        """The next line; none after the last."""
        try:
            line = self._queue.get(timeout=NOTICED_WITHIN_S)
        except queue.Empty:
            raise Failed(f"the callers said nothing for {NOTICED_WITHIN_S:.0f} s") from None
        if line is not None:
            self.lines.append(line)
        return line

    def end_in(self, seconds: float) -> None:
        """Let them end."""
        self._stdin.write(f"{seconds}\n")
        self._stdin.flush()

    def load(self) -> Load:
        """Wait for what they have printed; raises Failed."""
        while self._next() is not None:
            pass
        try:
            return measure.read(self.lines)
        except ValueError as error:
            raise Failed(str(error)) from None


class Stage:
    """The pods of the lab, and what is done to them."""

    def __init__(self, kubectl: Kubectl, seconds: float, seed: int) -> None:
        self._kubectl = kubectl
        self._seconds = seconds
        self._seed = seed

    def perform(self, place: Place, *, anew: bool, settle_s: float = 0.0) -> Result:
        """Go through the four situations; the pods are three equal ones again afterwards, if not the same."""
        if settle_s:
            with self._calling(place, anew=anew) as calling:
                calling.began()
                calling.end_in(settle_s)
                calling.load()
        pods = [_name(pod) for pod in self._ready(3)]
        with self._calling(place, anew=anew) as calling:
            since = calling.began() + BEFORE_S
            calling.end_in(BEFORE_S + self._seconds)
            loads = [calling.load()]
            equal = _due_since(loads[-1], since)
        slow_pod = ""
        try:
            with self._calling(place, anew=anew) as calling:
                slow_pod = self._busiest(calling, pods)
                since = self._resize(slow_pod, SLOW)
                calling.end_in(self._seconds)
                loads.append(calling.load())
                slow = _due_since(loads[-1], since)
        finally:
            if slow_pod:
                self._resize(slow_pod, USUAL)
        self._ready(3)
        with self._calling(place, anew=anew) as calling:
            dead_pod = self._busiest(calling, pods)
            died_at = self._kill(dead_pod)
            calling.end_in(self._seconds)
            loads.append(calling.load())
            dead = _due_since(loads[-1], died_at)
        self._ready(3)
        try:
            with self._calling(place, anew=anew) as calling:
                calling.began()
                new_pod, ready_at = self._add(pods)
                calling.end_in(self._seconds)
                loads.append(calling.load())
                added = _due_since(loads[-1], ready_at)
        finally:
            self._take_away(dead_pod)
        return Result(
            equal, pods, slow, slow_pod, dead, died_at, added, [*pods, new_pod], new_pod, ready_at,
            max(load.cores for load in loads), max(load.latest_s for load in loads),
        )  # fmt: skip

    @contextmanager
    def _calling(self, place: Place, *, anew: bool) -> Generator[Calling, None, None]:
        command = [
            "kubectl", f"--context={self._kubectl.context}", f"--namespace={self._kubectl.namespace}", "exec",
            "--stdin", "deployment/balancing-caller", "--", "python", "-c", PROGRAM, f"--url={place.url}",
            f"--path={PATH}", f"--callers={CALLERS}", f"--rate={RATE}", f"--timeout={TIMEOUT_S}",
            f"--seed={self._seed}",
        ]  # fmt: skip
        if place.host is not None:
            command.append(f"--host={place.host}")
        if anew:
            command.append("--anew")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
            threading.Thread(target=_passed_on, args=(process.stdout, lines.put), daemon=True).start()
            try:
                yield Calling(process.stdin, lines)
            finally:
                process.kill()

    def _busiest(self, calling: Calling, pods: Sequence[str]) -> str:
        """Let them begin, and return the pod that has answered most by the time that something is to happen."""
        began = calling.began()
        time.sleep(max(0.0, began + BEFORE_S - time.time()))
        counts = calling.so_far()
        return max(pods, key=lambda pod: counts[pod])

    # What is done to pods

    def _pods(self) -> list[Object]:
        return self._kubectl.items("pods", "--selector=app.kubernetes.io/name=balancing")

    def _ready(self, count: int) -> list[Object]:
        """Wait until there are so many pods, all of them ready; raises Failed."""
        ends_at = time.monotonic() + NOTICED_WITHIN_S
        while True:
            pods = self._pods()
            if len(pods) == count and all(is_ready(pod) for pod in pods):
                return pods
            if time.monotonic() > ends_at:
                raise Failed(f"{len(pods)} pods, {sum(map(is_ready, pods))} of them ready, and not {count}")
            time.sleep(0.3)

    def _resize(self, pod: str, cpu: dict[str, str]) -> float:
        """Give a running pod another CPU, and return when it had it; raises Failed."""
        resources = {kind: {"cpu": value} for kind, value in cpu.items()}
        patch = {"spec": {"containers": [{"name": "service", "resources": resources}]}}
        self._kubectl("patch", f"pod/{pod}", "--subresource=resize", f"--patch={json.dumps(patch)}")
        has = "--output=jsonpath={.status.containerStatuses[0].resources.limits.cpu}"
        ends_at = time.monotonic() + NOTICED_WITHIN_S
        while self._kubectl("get", f"pod/{pod}", has) != cpu["limits"]:
            if time.monotonic() > ends_at:
                raise Failed(f"{pod} was not given {cpu['limits']} of CPU")
            time.sleep(0.1)
        return time.time()

    def _kill(self, pod: str) -> float:
        """Kill a pod's process where it runs, as a kernel does that is out of memory: nobody is told before.

        Return when it was done.
        """
        found = self._kubectl.get("pod", pod)
        container = found["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        at = time.time()
        run(
            (
                "docker",
                "exec",
                found["spec"]["nodeName"],
                "ctr",
                "--namespace=k8s.io",
                "task",
                "kill",
                "-s",
                "9",
                container,
            )
        )
        return at

    def _add(self, pods: Sequence[str]) -> tuple[str, float]:
        """Add a fourth pod; return its name, and when it was seen to be ready."""
        self._kubectl("scale", DEPLOYMENT, "--replicas=4")
        while not (new := [name for pod in self._pods() if (name := _name(pod)) not in pods]):
            time.sleep(0.1)
        self._kubectl("wait", f"pod/{new[0]}", "--for=condition=Ready", "--timeout=120s", timeout_s=130)
        return new[0], time.time()

    def _take_away(self, pod: str) -> None:
        """Have three pods again, without the one that was killed: a second end of it would be a crash loop."""
        self._kubectl("annotate", f"pod/{pod}", f"{COST}=-1", "--overwrite")
        self._kubectl("scale", DEPLOYMENT, "--replicas=3")
        self._ready(3)


def is_ready(pod: Object) -> bool:
    """Whether a pod is ready, and not on its way out."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _name(pod: Object) -> str:
    return pod["metadata"]["name"]


def _due_since(load: Load, since: float) -> list[Answer]:
    return [each for each in load.answers if each.due >= since]


def _passed_on(lines: IO[str], put: Callable[[str | None], None]) -> None:
    for line in lines:
        put(line)
    put(None)
