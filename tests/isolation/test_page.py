"""docs/decisions/isolation.md names every statement that writes, and the tests that show what guards it."""

import ast
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

from chassis.migrations import ROOT
from services.order import repository as order
from services.payment import repository as payment
from services.payment import simulator
from services.product import repository as product
from services.user import repository as user
from tests.isolation import test_order, test_payment, test_product, test_user

WRITES = re.compile(r"\b(INSERT INTO|DELETE FROM|UPDATE) [a-z]|pg_advisory_xact_lock")
SECTIONS: dict[str, tuple[ModuleType, ...]] = {
    "Product": (product, test_product),
    "Payment": (payment, simulator, test_payment),
    "Order": (order, test_order),
    "User": (user, test_user),
}
UNGUARDED = "What needs no guard"


def written_by(module: ModuleType) -> Iterator[str]:
    """The constants of a module that are statements which write, and the functions and methods that hold one."""
    source = inspect.getsource(module)

    def write(node: ast.stmt) -> bool:
        return WRITES.search(ast.get_source_segment(source, node) or "") is not None

    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(name)]) if write(node):
                yield name
            case ast.AsyncFunctionDef(name) if write(node):
                yield name
            case ast.ClassDef(name, body=members):
                yield from (
                    f"{name}.{each.name}" for each in members if isinstance(each, ast.AsyncFunctionDef) and write(each)
                )
            case _:
                pass


def names(module: ModuleType) -> set[str]:
    """What the page may call the statements of a module; those of the simulator by its name where two share one."""
    found = set(written_by(module))
    return {f"simulator.{name}" if module is simulator and hasattr(payment, name) else name for name in found}


def tables() -> dict[str, list[list[set[str]]]]:
    """The rows of the page by section, each cell as what it names."""
    _, *sections = re.split(r"^### ", (ROOT / "docs/decisions/isolation.md").read_text(), flags=re.MULTILINE)
    return {
        section.partition("\n")[0]: [
            [set(re.findall(r"`([^`]+)`", cell)) for cell in line.strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("| `")
        ]
        for section in sections
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_every_statement_that_writes_is_in_a_table_and_every_one_in_a_table_exists(section: str) -> None:
    *modules, _ = SECTIONS[section]
    statements = set[str]().union(*(names(module) for module in modules))
    rows = tables()
    guarded = set[str]().union(*(row[0] for row in rows[section]))
    unguarded = set[str]().union(*(row[0] for row in rows[UNGUARDED]))
    assert len(rows[section]) > 8
    assert guarded <= statements
    assert guarded | (unguarded & statements) == statements
    assert not guarded & unguarded


def test_nothing_without_a_guard_is_named_that_does_not_exist() -> None:
    statements = set[str]().union(*(names(module) for *modules, _ in SECTIONS.values() for module in modules))
    assert set[str]().union(*(row[0] for row in tables()[UNGUARDED])) <= statements


@pytest.mark.parametrize("section", SECTIONS)
def test_the_tests_that_the_page_names_are_those_that_there_are(section: str) -> None:
    tests = {name for name in vars(SECTIONS[section][-1]) if name.startswith("test_")}
    assert set[str]().union(*(row[3] for row in tables()[section])) == tests
