"""What stands between a policy's rule and a tag: holds, soaking, the downgrade interlock. Pure; asks for no digests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from imagebot.api import ImagePolicy, ImageRepository
from imagebot.explain.sections import Section, Table
from imagebot.holds import ImageHold
from imagebot.policy.base import InvalidFilter, NoChoice
from imagebot.policy.choose import Policy
from imagebot.policy.decide import decide
from imagebot.policy.holding import holds_for, situation_of
from imagebot.policy.index import TagIndex
from imagebot.policy.situation import Need
from imagebot.scan.tags import Exclusion, InvalidExclusion


def held_section(
    resource: ImagePolicy,
    repository: ImageRepository,
    policy: Policy,
    tags: Sequence[str],
    holds: Sequence[ImageHold],
    now: datetime,
) -> Section | None:
    """The tags that are kept back although the rule would choose them, each with the reason; None where nothing is.

    Args:
        resource: the policy.
        repository: where its tags are from.
        policy: its rule.
        tags: what the registry has.
        holds: those of the policy's namespace.
        now: the moment.
    """
    try:
        index = TagIndex(Exclusion(repository.spec.exclusions).keep(tags))
        found = holds_for(holds, resource, repository.spec.image)
        situation = situation_of(resource, repository, policy, index, repository.spec.exclusions, found, now)
        digests: dict[str, str | None] = {entry.tag: entry.digest for entry in situation.remembered}
        if situation.last is not None and situation.last.digest:
            digests[situation.last.tag] = situation.last.digest
        while isinstance(decision := decide(replace(situation, digests=digests)), Need):
            digests |= dict.fromkeys(decision.tags)  # not known here: the registry is not asked for single tags
    except (InvalidExclusion, InvalidFilter, NoChoice):
        return None  # another section says so
    if decision.held is None and not decision.verdicts:
        return None
    rows = tuple((tag, verdict.state.value, verdict.why) for tag, verdict in decision.verdicts.items())
    facts = ((decision.held.reason, decision.held.message),) if decision.held is not None else ()
    return Section("Kept back", facts, Table(("TAG", "VERDICT", "WHY"), rows) if rows else None)
