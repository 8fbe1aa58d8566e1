"""Which files of a checkout an update looks at. Pure path logic; paths are slash separated and relative to the checkout."""

from __future__ import annotations

import posixpath


def is_candidate(path: str) -> bool:
    """Whether a file is looked at: `*.yaml` and `*.yml` (exact case), and files named exactly `Kustomization`, as in Flux."""
    return path.endswith((".yaml", ".yml")) or posixpath.basename(path) == "Kustomization"


def update_root(path: str | None) -> str:
    """`spec.update.path` as a path inside the checkout: `""` is the checkout itself, and no `..` leads out of it."""
    parts: list[str] = []
    for part in (path or "").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def under(path: str, root: str) -> str | None:
    """`path` relative to the update root: its base name when it is the root, None outside (`apps2` is not in `apps`)."""
    if not root:
        return path
    if path == root:
        return posixpath.basename(path)
    return path[len(root) + 1 :] if path.startswith(root + "/") else None
