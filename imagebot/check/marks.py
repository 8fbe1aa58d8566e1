"""What can be wrong with the markers of a checkout. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagebot.check import findings as rules
from imagebot.check.checkouts import Checkout, MarkedFile
from imagebot.check.findings import Finding, Rule, Severity
from imagebot.check.manifests import Manifests
from imagebot.check.relations import Automation
from imagebot.markers.find import FileMarkers, Marker, Unusable, decode, find_markers
from imagebot.markers.outline import BREAKS
from reconcile.api.meta import Key

SUFFIXES = ("tag", "name", "digest")
_LINE = re.compile(rf"\r\n|[{BREAKS}]")
_MENTION = re.compile(r"#[^#]*\$(?:imagepolicy|ref)", re.IGNORECASE)


_Make = Callable[[Rule, str, str, Severity | None], Finding]
"""Makes a finding of the marker that is looked at: rule, message, what to do about it, severity."""


@dataclass(slots=True)
class MarkerCheck:
    """Checks the markers of one checkout, and remembers which policies they name.

    Attributes:
        checkout: the folder.
        manifests: what is declared.
        automations: those of all repositories.
        named: the policies that markers name which some automation can set.
        count: markers seen.
    """

    checkout: Checkout
    manifests: Manifests
    automations: Sequence[Automation]
    named: set[Key] = field(default_factory=set)
    count: int = 0

    def check(self, files: Iterable[MarkedFile]) -> Iterator[Finding]:
        """The findings of all files."""
        for file in files:
            if file.problem:
                yield Finding(rules.UNREADABLE, self._shown(file.path), 0, 0, file.problem)
                continue
            try:
                found = find_markers(file.data)
            except Unusable as error:
                text = f"no marker of this file takes effect: {error.reason}"
                yield Finding(rules.UNUSABLE_FILE, self._shown(file.path), error.line, 1 if error.line else 0, text)
                continue
            yield from self._file(file, found)

    def _shown(self, path: str) -> str:
        return str(self.checkout.root / path)

    def _file(self, file: MarkedFile, found: FileMarkers) -> Iterator[Finding]:
        text, offset = decode(file.data)
        lines = _LINE.split(text)
        good = {(marker.line, marker.setter) for marker in found.markers}
        for problem in found.problems:
            shown = lines[problem.line - 1] if problem.line <= len(lines) else ""
            match = _MENTION.search(shown)
            rule = rules.DOUBTFUL_MARKER if (problem.line, problem.setter) in good else rules.INVALID_MARKER
            message = f"marker {problem.setter}: {problem.text}" if problem.setter else problem.text
            yield Finding(rule, self._shown(file.path), problem.line, match.start() + 1 if match else 1, message)
        for marker in found.markers:
            self.count += 1
            before = file.data[offset : marker.start].decode("utf-8")
            column = len(before) - max(before.rfind(char) for char in BREAKS)
            yield from self._marker(file.path, marker, column)

    def _marker(self, path: str, marker: Marker, column: int) -> Iterator[Finding]:
        def finding(rule: Rule, message: str, mend: str = "", severity: Severity | None = None) -> Finding:
            text = f"marker {marker.setter}: {message}"
            return Finding(rule, self._shown(path), marker.line, column, text, mend, severity=severity)

        parts = marker.setter.split(":")
        if not 2 <= len(parts) <= 3 or not all(parts):
            yield finding(rules.INVALID_MARKER, "it is not of the form namespace:policy, optionally with :tag, :name or :digest")
            return
        key = Key(parts[0], parts[1])
        if len(parts) == 3 and parts[2] not in SUFFIXES:
            near = difflib.get_close_matches(parts[2], SUFFIXES, 1)
            mend = f"Did you mean {parts[0]}:{parts[1]}:{near[0]}?" if near else ""
            yield finding(rules.INVALID_MARKER, f"there is no suffix :{parts[2]}, only :tag, :name and :digest", mend)
        policy = self.manifests.get("ImagePolicy", key)
        writers = [a for a in self.automations if self.checkout.repository in (None, a.repository)]
        if policy is None:
            yield self._unknown(finding, key, writers)
            return
        self.named.add(key)
        yield from self._coverage(finding, path, key, writers)
        reflection = policy.resource.spec.digest_reflection_policy if policy.resource is not None else "Always"
        if parts[2:] == ["digest"] and reflection == "Never":
            yield finding(rules.NO_DIGEST, f"{policy.subject} has digestReflectionPolicy Never, so the old value stays")

    def _unknown(self, make: _Make, key: Key, writers: Sequence[Automation]) -> Finding:
        known = {str(m.key).replace("/", ":"): m.key for m in self.manifests.of("ImagePolicy")}
        wanted = f"{key.namespace}:{key.name}"
        near = difflib.get_close_matches(wanted, sorted(known), 1, 0.7)
        same = sorted(text for text, other in known.items() if other.name == key.name)
        mend = f"Did you mean {(same or near)[0]}?" if same or near else ""
        spaces = {m.key.namespace for m in self.manifests.found if m.info.group == "image.toolkit.fluxcd.io"}
        if key.namespace in spaces or difflib.get_close_matches(key.namespace, sorted(spaces), 1, 0.7):
            return make(rules.UNKNOWN_POLICY, "there is no such ImagePolicy in the folder", mend, None)
        where = ", ".join(sorted({a.manifest.key.namespace for a in writers})) or "no namespace"
        text = f"the folder has nothing of namespace {key.namespace}; automations of this repository are in {where}"
        return make(rules.FOREIGN_MARKER, text, mend, None)

    def _coverage(self, make: _Make, path: str, key: Key, writers: Sequence[Automation]) -> Iterator[Finding]:
        if self.checkout.repository is None:
            return
        near = [a for a in writers if a.manifest.key.namespace == key.namespace]
        covering = [a for a in near if a.covers(path)]
        if not writers:
            yield make(
                rules.UNCOVERED_MARKER, f"no ImageUpdateAutomation updates GitRepository {self.checkout.repository}", "", None
            )
        elif not near:
            spaces = ", ".join(sorted({a.manifest.key.namespace for a in writers}))
            text = f"automations of this repository are in {spaces} and take no policies of namespace {key.namespace}"
            yield make(rules.FOREIGN_MARKER, text, "", Severity.ERROR)
        elif not covering:
            paths = ", ".join(sorted({a.root or "the whole repository" for a in near}))
            yield make(rules.UNCOVERED_MARKER, f"the automations of namespace {key.namespace} look only below {paths}", "", None)
        elif not any(key.name in a.policies for a in covering):
            names = ", ".join(a.manifest.key.name for a in covering)
            yield make(rules.UNSELECTED_MARKER, f"policySelector of {names} does not select ImagePolicy {key}", "", None)


def check_paths(checkout: Checkout, automations: Sequence[Automation]) -> Iterator[Finding]:
    """The automations of a checkout whose path is not in it; looks at the disk."""
    for automation in automations:
        if automation.repository != checkout.repository or not automation.root:
            continue
        place = Path(checkout.root, automation.root)
        if place.is_symlink():
            text = f"{automation.root} is a symbolic link in the repository, which is not followed"
        elif not place.exists():
            text = f"there is no {automation.root} in {checkout.root}"
        else:
            continue
        yield automation.manifest.finding(rules.MISSING_PATH, "spec.update.path", text)


def unmarked(manifests: Manifests, automations: Sequence[Automation], checks: Sequence[MarkerCheck]) -> Iterator[Finding]:
    """Policies that are selected but that no marker names; only those whose repositories were all looked at."""
    seen = {check.checkout.repository for check in checks}
    named = {key for check in checks for key in check.named}
    for policy in manifests.of("ImagePolicy"):
        writers = [a for a in automations if a.manifest.key.namespace == policy.key.namespace and policy.key.name in a.policies]
        if writers and policy.key not in named and all(a.repository in seen for a in writers):
            where = ", ".join(sorted({str(a.repository) for a in writers}))
            yield policy.finding(rules.UNUSED_POLICY, "metadata.name", f"no marker names it in {where}")
