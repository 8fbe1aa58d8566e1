"""Reads a folder of manifests for a check: every document of our kinds with its places, and what its schema says to it.

What the service itself refuses is found here first, with the exact place; `reconcile.local.files` has the last word, so that a
folder without findings is one that the service takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imagebot.check import findings as rules
from imagebot.check.findings import Finding, Rule, Severity
from imagebot.check.places import Places, locate
from reconcile.api.meta import Key, drop_nulls
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme, unknown_fields
from reconcile.errors import Invalid, ReconcileError
from reconcile.local.files import MAX_BYTES, Folder
from reconcile.local.secrets import read_regular
from reconcile.local.walk import Problem, walk
from reconcile.redact import redact
from reconcile.yamlio import YamlError, load_documents

MAX_SHOWN = 80
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_ALIEN = re.compile(r"'[^']*'|\*\S+")
_SECRET = re.compile(r"kind['\"]?\s*:\s*['\"]?Secret\b")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A document of one of our kinds; `resource` is None when its schema refuses it."""

    info: KindInfo
    key: Key
    body: Mapping[str, Any]
    resource: AnyResource | None
    path: str
    places: Places
    prefix: tuple[str | int, ...] = ()

    @property
    def subject(self) -> str:
        """The object in words."""
        return f"{self.info.kind} {self.key}"

    @property
    def place(self) -> str:
        """File and line, as editors make links of them."""
        return f"{self.path}:{self.places.key(self.prefix)[0]}"

    def finding(
        self, rule: Rule, where: str, message: str, mend: str = "", *, severity: Severity | None = None, at_key: bool = False
    ) -> Finding:
        """A finding at a field such as `spec.exclusionList[0]`: at its value, or at its key."""
        path = (*self.prefix, *steps(where))
        line, column = self.places.key(path) if at_key else self.places.value(path)
        return Finding(rule, self.path, line, column, message, mend, self.subject, severity)


@dataclass(slots=True)
class Manifests:
    """What a folder declares, as far as a check needs it."""

    found: list[Manifest] = field(default_factory=list)
    objects: dict[tuple[str, Key], Manifest] = field(default_factory=dict)
    """By kind and key; of an object that stands there twice the first."""
    secrets: set[Key] = field(default_factory=set)
    """Secrets, and what is made into one by somebody else: sealed, external."""
    accounts: set[Key] = field(default_factory=set)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    """Labels of the namespaces that the folder describes."""
    findings: list[Finding] = field(default_factory=list)
    files: int = 0

    def of(self, kind: str) -> list[Manifest]:
        """The objects of a kind, as they stand in the folder."""
        return [manifest for (found, _), manifest in self.objects.items() if found == kind]

    def get(self, kind: str, key: Key) -> Manifest | None:
        """One object."""
        return self.objects.get((kind, key))


def steps(where: str) -> list[str | int]:
    """`spec.a[0].b` as its steps."""
    return [int(number) if number else name for name, number in _STEP.findall(where)]


def read_manifests(root: Path, scheme: Scheme) -> Manifests:
    """Read every manifest below `root`; raises Invalid when it is no folder."""
    if not root.is_dir():
        raise Invalid(f"{root} is not a folder: give the folder with your manifests")
    read = _Reading(root, scheme)
    problems: list[Problem] = []
    for path, _ in sorted(walk(root, problems, set())):
        read.file(path)
    for problem in problems:
        read.result.findings.append(Finding(rules.UNREADABLE, read.shown(problem.path), 0, 0, problem.message))
    read.add_what_the_service_says()
    return read.result


