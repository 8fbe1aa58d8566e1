"""Which files of a source are left out of its artifact: `.sourceignore` files and `spec.ignore`, as Flux reads them.

The language looks like that of `.gitignore` and differs from it: each path is decided on its own (so a file comes back although
its folder is left out), `**` never backtracks, and a trailing `/**` adds nothing. A pattern is a row of *steps*, one for each
component of a path: a step must match the component that stands there or, after `**`, the first one that it matches from there
on; when all steps are used up, all that is left of the path is covered. As nothing backtracks, how far each pattern got is known
for a folder once and for all, and a file costs no more than its own name.

Pure: no I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

FILE = ".sourceignore"
"""Name of the files that hold patterns; each applies to the folder that it lies in."""

VCS = (".git/", ".gitignore", ".gitmodules", ".gitattributes")
EXTENSIONS = ("*.jpg", "*.jpeg", "*.gif", "*.png", "*.wmv", "*.flv", "*.tar.gz", "*.zip")
CI = (
    ".github/",
    ".circleci/",
    ".travis.yml",
    ".gitlab-ci.yml",
    "appveyor.yml",
    ".drone.yml",
    "cloudbuild.yaml",
    "codeship-services.yml",
    "codeship-steps.yml",
)
OTHER = ("**/.goreleaser.yml", "**/.sops.yaml", "**/.flux.yaml")

_GIT = ".git"
_BLANK = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's white space, which is not quite what `str.strip` takes off."""
_ANY = "**"
_NEVER = -1
_ALTERNATIVES = 200
"""Globs in one regular expression."""
_REMEMBERED = 50_000
"""Folders whose state is kept."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one component of a path must be.

    Attributes:
        roams: whether the component may be any of those left; the first one that matches is taken.
        literal: the component itself, when the glob has no wildcard.
        expression: the glob as a regular expression for `fullmatch`, when it has.
    """

    roams: bool
    literal: str | None
    expression: str = ""

    def matches(self, component: str) -> bool:
        """Whether `component` fits the glob."""
        if self.literal is not None:
            return component == self.literal
        return _compiled(self.expression).fullmatch(component) is not None


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of a `.sourceignore` file.

    Attributes:
        steps: what the components of a path below `scope` must be, in turn; None when nothing can ever match.
        scope: folder that the pattern applies to, without slashes at its ends; empty for all of the tree.
        negated: whether what matches is taken back in.
        directories_only: whether a path that ends where the steps end must be a folder.
    """

    steps: tuple[Step, ...] | None
    scope: str = ""
    negated: bool = False
    directories_only: bool = False


def parse_pattern(text: str, scope: str = "") -> Pattern:
    """The pattern that one line of text stands for; there is no wrong one, only those that never match."""
    negated = text.startswith("!")
    text = text.removeprefix("!")
    if not text.endswith("\\ "):
        text = text.rstrip(" ")
    directories_only = text.endswith("/")
    text = text.removesuffix("/")
    segments = text.split("/")
    steps = _steps(segments) if len(segments) > 1 else _name(text)
    return Pattern(steps, scope.strip("/"), negated, directories_only)


def parse_patterns(text: str, scope: str = "") -> list[Pattern]:
    """The patterns in the text of one file, in their order; comments and blank lines are none."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [parse_pattern(line, scope) for line in lines if not line.startswith("#") and line.strip(_BLANK)]


