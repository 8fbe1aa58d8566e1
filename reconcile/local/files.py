"""A folder of YAML manifests → objects of our kinds, Secrets, ServiceAccounts and Namespaces.

A file is parsed again only when its size, times or inode changed. A broken file or document is reported with file and line, and
its last good version stays in force; so does what cannot be read or told for sure: only an object that a readable folder no
longer has is gone. Links to files are followed only while they stay inside the folder (a mounted ConfigMap is made of such
links); links to folders and hidden files are left out. Everything is bounded: number of files, size of a file and of an object,
number of problems kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import orjson

from reconcile.api.meta import Key, drop_nulls
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.errors import Invalid, ReconcileError
from reconcile.local.secrets import SecretSource, read_regular
from reconcile.local.walk import UNKNOWN, Problem, Signature, walk, within
from reconcile.yamlio import YamlError, load_documents

MAX_BYTES = 8 * 1024 * 1024
MAX_OBJECT = 1536 * 1024
"""Characters of one object with its aliases expanded: as much as an API server keeps."""
MAX_PROBLEMS = 100

CORE_KINDS = frozenset({"Secret", "ServiceAccount", "Namespace"})
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_HOLDS_SECRET = re.compile(r"kind['\"]?\s*:\s*['\"]?Secret\b")
_QUOTED = re.compile(r"'[^']*'|\*\S+")

Identity = tuple[str, Key]
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Declared:
    """One object as a file has it. `digest` covers what raises the generation, `resource` has no status of its own."""

    resource: AnyResource
    manifest: bytes
    digest: str
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the folder says now. `protected` objects and those from `broken` paths stay as they were.

    A broken path is a file, or a folder with a slash at its end (a slash alone: everything).
    """

    objects: dict[Identity, Declared]
    secrets: dict[Key, SecretSource]
    service_accounts: dict[Key, dict[str, Any]]
    namespaces: dict[str, dict[str, str]]
    problems: tuple[Problem, ...]
    broken: frozenset[str]
    protected: frozenset[Identity]
    ignored: int
    """Documents of kinds that are not ours."""

    def keeps(self, identity: Identity, source: str) -> bool:
        """Whether an object from the file `source` that is not among `objects` must not be taken for deleted."""
        return identity in self.protected or within(source, self.broken)


@dataclass
class _File:
    """Parsed content of one file."""

    signature: Signature = UNKNOWN
    objects: dict[Identity, Declared] = field(default_factory=dict)
    secrets: dict[Key, SecretSource] = field(default_factory=dict)
    service_accounts: dict[Key, dict[str, Any]] = field(default_factory=dict)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    protected: set[Identity] = field(default_factory=set)
    broken: bool = False
    """Whether it held something that could not be told: what it had before may still be meant."""
    ignored: int = 0

    def keep(self, last: _File, only: Identity | None = None) -> None:
        """Take over from the last version what this one does not have: all of it, or one object."""
        _fill(self.objects, last.objects, lambda identity: only in (None, identity))
        _fill(self.secrets, last.secrets, lambda key: only in (None, ("Secret", key)))
        _fill(self.service_accounts, last.service_accounts, lambda key: only in (None, ("ServiceAccount", key)))
        _fill(self.namespaces, last.namespaces, lambda name: only in (None, ("Namespace", Key("", name))))

    def note(self, problem: Problem) -> None:
        """Keep a problem, up to a bound."""
        if len(self.problems) <= MAX_PROBLEMS:
            self.problems.append(problem)


