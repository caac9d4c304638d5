"""Each statement of a repository names itself, as `souk_postgres_statement_seconds_total` shows it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.migrations import ROOT
from chassis.postgres_metrics import STATEMENTS

MODULES = (
    "chassis/database.py",
    "chassis/postgres_metrics.py",
    *(f"services/{service}/repository.py" for service in ("user", "product", "payment", "order")),
    "services/payment/simulator.py",
)
BEGINS = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\b")
NAME = re.compile(r"/\* ([a-z ]{1,40}) \*/")
NAMED = re.compile(
    rf"\s*(?:(?:SELECT|WITH) |(?:INSERT INTO|UPDATE|DELETE FROM) [a-z_]+ (?:AS [a-z]+ )?){NAME.pattern}\s"
)


def literals(path: Path) -> Iterator[str]:
    """The strings of a module, each as far as it holds no value; docstrings are among them."""
    tree = ast.parse(path.read_text())
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
                yield text
            case ast.Constant(value=str(text)) if id(node) not in parts:
                yield text
            case _:
                pass


@pytest.mark.parametrize("module", MODULES)
def test_each_statement_names_itself_after_its_first_word(module: str) -> None:
    statements = [text for text in literals(ROOT / module) if BEGINS.match(text)]
    assert statements
    assert [text.strip()[:60] for text in statements if not NAMED.match(text)] == []


def test_the_metric_looks_for_such_names() -> None:
    assert f"substring(query FROM '{NAME.pattern}')" in STATEMENTS
