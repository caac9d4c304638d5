"""Locust, as processes on this machine or as Jobs in the cluster; what it prints is kept line by line."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Protocol

from chassis.migrations import ROOT
from deploy import images, manifests
from deploy.commands import CommandFailed, Kubectl, Object
from deploy.target import NAMESPACE, read_target
from deploy.terminal import Failed
from loadtests.record import Row, parsed
from loadtests.target import Target
from local.ports import free_ports

ENDS_WITHIN_S = 90.0
"""After it was told to: more than a request may take, and than Locust takes to say goodbye to its workers."""
STOP_TIMEOUT_S = 40
"""For Locust: how long shoppers have to get their last answers."""
OVERLAY = "loadtest"
MASTER, WORKERS = "load-master", "load-workers"
STARTS_WITHIN_S = 180.0
LOCUSTFILE = "loadtests/locustfile.py"


class Generator(Protocol):
    """Something that prints rows."""

    def start(self) -> IO[str]:
        """Begin, and return what is printed; raises Failed."""
        ...

    def stop(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it and all that belongs to it; without effect where it has ended."""
        ...

    def last_words(self) -> str:
        """What it said last beside its rows, in a line; empty where it said nothing."""
        ...


@dataclass(slots=True)
class Processes:
    """Locust on this machine: one process, or a master and so many that send."""

    options: Sequence[str]
    target: Target
    processes: int
    log: Path
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> IO[str]:
        """Start it in a session of its own, so that Ctrl-C is for whoever started it to hand on."""
        command = [
            sys.executable, "-m", "locust", "--locustfile", LOCUSTFILE, "--headless", "--only-summary",
            "--host", self.target.origin, "--stop-timeout", str(STOP_TIMEOUT_S), "--exit-code-on-error", "0",
            *self.options,
        ]  # fmt: skip
        if self.processes > 1:
            port = str(free_ports(1))
            command += ["--processes", str(self.processes), "--master-bind-host", "127.0.0.1"]
            command += ["--master-bind-port", port, "--master-port", port]
        environment = os.environ | {"ADMIN_PASSWORD": self.target.admin_password, "PYTHONPATH": str(ROOT)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        return self.process.stdout

    def stop(self) -> None:
        """SIGTERM to the one that leads the others."""
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """SIGKILL to all of its session, after it has had its time."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def last_words(self) -> str:
        """The last line of its log."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Jobs:
    """Locust in the cluster, as the overlay `loadtest` has it: a master, and workers that it tells what to send."""

    def __init__(self, options: Sequence[str], workers: int, log: Path) -> None:
        self._options = options
        self._workers = workers
        self._log = log
        target = read_target({**os.environ, "OVERLAY": OVERLAY})
        self._kubectl = Kubectl(target.context, NAMESPACE)
        objects = manifests.release(manifests.rendered(OVERLAY), images.names(target), {})
        self._jobs = {item["metadata"]["name"]: item for item in manifests.of_kind(objects, "Job")}
        self._follower: subprocess.Popen[str] | None = None

    def start(self) -> IO[str]:
        """Start both Jobs, of which nothing is left of a run before, and follow what the master prints."""
        if not self._kubectl.items("serviceaccount", "load"):
            raise Failed("inside: the cluster has not what a load from inside needs: OVERLAY=loadtest make deploy")
        self.kill()
        master, workers = self._jobs[MASTER], self._jobs[WORKERS]
        (container,) = manifests.containers(master)
        container["args"] = [*container["args"], "--expect-workers", str(self._workers), *self._options]
        workers["spec"]["parallelism"] = self._workers
        for job in (master, workers):
            job["spec"]["suspend"] = False
        self._kubectl.apply([master, workers])
        self._await_master()
        command = ("kubectl", f"--context={self._kubectl.context}", f"--namespace={NAMESPACE}")
        with self._log.open("wb") as log:
            self._follower = subprocess.Popen(
                (*command, "logs", "--follow", f"job/{MASTER}"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._follower.stdout is not None
        return self._follower.stdout

    def _await_master(self) -> None:
        """Wait until it has a container that prints; raises Failed."""
        ends_at = monotonic() + STARTS_WITHIN_S
        while True:
            pods: list[Object] = self._kubectl.items("pods", f"--selector=job-name={MASTER}")
            if any(pod["status"].get("phase") in {"Running", "Succeeded", "Failed"} for pod in pods):
                return
            if monotonic() > ends_at:
                raise Failed(f"inside: {MASTER} did not start within {STARTS_WITHIN_S:.0f} s: kubectl -n souk get pods")
            sleep(1)

    def stop(self) -> None:
        """SIGTERM to the master, which tells its workers; its pod stays until it has printed its last line."""
        with contextlib.suppress(CommandFailed):
            self._kubectl("exec", f"job/{MASTER}", "--", "sh", "-c", "kill -TERM 1")

    def kill(self) -> None:
        """Delete both Jobs with their pods."""
        with contextlib.suppress(CommandFailed):
            names = (f"job/{MASTER}", f"job/{WORKERS}")
            self._kubectl("delete", *names, "--ignore-not-found", "--cascade=foreground", "--wait", timeout_s=120)
        if self._follower is not None:
            self._follower.terminate()
            self._follower.wait()

    def last_words(self) -> str:
        """What kubectl said."""
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


def run(generator: Generator, keep: Callable[[Row], None], *, within_s: float, tick: Callable[[], None]) -> bool:
    """Let it run to its end, and keep its rows; whether it was interrupted. Whatever happens, nothing of it stays.

    Raises Failed where it does not start. `tick` is called every second.
    """
    try:
        printed = generator.start()
        reader = threading.Thread(target=_read, args=(printed, keep), daemon=True)
        reader.start()
        interrupted = False
        try:
            ends_at = monotonic() + within_s
            while reader.is_alive() and monotonic() < ends_at:
                reader.join(1)
                tick()
            if reader.is_alive():
                generator.stop()
        except KeyboardInterrupt:
            interrupted = True
            generator.stop()
        with contextlib.suppress(KeyboardInterrupt):  # a second one: enough is enough
            reader.join(ENDS_WITHIN_S)
        return interrupted
    finally:
        generator.kill()


def _read(printed: IO[str], keep: Callable[[Row], None]) -> None:
    for text in printed:
        row = parsed(text.rstrip("\n"))
        if row is not None:
            keep(row)
