"""Checkouts of the repositories that automations write to: which folder is which, and the files in them that hold markers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagebot.check.manifests import Manifests
from imagebot.markers.files import is_candidate
from imagebot.markers.find import MAX_SIZE, TOKEN
from reconcile.api.meta import Key
from reconcile.errors import Invalid
from reconcile.local.secrets import read_regular

MAX_FILES = 200_000
"""Files of a checkout that are looked at; more are an error and no silent gap."""

_REMOTE_URL = re.compile(r"^\s*url\s*=\s*(\S+)\s*$", re.MULTILINE)
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*://(?:[^@/]*@)?")
_SCP = re.compile(r"^(?:[^@/]+@)?([^:/]+):(?!//)")
_PORT = re.compile(r"^([^/]*?):\d+/")


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder that is a checkout of a GitRepository; `repository` is None where nothing says of which one."""

    repository: Key | None
    root: Path


def declared_checkout(text: str, manifests: Manifests) -> Checkout:
    """The checkout of an option `[NAMESPACE/]NAME=PATH`.

    Raises:
        Invalid: It has another form, there is no such GitRepository or folder, or several namespaces have one of the name.
    """
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise Invalid(f"--repository {text}: give it as NAME=PATH, such as fleet=../fleet")
    namespace, _, short = name.rpartition("/")
    keys = [m.key for m in manifests.of("GitRepository") if m.key.name == short and namespace in ("", m.key.namespace)]
    if not keys:
        known = ", ".join(sorted(str(m.key) for m in manifests.of("GitRepository"))) or "none"
        raise Invalid(f"--repository {text}: there is no GitRepository {name}; the folder has {known}")
    if len(keys) > 1:
        raise Invalid(f"--repository {text}: several namespaces have a GitRepository {name}; write NAMESPACE/{name}=PATH")
    root = Path(path)
    if not root.is_dir():
        raise Invalid(f"--repository {text}: {path} is not a folder")
    return Checkout(keys[0], root)


def own_checkout(directory: Path, manifests: Manifests, used: Sequence[Key]) -> Checkout | None:
    """The checkout that the folder of manifests is, or is part of; None when it is none that the manifests know.

    A work tree around the folder counts when one of its remotes is the URL of a GitRepository. The folder itself, when it is the
    top of a work tree, also counts when the automations use one GitRepository only.
    """
    urls = {m.key: normal_url(m.resource.spec.url) for m in manifests.of("GitRepository") if m.resource is not None}
    top = Path(os.path.normpath(directory.absolute()))
    for place in (top, *top.parents):
        if not (place / ".git").exists():
            continue
        remotes = set(_remotes(place / ".git"))
        matching = [key for key, url in urls.items() if url in remotes]
        root = directory if place == top else Path(os.path.relpath(place))
        if matching:
            return Checkout(next((key for key in matching if key in used), matching[0]), root)
        if place != top:
            return None
        candidates = list(dict.fromkeys(used))
        return Checkout(candidates[0] if len(candidates) == 1 else None, root)
    return None


def _remotes(git: Path) -> Iterator[str]:
    """The addresses of the remotes of a work tree, in normal form."""
    folder = git
    try:
        if git.is_file():  # a linked work tree
            folder = (git.parent / git.read_text().strip().removeprefix("gitdir: ")).resolve()
            common = folder / "commondir"
            folder = (folder / common.read_text().strip()).resolve() if common.is_file() else folder
        text = (folder / "config").read_text(errors="replace")
    except OSError:
        return
    yield from (normal_url(url) for url in _REMOTE_URL.findall(text))


def normal_url(url: str) -> str:
    """`host/path` of the address of a repository, so that HTTPS, SSH and scp forms of it are equal."""
    found = _PORT.sub(r"\1/", _SCHEME.sub("", url)) if _SCHEME.match(url) else _SCP.sub(r"\1/", url)
    host, slash, path = found.partition("/")
    return f"{host.lower()}{slash}{path.strip('/').removesuffix('.git')}"


@dataclass(frozen=True, slots=True)
class MarkedFile:
    """A file that holds markers: path in the checkout, slash separated, and its bytes; `problem` when it cannot be read."""

    path: str
    data: bytes
    problem: str = ""


def marked_files(root: Path) -> Iterator[MarkedFile]:
    """Every file of a checkout that an update would look at, in order; links are not followed, `.git` is left out.

    Raises:
        Invalid: There are too many files.
    """
    seen = 0
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name != ".git")
        for name in sorted(files):
            full = Path(folder, name)
            if not is_candidate(name) or full.is_symlink():
                continue
            seen += 1
            if seen > MAX_FILES:
                raise Invalid(f"{root} has more than {MAX_FILES} YAML files")
            path = full.relative_to(root).as_posix()
            try:
                data = read_regular(full, MAX_SIZE)
            except OSError as error:
                yield MarkedFile(path, b"", f"cannot be read: {error.strerror}")
            except ValueError:
                continue  # no regular file, or larger than anything that is looked at
            else:
                if TOKEN in data:
                    yield MarkedFile(path, data)
