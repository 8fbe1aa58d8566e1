"""A folder of YAML manifests → objects of our kinds, Secrets, ServiceAccounts and Namespaces.

A file is parsed again only when its size, time or inode changed. A broken file or document is reported with file and line, and
its last good version stays in force. Links are followed only while they stay inside the folder (a mounted ConfigMap is made of
such links); hidden folders are left out. Everything is bounded: number of files, size of a file, number of problems kept.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.errors import Invalid, ReconcileError
from reconcile.local.secrets import SecretSource
from reconcile.yamlio import YamlError, load_documents

MAX_FILES = 20_000
MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32
MAX_PROBLEMS = 100

SUFFIXES = (".yaml", ".yml", ".json")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")

Identity = tuple[str, Key]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file; `line` counts from 1."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}" if self.line else f"{self.path}: {self.message}"


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
    """What the folder says now. `protected` objects and those from `broken` files stay as they were."""

    objects: dict[Identity, Declared]
    secrets: dict[Key, SecretSource]
    service_accounts: dict[Key, dict[str, Any]]
    namespaces: dict[str, dict[str, str]]
    problems: tuple[Problem, ...]
    broken: frozenset[str]
    protected: frozenset[Identity]
    ignored: int
    """Documents of kinds that are not ours."""


@dataclass
class _File:
    """Parsed content of one file."""

    signature: tuple[int, int, int] = (0, 0, 0)
    objects: dict[Identity, Declared] = field(default_factory=dict)
    secrets: dict[Key, SecretSource] = field(default_factory=dict)
    service_accounts: dict[Key, dict[str, Any]] = field(default_factory=dict)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    protected: set[Identity] = field(default_factory=set)
    broken: bool = False
    ignored: int = 0


class Folder:
    """Reads the manifests below `root`."""

    def __init__(self, root: Path, scheme: Scheme) -> None:
        self.root = root
        self._scheme = scheme
        self._files: dict[str, _File] = {}
        self._walk_problems: list[Problem] = []
        self._first = True

    def scan(self) -> Snapshot | None:
        """What the folder says now, or None when it is as at the last call. Blocks on the disk; raises Invalid when it is gone."""
        if not self.root.is_dir():
            raise Invalid(f"{self.root} is not a folder")
        found: dict[str, tuple[int, int, int]] = {}
        problems: list[Problem] = []
        for path, signature in self._walk(problems):
            if len(found) >= MAX_FILES:
                problems.append(Problem(path, None, f"more than {MAX_FILES} manifest files: the rest is left out"))
                break
            found[path] = signature
        changed = [p for p, s in found.items() if p not in self._files or self._files[p].signature != s]
        gone = [p for p in self._files if p not in found]
        if not changed and not gone and problems == self._walk_problems and not self._first:
            return None
        self._first = False
        self._walk_problems = problems
        for path in gone:
            del self._files[path]
        for path in changed:
            self._files[path] = self._read(path, found[path], self._files.get(path))
        return self._merge()

    def forget(self) -> None:
        """Let the next scan say everything again, also if nothing changed."""
        self._first = True

    def _walk(self, problems: list[Problem]) -> Iterator[tuple[str, tuple[int, int, int]]]:
        real_root = os.path.realpath(self.root)
        pending = [("", 0)]
        while pending:
            relative, depth = pending.pop()
            try:
                with os.scandir(self.root / relative) as entries:
                    listing = sorted(entries, key=lambda e: e.name)
            except OSError as error:
                problems.append(Problem(relative or ".", None, f"cannot be read: {error.strerror}"))
                continue
            for entry in listing:
                path = f"{relative}/{entry.name}" if relative else entry.name
                if entry.name.startswith("."):
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if depth < MAX_DEPTH:
                            pending.append((path, depth + 1))
                        continue
                    if not entry.name.endswith(SUFFIXES):
                        continue
                    if entry.is_symlink() and not os.path.realpath(entry.path).startswith(real_root + os.sep):
                        problems.append(Problem(path, None, "is a link that leads out of the folder: not followed"))
                        continue
                    info = entry.stat()
                except OSError as error:
                    problems.append(Problem(path, None, f"cannot be read: {error.strerror}"))
                    continue
                if stat.S_ISREG(info.st_mode):
                    yield path, (info.st_mtime_ns, info.st_size, info.st_ino)

    def _read(self, path: str, signature: tuple[int, int, int], last: _File | None) -> _File:
        file = _File(signature)
        try:
            if signature[1] > MAX_BYTES:
                raise Invalid(f"is larger than {MAX_BYTES // 1024 // 1024} MiB")
            text = (self.root / path).read_bytes().decode("utf-8-sig")
            documents = load_documents(text, path)
        except (OSError, UnicodeDecodeError, ReconcileError) as error:
            file = last or _File(broken=True)
            file.signature, file.protected = signature, set(file.objects)
            file.problems = [_problem(path, error)]
            return file
        for document, line in documents:
            for body in _items(document):
                self._take(file, path, line, body, last)
        return file

    def _take(self, file: _File, path: str, line: int, body: Any, last: _File | None) -> None:
        if body is None:
            return
        if not isinstance(body, dict) or not isinstance(body.get("kind"), str) or not isinstance(body.get("apiVersion"), str):
            file.ignored += 1
            return
        kind, api_version = body["kind"], body["apiVersion"]
        identity: Identity | None = None
        try:
            info = self._scheme.find(api_version, kind)
            core = api_version == "v1" and kind in {"Secret", "ServiceAccount", "Namespace"}
            if info is None and not core:
                file.ignored += 1
                return
            key = _key(body, namespaced=kind != "Namespace")
            identity = (kind, key)
            if info is None:
                self._take_core(file, path, kind, key, body)
            else:
                if identity in file.objects:
                    raise Invalid("stands twice in this file; the first one counts")
                file.objects[identity] = self._declare(info, path, line, key, body)
        except Invalid as error:
            name = f"{kind} {identity[1]}: " if identity else f"{kind}: "
            file.problems.append(Problem(path, line, f"{name}{error}"))
            if identity is not None and identity not in file.objects:
                file.protected.add(identity)
                if last is not None and identity in last.objects:
                    file.objects[identity] = last.objects[identity]

    def _take_core(self, file: _File, path: str, kind: str, key: Key, body: dict[str, Any]) -> None:
        if kind == "Secret":
            file.secrets[key] = SecretSource.parse(key, body, (self.root / path).parent)
        elif kind == "ServiceAccount":
            file.service_accounts[key] = body
        else:
            labels = (body.get("metadata") or {}).get("labels") or {}
            file.namespaces[key.name] = {str(k): str(v) for k, v in labels.items()}

    def _declare(self, info: KindInfo, path: str, line: int, key: Key, body: dict[str, Any]) -> Declared:
        metadata = body.get("metadata") or {}
        # What a server sets is not the user's to declare: exported manifests may carry it.
        clean = {k: v for k, v in metadata.items() if k in {"labels", "annotations"} and v}
        clean |= {"name": key.name, "namespace": key.namespace}
        manifest = {"apiVersion": body["apiVersion"], "kind": info.kind, "metadata": clean, "spec": body.get("spec") or {}}
        resource = self._scheme.decode(info, manifest)
        data = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
        spec = orjson.dumps(manifest["spec"], option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
        return Declared(resource, data, blake2b(spec, digest_size=16).hexdigest(), path, line)

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
            result.secrets.update({k: v for k, v in file.secrets.items() if k not in result.secrets})
            result.service_accounts.update(file.service_accounts)
            result.namespaces.update(file.namespaces)
        broken = frozenset(path for path, file in self._files.items() if file.broken)
        return Snapshot(
            result.objects,
            result.secrets,
            result.service_accounts,
            result.namespaces,
            tuple(problems[:MAX_PROBLEMS]),
            broken,
            frozenset(protected),
            ignored,
        )


def _problem(path: str, error: Exception) -> Problem:
    if isinstance(error, YamlError):
        place = f" (column {error.column})" if error.column else ""
        return Problem(path, error.line or None, f"{error.problem}{place}")
    if isinstance(error, OSError):
        return Problem(path, None, f"cannot be read: {error.strerror}")
    return Problem(path, None, "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error))


def _items(document: Any) -> Iterator[Any]:
    """The document, or the items of a `v1` List."""
    if isinstance(document, dict) and document.get("kind") == "List" and document.get("apiVersion") == "v1":
        yield from document.get("items") or ()
    else:
        yield document


def _key(body: dict[str, Any], *, namespaced: bool) -> Key:
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        raise Invalid("metadata.name is required")
    name, namespace = metadata["name"], (metadata.get("namespace") or "default") if namespaced else ""
    for what, value in (("name", name), ("namespace", namespace)):
        if value != "" and (not isinstance(value, str) or not _NAME.fullmatch(value)):
            raise Invalid(
                f"metadata.{what} {value!r} is not a valid name: lower case letters, digits, '-' and '.', at most 253, "
                "beginning and ending with a letter or digit"
            )
    return Key(namespace, name)
