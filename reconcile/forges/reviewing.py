"""Asking for reviews so that a name that the forge refuses costs neither the request nor the other names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from reconcile.errors import ReconcileError
from reconcile.forges import answers
from reconcile.forges.session import Answer, Asked, Session
from reconcile.forges.wishes import TEAM
from reconcile.ports.forge import RateLimited

REFUSALS = (400, 403, 404, 422)
Ask = Callable[[Sequence[str], Sequence[str]], Awaitable[str]]
"""Asks people and teams at once; what the forge says against it, empty when it has none."""


async def ask_reviewers(ask: Ask, people: Sequence[str], teams: Sequence[str]) -> list[str]:
    """Ask all at once; where that is refused, as forges do for one wrong name, each alone. What did not work, for people.

    Raises:
        RateLimited: the forge asks for patience.
    """
    wishes: list[tuple[str, list[str], list[str]]] = [(name, [name], []) for name in people]
    wishes += [(f"{TEAM}{name}", [], [name]) for name in teams]
    if not wishes:
        return []
    reasons = [await ask(people, teams)]
    if reasons[0] and len(wishes) > 1:
        reasons = [await ask(alone, team) for _, alone, team in wishes]
    return [f"'{wish[0]}' was not asked to review: {said}" for wish, said in zip(wishes, reasons, strict=False) if said]


async def request_reviews(session: Session, url: str, asked: Asked, people: Sequence[str], teams: Sequence[str]) -> str:
    """One request as GitHub and Gitea take it; what is said against it."""
    content = {name: list(value) for name, value in (("reviewers", people), ("team_reviewers", teams)) if value}
    try:
        answer = await session.ask("POST", url, asked, json=content, taken=REFUSALS, idempotent=True)
    except RateLimited:
        raise
    except ReconcileError as error:
        # The request is open; what is said about its reviewers must not make anybody open it again.
        return str(error)
    return "" if answer.status < 300 else _said(session, answer, asked)


def _said(session: Session, answer: Answer, asked: Asked) -> str:
    refusal = session.refusal(answer, asked)
    if isinstance(refusal, RateLimited):
        raise refusal
    return answers.said(answer.body) or f"status {answer.status}"
