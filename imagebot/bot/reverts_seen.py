"""Which marked values somebody set to something else between two commits, and whether that takes an image back. Pure.

Markers are matched by file, setter and the object that they are in, whatever their lines: of the values that such a group has
in both commits those that are the same in number have stayed, the rest was set. What a group has more than before is new and was
set by nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from imagebot.api import ImageRef
from imagebot.markers.changes import ObjectIdentity
from imagebot.markers.find import FileMarkers
from imagebot.policy.choose import Policy
from imagebot.policy.floor import ranks_before
from imagebot.policy.holding import same_image
from reconcile.registry.names import InvalidImage, is_tag, parse_reference


@dataclass(frozen=True, slots=True)
class Spot:
    """Where markers of one setter are that cannot be told apart: a file and an object in it."""

    path: str
    setter: str
    identity: ObjectIdentity


Spots = Mapping[Spot, tuple[str, ...]]
"""The values that stand at each spot, in the order of the file."""


@dataclass(frozen=True, slots=True)
class Hand:
    """A value that somebody set at a spot, and what stood there before.

    Attributes:
        spot: where.
        value: the text that stands there now.
        gone: what stands there no more.
        tag: the tag in the value; None where it has none that can be read.
        digest: the digest in the value.
        image: the name in the value.
    """

    spot: Spot
    value: str
    gone: frozenset[str]
    tag: str | None = None
    digest: str | None = None
    image: str | None = None

    @property
    def part(self) -> str:
        """What the setter sets: empty for the whole reference, else `tag`, `name` or `digest`."""
        return self.spot.setter.split(":")[2] if self.spot.setter.count(":") > 1 else ""


def spots(files: Iterable[tuple[str, FileMarkers]], setters: Collection[str]) -> Spots:
    """The values that stand at the markers of some setters, by file."""
    found: dict[Spot, list[str]] = {}
    for path, markers in files:
        for marker in markers.markers:
            if marker.setter in setters:
                found.setdefault(Spot(path, marker.setter, marker.identity), []).append(marker.value)
    return {spot: tuple(values) for spot, values in found.items()}


def setters_of(namespace: str, policy: str) -> frozenset[str]:
    """Every setter of a policy."""
    base = f"{namespace}:{policy}"
    return frozenset({base, *(f"{base}:{part}" for part in ("tag", "name", "digest"))})


def hands(before: Spots, now: Spots) -> Sequence[Hand]:
    """What somebody set between two states, in the order of files and spots. Names of images alone do not count."""
    found = []
    for spot in sorted(now.keys() & before.keys(), key=lambda spot: (spot.path, spot.setter, spot.identity)):
        came, gone = Counter(now[spot]), Counter(before[spot])
        came, gone = came - gone, gone - came
        added = max(0, len(now[spot]) - len(before[spot]))
        if came.total() <= added or not gone:
            continue
        for value in sorted(came):
            hand = _read(Hand(spot, value, frozenset(gone)))
            if hand.part != "name":
                found.append(hand)
    return found


def takes_back(hand: Hand, ours: ImageRef, values: Mapping[str, str | None]) -> bool:
    """Whether a hand was laid on what we had written: the value that `ours` gives to its setter stood there."""
    return values.get(hand.spot.setter) in hand.gone and hand.value != str(ours)


def is_revert(hands: Sequence[Hand], policy: Policy, ours: ImageRef) -> bool:
    """Whether hands on one policy's markers take its image back: a tag that ranks behind ours or cannot be ranked, or, where
    no tag is named, another digest."""
    named = [hand for hand in hands if hand.part != "digest"]
    if not named:
        return any(hand.digest != ours.digest for hand in hands)
    return any(_goes_back(hand, policy, ours) for hand in named)


def same_tag(hands: Sequence[Hand], ours: ImageRef) -> bool:
    """Whether only the digest was taken back: the tag is still ours, wherever one is named."""
    return all(hand.tag == ours.tag for hand in hands if hand.part != "digest")


def gone_back_to(hands: Sequence[Hand], image: str | None) -> str:
    """The one tag of an image that hands went back to; empty for several, one that cannot be read, or another image."""
    if image is not None and any(hand.image is not None and not same_image(hand.image, image) for hand in hands):
        return ""
    tags = {hand.tag for hand in hands if hand.part != "digest"}
    return next(iter(tags)) or "" if len(tags) == 1 else ""


def _goes_back(hand: Hand, policy: Policy, ours: ImageRef) -> bool:
    if hand.tag == ours.tag:
        return bool(ours.digest and hand.digest) and hand.digest != ours.digest
    return hand.tag is None or not ranks_before(policy, hand.tag, ours.tag)


def _read(hand: Hand) -> Hand:
    tag: str | None = None
    digest: str | None = None
    image: str | None = None
    match hand.part:
        case "":
            try:
                reference = parse_reference(hand.value)
                tag, digest, image = reference.tag, reference.digest, reference.repository.text
            except InvalidImage:
                pass
        case "tag":
            tag = hand.value if is_tag(hand.value) else None
        case "digest":
            digest = hand.value
    return Hand(hand.spot, hand.value, hand.gone, tag, digest, image)