class Ignore:
    """Decides for paths of one tree. Later patterns win over earlier ones.

    What was found about folders is remembered, up to a bound. Names that are not UTF-8 come decoded with `surrogateescape`.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = tuple(patterns)
        self._begin: dict[str, _Beginning] = {}
        by_scope: dict[str, list[int]] = {}
        for index, pattern in enumerate(self._patterns):
            if pattern.steps:
                by_scope.setdefault(pattern.scope, []).append(index)
        for scope, indexes in by_scope.items():
            self._begin[scope] = _Beginning(self._patterns, indexes)
        self._folders: dict[str, _Folder] = {}

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._patterns)

    def ignored(self, path: str, is_dir: bool = False) -> bool:
        """Whether `path` (relative, with `/`, no `.` or `..`) is left out.

        Args:
            path: path below the root of the tree; the root itself is never left out.
            is_dir: whether it is a folder.
        """
        path = path.strip("/")
        if not path or path == ".":
            return False
        parent, _, name = path.rpartition("/")
        folder = self._folders.get(parent)
        if folder is None:
            folder = self._folder(parent)
        winner = self._winner(folder, name, is_dir=is_dir)
        return winner != _NEVER and not self._patterns[winner].negated

    def _winner(self, folder: _Folder, name: str, *, is_dir: bool) -> int:
        """Index of the last pattern that matches `name` in `folder`."""
        best = folder.best
        for names in folder.names:
            best = max(best, names.directories.last(name) if is_dir else names.files.last(name))
        for index, at in folder.ready:
            if index > best:
                pattern = self._patterns[index]
                assert pattern.steps is not None  # noqa: S101 - patterns without steps never begin
                if (is_dir or not pattern.directories_only) and pattern.steps[at].matches(name):
                    best = index
        return best

    def _folder(self, path: str) -> _Folder:
        """What is known about everything below the folder `path`."""
        if len(self._folders) > _REMEMBERED:
            self._folders.clear()
        missing = []
        while (known := self._folders.get(path)) is None and path:
            missing.append(path)
            path = path.rpartition("/")[0]
        if known is None:
            known = self._folders[""] = self._opened("", _NEVER, (), [])
        for below in reversed(missing):
            known = self._folders[below] = self._enter(known, below)
        return known

    def _enter(self, parent: _Folder, path: str) -> _Folder:
        component = path.rpartition("/")[2]
        best = self._winner(parent, component, is_dir=True)
        running: list[tuple[int, int]] = []
        for index, at in parent.running:
            steps = self._patterns[index].steps
            if index <= best or steps is None:
                continue
            if steps[at].matches(component):
                running.append((index, at + 1))  # were these all steps, best would be at least this index
            elif steps[at].roams:
                running.append((index, at))
        return self._opened(path, best, tuple(names for names in parent.names if names.highest > best), running)

    def _opened(self, path: str, best: int, names: tuple[_Names, ...], running: list[tuple[int, int]]) -> _Folder:
        beginning = self._begin.get(path)
        if beginning is not None:
            names += beginning.names
            running += beginning.running
        ready = [(index, at) for index, at in running if at + 1 == len(self._patterns[index].steps or ())]
        return _Folder(best, names, tuple(running), tuple(sorted(ready, reverse=True)))


def tree_ignore(sourceignores: Mapping[str, str], extra: str | None) -> Ignore:
    """What to leave out of a tree of files, as Flux source-controller decides it for Git and OCI sources.

    Without any pattern all default groups apply; with one or more the group of version control files and those.

    Args:
        sourceignores: text of each `.sourceignore` file by its path in the tree; those below a `.git` folder do not count.
        extra: `spec.ignore`, which applies to the whole tree and comes last.
    """
    patterns: list[Pattern] = []
    scopes = {path.strip("/").rpartition("/")[0]: text for path, text in sourceignores.items()}
    for scope in sorted(scopes, key=lambda scope: [part.encode("utf-8", "surrogateescape") for part in scope.split("/") if part]):
        if _GIT not in scope.split("/"):
            patterns += parse_patterns(scopes[scope], scope)
    patterns += parse_patterns(extra or "")
    defaults = _VCS_PATTERNS if patterns else _ALL_PATTERNS
    return Ignore((*defaults, *patterns))


def bucket_ignore(root: str | None, extra: str | None) -> Ignore:
    """What to leave out of a bucket: only what its own `.sourceignore` and `spec.ignore` say, no defaults."""
    return Ignore([*parse_patterns(root or ""), *parse_patterns(extra or "")])


@dataclass(frozen=True, slots=True)
class _Folder:
    """What is known about everything in one folder.

    `best` is the last pattern that covers it whole; `running` are patterns (index, next step) that may still match deeper;
    `ready` are those of them with one step to go; `names` are those that need but one component, anywhere.
    """

    best: int
    names: tuple[_Names, ...]
    running: tuple[tuple[int, int], ...]
    ready: tuple[tuple[int, int], ...]


class _Beginning:
    """The patterns of one scope, in the state in which they enter it."""

    def __init__(self, patterns: Sequence[Pattern], indexes: Iterable[int]) -> None:
        names: list[tuple[int, Step, bool]] = []
        self.running: list[tuple[int, int]] = []
        for index in indexes:
            pattern = patterns[index]
            assert pattern.steps is not None  # noqa: S101 - those have been left out
            if len(pattern.steps) == 1 and pattern.steps[0].roams:
                names.append((index, pattern.steps[0], pattern.directories_only))
            else:
                self.running.append((index, 0))
        self.names: tuple[_Names, ...] = (_Names(names),) if names else ()


class _Names:
    """Patterns of one component that may stand anywhere: all are asked with one look."""

    def __init__(self, entries: list[tuple[int, Step, bool]]) -> None:
        self.highest = max(index for index, _, _ in entries)
        self.directories = _Table([(index, step) for index, step, _ in entries])
        self.files = _Table([(index, step) for index, step, directories_only in entries if not directories_only])


@dataclass
class _Table:
    """Finds the last of many steps that a component matches."""

    entries: list[tuple[int, Step]]
    _literals: dict[str, int] = field(default_factory=dict)
    _globs: list[tuple[re.Pattern[str], list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._literals = {step.literal: index for index, step in self.entries if step.literal is not None}
        globs = [(index, step.expression) for index, step in reversed(self.entries) if step.literal is None]
        for start in range(0, len(globs), _ALTERNATIVES):
            part = globs[start : start + _ALTERNATIVES]
            joined = "|".join(f"({expression})" for _, expression in part)
            self._globs.append((re.compile(joined, re.DOTALL), [index for index, _ in part]))

    def last(self, component: str) -> int:
        """Highest index among the steps that match, -1 when none does."""
        best = self._literals.get(component, _NEVER)
        for expression, indexes in self._globs:
            if indexes[0] < best:
                break
            found = expression.fullmatch(component)
            if found is not None:  # alternatives are tried from the highest index down
                assert found.lastindex is not None  # noqa: S101 - each alternative is a group
                return max(best, indexes[found.lastindex - 1])
        return best


def _name(text: str) -> tuple[Step, ...] | None:
    step = _step(text, roams=True)
    return None if step is None else (step,)


def _steps(segments: Sequence[str]) -> tuple[Step, ...] | None:
    steps: list[Step] = []
    roams = False
    for segment in segments:
        if segment == _ANY:
            roams = True
        elif not segment:
            roams = False
        elif _ANY in segment or (step := _step(segment, roams=roams)) is None:
            return None
        else:
            steps.append(step)
            roams = False
    return tuple(steps) or None


def _step(glob: str, *, roams: bool) -> Step | None:
    """The step for one glob; None when it is malformed or empty, as such a one matches nothing."""
    if not glob:
        return None
    if not any(sign in glob for sign in "*?[\\"):
        return Step(roams, glob)
    expression = _expression(glob)
    return None if expression is None else Step(roams, None, expression)


@lru_cache(1024)
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.DOTALL)


def _expression(glob: str) -> str | None:
    """A shell glob as a regular expression, None when it is malformed.

    Between two stars the first place that fits is the right one, so those parts are atomic groups: no glob takes longer than the
    product of the two lengths.
    """
    parts: list[str] = [""]
    at = 0
    while at < len(glob):
        sign = glob[at]
        if sign == "*":
            parts.append("")
            at += 1
        elif sign == "?":
            parts[-1] += "."
            at += 1
        elif sign == "[":
            found = _character_class(glob, at + 1)
            if found is None:
                return None
            expression, at = found
            parts[-1] += expression
        else:
            at += sign == "\\"
            if at == len(glob):
                return None
            parts[-1] += re.escape(glob[at])
            at += 1
    if len(parts) == 1:
        return parts[0]
    middle = "".join(f"(?>.*?{part})" for part in parts[1:-1] if part)
    return f"{parts[0]}{middle}.*{parts[-1]}"


def _character_class(glob: str, at: int) -> tuple[str, int] | None:
    """The expression for the class that begins after the bracket before `at`, and where the glob goes on."""
    negated = glob.startswith("^", at)
    at += negated
    ranges: list[str] = []
    count = 0
    while not (count and glob.startswith("]", at)):
        low = _class_character(glob, at)
        if low is None:
            return None
        first, at = low
        last = first
        if glob.startswith("-", at):
            high = _class_character(glob, at + 1)
            if high is None:
                return None
            last, at = high
        if first <= last:
            ranges.append(f"{re.escape(first)}-{re.escape(last)}")
        count += 1
    if not ranges:
        return ("." if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _class_character(glob: str, at: int) -> tuple[str, int] | None:
    if at >= len(glob) or glob[at] in "-]":
        return None
    at += glob[at] == "\\"
    if at + 1 >= len(glob):  # the class must still be closed
        return None
    return glob[at], at + 1


_VCS_PATTERNS = tuple(parse_pattern(text) for text in VCS)
_ALL_PATTERNS = tuple(parse_pattern(text) for text in (*VCS, *EXTENSIONS, *CI, *OTHER))
