"""What is wanted of a request, turned into what forges take: labels, reviewers, drafts, messages."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from dataclasses import replace

from reconcile.errors import ReconcileError
from reconcile.ports.forge import RateLimited, Request, Wanted

TEAM = "team:"
MAX_TITLE = 240
MAX_BODY = 65_000
_CUT = "\n\n*The rest is too long to be shown here.*\n"
_DRAFT = re.compile(r"\s*(?:\[(?:draft|wip)\]|\(draft\)|(?:draft|wip):)\s*", re.IGNORECASE)


def missing_labels(request: Request, wanted: Wanted) -> tuple[str, ...]:
    """Labels that it does not have, each once; forges do not tell upper from lower case."""
    present = {label.lower() for label in request.labels}
    return tuple({label.lower(): label for label in wanted.labels if label.lower() not in present}.values())


def split_reviewers(reviewers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Logins and teams, each once."""
    unique = dict.fromkeys(reviewers)
    people = [name for name in unique if not name.startswith(TEAM)]
    return people, [name.removeprefix(TEAM) for name in unique if name.startswith(TEAM)]


def split_message(message: str) -> tuple[str, str]:
    """Headline and body of a commit message, as Git splits them at the first empty line."""
    headline, _, body = message.strip("\n").partition("\n\n")
    return " ".join(headline.split()), body.strip("\n")


def fitted(wanted: Wanted) -> Wanted:
    """`wanted` within what all forges take: a title of one line, and a body that is cut at the end of a line.

    GitHub refuses titles over 256 and bodies over 65536 characters, GitLab titles over 255; a draft's word needs room, too.
    """
    title, body = " ".join(wanted.title.split()), wanted.body
    if len(title) > MAX_TITLE:
        title = f"{title[: MAX_TITLE - 1]}…"
    if len(body) > MAX_BODY:
        room = body[: MAX_BODY - len(_CUT)]
        body = f"{room.rpartition(chr(10))[0] or room}{_CUT}"
    return replace(wanted, title=title, body=body)


def same_text(one: str, other: str) -> bool:
    """Whether two bodies are the same but for what forges do to white space: ends of lines, space at the end."""
    return [line.rstrip() for line in one.strip().splitlines()] == [line.rstrip() for line in other.strip().splitlines()]


def is_draft(title: str) -> bool:
    """Whether GitLab and Gitea take a request of this title for a draft."""
    return _DRAFT.match(title) is not None


def ready_title(title: str) -> str:
    """`title` without the words at its start by which GitLab and Gitea know a draft."""
    while (found := _DRAFT.match(title)) is not None and found.end() < len(title):
        title = title[found.end() :]
    return title


async def without_losing(request: Request, step: Awaitable[Request]) -> tuple[Request, list[str]]:
    """What `step` makes of a request that was just opened; where it fails, the request as it was, and a warning.

    Without its number nobody could say that it is there. What is missing is made up for by the next update.

    Raises:
        RateLimited: the forge asks for patience.
    """
    try:
        return await step, []
    except RateLimited:
        raise
    except ReconcileError as error:
        return request, [str(error)]
