"""The environment and configuration every git process gets: ours alone, nothing of the user's or the machine's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from reconcile.errors import Invalid

# GitPython runs `git version` while it is imported and refuses to load without git. Quiet leaves the check to the first
# command, where a missing program becomes our MissingProgram.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

PROTOCOLS = "http:https:ssh"

_FOREIGN = ("GIT_", "SSH_", "GNUPG", "GPG_")
_KEPT = ("GIT_PYTHON_",)

_SETTINGS = """\
[core]
\thooksPath = /dev/null
\tfsmonitor = false
\tautocrlf = false
\tlogAllRefUpdates = false
\taskPass =
[gc]
\tauto = 0
\tautoDetach = false
[maintenance]
\tauto = false
[protocol]
\tversion = 2
[credential]
\thelper =
[fetch]
\trecurseSubmodules = false
\twriteCommitGraph = false
[push]
\trecurseSubmodules = no
\tfollowTags = false
[submodule]
\trecurse = false
[http]
\tfollowRedirects = initial
\tlowSpeedLimit = 100
\tlowSpeedTime = 30
[ssh]
\tvariant = ssh
[user]
\tuseConfigOnly = true
[advice]
\tdetachedHead = false
"""


def quote(value: str) -> str:
    """`value` for a git configuration file; control characters are `Invalid`."""
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise Invalid("a Git setting contains a control character")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def configuration(settings: Iterable[tuple[str, str, str]] = ()) -> str:
    """Text of a configuration file: our fixed settings, then `(section, key, value)` each; later ones win."""
    return _SETTINGS + "".join(f"[{section}]\n\t{key} = {quote(value)}\n" for section, key, value in settings)


def write_private(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Create `path` with `data`, readable by nobody else at any moment; it must not exist."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return path


def environment(home: Path, config: Path, protocols: str = PROTOCOLS, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a git process with `home` as its HOME and `config` as its only configuration beside the mirror's."""
    return {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "LC_ALL": "C",
        "LANGUAGE": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        **(extra or {}),
    }


def without_foreign(argv: list[str], own: Mapping[str, str]) -> list[str]:
    """`argv`, behind `env -u` when this process has variables that would steer git.

    GitPython merges our variables into those of this process and cannot take any away.
    """
    foreign = [name for name in os.environ if name.startswith(_FOREIGN) and not name.startswith(_KEPT) and name not in own]
    return ["env", *(f"--unset={name}" for name in foreign), *argv] if foreign else argv
