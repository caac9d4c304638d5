"""The process of a service: what its command line takes, and how it ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from chassis.migrations import ROOT
from chassis.testing import JWKS, KEYS
from tests.shop import free_ports

MODULE = "chassis.tests.application"


def environment(url: str, port: int) -> dict[str, str]:
    return os.environ | {
        "PORT": str(port),
        "DATABASE_URL": url,
        "SERVICE_KEY": KEYS["product"],
        "SERVICE_JWKS": JWKS,
    }


@pytest.fixture
async def running(notes_url: str, tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A process that serves, and its address."""
    port = free_ports(1)
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", MODULE), cwd=ROOT, env=environment(notes_url, port), stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=address) as http, asyncio.timeout(30):
        while True:
            assert process.returncode is None, (tmp_path / "log").read_text()
            try:
                await http.get("/livez")
                break
            except httpx2.TransportError:
                await asyncio.sleep(0.05)
    yield process, address
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_a_graceful_stop_ends_open_streams_and_finishes_what_is_being_served(
    running: tuple[asyncio.subprocess.Process, str],
) -> None:
    process, address = running
    async with httpx2.AsyncClient(base_url=address) as http, asyncio.timeout(15):
        async with http.stream("GET", "/stream") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "open"
            process.send_signal(signal.SIGTERM)
            assert [line async for line in lines] == ["closed"]
        await process.wait()
        with pytest.raises(httpx2.TransportError):
            await http.get("/livez")
    assert process.returncode in {0, -signal.SIGTERM}


async def test_answers_tell_nothing_of_the_server(running: tuple[asyncio.subprocess.Process, str]) -> None:
    _, address = running
    async with httpx2.AsyncClient(base_url=address) as http:
        answer = await http.get("/livez")
    assert "server" not in answer.headers


async def command(*arguments: str, env: dict[str, str] | None = None) -> tuple[int | None, str, str]:
    """The exit status, standard output and standard error of a service's command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", MODULE, *arguments),
        cwd=ROOT,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.parametrize("arguments", [("destroy",), ("serve", "now"), ("--help",)])
async def test_an_unknown_command_is_refused_with_those_that_there_are(arguments: tuple[str, ...]) -> None:
    status, _, errors = await command(*arguments)
    assert status == 1
    assert errors == "usage: python -m services.product [serve | migrate | openapi]\n"


async def test_missing_settings_are_one_line() -> None:
    bare = {name: value for name, value in os.environ.items() if name not in environment("", 0)}
    status, _, errors = await command(env=bare)
    assert status == 1
    assert errors.startswith("settings: PORT: Field required; DATABASE_URL: Field required")
    assert errors.count("\n") == 1


async def test_the_openapi_document_is_printed(notes_url: str) -> None:
    status, output, _ = await command("openapi", env=environment(notes_url, 1))
    assert status == 0
    assert output.startswith('{\n  "openapi": "3.1')
    assert output.endswith("}\n")
