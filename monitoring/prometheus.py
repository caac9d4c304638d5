"""Prometheus: asking one over its HTTP API, and running one of one's own on this machine.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml

from chassis.migrations import ROOT
from drills.platform import ENDS_WITHIN_S, NotHere, NotReady

IN_CLUSTER = ROOT / "k8s" / "monitoring" / "prometheus.yml"
RULES = ROOT / "k8s" / "monitoring" / "rules"
OF_A_CLUSTER = "kubernetes.yml"
"""The rules on what there is in a cluster only."""
READY_WITHIN_S = 30.0


class QueryRefused(Exception):
    """Prometheus did not take an expression; the message is its own."""


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: its labels, and values at moments in seconds since 1970."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def newest(self) -> float:
        """The last value."""
        return self.points[-1][1]

    @property
    def known(self) -> bool:
        """Whether any value is a number: a quantile of no requests is not."""
        return any(math.isfinite(value) for _, value in self.points)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query found, and the seconds that it took Prometheus by its own account."""

    series: Sequence[Series]
    seconds: float


class Prometheus:
    """A Prometheus that answers at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx2.AsyncClient(timeout=30)

    async def now(self, expr: str, at: float | None = None) -> Answer:
        """The value of an expression at a moment, or now; raises QueryRefused."""
        moment = time.time() if at is None else at
        return _answer(await self._ask("query", {"query": expr, "time": moment, "stats": "all"}))

    async def over(self, expr: str, since: float, until: float, step_s: float) -> Answer:
        """The values of an expression from `since` to `until`, every `step_s`; raises QueryRefused."""
        span = {"start": since, "end": until, "step": step_s}
        return _answer(await self._ask("query_range", {"query": expr, **span, "stats": "all"}))

    async def values(self, label: str, selector: str) -> list[str]:
        """The values of a label on the series that a selector takes, sorted."""
        return await self._ask(f"label/{label}/values", {"match[]": selector})

    async def fired(self, alert: str, since: float) -> float | None:
        """How many seconds after a moment an alert fired for the first time; none where it did not, 0 where it did
        already.
        """
        firing = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
        if (await self.now(firing, since)).series:
            return 0.0
        waited_s = max(1, math.ceil(time.time() - since))
        found = await self.now(f"min(min_over_time(timestamp({firing})[{waited_s}s:5s]))")
        moments = [each.newest - since for each in found.series]
        return min((moment for moment in moments if moment > 0), default=None)

    async def pages(self, since: float) -> list[str]:
        """The alerts that somebody was paged for since a moment, and was not at that moment already."""
        firing = 'ALERTS{alertstate="firing",severity="page"}'
        waited_s = max(1, math.ceil(time.time() - since))
        before = {each.labels["alertname"] for each in (await self.now(firing, since)).series}
        found = await self.now(f"max by (alertname) (max_over_time({firing}[{waited_s}s]))")
        return sorted({each.labels["alertname"] for each in found.series} - before)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _ask(self, path: str, parameters: Mapping[str, str | float]) -> Any:
        answer = await self._client.get(f"{self.url}/api/v1/{path}", params=dict(parameters))
        document: dict[str, Any] = answer.json()
        if document["status"] != "success":
            raise QueryRefused(f"{document['error']}: {parameters}")
        return document["data"]


def _answer(data: Mapping[str, Any]) -> Answer:
    series = [
        Series(each["metric"], [(float(at), float(value)) for at, value in each.get("values", [each.get("value")])])
        for each in (data["result"] if data["resultType"] in {"vector", "matrix"} else [_scalar(data["result"])])
    ]
    return Answer(series, data["stats"]["timings"]["evalTotalTime"])


def _scalar(value: Any) -> dict[str, Any]:
    return {"metric": {}, "value": value}


MISSING = {
    **dict.fromkeys(("prometheus", "promtool"), ".ci/prometheus unpacks Debian's, or install Prometheus"),
    "traefik": "requirements-dev.txt has it as a wheel",
}


def program(name: str) -> str:
    """Where a program is: beside this Python, where .ci/prometheus unpacks it, or on the path; raises NotHere."""
    path = (Path(sys.executable).parent, ROOT / ".venv" / "prometheus" / "usr" / "bin", os.environ["PATH"])
    found = shutil.which(name, path=os.pathsep.join(map(str, path)))
    if found is None:
        raise NotHere(f"{name} is missing: {MISSING[name]}")
    return found


def await_answer(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a process that was started answers 200; raises NotReady, with the end of its log."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass  # it does not listen yet
        time.sleep(0.05)
    raise NotReady(f"no answer of {url}:\n{log.read_text(errors='replace')[-2000:]}")


@dataclass(frozen=True, slots=True)
class Target:
    """What is scraped: where, and the labels that it gets, those that k8s/monitoring gives by discovery."""

    address: str
    job: str
    labels: Mapping[str, str]


class Server:
    """A Prometheus of one's own, with the rules of k8s/monitoring, in a folder of its own."""

    def __init__(self, folder: Path, port: int, targets: Sequence[Target], every_s: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._targets = targets
        self._every_s = every_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready; raises NotHere where there is no such program, NotReady."""
        prometheus = program("prometheus")
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "prometheus.yml"
        settings.write_text(json.dumps(self._settings()))  # JSON is YAML
        log = self.folder / "prometheus.log"
        with log.open("wb") as to:
            self._process = subprocess.Popen(
                (
                    prometheus,
                    f"--config.file={settings}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--log.level=warn",
                ),
                stdout=to,
                stderr=subprocess.STDOUT,
            )
        await_answer(self._process, f"{self.url}/-/ready", log)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _settings(self) -> dict[str, Any]:
        every = f"{self._every_s}s"
        known = {each["job_name"]: each for each in yaml.safe_load(IN_CLUSTER.read_text())["scrape_configs"]}
        return {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path) for path in sorted(RULES.glob("*.yml")) if path.name != OF_A_CLUSTER],
            "scrape_configs": [
                {
                    "job_name": job,
                    # What is made of the labels that come with a sample is no matter of where it is scraped.
                    "metric_relabel_configs": known[job].get("metric_relabel_configs", []),
                    # A recording says when it was taken, which is too long ago for whoever reads it now.
                    "honor_timestamps": False,
                    "static_configs": [
                        {"targets": [target.address], "labels": dict(target.labels)}
                        for target in self._targets
                        if target.job == job
                    ],
                }
                for job in sorted({target.job for target in self._targets})
            ],
        }
