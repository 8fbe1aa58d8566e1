"""What a world looks like when all is over, and what is wrong with it. Pure: facts in, findings out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.schedule import Order

MARKED = re.compile(r"""^(?P<sign>[+-]).*:(?P<tag>[^\s:"']+) # \{"\$imagepolicy": "apps:(?P<policy>[^"]+)"\}$""")


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: who made it, and the markers that it set (file and policy → tag)."""

    oid: str
    author: str
    writes: Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a start of the service ended: its mode, what it was to meet, its exit code (negative: a signal), what it said."""

    mode: str
    what: str
    code: int
    said: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What is judged.

    Attributes:
        orders: by policy, how its tags are compared.
        ever: by policy, tags that were ever pushed.
        present: by policy, tags that are in the registry at the end.
        branch: commits of the branch that the service writes to, oldest first.
        markers: file and policy of each marker that must be up to date, with its value at the start.
        others: commits of branches that the service must leave alone.
        tokens: by branch, texts that people wrote.
        found: by branch, texts of people that are there at the end.
        damage: what `git fsck` complains of.
        leftovers: files that should be gone.
        leaks: files that hold a secret.
        ran: every start, in order.
        settled: whether the service came to rest.
        stuck: starts that did not do in time what they had to.
    """

    orders: Mapping[str, Order]
    ever: Mapping[str, frozenset[str]]
    present: Mapping[str, frozenset[str]]
    branch: Sequence[Commit]
    markers: Mapping[tuple[str, str], str]
    others: Sequence[Commit] = ()
    tokens: Mapping[str, frozenset[str]] = field(default_factory=dict)
    found: Mapping[str, frozenset[str]] = field(default_factory=dict)
    damage: str = ""
    leftovers: Sequence[str] = ()
    leaks: Sequence[str] = ()
    ran: Sequence[Ran] = ()
    settled: bool = True
    stuck: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: `lost`, `doubled`, `downgrade`, `human`, `damage`, `leftover`, `leak`, `crash`, `unsettled`."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The findings, and what was counted: changes that were due (and were found in Git), commits of the service."""

    findings: tuple[Finding, ...]
    due: int
    commits: int


BOT = "bot"


def rank(order: Order, tag: str) -> tuple[float, ...] | None:
    """Where a tag stands; None for one that the policies of these worlds do not know."""
    if order == "semver":
        return tuple(map(float, tag.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", tag) else None
    return (float(tag),) if re.fullmatch(r"\d+(\.\d+)?", tag) else None


def judge(facts: Facts) -> Judgement:
    """Every due change in Git exactly once, no downgrade, no lost human commit, nothing left, nothing leaked."""
    found = [*_history(facts), *_ends(facts), *_people(facts), *_traces(facts)]
    ours = [commit for commit in facts.branch if commit.author == BOT]
    return Judgement(tuple(found), sum(len(commit.writes) for commit in ours), len(ours))


def _history(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    last: dict[tuple[str, str], str] = {}
    seen: set[tuple[tuple[str, str], str]] = set()
    for commit in facts.branch:
        if commit.author != BOT:
            found += [Finding("human", f"{commit.oid[:7]} of {commit.author} sets {name}") for name in commit.writes]
            continue
        if not commit.writes:
            found.append(Finding("doubled", f"{commit.oid[:7]} sets nothing"))
        for marker, tag in commit.writes.items():
            order = facts.orders[marker[1]]
            if tag not in facts.ever[marker[1]] or rank(order, tag) is None:
                found.append(Finding("crash", f"{commit.oid[:7]} sets {marker} to {tag}, which no policy may choose"))
                continue
            before = last.get(marker)
            if (marker, tag) in seen:
                found.append(Finding("doubled", f"{commit.oid[:7]} sets {marker} to {tag} again"))
            elif before is not None and (rank(order, tag) or ()) <= (rank(order, before) or ()):
                found.append(Finding("downgrade", f"{commit.oid[:7]} sets {marker} from {before} to {tag}"))
            seen.add((marker, tag))
            last[marker] = tag
    found += [
        Finding("crash", f"{commit.oid[:7]} is on a branch that is not ours") for commit in facts.others if commit.author == BOT
    ]
    return found


def _ends(facts: Facts) -> list[Finding]:
    """The last value of each marker: as high as what is in the registry, and something that was pushed once."""
    found = []
    values = dict(facts.markers)
    for commit in facts.branch:
        values |= commit.writes
    for marker, tag in values.items():
        policy = marker[1]
        ranks = {present: rank(facts.orders[policy], present) for present in facts.present[policy]}
        known = {present: place for present, place in ranks.items() if place is not None}
        best = max(known, key=lambda name: known[name], default=None)
        if best is not None and (rank(facts.orders[policy], tag) or ()) < known[best]:
            found.append(Finding("lost", f"{marker} is {tag}, and {best} is in the registry"))
    return found


def _people(facts: Facts) -> list[Finding]:
    return [
        Finding("human", f"{token} is missing on {branch}")
        for branch, tokens in facts.tokens.items()
        for token in sorted(tokens - facts.found.get(branch, frozenset()))
    ]


def _traces(facts: Facts) -> list[Finding]:
    found = [Finding("damage", facts.damage)] if facts.damage else []
    found += [Finding("leftover", path) for path in facts.leftovers]
    found += [Finding("leak", path) for path in facts.leaks]
    found += [Finding("unsettled", text) for text in facts.stuck]
    if not facts.settled:
        found.append(Finding("unsettled", f"the last pass ended with {facts.ran[-1].code if facts.ran else None}"))
    for number, ran in enumerate(facts.ran, 1):
        if "Traceback (most recent call last)" in ran.said or '"exception"' in ran.said:
            found.append(Finding("crash", f"start {number} ({ran.mode}, {ran.what}) printed a traceback"))
        if ran.code not in {0, 1, 2, -9}:
            found.append(Finding("crash", f"start {number} ({ran.mode}, {ran.what}) ended with {ran.code}"))
    return found


def parse_log(text: str) -> list[Commit]:
    """Commits out of `git log --reverse --format=%x01%H%x02%an%x02 -p -U0`, oldest first."""
    commits = []
    for part in text.split("\x01")[1:]:
        oid, author, patch = part.split("\x02", 2)
        writes: dict[tuple[str, str], str] = {}
        before: dict[tuple[str, str], str] = {}
        path = ""
        for line in patch.splitlines():
            if line.startswith("+++ b/"):
                path = line.removeprefix("+++ b/")
            elif match := MARKED.match(line):
                (writes if match["sign"] == "+" else before)[path, match["policy"]] = match["tag"]
        commits.append(Commit(oid, author, {name: tag for name, tag in writes.items() if before.get(name) != tag}))
    return commits
