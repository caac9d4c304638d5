"""promtool, Prometheus' own checker: of the PATH, or where .ci/prometheus has unpacked it."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from drills.platform import NotHere
from monitoring.prometheus import program


def not_here(missing: NotHere) -> NoReturn:
    """Skip the test that needs a program which is not there; on CI, which brings it, fail."""
    if os.environ.get("CI"):
        pytest.fail(str(missing))
    pytest.skip(str(missing))


def promtool(*arguments: str, files: Sequence[Path] = ()) -> str:
    """What promtool says when all is well with these files; fails the test with what it says otherwise."""
    try:
        command = (program("promtool"), *arguments, *map(str, files))
    except NotHere as missing:
        not_here(missing)
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr
