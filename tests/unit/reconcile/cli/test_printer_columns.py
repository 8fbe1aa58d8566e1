"""JSONPaths of printer columns, ages, tables."""

from __future__ import annotations

import contextlib
import os
import pty
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from reconcile.api.scheme import PrinterColumn
from reconcile.app import load_packages
from reconcile.cli.columns import age, cell, find
from reconcile.cli.output import clean, print_rows

NOW = datetime(2030, 1, 2, tzinfo=UTC)
OBJECT = {
    "metadata": {"name": "a", "creationTimestamp": "2030-01-01T00:00:00Z", "labels": {"app.example/x": "y"}},
    "spec": {"suspend": False, "numbers": [1, 2, 3]},
    "status": {"conditions": [{"type": "Stalled", "status": "False"}, {"type": "Ready", "status": "True", "message": "fine"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".metadata.name", ["a"]),
        ('.status.conditions[?(@.type=="Ready")].message', ["fine"]),
        (".status.conditions[?(@.type == 'Ready')].status", ["True"]),
        ('.status.conditions[?(@.type=="Other")].status', []),
        (".metadata.labels['app.example/x']", ["y"]),
        (".spec.numbers[0]", [1]),
        (".spec.numbers[9]", []),
        (".spec.numbers[*]", [1, 2, 3]),
        (".spec.nothing.below", []),
        (".metadata.name.below", []),
        (".metadata[0]", []),
    ],
)
def test_simple_paths(path: str, found: list[object]) -> None:
    assert find(path, OBJECT) == found


@pytest.mark.parametrize("path", ["metadata", ".a..b", ".a[", ".a[?(@.b>1)]", "{.a}"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a simple JSONPath"):
        find(path, OBJECT)


def test_every_column_of_ours_is_a_simple_path() -> None:
    paths = [column.json_path for info in load_packages().scheme for column in info.columns]
    assert len(paths) > 10
    assert [find(path, {}) for path in paths] == [[] for _ in paths]


def test_cells() -> None:
    assert cell(PrinterColumn("S", ".spec.suspend"), OBJECT, NOW) == "false"
    assert cell(PrinterColumn("N", ".spec.numbers[*]"), OBJECT, NOW) == "1,2,3"
    assert cell(PrinterColumn("N", ".spec.none"), OBJECT, NOW) == ""
    assert cell(PrinterColumn("A", ".metadata.creationTimestamp", "date"), OBJECT, NOW) == "24h"
    assert cell(PrinterColumn("A", ".metadata.none", "date"), OBJECT, NOW) == "<unknown>"


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("", ""),
        ("2030-01-01T23:59:50Z", "10s"),
        ("2030-01-02T00:00:10Z", "0s"),
        ("2029-12-30T00:00:00Z", "3d"),
        ("yesterday", "<invalid>"),
        ("2030-01-01T00:00:00", "<invalid>"),
    ],
)
def test_ages(moment: str, shown: str) -> None:
    assert age(moment, NOW) == shown


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert (
        clean("a\x1b[2J\x9bb\tc\nd\x7f")
        == "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}b c\nd\N{REPLACEMENT CHARACTER}"
    )


def test_a_narrow_terminal_loses_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a message of several words that is longer than the room that is left for it"
    rows = [["name-" * 8, "True", text]]
    for width in (30, 60, 80, 100, 200):
        shown = _on_terminal(monkeypatch, width, rows)
        assert "".join(text.split()) in "".join(shown.split()).replace("name-", "").replace("True", "")


def _on_terminal(monkeypatch: pytest.MonkeyPatch, width: int, rows: list[list[str]]) -> str:
    above, below = pty.openpty()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    with os.fdopen(below, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        print_rows(["NAME", "READY", "MESSAGE"], rows)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that all of it has been read
        while piece := os.read(above, 65536):
            shown += piece
    os.close(above)
    return shown.decode()


def test_the_runner_sees_no_colours() -> None:
    import click

    @click.command()
    def show() -> None:
        print_rows(["NAME", "READY"], [["a", "True"]])

    assert CliRunner().invoke(show).output == "NAME  READY\na     True\n"
