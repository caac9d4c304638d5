"""`python -m loadtests` against a real shop: it passes, it is interrupted, and it is lied to."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import pytest

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from drills.tests.page import Page, parse
from loadtests.tests.servers import Lying, serving
from local.seed import CATALOGUE
from tests.databases import Databases
from tests.shop import ADMIN_PASSWORD, Shop, running_shop
from tests.test_readme import import_catalogue

INTERRUPTED = 130
SEED = "69"
"""Of those by which every journey comes early in a short run: an admin is one of a hundred."""
OTHER_WORK = {0, 3}
"""A machine that runs other tests meanwhile may be too busy for the generator, which then says that it was."""


@dataclass(frozen=True, slots=True)
class Data:
    """A shop, and the folder that says where its books are."""

    shop: Shop
    folder: Path


@pytest.fixture(scope="module")
def data(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Data, None, None]:
    """A shop of its own with the demo catalogue: these tests buy from all shelves, and audit them."""
    folder = tmp_path_factory.mktemp("loaded")
    with running_shop({service: postgres.clone(service) for service in SERVICES}, folder) as shop:
        import_catalogue(shop, CATALOGUE)
        (folder / "shop.json").write_text(json.dumps({"edge": shop.origin, **shop.services}))
        yield Data(shop, folder)


@contextmanager
def started(data: Data, tmp_path: Path, *options: str, target: str = "") -> Generator["subprocess.Popen[str]"]:
    """A run that begins now."""
    command = (
        sys.executable, "-m", "loadtests", "--target", target or data.shop.origin, "--data", str(data.folder),
        "--folder", str(tmp_path), "--seed", SEED, "--think", "0.3", "--shown-only", *options,
    )  # fmt: skip
    environment = os.environ | {"ADMIN_PASSWORD": ADMIN_PASSWORD, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def results(tmp_path: Path) -> tuple[Page, list[dict[str, str]]]:
    """The page and the requests of the one run of a test."""
    (folder,) = tmp_path.iterdir()
    with (folder / "requests.csv").open(newline="") as file:
        return parse((folder / "report.html").read_text()), list(csv.DictReader(file))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_steady_run_finds_no_failure_and_leaves_clean_books(data: Data, tmp_path: Path, processes: int) -> None:
    options = ("--shape", "steady", "--seconds", "12", "--rate", "6", "--processes", str(processes))
    with started(data, tmp_path, *options) as process:
        said, _ = process.communicate(timeout=180)
    assert process.returncode in OTHER_WORK, said
    page, requests = results(tmp_path)
    assert [request for request in requests if request["failure"]] == []
    assert {request["journey"] for request in requests} == {"visitor", "buyer", "returner", "admin"}
    called = {(request["call"], request["status"]) for request in requests}
    assert {
        ("GET /api/v1/products/{id}", "304"),
        ("POST /api/v1/orders", "201"),
        ("GET /api/v1/orders/{id}/events", "200"),
        ("POST /api/v1/orders/{id}/cancel", "200"),
        ("POST /api/v1/products/import", "200"),
    } <= called
    assert "audit: clean" in said
    assert page.all("h1")[0].text.split()[-1] in {"PASSED", "INVALID"}
    assert {call for call, _ in called} >= {row[0] for row in page.table("By endpoint")[1:]}
    assert "products of the load tests retired" in said


def test_a_seed_repeats_who_comes_and_what_they_ask_for(data: Data, tmp_path: Path) -> None:
    asked: list[set[tuple[str, str]]] = []
    for name in ("first", "second"):
        folder = tmp_path / name
        options = ("--shape", "steady", "--seconds", "6", "--rate", "6", "--journeys", "visitor")
        with started(data, folder, *options) as process:
            said, _ = process.communicate(timeout=180)
        assert process.returncode in OTHER_WORK, said
        _, requests = results(folder)
        # Who came in the first four seconds has asked for the categories by the end, however slow the machine.
        asked.append({(each["arrival"], each["due_s"]) for each in requests if "categories" in each["call"]})
    assert len(asked[0]) > 10
    assert asked[0] == asked[1]


def test_a_flash_sale_sells_what_there_is_and_no_more(data: Data, tmp_path: Path) -> None:
    with started(data, tmp_path, "--shape", "flash-sale", "--seconds", "10", "--rate", "10") as process:
        said, _ = process.communicate(timeout=180)
    assert process.returncode in OTHER_WORK, said
    assert re.search(r"kept: of 500 units none is sold twice: [1-9]\d* sold", said)
    assert "audit: clean" in said


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_writes_its_report_and_leaves_nothing_behind(
    data: Data, tmp_path: Path, sent: signal.Signals
) -> None:
    with started(data, tmp_path, "--shape", "steady", "--seconds", "600", "--rate", "6") as process:
        wait_for_requests(tmp_path, 20)
        below = psutil.Process(process.pid).children(recursive=True)
        assert below
        process.send_signal(sent)
        said, _ = process.communicate(timeout=180)
    assert process.returncode == INTERRUPTED, said
    assert not [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    page, requests = results(tmp_path)
    assert page.all("h1")[0].text.split()[-1] == "INTERRUPTED"
    assert len(requests) >= 20
    assert "products of the load tests retired" in said
    assert "audit: clean" in said


def wait_for_requests(tmp_path: Path, count: int) -> None:
    """Wait until so many are written down."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if sum(file.read_text().count("\n") for file in tmp_path.glob("*/requests.csv")) > count:
            return
        time.sleep(0.1)
    raise AssertionError("nothing was written down within a minute")


def test_a_total_that_is_a_cent_too_high_is_a_failure_though_it_is_a_201(data: Data, tmp_path: Path) -> None:
    with httpx2.Client(base_url=data.shop.origin, timeout=30) as client, serving(Lying(client)) as origin:
        options = ("--shape", "steady", "--seconds", "8", "--rate", "4", "--journeys", "buyer")
        with started(data, tmp_path, *options, target=origin) as process:
            said, _ = process.communicate(timeout=180)
    assert process.returncode == 1, said
    page, requests = results(tmp_path)
    lied = [request for request in requests if request["call"] == "POST /api/v1/orders" and request["status"] == "201"]
    assert lied
    assert all(request["failure"] == "wrong answer" and "a total of" in request["detail"] for request in lied)
    assert page.all("h1")[0].text.split()[-1] == "FAILED"
    assert "not audited" in page.all("main")[0].text


def test_what_cannot_be_run_is_one_line_and_no_folder(data: Data, tmp_path: Path) -> None:
    with started(data, tmp_path, target="http://127.0.0.1:9") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said == "load: http://127.0.0.1:9 does not answer: [Errno 111] Connection refused\n"
    assert list(tmp_path.iterdir()) == []
