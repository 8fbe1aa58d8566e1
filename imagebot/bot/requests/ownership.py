"""Whose commit is at the head of a branch. Pure.

A branch is ours when its head is the commit that the status says we pushed last, or, where the status was lost, when its head is
a commit that we made: author and committer have the author's address of the automation, and the last paragraph of the message
has the line that names the automation. Somebody who amends, rebases or cherry-picks our commit becomes its committer, and who
adds a commit takes the head, so a head of ours stands for all below it: a commit's id covers its parents, and we build directly
on the base alone. Commits that GitHub makes for us have GitHub's own committer, who is taken with `commitThrough: API` alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TRAILER = "Imagebot-Request"
GITHUB_COMMITTER = "noreply@github.com"
_TRAILER_LINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*: \S")
_PERSON = re.compile(rb"<([^<>]*)> \d+ [+-]\d{4}$")


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit object says.

    Attributes:
        tree: id of its tree.
        parents: ids.
        author: address.
        committer: address.
        message: as it is.
    """

    tree: str
    parents: tuple[str, ...]
    author: str
    committer: str
    message: str


def parse_commit(raw: bytes) -> Commit:
    """Read a commit object; what is missing is empty."""
    head, _, message = raw.partition(b"\n\n")
    fields: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\n"):
        name, _, value = line.partition(b" ")
        fields.setdefault(name, []).append(value)  # lines that go on begin with a blank: their name is empty

    def first(name: bytes) -> bytes:
        return fields.get(name, [b""])[0]

    def address(name: bytes) -> str:
        found = _PERSON.search(first(name))
        return found[1].decode("utf-8", "replace") if found else ""

    parents = tuple(parent.decode("ascii", "replace") for parent in fields.get(b"parent", []))
    text = message.decode("utf-8", "replace")
    return Commit(first(b"tree").decode("ascii", "replace"), parents, address(b"author"), address(b"committer"), text)


def with_trailer(message: str, automation: str) -> str:
    """A commit message that names the automation (`namespace/name`) in its last paragraph."""
    body = message.rstrip()
    last = body.rpartition("\n\n")[2].splitlines() if "\n\n" in body else []
    trailers = bool(last) and all(_TRAILER_LINE.match(line) for line in last)
    return f"{body}{chr(10) if trailers else chr(10) * 2}{TRAILER}: {automation}\n"


def is_ours(commit: Commit, automation: str, email: str, *, through_api: bool) -> bool:
    """Whether we made a commit for an automation whose commits have this address."""
    paragraph = commit.message.rstrip().rpartition("\n\n")[2]
    if f"{TRAILER}: {automation}" not in paragraph.splitlines():
        return False
    if through_api and commit.committer == GITHUB_COMMITTER:
        return True
    return commit.author.lower() == commit.committer.lower() == email.lower() and bool(email)


def same_content(built: Commit, present: Commit, *, through_api: bool) -> bool:
    """Whether pushing `built` over `present` would change nothing that people see."""
    if (built.tree, built.parents) != (present.tree, present.parents):
        return False
    return through_api or built.message.rstrip() == present.message.rstrip()
