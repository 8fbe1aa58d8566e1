"""CEL as Flux evaluates it: what compiles, what holds, the words for what does not, and the bounds."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile import cel
from reconcile.errors import LimitExceeded

OBJECT: dict[str, Any] = {
    "apiVersion": "v1",
    "metadata": {"name": "a", "generation": 3, "labels": {"a.b/c": "x"}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}], "replicas": 2, "observedGeneration": 3, "part": 1.5},
}
BOTH = ("self", "dep")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("self.metadata.generation == dep.status.observedGeneration", True),
        ("dep.status.conditions.filter(e, e.type == 'Ready').all(e, e.status == 'True')", True),
        ("dep.status.conditions.exists_one(e, e.status == 'False')", False),
        ("has(dep.status.missing) && dep.status.missing == 1", False),
        ("dep.status.missing == 1 || true", True),
        ("self.?metadata.?labels[?'a.b/c'].orValue('none') == 'x'", True),
        ("dep.?status.?nothing.hasValue()", False),
        ("dep.metadata.name.upperAscii() == 'A' && 'a,b'.split(',').size() == 2", True),
        ("base64.encode(b'hello') == 'aGVsbG8='", True),
        ("sets.contains([1, 2, 3], [1, 2.0]) && !sets.contains([1], [true])", True),
        ("sets.equivalent(['a', 'b'], ['b', 'a', 'a'])", True),
        ("sets.intersects(dep.status.conditions.map(c, c.type), ['Ready', 'Other'])", True),
        ("dep.status.replicas == 2.0 && dep.status.replicas > 1u && dep.status.part > 1", True),
        ("1 < 2.5 && 2u >= 1", True),
        ("timestamp('2026-01-01T23:00:00Z').getHours() == 23", True),
        ("dep.metadata.name.matches('^(a+)+$')", True),
    ],
)
def test_what_holds(text: str, holds: bool) -> None:
    assert cel.compile_bool(text, BOTH).holds({"self": OBJECT, "dep": OBJECT}) is holds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "self.",
            (
                "failed to parse the CEL expression 'self.': ERROR: <input>:1:6: Syntax error: no viable alternative at input "
                "'.'\n | self.\n | .....^"
            ),
        ),
        ("self.metadata.name", "CEL expression output type mismatch: expected bool, got dyn"),
        ("1 + 2", "CEL expression output type mismatch: expected bool, got int"),
        (
            "other == 1",
            (
                "failed to parse the CEL expression 'other == 1': ERROR: <input>:1:1: undeclared reference to 'other' "
                "(in container '')\n | other == 1\n | ^"
            ),
        ),
    ],
)
def test_what_does_not_compile(text: str, words: str) -> None:
    with pytest.raises(cel.CelError) as failed:
        cel.compile_bool(text, BOTH)
    assert str(failed.value) == words


def test_numbers_are_the_only_types_that_mix() -> None:
    with pytest.raises(cel.CelError, match=r"found no matching overload for '_<_' applied to '\(int, string\)'"):
        cel.compile_bool("1 < 2.5 && 1 < 'a'", BOTH)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dep.status.missing == 1", "failed to evaluate the CEL expression 'dep.status.missing == 1': no such key: missing"),
        ("1 / (self.status.replicas - 2) == 1", "divide by zero"),
        ("timestamp(self.metadata.name) == timestamp('2026-01-01T00:00:00Z')", "conversion failed"),
    ],
)
def test_what_has_no_value(text: str, words: str) -> None:
    with pytest.raises(cel.EvaluationFailed) as failed:
        cel.compile_bool(text, BOTH).holds({"self": OBJECT, "dep": OBJECT})
    assert words in str(failed.value)


def test_what_is_only_parsed_may_name_anything() -> None:
    assert cel.parse("status.replicas == 2 && metadata.name != ''").holds(OBJECT)
    with pytest.raises(cel.EvaluationFailed, match=r"no such attribute\(s\): spec$"):
        cel.parse("spec.x == 1").holds(OBJECT)
    with pytest.raises(cel.EvaluationFailed, match=r"^failed to evaluate CEL expression as boolean: 'status.replicas'$"):
        cel.parse("status.replicas").holds(OBJECT)
    with pytest.raises(cel.EvaluationFailed, match="No matching overloads found : nothing"):
        cel.parse("nothing(1)").holds(OBJECT)


def test_everything_has_a_bound() -> None:
    with pytest.raises(LimitExceeded, match="more than 10000"):
        cel.parse("true || " * 2000 + "true")
    with pytest.raises(cel.CelError, match="recursion limit"):
        cel.parse("(" * 100 + "true" + ")" * 100)
    nested = cel.parse("status.l.all(a, status.l.all(b, status.l.all(c, a + b + c >= 0)))")
    with pytest.raises(cel.EvaluationFailed, match="budget"):
        nested.holds({"status": {"l": list(range(200))}})
    assert cel.parse(" && ".join(["status.replicas == 2"] * 400)).holds(OBJECT)


def test_what_would_take_all_memory_is_ended_and_nothing_else_is() -> None:
    grown = cel.parse("'aaaaaaaaaa'" + ".replace('a', 'aaaaaaaaaa')" * 20 + " != ''")
    long = "x" * 200_000
    listed = cel.parse("m.filter(a, m.filter(b, (s + s + s) == (s + t + s)).size() > 0).size() == 0")
    for expression in (grown, listed, grown):
        with pytest.raises(cel.EvaluationFailed, match=r"it takes too much time or memory$"):
            expression.holds({"s": long, "t": long, "m": list(range(99))})
        assert cel.parse("status.replicas == 2").holds(OBJECT)
