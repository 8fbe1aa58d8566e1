"""From objects to the values that decisions are made from, and back into the status. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from imagebot.api import FirstSight, ImagePolicy, ImageRef, ImageRepository
from imagebot.holds import ImageHold
from imagebot.policy.choose import Policy
from imagebot.policy.index import TagIndex
from imagebot.policy.mutation import ALLOW_MUTATION
from imagebot.policy.situation import ALLOW_DOWNGRADE, Candidate, Chosen, Hold, Situation
from imagebot.scan.tags import Exclusion
from reconcile.ports.clock import parse_timestamp, timestamp
from reconcile.registry.names import InvalidImage, parse_repository

ANNOTATIONS = (ALLOW_DOWNGRADE, ALLOW_MUTATION)
"""What people may allow a policy."""


def same_image(one: str, other: str) -> bool:
    """Whether two names are those of one image, however they are written."""
    try:
        return one == other or parse_repository(one).canonical == parse_repository(other).canonical
    except InvalidImage:
        return False


def concerns(hold: ImageHold, policy: ImagePolicy, image: str | None) -> bool:
    """Whether a hold concerns a policy that chooses from `image`; None: the image is not known, so it may."""
    ref = hold.spec.image_ref
    if hold.key.namespace != policy.key.namespace or ref.policy not in (None, policy.key.name):
        return False
    return ref.name is None or image is None or same_image(ref.name, image)


def holds_for(holds: Iterable[ImageHold], policy: ImagePolicy, image: str) -> tuple[Hold, ...]:
    """The holds that concern a policy, as decisions want them."""
    found = []
    for hold in holds:
        spec = hold.spec
        if concerns(hold, policy, image) and not hold.meta.deletion_timestamp:
            expires = parse_timestamp(spec.expires_at) if spec.expires_at else None
            tags, digests = frozenset(spec.tags or ()), frozenset(spec.digests or ())
            found.append(Hold(hold.key.name, spec.mode, tags, digests, spec.reason or "", expires, spec.fallback))
    return tuple(found)


def last_choice(policy: ImagePolicy, repository: ImageRepository) -> ImageRef | None:
    """What the policy chose last of the image; also what it had to give up since there was nothing else."""
    last = policy.status.latest_ref or policy.status.observed_previous_ref
    return last if last is not None and same_image(last.name, repository.spec.image) else None


def rule_of(policy: ImagePolicy) -> str:
    """A text that changes with what the rule means: where tags come from, which take part, how they are ordered."""
    spec = policy.spec
    parts = {
        "repository": [spec.image_repository_ref.namespace or policy.key.namespace, spec.image_repository_ref.name],
        "policy": spec.policy.model_dump(mode="json", exclude_none=True),
        "filter": spec.filter_tags.model_dump(mode="json", exclude_none=True) if spec.filter_tags else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def same_rule(policy: ImagePolicy) -> bool:
    """Whether the last choice was made by the rule that is in force; where nobody noted the rule, the generation says it."""
    noted = policy.status.observed_rule
    if noted is not None:
        return bool(noted == rule_of(policy))
    return bool(policy.status.observed_generation == policy.meta.generation)


def situation_of(
    resource: ImagePolicy,
    repository: ImageRepository,
    policy: Policy,
    index: TagIndex,
    exclusions: Sequence[str],
    holds: Sequence[Hold],
    now: datetime,
) -> Situation:
    """What a decision about these tags is made from; `exclusions` are those by which the tags were kept."""
    status, image = resource.status, repository.spec.image
    last, previous = last_choice(resource, repository), status.observed_previous_ref
    allowed = resource.meta.annotations.get(ALLOW_DOWNGRADE)
    return Situation(
        policy,
        index,
        now,
        last=Chosen(last.tag, last.digest) if last is not None else None,
        previous=previous.tag if previous is not None and same_image(previous.name, image) else None,
        same_rule=same_rule(resource),
        excluded=last is not None and last.tag not in index and Exclusion(exclusions).drops(last.tag),
        downgrades=resource.spec.downgrade == "Allow",
        allowed=allowed if allowed != status.allowed_downgrade else None,
        holds=holds,
        minimum_age=resource.spec.minimum_age or 0.0,
        remembered=remembered(status.first_seen),
    )


def remembered(sights: Iterable[FirstSight] | None) -> tuple[Candidate, ...]:
    """First sights out of a status."""
    return tuple(Candidate(sight.tag, sight.digest, parse_timestamp(sight.time)) for sight in sights or ())


def sights(candidates: Sequence[Candidate]) -> list[FirstSight] | None:
    """First sights as a status has them."""
    return [FirstSight(tag=c.tag, digest=c.digest, time=timestamp(c.first_seen)) for c in candidates] or None
