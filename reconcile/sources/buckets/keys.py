"""Which keys can be files of an artifact, and what the files of a bucket are called together. Pure.

A key is any text to an object store. A file of an artifact has a path that every consumer can unpack below one folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from reconcile.artifact.digest import hasher
from reconcile.errors import Invalid
from reconcile.sources.buckets.client import BucketError

IGNORE_FILE = ".sourceignore"

MAX_NAME = 255
"""Bytes of one name in a path that file systems take."""

MAX_DEPTH = 128
"""Names in one path that consumers of artifacts take."""


class UnusableKey(BucketError):
    """A key is no path of a file, or two of them exclude each other; the text names it."""


def path_of(key: str) -> str:
    """The path that the object of this key has in the artifact; several slashes in a row count as one.

    Raises:
        UnusableKey: the key is absolute, leads upwards, or has something in it that is no name of a file.
    """
    if "\\" in key:
        raise _unusable(key, "it has a backslash")
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise _unusable(key, "it has a control character")
    if key.startswith("/"):
        raise _unusable(key, "it is an absolute path")
    names = [name for name in key.split("/") if name]
    if any(name in {".", ".."} for name in names):
        raise _unusable(key, "it has a part that is '.' or '..'")
    try:
        longest = max((len(name.encode()) for name in names), default=0)
    except UnicodeEncodeError:
        raise _unusable(key, "it is not Unicode text") from None
    if longest > MAX_NAME:
        raise _unusable(key, f"a name in it is longer than {MAX_NAME} bytes")
    if len(names) > MAX_DEPTH:
        raise _unusable(key, f"it is more than {MAX_DEPTH} folders deep")
    return "/".join(names)


def paths_of(keys: Iterable[str]) -> dict[str, str]:
    """Key → path for all `keys`, in the order in which a walk through the folders meets the paths.

    Raises:
        UnusableKey: a key is no path, two have the same, or one is a folder of another (`a` and `a/b`).
    """
    found: dict[str, str] = {}
    for key in sorted(keys):
        path = path_of(key)
        if path in found:
            raise _unusable(key, f"it would be the same file as '{_shown(found[path])}'")
        found[path] = key
    for path, key in found.items():
        at = path.find("/")
        while at >= 0:
            folder = found.get(path[:at])
            if folder is not None:
                raise _unusable(key, f"'{_shown(folder)}' is an object too, and would be its folder")
            at = path.find("/", at + 1)
    return {found[path]: path for path in sorted(found, key=lambda path: path.split("/"))}


def takes_part(key: str) -> bool:
    """Whether an object can count at all: no marker of a folder, and not the file with the ignore patterns."""
    return not key.endswith("/") and key != IGNORE_FILE


def revision(etags: Mapping[str, str], algorithm: str = "sha256") -> str:
    """`<algorithm>:<hex>` over the lines `<key> <etag>` sorted by key, as Flux's source-controller makes revisions of Buckets.

    Raises:
        Invalid: the algorithm is unknown or not installed.
    """
    state = hasher(algorithm)
    for key in sorted(etags):
        state.update(f"{key} {etags[key]}\n".encode("utf-8", "surrogatepass"))
    return f"{algorithm}:{state.hexdigest()}"


def same_revision(etags: Mapping[str, str], stored: str) -> bool:
    """Whether `stored` is the revision of these objects, in whichever known algorithm it was made."""
    algorithm, colon, digest = stored.partition(":")
    try:
        return bool(colon and digest) and revision(etags, algorithm) == stored
    except Invalid:
        return False


def _unusable(key: str, why: str) -> UnusableKey:
    return UnusableKey(
        f"object '{_shown(key)}' cannot be a file of an artifact: {why}; rename it, or leave it out by spec.ignore"
    )


def _shown(key: str) -> str:
    text = "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in key)
    return text if len(text) <= 200 else text[:200] + "…"
