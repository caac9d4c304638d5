"""`python -m local` as a person runs it: it starts, sells, stops on Ctrl-C, keeps its data, and says what is wrong."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from chassis.migrations import ROOT
from local.ports import free_ports
from local.seed import SeedFailed, SignInRefused, seed


@contextmanager
def shop(port: int, data: Path) -> Generator[tuple["subprocess.Popen[str]", list[str]], None, None]:
    """The shop from its start to `end   Ctrl-C`, and the lines that it printed until then."""
    command = (sys.executable, "-m", "local", "--port", str(port), "--data", str(data))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        try:
            yield process, lines
        finally:
            process.send_signal(signal.SIGINT)
            lines.extend(process.stdout)
            process.wait(30)


def test_the_shop_starts_says_where_it_is_stops_on_ctrl_c_and_keeps_its_data(tmp_path: Path) -> None:
    port = free_ports(6)
    origin = f"http://127.0.0.1:{port}"
    with shop(port, tmp_path / "var") as (first, lines):
        printed = "".join(lines)
        for said in (origin, "/docs", "customer@souk.example", "admin@souk.example", "72 products", "migrating"):
            assert said in printed
        products = httpx2.get(f"{origin}/api/v1/products", params={"limit": 100}).json()["items"]
        assert len(products) == 72
        picture = httpx2.get(origin + products[0]["image_url"])
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/svg+xml")
        page = httpx2.get(origin)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert products[0]["name"] in page.text
        assert httpx2.get(f"{origin}/metrics").status_code == 404
        assert httpx2.get(f"http://127.0.0.1:{port + 5}/metrics").status_code == 200
        account = {"email": "kept@souk.example", "password": "kept over a restart", "name": "Kept"}
        assert httpx2.post(f"{origin}/api/v1/auth/register", json=account).status_code == 201
    assert first.returncode == 0
    assert re.search(r"stopped; the data is kept\n$", "".join(lines))
    with shop(port, tmp_path / "var") as (_, lines):
        assert "migrating" not in "".join(lines)
        assert "seeding" not in "".join(lines)
        assert re.search(r"admin@souk.example / as it was set$", "".join(lines), re.MULTILINE)
        assert httpx2.post(f"{origin}/api/v1/auth/register", json=account).status_code == 409


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = (sys.executable, "-m", "local", "--port", str(port), "--data", str(tmp_path / "var"))
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [f"souk: port {port} (for the edge) is taken: choose another, make run PORT=9000"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("ADMIN_PASSWORD", "short"), ("ADMIN_EMAIL", "not an e-mail"), ("LOG_LEVEL", "loud")],
)
def test_a_wrong_setting_is_one_clear_line_without_its_value(tmp_path: Path, name: str, value: str) -> None:
    command = (sys.executable, "-m", "local", "--port", str(free_ports(5)), "--data", str(tmp_path / "var"))
    environment = os.environ | {name: value}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert re.match(rf"souk: .*{name}: ", line)
    assert f"'{value}'" not in line


async def test_a_shop_that_refuses_its_seed_is_one_clear_line() -> None:
    async def refuses(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with pytest.raises(SeedFailed, match=r"^seeding: GET /api/v1/products was answered 503$"):
        await seed({"product": refuses}, "admin@souk.example", "whatever it is", print)


async def test_an_admin_with_another_password_is_not_seeded_over() -> None:
    async def empty(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"items": []}'})

    async def refuses(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with pytest.raises(SignInRefused, match=r"^not seeded: admin@souk.example has another password"):
        await seed({"product": empty, "user": refuses}, "admin@souk.example", "whatever it is", print)


def test_a_data_folder_of_another_version_is_one_clear_line(tmp_path: Path) -> None:
    cluster = tmp_path / "var" / "postgres"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("16\n")
    command = (sys.executable, "-m", "local", "--port", str(free_ports(5)), "--data", str(tmp_path / "var"))
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith("souk: ")
    assert "16" in line
