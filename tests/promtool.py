"""promtool, Prometheus' own checker: of the PATH, or where .ci/prometheus has unpacked it."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from chassis.migrations import ROOT

UNPACKED = ROOT / ".venv" / "prometheus" / "usr" / "bin"


def program(name: str) -> str:
    """The path of a program of Prometheus; skips the test where it is missing, and fails on CI, which installs it."""
    found = shutil.which(name, path=f"{UNPACKED}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        missing = f"{name} is missing: .ci/prometheus unpacks Debian's, or install Prometheus"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def promtool(*arguments: str, files: Sequence[Path] = ()) -> str:
    """What promtool says when all is well with these files; fails the test with what it says otherwise."""
    command = (program("promtool"), *arguments, *map(str, files))
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr
