"""What can be wrong with ImageHolds: nobody whom they concern, an end in the past, tags that nobody would choose anyhow. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from imagebot.api import ImagePolicy, ImageRepository
from imagebot.check import findings as rules
from imagebot.check.findings import Finding
from imagebot.check.manifests import Manifest, Manifests
from imagebot.policy.base import InvalidFilter, InvalidPolicy, NoChoice
from imagebot.policy.controller import referred
from imagebot.policy.holding import concerns, same_image
from imagebot.policy.index import TagIndex
from imagebot.policy.rules import policy_of
from imagebot.scan.tags import Exclusion, InvalidExclusion
from reconcile.ports.clock import parse_timestamp

_SHOWN = 3


def check_holds(manifests: Manifests, now: datetime) -> Iterator[Finding]:
    """The findings about the holds of a folder at a moment."""
    for manifest in manifests.of("ImageHold"):
        if manifest.resource is None:
            continue
        expires = manifest.resource.spec.expires_at
        if expires and parse_timestamp(expires) <= now:
            yield manifest.finding(rules.EXPIRED_HOLD, "spec.expiresAt", f"it ended at {expires} and has no effect any more")
        yield from _concerned(manifests, manifest)


def _concerned(manifests: Manifests, hold: Manifest) -> Iterator[Finding]:
    assert hold.resource is not None  # noqa: S101 - the caller has looked
    held = _policies(manifests, hold)
    if not held:
        yield _of_nobody(manifests, hold)
        return
    for name in ("tags", "fallback"):
        given = getattr(hold.resource.spec, name)
        for number, tag in enumerate([given] if isinstance(given, str) else given or ()):
            where = f"spec.tags[{number}]" if name == "tags" else "spec.fallback"
            if tag and all(_can_choose(policy, repository, tag) is False for policy, repository in held):
                names = ", ".join(policy.key.name for policy, _ in held[:_SHOWN]) + (", …" if len(held) > _SHOWN else "")
                yield hold.finding(rules.IDLE_HOLD, where, f"the rule of {names} never chooses {tag}")


def _policies(manifests: Manifests, hold: Manifest) -> Sequence[tuple[ImagePolicy, ImageRepository | None]]:
    """The policies that a hold concerns, with their repositories where the folder has them."""
    found = []
    for manifest in manifests.of("ImagePolicy"):
        policy = manifest.resource
        if policy is None or hold.resource is None:
            continue
        there = manifests.get("ImageRepository", referred(policy))
        repository = there.resource if there is not None else None
        if concerns(hold.resource, policy, repository.spec.image if repository is not None else None):
            found.append((policy, repository))
    return found


def _of_nobody(manifests: Manifests, hold: Manifest) -> Finding:
    """Why a hold concerns no policy: its name, its image, or both together."""
    assert hold.resource is not None  # noqa: S101 - the caller has looked
    ref, namespace = hold.resource.spec.image_ref, hold.key.namespace
    if ref.policy is not None and not any(
        m.key.name == ref.policy and m.key.namespace == namespace for m in manifests.of("ImagePolicy")
    ):
        return hold.finding(
            rules.USELESS_HOLD,
            "spec.imageRef.policy",
            f"namespace {namespace} has no ImagePolicy {ref.policy}{_elsewhere(manifests, ref.policy)}",
        )
    if ref.policy is not None:
        text = f"ImagePolicy {namespace}/{ref.policy} does not choose from {ref.name}"
    else:
        known = [
            m for m in manifests.of("ImageRepository") if m.resource is not None and same_image(m.resource.spec.image, ref.name)
        ]
        text = f"no ImagePolicy of namespace {namespace} chooses from {ref.name}"
        text += f"; it is scanned by ImageRepository {known[0].key}" if known else ", and no ImageRepository has that image"
    return hold.finding(rules.USELESS_HOLD, "spec.imageRef.name", text)


def _elsewhere(manifests: Manifests, name: str) -> str:
    spaces = sorted({m.key.namespace for m in manifests.of("ImagePolicy") if m.key.name == name})
    return f"; there is one in namespace {spaces[0]}, and a hold counts for its own namespace only" if spaces else ""


def _can_choose(policy: ImagePolicy, repository: ImageRepository | None, tag: str) -> bool | None:
    """Whether the rule could choose a tag if there were no other; None where that cannot be told."""
    try:
        if repository is not None and Exclusion(repository.spec.exclusions).drops(tag):
            return False
        policy_of(policy.spec).choose(TagIndex([tag]))
    except NoChoice:
        return False
    except (InvalidPolicy, InvalidFilter, InvalidExclusion):
        return None
    return True
