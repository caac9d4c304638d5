"""Server processes on a core of their own, and the CPU that a request costs them."""

import http.client
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil

from bench import load
from local.postgres import EmbeddedPostgres

CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [0]
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 30.0
LIBRARIES = ("uvicorn", "uvloop", "httptools", "fastapi", "asyncpg", "httpx2", "orjson")


@dataclass(frozen=True)
class ServerProcess:
    """A running server."""

    process: psutil.Process
    port: int
    ready_after_s: float
    """From the start of the process to its first 200."""

    def cpu_s(self) -> float:
        """User and system time of all its threads so far."""
        times = self.process.cpu_times()
        return times.user + times.system

    def resident_mb(self) -> float:
        """Resident memory in units of 2**20 bytes."""
        return self.process.memory_info().rss / 2**20


@contextmanager
def server(
    module: str, *arguments: str, port: int, environment: Mapping[str, str] | None = None, ready: str = "/readyz"
) -> Generator[ServerProcess]:
    """Run `python -m module` on the servers' core, from its first 200 for the path `ready` on."""
    command = (sys.executable, "-m", module, *arguments)
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | dict(environment or {}), stdout=subprocess.DEVNULL
    ) as process:
        try:
            pin(process.pid, SERVER_CORE)
            _wait_until_ready(process, port, ready)
            yield ServerProcess(psutil.Process(process.pid), port, time.perf_counter() - began)
        finally:
            process.terminate()


def pin(pid: int, core: int) -> None:
    """Keep a process, 0 being this one, and what it starts from now on, on one core; without effect but on Linux."""
    if sys.platform == "linux":
        os.sched_setaffinity(pid, {core})


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, path: str) -> None:
    deadline = time.perf_counter() + START_TIMEOUT_S
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise ChildProcessError(f"{process.args} ended with {process.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.005)
        finally:
            connection.close()
    raise TimeoutError(f"{process.args} did not become ready")


@dataclass(frozen=True)
class Cost:
    """What a request costs the measured processes, and how many they answer a second."""

    cpu_us: float
    per_second: float


def cost(processes: Sequence[ServerProcess], port: int, requests: Iterable[load.Request], *, connections: int) -> Cost:
    """Send the requests to `port` and share the CPU time of all `processes` among them."""
    before = sum(each.cpu_s() for each in processes)
    sent = load.run(port, requests, connections=connections)
    spent_s = sum(each.cpu_s() for each in processes) - before
    return Cost(spent_s / sent.requests * 1e6, sent.per_second)


def side_by_side(*measurements: Callable[[], Cost], rounds: int = 3) -> list[Cost]:
    """Take the measurements in turn, so that a slow moment of the machine meets all of them; return the medians."""
    taken = [[measure() for measure in measurements] for _ in range(rounds)]
    return [
        Cost(median(each.cpu_us for each in column), median(each.per_second for each in column))
        for column in zip(*taken, strict=True)
    ]


def surroundings(command: str, postgres: EmbeddedPostgres) -> str:
    """By which command, when and on what was measured; the server is running."""
    models = {
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return "\n".join(
        (
            f"- Command: `{command}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {os.cpu_count()} cores ({', '.join(models) or platform.machine()}), {platform.system()}"
            f" {platform.release()}",
            f"- Versions: Python {platform.python_version()}, PostgreSQL {postgres.execute('SHOW server_version')},"
            f" {libraries}",
            "",
        )
    )
