"""What somebody set between two commits, whether it takes an image back, and what the hold looks like then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from imagebot.api import ImageRef
from imagebot.bot.reverts_blame import Blame
from imagebot.bot.reverts_hold import LABEL, MADE_FOR, MAX_KEPT, hold_name, in_force, is_ours, reverted, set_by_hand
from imagebot.bot.reverts_seen import Hand, Spot, gone_back_to, hands, is_revert, same_tag, setters_of, spots, takes_back
from imagebot.bot.update import setter_values
from imagebot.holds import ImageHold
from imagebot.markers.changes import ObjectIdentity
from imagebot.markers.find import find_markers
from imagebot.policy.base import Alphabetical, Numerical, SemVer, TagFilter
from imagebot.policy.choose import build_policy
from reconcile.api.meta import Key

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
WEB = Key("apps", "web")
ANY = build_policy(SemVer("*"))
OURS = ImageRef(name="acme/web", tag="1.5.0")


def seen(before: str, now: str, path: str = "a.yaml") -> list[Hand]:
    """Hands between two states of one file, each written as values of `apps:web` in documents split by `---`."""
    states = []
    for text in (before, now):
        setters = setters_of("apps", "web")
        states.append(spots([(path, find_markers(text.encode()))], setters))
    return list(hands(*states))


def file(*values: str, setter: str = "apps:web", name: str = "web") -> str:
    lines = [f'  - image: {value} # {{"$imagepolicy": "{setter}"}}' for value in values]
    return "\n".join(["apiVersion: v1", "kind: Pod", f"metadata: {{name: {name}}}", "spec:", *lines, ""])


def tags(found: list[Hand]) -> list[str | None]:
    return [hand.tag for hand in found]


@pytest.mark.parametrize(
    ("before", "now", "set_back"),
    [
        (["acme/web:1.5.0"], ["acme/web:1.4.0"], ["1.4.0"]),
        (["acme/web:1.5.0"], ["acme/web:1.5.0"], []),
        (["acme/web:1.5.0"], ["acme/web:1.4.0", "acme/web:1.5.0"], []),
        (["acme/web:1.5.0"], ["acme/web:1.4.0", "acme/web:1.3.0"], ["1.3.0", "1.4.0"]),
        (["acme/web:1.5.0", "acme/web:1.5.0"], ["acme/web:1.5.0", "acme/web:1.4.0"], ["1.4.0"]),
        (["acme/web:1.5.0", "acme/web:1.5.0"], ["acme/web:1.4.0"], ["1.4.0"]),
        (["acme/web:1.5.0", "acme/web:1.5.0"], ["acme/web:1.5.0"], []),
        (["acme/web:1.4.0"], [], []),
    ],
    ids=["set", "same", "new-marker", "new-and-set", "one-of-two", "one-gone", "removed", "all-gone"],
)
def test_markers_of_one_object_are_compared_by_number(before: list[str], now: list[str], set_back: list[str]) -> None:
    assert tags(seen(file(*before), file(*now))) == set_back


def test_a_marker_that_moves_down_is_the_same_and_one_of_another_object_is_new() -> None:
    moved = "# a comment\n\n" + file("acme/web:1.4.0")
    assert tags(seen(file("acme/web:1.5.0"), moved)) == ["1.4.0"]
    both = file("acme/web:1.5.0") + "---\n" + file("acme/web:1.4.0", name="other")
    assert seen(file("acme/web:1.5.0"), both) == []


def test_parts_of_an_image_are_read_and_names_alone_do_not_count() -> None:
    tagged = seen(file("1.5.0", setter="apps:web:tag"), file('"1.4.0"', setter="apps:web:tag"))
    assert [(hand.part, hand.tag) for hand in tagged] == [("tag", "1.4.0")]
    digest = seen(file(NEW, setter="apps:web:digest"), file(OLD, setter="apps:web:digest"))
    assert [(hand.part, hand.tag, hand.digest) for hand in digest] == [("digest", None, OLD)]
    assert seen(file("acme/web", setter="apps:web:name"), file("acme/fork", setter="apps:web:name")) == []
    assert tags(seen(file("acme/web:1.5.0"), file('"!not an image"'))) == [None]


@pytest.mark.parametrize(
    ("value", "revert"),
    [
        ("acme/web:1.4.0", True),
        ("acme/web:1.6.0", False),
        ("acme/web:hotfix", True),
        ("acme/web", True),
        ("acme/fork:1.5.0", False),
        ('"???"', True),
    ],
)
def test_what_ranks_behind_or_not_at_all_is_a_revert(value: str, revert: bool) -> None:
    found = seen(file("acme/web:1.5.0"), file(value))
    assert all(takes_back(hand, OURS, setter_values("apps", {"web": OURS})) for hand in found)
    assert is_revert(found, ANY, OURS) is revert


def test_the_order_is_that_of_the_policy() -> None:
    back = seen(file("acme/web:1.5.0"), file("acme/web:1.4.0"))
    assert is_revert(back, build_policy(Alphabetical()), OURS)
    assert not is_revert(back, build_policy(Alphabetical("desc")), OURS)
    filtered = build_policy(SemVer("*"), TagFilter(r"^1\.5\."))
    assert is_revert(seen(file("acme/web:1.5.0"), file("acme/web:1.6.0")), filtered, OURS)
    assert is_revert(
        seen(file("acme/web:7"), file("acme/web:beta")), build_policy(Numerical()), ImageRef(name="acme/web", tag="7")
    )


def test_another_digest_of_the_same_tag_is_a_revert_of_the_digest_alone() -> None:
    ours = ImageRef(name="acme/web", tag="latest", digest=NEW)
    back = seen(file(f"acme/web:latest@{NEW}"), file(f"acme/web:latest@{OLD}"))
    assert (is_revert(back, build_policy(Alphabetical()), ours), same_tag(back, ours)) == (True, True)
    without = seen(file(f"acme/web:latest@{NEW}"), file("acme/web:latest"))
    assert not is_revert(without, build_policy(Alphabetical()), ours)


def test_what_was_not_ours_is_not_taken_back() -> None:
    found = seen(file("acme/web:1.2.0"), file("acme/web:1.1.0"))
    assert not any(takes_back(hand, OURS, setter_values("apps", {"web": OURS})) for hand in found)


def test_one_tag_is_gone_back_to_or_none() -> None:
    one = seen(file("acme/web:1.5.0"), file("acme/web:1.4.0"))
    other = seen(file("acme/web:1.5.0"), file("acme/web:1.3.0"), "b.yaml")
    fork = seen(file("acme/web:1.5.0"), file("acme/fork:1.4.0"))
    assert gone_back_to(one, "acme/web") == "1.4.0"
    assert gone_back_to([*one, *other], "acme/web") == ""
    assert gone_back_to(fork, "acme/web") == ""
    assert gone_back_to(fork, None) == "1.4.0"


# --- the hold


def held(tag: str, fallback: str, before: ImageHold | None = None, digest: str | None = None) -> ImageHold:
    ours = ImageRef(name="acme/web", tag=tag, digest=digest)
    return reverted(before, WEB, ours, fallback, "because", digest_only=False)


def test_a_new_hold_says_what_for_and_whose_it_is() -> None:
    hold = held("1.5.0", "1.4.0")
    assert (hold.key, hold.meta.labels) == (Key("apps", "web-reverted"), {LABEL: MADE_FOR})
    assert is_ours(hold)
    spec = hold.spec
    assert (spec.image_ref.policy, spec.mode, spec.tags, spec.digests) == ("web", "Reject", ["1.5.0"], None)
    assert (spec.fallback, spec.reason) == ("1.4.0", "because")


def test_reverts_are_merged_newest_first_and_bounded() -> None:
    hold: ImageHold | None = None
    for number in range(MAX_KEPT + 5):
        hold = held(f"2.{number}.0", "1.0.0", hold, digest=f"sha256:{number:064x}")
    assert hold is not None
    assert hold.spec.tags == [f"2.{number}.0" for number in range(MAX_KEPT + 4, 4, -1)]
    assert len(hold.spec.digests or ()) == MAX_KEPT
    assert len(hold.meta.annotations) == 1


def test_what_is_gone_back_to_is_rejected_no_more_and_neither_is_its_digest() -> None:
    first = held("1.5.0", "1.4.0", digest=OLD)
    second = held("1.6.0", "1.5.0", first, digest=NEW)
    assert (second.spec.tags, second.spec.digests, second.spec.fallback) == (["1.6.0"], [NEW], "1.5.0")


def test_a_value_that_is_set_by_hand_is_kept_and_an_empty_hold_ends() -> None:
    both = held("1.6.0", "1.4.0", held("1.5.0", "1.4.0", digest=OLD), digest=NEW)
    left = set_by_hand(both, "1.5.0", [])
    assert left is not None
    assert (left.spec.tags, left.spec.digests, left.spec.fallback) == (["1.6.0"], [NEW], "1.5.0")
    assert set_by_hand(left, "1.6.0", []) is None


def test_a_digest_alone_leaves_the_tag_choosable() -> None:
    ours = ImageRef(name="acme/web", tag="latest", digest=NEW)
    hold = reverted(None, WEB, ours, "latest", "because", digest_only=True)
    assert (hold.spec.tags, hold.spec.digests, hold.spec.fallback) == (None, [NEW], "latest")
    assert set_by_hand(hold, "latest", [NEW]) is None


def test_names_are_never_too_long_and_never_the_same() -> None:
    one, other = hold_name("a" * 252), hold_name("a" * 253)
    assert one != other
    assert all(len(name) <= 253 and name.endswith("-reverted") for name in (one, other))


def test_a_hold_that_has_expired_is_not_in_force() -> None:
    hold = held("1.5.0", "1.4.0")
    assert in_force(hold, datetime(2026, 1, 1, tzinfo=UTC))
    ended = hold.spec.model_copy(update={"expires_at": "2025-01-01T00:00:00Z"})
    assert not in_force(replace(hold, spec=ended), datetime(2026, 1, 1, tzinfo=UTC))


def test_the_reason_is_one_bounded_line_without_secrets() -> None:
    subject = "undo\x1b[2J\nghp_" + "a" * 36 + " " + "x" * 500
    text = Blame("1a2b3c4d" * 5, "Ada\nLovelace", subject).reason("apps/web.yaml")
    assert text.startswith("reverted by 1a2b3c4 of Ada Lovelace on apps/web.yaml: undo")
    assert len(text) < 400
    assert not {"\n", "\x1b"} & set(text)
    assert "ghp_a" not in text
    assert Blame("f" * 40, exact=False).reason("a.yaml") == "reverted at fffffff on a.yaml"


def test_a_spot_is_a_file_a_setter_and_an_object() -> None:
    found = spots([("a.yaml", find_markers(file("acme/web:1", "acme/web:2").encode()))], setters_of("apps", "web"))
    assert found == {Spot("a.yaml", "apps:web", ObjectIdentity("v1", "Pod", "web", "")): ("acme/web:1", "acme/web:2")}
    assert spots([("a.yaml", find_markers(file("acme/web:1").encode()))], setters_of("apps", "we")) == {}
