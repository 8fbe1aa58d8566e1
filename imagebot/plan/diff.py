"""Unified diffs of files. Pure."""

from __future__ import annotations

import difflib

NO_NEWLINE = "\\ No newline at end of file\n"


def unified(path: str, before: bytes, after: bytes, context: int = 3) -> str:
    """The difference as `git diff` shows it and `git apply` takes it; empty when there is none.

    Args:
        path: of the file, slash separated.
        before: its bytes.
        after: its bytes afterwards.
        context: unchanged lines that are shown round a change.
    """
    if before == after:
        return ""
    old, new = _lines(before), _lines(after)
    lines = difflib.unified_diff(old, new, _quoted(f"a/{path}"), _quoted(f"b/{path}"), n=context)
    return "".join(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}" for line in lines)


def _quoted(name: str) -> str:
    """A name as git writes it in a diff: one that could be taken for something else, or is no text, in quotes and escaped."""
    if all(c.isprintable() and c not in '"\\' for c in name):
        return name
    escapes = {'"': '\\"', "\\": "\\\\"}

    def shown(c: str) -> str:
        if c.isprintable():
            return escapes.get(c, c)
        return "".join(f"\\{byte:03o}" for byte in c.encode("utf-8", "surrogateescape"))

    return f'"{"".join(map(shown, name))}"'


def _lines(data: bytes) -> list[str]:
    """Lines as git counts them, which end with a line feed and nothing else."""
    parts = data.decode("utf-8", "replace").split("\n")
    return [f"{part}\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
