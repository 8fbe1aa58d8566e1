"""What is wanted of a request, turned into what forges take: labels, reviewers, drafts, messages."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence

from reconcile.errors import ReconcileError
from reconcile.ports.forge import RateLimited, Request, Wanted

TEAM = "team:"
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