class Folder:
    """Reads the manifests below `root`."""

    def __init__(self, root: Path, scheme: Scheme) -> None:
        self.root = root
        self._scheme = scheme
        self._files: dict[str, _File] = {}
        self._walk_problems: list[Problem] = []
        self._unreadable: set[str] = set()
        self._first = True

    def scan(self) -> Snapshot | None:
        """What the folder says now, or None when it is as at the last call. Blocks on the disk.

        Raises Invalid when the folder is gone.
        """
        if not self.root.is_dir():
            raise Invalid(f"{self.root} is not a folder")
        problems: list[Problem] = []
        unreadable: set[str] = set()
        found = dict(walk(self.root, problems, unreadable))
        changed = [p for p, s in found.items() if p not in self._files or self._files[p].signature != s]
        gone = [p for p in self._files if p not in found and not within(p, unreadable)]
        same = (problems, unreadable) == (self._walk_problems, self._unreadable)
        if not changed and not gone and same and not self._first:
            return None
        self._first = False
        self._walk_problems, self._unreadable = problems, unreadable
        for path in gone:
            del self._files[path]
        for path in changed:
            self._files[path] = self._read(path, found[path], self._files.get(path))
        return self._merge()

    def forget(self) -> None:
        """Let the next scan say everything again, also if nothing changed."""
        self._first = True

    def _read(self, path: str, signature: Signature, last: _File | None) -> _File:
        file, text = _File(signature), ""
        try:
            if signature[2] > MAX_BYTES:
                raise Invalid(f"is larger than {MAX_BYTES // 1024 // 1024} MiB")
            text = read_regular(self.root / path, MAX_BYTES).decode("utf-8-sig")
            documents = load_documents(text, path)
        except (OSError, ValueError, ReconcileError) as error:
            file = last or _File(broken=True)
            # Nothing tells when a disk error ends, so that file is looked at each time.
            file.signature = UNKNOWN if isinstance(error, OSError) else signature
            file.protected = set(file.objects)
            file.problems = [_problem(path, error, secret=_HOLDS_SECRET.search(text) is not None)]
            return file
        for document, line in documents:
            for body in _items(document):
                self._take(file, path, line, body, last)
        if file.broken and last is not None:
            file.keep(last)
        return file

    def _take(self, file: _File, path: str, line: int, body: Any, last: _File | None) -> None:
        try:
            info = self._kind(body)
            if info is None and not _is_core(body):
                file.ignored += body is not None
                return
            self._take_ours(file, path, line, body, info)
        except Invalid as error:
            identity = self._guess(body)
            file.note(Problem(path, line, f"{_named(body, identity)}{error}"))
            if identity is None:
                file.broken = True  # whose document this was meant to be cannot be told
                return
            file.protected.add(identity)
            if last is not None:
                file.keep(last, identity)

    def _kind(self, body: Any) -> KindInfo | None:
        """Our kind of a document, None for all others; raises Invalid for what is nearly ours."""
        if not isinstance(body, dict):
            if isinstance(body, _Misshapen):
                raise Invalid("items must be a list")
            return None
        kind, api_version = body.get("kind"), body.get("apiVersion")
        if isinstance(kind, str) and isinstance(api_version, str):
            return self._scheme.find(api_version, kind)
        if isinstance(api_version, str) and api_version.rpartition("/")[0] in self._scheme.groups():
            raise Invalid("kind is required")
        if isinstance(kind, str) and kind in self._scheme.kinds:
            raise Invalid(f"apiVersion is required: {self._scheme.kinds[kind].api_version}")
        return None

    def _guess(self, body: Any) -> Identity | None:
        """Which object a wrong document was meant to be, if that can be told."""
        if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
            return None
        kind = body["kind"]
        if kind not in self._scheme.kinds and not _is_core(body):
            return None
        try:
            return kind, _key(body, namespaced=kind != "Namespace")
        except Invalid:
            return None

    def _take_ours(self, file: _File, path: str, line: int, body: dict[str, Any], info: KindInfo | None) -> None:
        kind = body["kind"]
        key = _key(body, namespaced=kind != "Namespace")
        if info is None:
            self._take_core(file, path, kind, key, body)
        elif (kind, key) in file.objects:
            raise Invalid("stands twice in this file; the first one counts")
        else:
            file.objects[kind, key] = self._declare(info, path, line, key, body)

    def _take_core(self, file: _File, path: str, kind: str, key: Key, body: dict[str, Any]) -> None:
        if kind == "Secret":
            if key in file.secrets:
                raise Invalid("stands twice in this file; the first one counts")
            file.secrets[key] = SecretSource.parse(key, body, (self.root / path).parent)
        elif kind == "ServiceAccount":
            pull = body.get("imagePullSecrets") or []
            if not isinstance(pull, list) or not all(isinstance(p, dict) and isinstance(p.get("name"), str) for p in pull):
                raise Invalid("imagePullSecrets must be a list of {name: NAME}")
            _texts(body, "annotations")
            file.service_accounts[key] = body
        else:
            file.namespaces[key.name] = _texts(body, "labels")

    def _declare(self, info: KindInfo, path: str, line: int, key: Key, body: dict[str, Any]) -> Declared:
        if _weight(body) > MAX_OBJECT:
            raise Invalid(f"is larger than {MAX_OBJECT // 1024} KiB")
        metadata = body["metadata"]
        # What a server sets is not the user's to declare: exported manifests may carry it.
        clean = {k: v for k, v in metadata.items() if k in {"labels", "annotations"} and v}
        clean |= {"name": key.name, "namespace": key.namespace}
        manifest = {"apiVersion": body["apiVersion"], "kind": info.kind, "metadata": clean, "spec": drop_nulls(body.get("spec"))}
        if manifest["spec"] is None:
            manifest["spec"] = {}
        resource = self._scheme.decode(info, manifest)
        return Declared(resource, *encoded(manifest), path, line)

    def _merge(self) -> Snapshot:
        result = Snapshot({}, {}, {}, {}, (), frozenset(), frozenset(), 0)
        problems, protected, ignored = list(self._walk_problems), set[Identity](), 0
        for path in sorted(self._files):
            file = self._files[path]
            problems += file.problems
            protected |= file.protected
            ignored += file.ignored
            for identity, declared in file.objects.items():
                first = result.objects.setdefault(identity, declared)
                if first is not declared:
                    problems.append(
                        Problem(
                            path,
                            declared.line,
                            f"{identity[0]} {identity[1]} stands in {first.path}:{first.line} already; that one counts",
                        )
                    )
            for key, source in file.secrets.items():
                if result.secrets.setdefault(key, source) is not source:
                    problems.append(Problem(path, None, f"Secret {key} stands in another file already; that one counts"))
            for accounts in file.service_accounts.items():
                result.service_accounts.setdefault(*accounts)
            for labels in file.namespaces.items():
                result.namespaces.setdefault(*labels)
        broken = self._unreadable | {path for path, file in self._files.items() if file.broken}
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS:] = [Problem(".", None, f"{len(problems) - MAX_PROBLEMS} more problems are not shown")]
        return Snapshot(
            result.objects,
            result.secrets,
            result.service_accounts,
            result.namespaces,
            tuple(problems),
            frozenset(broken),
            frozenset(protected),
            ignored,
        )


