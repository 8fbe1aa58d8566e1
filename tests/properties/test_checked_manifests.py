"""Whatever stands in a folder: a check ends, its places are in the file, and what the service refuses is never called clean."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagebot.check.findings import Severity
from imagebot.check.run import check_folder
from reconcile.app import load_packages
from reconcile.local.files import Folder

MANIFESTS = Path(__file__).parents[2] / "examples/commit-bot/manifests"
LINES = [line for path in sorted(MANIFESTS.glob("*.yaml")) for line in ["---", *path.read_text().splitlines()]]
WORDS = [
    "[]",
    "{}",
    "null",
    "7",
    "'x'",
    "*a",
    "&a 1",
    "!!int x",
    "|",
    "? [a]",
    "- b",
    "${1}",
    "kind: List",
    "items: [1]",
    "\t",
    "é\u2028",
]
SCHEME = load_packages().scheme

edits = st.lists(
    st.tuples(st.sampled_from(["cut", "double", "value", "insert", "indent"]), st.integers(0, 10_000), st.sampled_from(WORDS)),
    max_size=6,
)


def edited(changes: list[tuple[str, int, str]]) -> str:
    lines = list(LINES)
    for what, where, word in changes:
        at = where % len(lines)
        match what:
            case "cut":
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "value":
                lines[at] = lines[at].partition(":")[0] + f": {word}"
            case "insert":
                lines.insert(at, " " * (where % 5) + word)
            case _:
                lines[at] = f" {lines[at]}"
    return "\n".join(lines) + "\n"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edits)
def test_any_folder_can_be_checked(changes: list[tuple[str, int, str]]) -> None:
    text = edited(changes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "all.yaml")
        path.write_text(text)
        report = check_folder(Path(folder), SCHEME)
        refused = Folder(Path(folder), SCHEME).scan()
    assert refused is not None
    errors = [finding for finding in report.findings if finding.level is Severity.ERROR]
    assert bool(errors) or not refused.problems, (refused.problems, text)
    for finding in report.findings:
        assert 0 <= finding.line <= text.count("\n") + text.count("\u2028") + 1
        assert finding.message
