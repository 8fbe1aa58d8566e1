"""The ImageHold that a revert leaves: how it is made, and what becomes of it when people go on editing. Pure.

There is one for each policy. It is an object like those of people: they see it, edit it, and end it by deleting it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from imagebot.api import ImageRef
from imagebot.holds import IMAGE_HOLD, HeldImage, ImageHold, ImageHoldSpec, ImageHoldStatus
from reconcile.api.meta import Key, ObjectMeta
from reconcile.api.resource import Resource
from reconcile.ports.clock import parse_timestamp

LABEL, MADE_FOR = "imagebot.dev/made-for", "revert"
"""Label of the holds that we make."""
DIGESTS = "imagebot.dev/digests"
"""Annotation that says which of the digests goes with which tag, as `tag=digest,tag=digest`."""
MAX_KEPT = 20
"""Tags, and digests, that one hold rejects at most; the newest stay."""
MAX_REASON = 512
MAX_NAME = 253
_SUFFIX = "-reverted"


def hold_name(policy: str) -> str:
    """Name of the hold for a policy."""
    name = policy + _SUFFIX
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(policy.encode()).hexdigest()[:8]
    return f"{policy[: MAX_NAME - len(_SUFFIX) - 9].rstrip('-.')}-{digest}{_SUFFIX}"


def is_ours(hold: ImageHold) -> bool:
    """Whether a hold was made for a revert."""
    return bool(hold.meta.labels.get(LABEL) == MADE_FOR)


def in_force(hold: ImageHold, now: datetime) -> bool:
    """Whether a hold has neither expired nor is on its way out."""
    expires = hold.spec.expires_at
    return not hold.meta.deletion_timestamp and (expires is None or now < parse_timestamp(expires))


def reverted(held: ImageHold | None, policy: Key, ours: ImageRef, fallback: str, reason: str, *, digest_only: bool) -> ImageHold:
    """The hold after a revert.

    Args:
        held: the hold that there is, None for a new one.
        policy: whose image was taken back.
        ours: the image.
        fallback: the tag that stands there now; empty: nothing that could be chosen.
        reason: who took it back, and where.
        digest_only: whether the tag may stay, with another digest.
    """
    tags, digests, known = _parts(held)
    if digest_only:
        fallback = ours.tag
    else:
        tags = [ours.tag, *(tag for tag in tags if tag not in {ours.tag, fallback})]
        digests = [digest for digest in digests if digest != known.get(fallback)]
        known = {tag: digest for tag, digest in known.items() if tag != fallback}
    if ours.digest:
        digests = [ours.digest, *(digest for digest in digests if digest != ours.digest)]
        if not digest_only:
            known = {ours.tag: ours.digest, **known}
    return _made(held, policy, tags, digests, known, fallback, reason)


def set_by_hand(held: ImageHold, tag: str, digests: Sequence[str]) -> ImageHold | None:
    """The hold after somebody set another value than the one that was gone back to; None: nothing is left of it.

    What was set is rejected no more, whether it was before or not, and is what is gone back to from now on.

    Args:
        held: the hold.
        tag: what was set; empty: something that cannot be chosen.
        digests: those that were set.
    """
    tags, rejected, known = _parts(held)
    free = {*digests, known.get(tag)}
    tags = [other for other in tags if other != tag]
    rejected = [digest for digest in rejected if digest not in free]
    if not tags and not rejected:
        return None
    policy = Key(held.key.namespace, held.spec.image_ref.policy or "")
    return _made(held, policy, tags, rejected, known, tag, held.spec.reason or "")


def _parts(held: ImageHold | None) -> tuple[list[str], list[str], dict[str, str]]:
    if held is None:
        return [], [], {}
    pairs = (entry.partition("=") for entry in held.meta.annotations.get(DIGESTS, "").split(",") if "=" in entry)
    return list(held.spec.tags or ()), list(held.spec.digests or ()), {tag: digest for tag, _, digest in pairs}


def _made(
    held: ImageHold | None,
    policy: Key,
    tags: Sequence[str],
    digests: Sequence[str],
    known: dict[str, str],
    fallback: str,
    reason: str,
) -> ImageHold:
    tags, digests = list(tags[:MAX_KEPT]), list(digests[:MAX_KEPT])
    pairs = ",".join(f"{tag}={digest}" for tag, digest in known.items() if tag in tags and digest in digests)
    given: dict[str, Any] = {"tags": tags, "digests": digests, "expires_at": held.spec.expires_at if held is not None else None}
    given = {name: value for name, value in given.items() if value}
    image = HeldImage(policy=policy.name)
    spec = ImageHoldSpec(image_ref=image, mode="Reject", fallback=fallback, reason=reason[:MAX_REASON], **given)
    if held is None:
        meta = ObjectMeta(name=hold_name(policy.name), namespace=policy.namespace, labels={LABEL: MADE_FOR})
        held = Resource(IMAGE_HOLD.api_version, IMAGE_HOLD.kind, meta, spec, ImageHoldStatus())
    annotations = {name: text for name, text in held.meta.annotations.items() if name != DIGESTS}
    if pairs:
        annotations[DIGESTS] = pairs
    return replace(held, meta=held.meta.model_copy(update={"annotations": annotations}), spec=spec)
