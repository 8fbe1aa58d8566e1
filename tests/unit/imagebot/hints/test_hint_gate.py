"""What a pushed image means, and that what is remembered of hints stays small."""

from __future__ import annotations

import pytest

from imagebot.hints.gate import (
    LOOKS,
    MOST_DELIVERIES,
    MOST_DIGESTS,
    MOST_MISSING,
    SPACING,
    Effect,
    Known,
    Memory,
    effect_of,
    strongest,
)
from imagebot.hints.payloads import Pushed

KNOWN = Known(lambda tag: tag.endswith("-dev"), {"1.0", "1.1"}.__contains__, {"1.1": "sha256:a"}.get)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tag", "digest", "effect"),
    [
        ("2.0", "", Effect.SCAN),
        ("2.0", "sha256:a", Effect.SCAN),
        ("", "", Effect.SCAN),
        ("2.0-dev", "", Effect.EXCLUDED),
        ("1.0", "", Effect.DIGEST),
        ("1.0", "sha256:a", Effect.DIGEST),
        ("1.1", "sha256:b", Effect.DIGEST),
        ("1.1", "sha256:a", Effect.KNOWN),
    ],
)
def test_what_an_image_means(tag: str, digest: str, effect: Effect) -> None:
    assert effect_of(Pushed("web", tag, digest), KNOWN) is effect


def test_the_strongest_effect_decides() -> None:
    assert strongest(set()) is Effect.FOREIGN
    assert strongest({Effect.EXCLUDED, Effect.KNOWN}) is Effect.KNOWN
    assert strongest(set(Effect)) is Effect.SCAN


def test_work_is_spaced() -> None:
    memory = Memory()
    assert memory.wait(100.0) == 0.0
    memory.asked = 100.0
    assert memory.wait(101.0) == SPACING - 1.0
    assert memory.wait(100.0 + SPACING) == 0.0


def test_memory_is_bounded_and_keeps_what_came_last() -> None:
    memory = Memory()
    for number in range(1000):
        memory.delivered(f"body {number}".encode())
        memory.told(Pushed("web", f"t{number}", f"sha256:{number}"))
        memory.expect(f"t{number}")
    assert (len(memory.deliveries), len(memory.digests), len(memory.missing)) == (MOST_DELIVERIES, MOST_DIGESTS, MOST_MISSING)
    assert memory.repeated(b"body 999")
    assert not memory.repeated(b"body 0")
    assert memory.digests["t999"] == "sha256:999"
    assert "t999" in memory.missing
    memory.told(Pushed("web", "t999"))
    memory.expect("")
    assert memory.digests["t999"] == "sha256:999"
    assert "" not in memory.missing


def test_a_missing_tag_is_looked_for_a_few_times_and_then_no_more() -> None:
    memory = Memory()
    memory.expect("2.0")
    assert [memory.look_again(lambda _: False) for _ in range(len(LOOKS) + 2)] == [*LOOKS, None, None]
    memory.expect("2.0")
    assert memory.look_again(lambda _: True) is None
    assert not memory.missing
