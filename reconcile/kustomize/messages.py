"""What kustomize prints when it fails, as the message of a condition. Pure."""

from __future__ import annotations

import re
from typing import Final

from reconcile.redact import redact

PREFIX: Final = "kustomize build failed: "
_MOST: Final = 8 * 1024
_NOTICE: Final = re.compile(r"(?m)^(?:# Warning: .*|Flag --reorder has been deprecated.*|\d{4}/\d\d/\d\d \d\d:\d\d:\d\d .*)\n?")
_CRASH: Final = re.compile(r"(?m)^(?:panic|fatal error|runtime): .*$")
_UNREADABLE: Final = re.compile(
    r"accumulating resources: (?:accumulation err=')?accumulating resources from '\./(?P<path>[^']+)': (?P<cause>.*)", re.DOTALL
)
_NOT_A_FOLDER: Final = "': must build at directory: "
_DUMP: Final = re.compile(r"map\[string\]interface \{\}\{.*\}", re.DOTALL)
_KIND: Final = re.compile(r'"kind":"([^"]{1,100})"')
_NAME: Final = re.compile(r'"name":"([^"]{1,253})"')


def failure(status: int, stderr: str, root: str, folder: str, manifests: frozenset[str] | None) -> str:
    """The message for a build that failed.

    Args:
        status: the exit status; negative: the signal that ended kustomize.
        stderr: what it printed.
        root: the folder it ran in, as an absolute path. Paths in the message are relative to it.
        folder: the folder that was built, relative to `root`.
        manifests: the manifests that were listed for it (relative to `root`), when it had no kustomization file.
    """
    text = _NOTICE.sub("", stderr).strip().removeprefix("Error: ")
    if status < 0:
        text = f"kustomize was ended by signal {-status}"
    elif crash := _CRASH.search(text):
        text = crash[0]
    text = _relative(text, root)
    if manifests is not None and (found := _UNREADABLE.match(text)):
        path = f"{folder}/{found['path']}" if folder else found["path"]
        if path in manifests:
            return f"failed to decode Kubernetes YAML from {path}: {_cause(found['cause'])}"
    return PREFIX + shortened(redact(_DUMP.sub(_named, text)) or f"kustomize ended with status {status}")


def _relative(text: str, root: str) -> str:
    """Paths below `root` become relative to it; the folder itself is `.`."""
    return text.replace(f"{root}/", "").replace(root, ".")


def _cause(cause: str) -> str:
    """Why a file holds no objects, without what kustomize adds after it has tried to take the file for a folder."""
    before, found, _ = cause.rpartition(_NOT_A_FOLDER)
    return shortened(redact(_DUMP.sub(_named, (before if found else cause).partition(" in File: ")[0])))


def _named(match: re.Match[str]) -> str:
    """An object that kustomize printed with all its values, secret ones too, by its name alone."""
    kind, name = _KIND.search(match[0]), _NAME.search(match[0])
    return f"{kind[1] if kind else 'object'}/{name[1] if name else ''}"


def shortened(text: str) -> str:
    """A text that fits into a condition: without the middle of a very long one."""
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]} … {text[-_MOST // 2 :]}"
