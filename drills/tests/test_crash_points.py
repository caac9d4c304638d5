"""Each place between two durable effects has a name, a drill that dies there, and no effect where none is run."""

import ast
import dis
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis import crash_points
from chassis.migrations import ROOT
from drills.crash_points import PHASES, POINTS, TRACELESS
from drills.harmed import arm, struck_by

SERVED = sorted(
    path
    for folder in ("chassis", "services", "local")
    for path in (ROOT / folder).rglob("*.py")
    if "tests" not in path.parts and path.name != "testing.py"
)


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Every call of `crash_point` in what is served."""
    for path in SERVED:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("crash_point"):
                yield path, node


def nothing(name: str) -> None:
    """A function of one argument that does nothing."""


def test_the_drill_dies_at_every_point_of_the_code_and_no_other() -> None:
    names: list[str] = []
    for path, call in calls():
        (name,) = call.args
        assert isinstance(name, ast.Constant), f"{path}: {ast.unparse(call)}"
        assert isinstance(name.value, str)
        assert not call.keywords
        names.append(name.value)
    assert len(names) > 40
    assert sorted(names) == sorted(set(names)), "a name stands for one place"
    assert set(names) == set(POINTS)


def test_a_point_is_in_the_service_that_its_name_says() -> None:
    for path, call in calls():
        (name,) = call.args
        assert isinstance(name, ast.Constant)
        assert path.is_relative_to(ROOT / "services" / str(name.value).partition(".")[0])


def test_what_a_point_needs_is_in_the_table() -> None:
    works = {work for _, work in POINTS.values()}
    assert set(POINTS) >= TRACELESS
    assert {work for _, _, special in PHASES for work in special} <= works


def test_a_point_does_nothing_and_costs_a_call() -> None:
    def steps(function: object) -> list[str]:
        return [each.opname for each in dis.get_instructions(function)]  # pyright: ignore[reportArgumentType] - any function

    assert steps(crash_points.crash_point) == steps(nothing)
    assert crash_points.crash_point.__code__.co_names == ()


def test_nothing_that_is_served_puts_anything_in_the_place_of_a_point() -> None:
    for path in SERVED:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            written = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            assert not any("crash_point" in ast.unparse(target) for target in written), path
            if isinstance(node, ast.ImportFrom | ast.Import):
                assert not any(alias.name.startswith("drills") for alias in node.names), path
                assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("drills")), path


@pytest.fixture
def doom(tmp_path: Path) -> Path:
    """The file that says who is to die."""
    return tmp_path / "doom.json"


def passed(doom: Path, point: str, trace_id: str) -> int:
    """Pass a point in a trace, in a process of its own that reads the file; its exit status."""
    code = (
        "from pathlib import Path; from chassis.context import Context, current; from drills import harmed\n"
        f"current.set(Context(traceparent='00-{trace_id}-{trace_id[:16]}-01'))\n"
        f"harmed.doomed(Path({str(doom)!r}), {point!r})"
    )
    return subprocess.run((sys.executable, "-c", code), cwd=ROOT, env=os.environ, check=False).returncode


TRACE, OTHER = "a" * 32, "b" * 32


def test_who_gets_to_the_point_in_the_trace_is_killed_once(doom: Path) -> None:
    arm(doom, "order.placed", TRACE)
    assert passed(doom, "order.reserved", TRACE) == 0
    assert passed(doom, "order.placed", OTHER) == 0
    assert not struck_by(doom).exists()
    assert passed(doom, "order.placed", TRACE) == -signal.SIGKILL
    assert struck_by(doom).exists()
    assert passed(doom, "order.placed", TRACE) == 0
    arm(doom, "order.placed", OTHER)
    assert passed(doom, "order.placed", OTHER) == -signal.SIGKILL


def test_without_a_trace_whoever_comes_first_is_killed(doom: Path) -> None:
    arm(doom, "product.expired")
    assert passed(doom, "product.expired", OTHER) == -signal.SIGKILL


def test_where_nobody_is_to_die_nobody_does(doom: Path) -> None:
    assert passed(doom, "order.placed", TRACE) == 0