def encoded(manifest: Mapping[str, Any]) -> tuple[bytes, str]:
    """A manifest as it is kept, and the checksum of its spec."""
    data = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    spec = orjson.dumps(manifest["spec"], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return data, blake2b(spec, digest_size=16).hexdigest()


def _problem(path: str, error: Exception, *, secret: bool = False) -> Problem:
    if isinstance(error, YamlError):
        place = f" (column {error.column})" if error.column else ""
        # The parser may quote what it stumbled over, and in a Secret that may be the secret.
        text = _QUOTED.sub("…", error.problem) if secret else error.problem
        return Problem(path, error.line or None, f"{text}{place}")
    if isinstance(error, OSError):
        return Problem(path, None, f"cannot be read: {error.strerror}")
    return Problem(path, None, "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error))


def _named(body: Any, identity: Identity | None) -> str:
    """How a message begins that is about a document: with its kind and name, as far as they can be told."""
    if identity is not None:
        return f"{identity[0]} {str(identity[1]).lstrip('/')}: "
    kind = body.get("kind") if isinstance(body, dict) else None
    return f"{kind[:80]}: " if isinstance(kind, str) else ""


class _Misshapen:
    """Stands for the items of a List that are none."""


def _items(document: Any) -> Iterator[Any]:
    """The document, or the items of a `v1` List."""
    if isinstance(document, dict) and document.get("kind") == "List" and document.get("apiVersion") == "v1":
        items = document.get("items")
        yield from items if isinstance(items, list) else () if items is None else (_Misshapen(),)
    else:
        yield document


def _is_core(body: Any) -> bool:
    return isinstance(body, dict) and body.get("apiVersion") == "v1" and body.get("kind") in CORE_KINDS


def _texts(body: dict[str, Any], name: str) -> dict[str, str]:
    """A mapping of texts in the metadata."""
    found = body["metadata"].get(name)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise Invalid(f"metadata.{name} must be a mapping of texts; put the values in quotes")
    return found


def _weight(value: Any) -> int:
    """Characters in a value, aliases expanded; stops counting soon after the limit."""
    total, pending = 0, [value]
    while pending and total <= MAX_OBJECT:
        item = pending.pop()
        if isinstance(item, dict):
            total += sum(len(k) for k in item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        total += len(item) if isinstance(item, str) else 1
    return total


def _key(body: dict[str, Any], *, namespaced: bool) -> Key:
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise Invalid("metadata.name is required")
    name, namespace = metadata["name"], (metadata.get("namespace") or "default") if namespaced else ""
    for what, value in (("name", name), ("namespace", namespace)):
        if value != "" and (not isinstance(value, str) or not _NAME.fullmatch(value)):
            shown = repr(value[:80]) if isinstance(value, str) else "that is no text"
            raise Invalid(
                f"metadata.{what} {shown} is not a valid name: lower case letters, digits, '-' and '.', at most 253, "
                "beginning and ending with a letter or digit"
            )
    return Key(namespace, name)


def _fill(mine: dict[K, V], theirs: Mapping[K, V], wanted: Callable[[K], bool]) -> None:
    for key, value in theirs.items():
        if key not in mine and wanted(key):
            mine[key] = value
