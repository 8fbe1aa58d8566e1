"""Sprig's path functions; the `os` ones are those of Linux."""

from __future__ import annotations

from typing import Final

from reconcile.gotemplate.functions import Family

PATHS: Final = Family()


@PATHS.add("base", "osBase")
def _base(path: str) -> str:
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


@PATHS.add("clean", "osClean")
def clean(path: str) -> str:
    """The shortest path that means the same, as Go's `path.Clean`."""
    if not path:
        return "."
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in {"", "."} and not (part == ".." and rooted):
            parts.append(part)
    return ("/" if rooted else "") + "/".join(parts) or "."


@PATHS.add("dir", "osDir")
def _dir(path: str) -> str:
    return clean(path[: path.rfind("/") + 1])


@PATHS.add("ext", "osExt")
def _ext(path: str) -> str:
    last = path.rpartition("/")[2]
    return last[last.rfind(".") :] if "." in last else ""


@PATHS.add("isAbs", "osIsAbs")
def _is_abs(path: str) -> bool:
    return path.startswith("/")
