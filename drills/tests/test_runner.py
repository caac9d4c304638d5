"""`python -m drills` says why a drill cannot be run, and ends with a status that says so too."""

import os
import subprocess
import sys
from pathlib import Path

from chassis.migrations import ROOT
from drills.__main__ import ALL, COULD_NOT_RUN


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-m", "drills", *arguments),
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_drill_that_is_not_there_is_named_with_those_that_are() -> None:
    ended = run("tornado")
    assert ended.returncode == COULD_NOT_RUN
    assert "no such drill: tornado" in ended.stderr
    assert all(name in ended.stderr for name in ALL)


def test_each_drill_is_listed_with_what_it_shows() -> None:
    shown = run("--help").stdout
    for drill in ALL.values():
        assert f"{drill.name:<18}{drill.title}" in shown


def test_what_this_machine_does_not_give_is_said_and_nothing_passes(tmp_path: Path) -> None:
    ended = run("full-disk", "--seconds", "1", "--folder", str(tmp_path / "drills"), PATH=str(tmp_path))
    assert ended.returncode == COULD_NOT_RUN
    reason, verdict = ended.stdout.splitlines()
    assert reason.startswith("full-disk cannot be run here: ")
    assert verdict.startswith("drills: 1 left out, ")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run("kill", "--seconds", "1", "--folder", str(tmp_path / "file"))
    assert ended.returncode == COULD_NOT_RUN
    (reason,) = ended.stderr.splitlines()
    assert reason.startswith("kill could not be run: ")
    assert str(tmp_path / "file") in reason