class _Reading:
    def __init__(self, root: Path, scheme: Scheme) -> None:
        self.root = root
        self.scheme = scheme
        self.result = Manifests()
        self.alien: set[str] = set()
        """Files that cannot be read and name none of our groups: templates and the like."""
        self.documents: set[tuple[str, int]] = set()
        """File and line of the documents that a finding was made of."""

    def shown(self, path: str) -> str:
        return str(self.root / path)

    def file(self, path: str) -> None:
        self.result.files += 1
        text = ""
        try:
            text = read_regular(self.root / path, MAX_BYTES).decode("utf-8-sig")
            documents = load_documents(text, path)
            places = locate(text) if self._mentions_us(text) else {}
        except YamlError as error:
            self._unparsable(path, text, error)
            return
        except (OSError, ValueError, ReconcileError) as error:
            problem = error.strerror or "" if isinstance(error, OSError) else str(error)
            words = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"cannot be read: {problem}"
            self.result.findings.append(Finding(rules.UNREADABLE, self.shown(path), 0, 0, words))
            self.documents.add((path, 0))
            return
        for document, line in documents:
            where = places.get(line) or Places(line)
            for prefix, body in _items(document):
                if isinstance(body, dict):
                    self._take(path, line, where, prefix, body)

    def _unparsable(self, path: str, text: str, error: YamlError) -> None:
        # The parser may quote what it stumbled over, and in a Secret that may be the secret.
        words = _ALIEN.sub("…", error.problem) if _SECRET.search(text) else error.problem
        severity = None if self._mentions_us(text) else Severity.WARNING
        self.result.findings.append(
            Finding(rules.INVALID_YAML, self.shown(path), error.line, error.column or 1, words, severity=severity)
        )
        self.documents.add((path, 0))

    def _mentions_us(self, text: str) -> bool:
        return any(group in text for group in self.scheme.groups())

    def _take(self, path: str, line: int, places: Places, prefix: tuple[str | int, ...], body: dict[str, Any]) -> None:
        kind, version = body.get("kind"), body.get("apiVersion")
        if not isinstance(kind, str) or not isinstance(version, str):
            return
        key = _key(body)
        if version == "v1" or (kind.endswith("Secret") and key is not None):
            self._core(kind, key, body)
        try:
            info = self.scheme.find(version, kind)
        except Invalid as error:
            step = "apiVersion" if str(error).startswith("no version") else "kind"
            at, column = places.value((*prefix, step))
            self.result.findings.append(Finding(rules.UNKNOWN_KIND, self.shown(path), at, column, str(error)))
            self.documents.add((path, line))
            return
        if info is None or key is None:
            return
        manifest = Manifest(info, key, body, None, self.shown(path), places, prefix)
        found = list(_schema(manifest))
        resource = None
        if not found:
            try:
                resource = self.scheme.decode(info, {**body, "metadata": _plain(body["metadata"], key)})
            except Invalid as error:
                found = [manifest.finding(rules.INVALID_VALUE, "metadata", str(error), at_key=True)]
        manifest = Manifest(info, key, body, resource, self.shown(path), places, prefix)
        if (other := self.result.objects.get((kind, key))) is not None:
            at, _ = other.places.key(other.prefix)
            found.append(
                manifest.finding(
                    rules.DUPLICATE, "metadata.name", f"{manifest.subject} stands in {other.path}:{at} already; that one counts"
                )
            )
        if found:
            self.documents.add((path, line))
        self.result.findings += found
        self.result.found.append(manifest)
        self.result.objects.setdefault((kind, key), manifest)

    def _core(self, kind: str, key: Key | None, body: dict[str, Any]) -> None:
        if key is None:
            return
        if kind.endswith("Secret"):
            self.result.secrets.add(key)
            if isinstance(name := _dig(body, "spec", "target", "name"), str):  # an ExternalSecret may make it under another name
                self.result.secrets.add(Key(key.namespace, name))
        elif kind == "ServiceAccount":
            self.result.accounts.add(key)
        elif kind == "Namespace":
            labels = _dig(body, "metadata", "labels")
            texts = {str(k): v for k, v in labels.items() if isinstance(v, str)} if isinstance(labels, dict) else {}
            self.result.namespaces[key.name] = texts

    def add_what_the_service_says(self) -> None:
        """What the service would refuse and nothing above has said."""
        snapshot = Folder(self.root, self.scheme).scan()
        known = {finding.path for finding in self.result.findings if finding.rule in (rules.UNREADABLE, rules.INVALID_YAML)}
        for problem in snapshot.problems if snapshot is not None else ():
            path, line = self.shown(problem.path), problem.line or 0
            if path in known or (problem.path, line) in self.documents or self._is_encrypted(problem):
                continue
            # What is left out may be as harmless as the templates of a chart; what is shown says so or not.
            severity = Severity.WARNING if problem.path == "." else None
            found = Finding(rules.INVALID_MANIFEST, path, line, 1 if line else 0, problem.message, severity=severity)
            self.result.findings.append(found)

    def _is_encrypted(self, problem: Problem) -> bool:
        """Whether it is about a Secret that SOPS has encrypted: a cluster's business, and no fault."""
        if "Secret " not in problem.message:
            return False
        try:
            documents = load_documents(read_regular(self.root / problem.path, MAX_BYTES).decode("utf-8-sig"), problem.path)
        except (OSError, ValueError, ReconcileError):
            return False
        return any(line == problem.line and isinstance(body, dict) and "sops" in body for body, line in documents)


def _schema(manifest: Manifest) -> Iterator[Finding]:
    spec = manifest.body.get("spec")
    if spec is not None and not isinstance(spec, dict):
        yield manifest.finding(rules.INVALID_VALUE, "spec", "spec must be a mapping")
        return
    given = drop_nulls(spec or {})
    for text in unknown_fields(manifest.info.spec, given):
        yield manifest.finding(rules.UNKNOWN_FIELD, f"spec.{text.split(' ')[0]}", f"unknown field spec.{text}", at_key=True)
    try:
        manifest.info.spec.model_validate(given)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_context=False):
            where = "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
            yield manifest.finding(rules.INVALID_VALUE, where, f"{where}: {_words(problem)}", at_key=not problem["loc"])


def _words(problem: Any) -> str:
    if problem["type"] == "missing":
        return "is required"
    text = str(problem["msg"]).removeprefix("Value error, ")
    given = problem["input"]
    if problem["type"] in {"value_error", "assertion_error"} or isinstance(given, dict | list):
        return text
    quotes = " (put it in quotes)" if problem["type"] == "string_type" and isinstance(given, int | float) else ""
    shown = repr(redact(given[: 10 * MAX_SHOWN])[:MAX_SHOWN]) if isinstance(given, str) else str(given).lower()[:MAX_SHOWN]
    return f"{text}, not {shown}{quotes}"


def _items(document: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The document, or the items of a `v1` List, each with the way to it."""
    if isinstance(document, dict) and document.get("kind") == "List" and document.get("apiVersion") == "v1":
        items = document.get("items")
        yield from ((("items", number), item) for number, item in enumerate(items if isinstance(items, list) else ()))
    else:
        yield (), document


def _key(body: Mapping[str, Any]) -> Key | None:
    name, namespace = _dig(body, "metadata", "name"), _dig(body, "metadata", "namespace") or "default"
    if body.get("kind") == "Namespace":
        namespace = ""
    return Key(namespace, name) if isinstance(name, str) and name and isinstance(namespace, str) else None


def _plain(metadata: Mapping[str, Any], key: Key) -> dict[str, Any]:
    """The metadata that a person declares; what a server adds is not theirs."""
    kept = {name: value for name, value in metadata.items() if name in {"labels", "annotations"} and value}
    return {**kept, "name": key.name, "namespace": key.namespace}


def _dig(body: Any, *names: str) -> Any:
    for name in names:
        body = body.get(name) if isinstance(body, dict) else None
    return body
