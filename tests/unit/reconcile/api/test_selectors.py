"""Label selectors match as in Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.api.meta import LabelRequirement, LabelSelector
from reconcile.api.selectors import compile_selector
from reconcile.errors import Invalid


def selector(operator: str, *values: str, key: str = "env") -> LabelSelector:
    return LabelSelector(match_expressions=[LabelRequirement(key=key, operator=operator, values=list(values) or None)])


CASES = [
    (None, {}, True),
    (None, {"env": "prod"}, True),
    (LabelSelector(), {"env": "prod"}, True),
    (LabelSelector(match_labels={"env": "prod"}), {"env": "prod", "x": "y"}, True),
    (LabelSelector(match_labels={"env": "prod"}), {"env": "dev"}, False),
    (LabelSelector(match_labels={"env": "prod"}), {}, False),
    (LabelSelector(match_labels={"env": ""}), {"env": ""}, True),
    (LabelSelector(match_labels={"env": ""}), {}, False),
    (selector("In", "a", "b"), {"env": "b"}, True),
    (selector("In", "a", "b"), {"env": "c"}, False),
    (selector("In", "a"), {}, False),
    (selector("NotIn", "a", "b"), {"env": "c"}, True),
    (selector("NotIn", "a", "b"), {"env": "a"}, False),
    (selector("NotIn", "a"), {}, True),
    (selector("Exists"), {"env": ""}, True),
    (selector("Exists"), {}, False),
    (selector("DoesNotExist"), {}, True),
    (selector("DoesNotExist"), {"env": "a"}, False),
]


@pytest.mark.parametrize(("chosen", "labels", "expected"), CASES)
def test_labels_match(chosen: LabelSelector | None, labels: dict[str, str], expected: bool) -> None:
    assert compile_selector(chosen)(labels) is expected


def test_all_parts_must_match() -> None:
    both = LabelSelector(match_labels={"a": "1"}, match_expressions=[LabelRequirement(key="b", operator="Exists")])
    matches = compile_selector(both)
    assert matches({"a": "1", "b": ""})
    assert not matches({"a": "1"})
    assert not matches({"b": ""})


WRONG: list[tuple[Any, str]] = [
    (selector("Equals", "a"), '"Equals" is not a valid label selector operator'),
    (selector("in", "a"), '"in" is not a valid label selector operator'),
    (selector("In"), "values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty"),
    (selector("NotIn"), "values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty"),
    (selector("Exists", "a"), 'values: Invalid value: ["a"]: values set must be empty for exists and does not exist'),
    (selector("DoesNotExist", "a"), 'values: Invalid value: ["a"]: values set must be empty for exists and does not exist'),
]


@pytest.mark.parametrize(("chosen", "message"), WRONG)
def test_a_wrong_requirement_is_refused_with_the_words_of_kubernetes(chosen: LabelSelector, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        compile_selector(chosen)
    assert str(caught.value) == message
