"""What every test in the repository can ask for, and how it logs."""

import pytest

from chassis.telemetry import configure_logging

pytest_plugins = ["tests.databases"]


@pytest.fixture(scope="session", autouse=True)
def json_logs() -> None:
    """Log as a service does: what is not configured draws each traceback for a person, which takes seconds."""
    configure_logging("tests", "warning")
