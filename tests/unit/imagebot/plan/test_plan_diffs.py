"""Diffs are what git makes of the same bytes, and git applies them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imagebot.plan.diff import unified

CASES = [
    (b"a\nb\nc\nd\ne\nf\ng\nh\n", b"a\nb\nc\nD\ne\nf\ng\nh\n"),
    (b"a\nb", b"a\nc"),
    (b"a\nb", b"a\nb\n"),
    (b"", b"a\n"),
    (b"a\r\nb\r\n", b"a\r\nc\r\n"),
    ("é\u2028x\x0cy\n".encode(), "ü\u2028x\x0cy\n".encode()),
    (b"".join(b"%d\n" % n for n in range(60)), b"".join(b"%d\n" % (n + 100 * (n in {3, 50})) for n in range(60))),
]


@pytest.mark.parametrize(("before", "after"), CASES)
def test_git_applies_it(before: bytes, after: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(before)
    patch = unified("f", before, after).encode()
    subprocess.run(["git", "apply", "-"], input=patch, cwd=tmp_path, check=True)
    assert (tmp_path / "f").read_bytes() == after


def test_its_form() -> None:
    assert unified("a/b.yaml", b"x: 1\ny: 2", b"x: 1\ny: 3").splitlines() == [
        "--- a/a/b.yaml",
        "+++ b/a/b.yaml",
        "@@ -1,2 +1,2 @@",
        " x: 1",
        "-y: 2",
        "\\ No newline at end of file",
        "+y: 3",
        "\\ No newline at end of file",
    ]
    assert unified("f", b"same\n", b"same\n") == ""
