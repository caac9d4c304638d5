"""Logs are JSON lines that say whose they are, and hold nothing that is secret.

In a process of its own each time, since logging is configured once a process.
"""

import subprocess
import sys
from typing import Any

import orjson

from chassis.migrations import ROOT

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PREAMBLE = f"""
import asyncio, logging, structlog
from chassis.context import Context, current
from chassis.telemetry import configure_logging
configure_logging("order", "info")
log = structlog.stdlib.get_logger()
current.set(Context(request_id="mine", traceparent="00-{TRACE_ID}-00f067aa0ba902b7-00"))
"""


def logged(code: str) -> list[dict[str, Any]]:
    """The lines that a process logs which runs `code` with logging configured and a request's context set."""
    command = (sys.executable, "-c", PREAMBLE + code)
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.splitlines()
    return [orjson.loads(line) for line in lines]


def test_a_line_says_what_happened_where_and_in_which_request() -> None:
    (line,) = logged("log.info('order_confirmed', amount_minor=1999)")
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "order_confirmed",
        "amount_minor": 1999,
        "level": "info",
        "service": "order",
        "trace_id": TRACE_ID,
        "request_id": "mine",
    }


def test_an_order_is_named_in_every_line_of_its_request() -> None:
    (line,) = logged("current.get().order_id = 'o-1'; log.info('payment_captured')")
    assert line["order_id"] == "o-1"


def test_lines_of_libraries_are_json_too() -> None:
    (line,) = logged("logging.getLogger('asyncpg').warning('pool %s', 'small', extra={'size': 3})")
    assert line["event"] == "pool small"
    assert line["size"] == 3
    assert line["level"] == "warning"
    assert line["trace_id"] == TRACE_ID


def test_an_exception_is_one_line_with_its_traceback() -> None:
    (line,) = logged("""
try:
    raise ValueError("of what")
except ValueError:
    log.exception("round_failed")
""")
    assert line["level"] == "error"
    assert 'raise ValueError("of what")' in line["exception"] or "ValueError: of what" in line["exception"]


def test_below_the_level_nothing_is_written() -> None:
    assert logged("log.debug('detail'); logging.getLogger('asyncio').debug('detail')") == []


def test_what_json_has_no_type_for_is_written_as_text() -> None:
    (line,) = logged("import uuid; log.info('seen', path=uuid.UUID(int=1), odd=object)")
    assert line["path"] == "00000000-0000-0000-0000-000000000001"


def test_a_crash_is_logged_without_the_request_s_secrets() -> None:
    lines = logged("""
from chassis.settings import ServiceSettings
from chassis.testing import client, settings_for
from chassis.tests.application import create_app

async def main():
    url = "postgresql://souk:the-database-password@127.0.0.1:1/souk"
    settings = settings_for(ServiceSettings, "product", url)
    log.info("started", settings=settings)
    async with client(create_app(settings)) as http:
        headers = {"Authorization": "Bearer the-access-token", "Cookie": "the-cookie"}
        await http.get("/crash", headers=headers)
        await http.post("/notes", json={"title": "the-title-of-the-body"}, headers=headers)

asyncio.run(main())
""")
    events = [line["event"] for line in lines]
    assert events[0] == "started"
    assert "unexpected_error" in events
    text = orjson.dumps(lines).decode()
    for secret in ("the-database-password", "the-access-token", "the-cookie", "the-title-of-the-body"):
        assert secret not in text
