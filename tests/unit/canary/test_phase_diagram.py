"""The diagram of the phases says what the table says."""

from __future__ import annotations

import re

from canary.phases import TABLE, Phase, diagram

ARROW = re.compile(r"^    (\S+) --> (\S+): (.+)$")


def arrows() -> dict[tuple[str, str], list[str]]:
    found = [ARROW.match(line) for line in diagram().splitlines()[2:]]
    return {(match[1], match[2]): match[3].split("<br/>or ") for match in found if match}


def test_each_move_is_an_arrow_with_its_reason() -> None:
    shown = arrows()
    for move in TABLE:
        source = move.source.value or "[*]"
        reasons = shown.get((source, move.target.value)) or shown["AnyPhase", move.target.value]
        assert move.why in reasons


def test_no_arrow_is_made_up() -> None:
    moves = {(move.source.value or "[*]", move.target.value) for move in TABLE}
    assert {arrow for arrow in arrows() if arrow[0] != "AnyPhase"} <= moves
    assert {target for source, target in arrows() if source == "AnyPhase"} == {Phase.TERMINATING.value}
    assert len(arrows()) == len(diagram().splitlines()) - 2


def test_it_is_mermaid() -> None:
    first, second, *rest = diagram().splitlines()
    assert first == "stateDiagram-v2"
    assert second.strip().startswith('state "')
    # A semicolon ends a statement, and a further colon a label.
    assert all(line.count(":") == 1 and ";" not in line for line in rest)
