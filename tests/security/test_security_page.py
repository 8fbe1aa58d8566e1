"""What `docs/security.md` says about tests is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: part.rpartition("/")[2] or "all")
def test_each_test_of_the_page_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    tests = {each for each in found if each.startswith("test_")}
    assert tests
    assert not name or name in tests


def test_each_test_of_a_threat_is_on_the_page() -> None:
    whole = {path for path, name in NAMED if not name}
    for path in sorted((ROOT / "tests/security").glob("test_*.py")):
        place = f"tests/security/{path.name}"
        if place in whole or path.name == Path(__file__).name:
            continue
        tests = re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
        missing = [test for test in tests if (place, test) not in NAMED]
        # One row may stand for several tests of a file.
        assert len(missing) < len(tests), (place, missing)


def test_each_row_of_the_table_names_a_test() -> None:
    table = PAGE.partition("## Threats and tests")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert len(rows) > 25
    for row in rows:
        assert row.count("`tests/"), row
