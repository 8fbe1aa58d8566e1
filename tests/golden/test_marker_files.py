"""Files in, files out: every folder of `markers/` holds one file before and after, and what is said about it.

`IMAGEBOT_WRITE_GOLDEN=1` writes what comes out as the new expectation; read the difference before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagebot.markers.find import Unusable, find_markers
from imagebot.markers.rewrite import rewrite

CASES = sorted(path for path in (Path(__file__).parent / "markers").iterdir() if path.is_dir())
VALUES: dict[str, str | None] = {
    "apps:web": "registry.example.com:5000/team/web:1.2.0",
    "apps:web:tag": "1.2.0",
    "apps:web:name": "registry.example.com:5000/team/web",
    "apps:web:digest": None,
    "apps:num": "example.com/num:1.10",
    "apps:num:tag": "1.10",
    "apps:dig": "example.com/dig:3@sha256:" + "0123456789abcdef" * 4,
    "apps:dig:digest": "sha256:" + "0123456789abcdef" * 4,
    "apps:nodig:digest": None,
}


def outcome(data: bytes) -> tuple[bytes, str]:
    """The file after the update and a line for each change, problem and skipped marker."""
    try:
        found = find_markers(data)
    except Unusable as error:
        return data, f"unusable: {error}\n"
    done = rewrite(data, found, VALUES)
    lines = [
        f"{entry.line}: {'/'.join(part for part in _parts(entry.identity) if part) or '-'}: "
        f"{entry.change.setter}: {entry.change.old_value!r} -> {entry.change.new_value!r}"
        for entry in done.changes
    ]
    lines += [f"{problem.line}: {problem.setter}: {problem.text}" for problem in (*found.problems, *done.skipped)]
    return done.data, "".join(f"{line}\n" for line in lines)


def _parts(identity: object) -> list[str]:
    return [getattr(identity, name) for name in ("api_version", "kind", "namespace", "name")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Path) -> None:
    data, report = outcome((case / "in" / "file.yaml").read_bytes())
    expected = case / "expected"
    if os.environ.get("IMAGEBOT_WRITE_GOLDEN"):
        expected.mkdir(exist_ok=True)
        (expected / "file.yaml").write_bytes(data)
        (expected / "report.txt").write_bytes(report.encode())
    assert data == (expected / "file.yaml").read_bytes()
    assert report.encode() == (expected / "report.txt").read_bytes()
