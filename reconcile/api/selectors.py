"""Label selectors: parse once, match often. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from reconcile.api.meta import LabelRequirement, LabelSelector
from reconcile.errors import Invalid

Labels = Mapping[str, str]
Matcher: TypeAlias = Callable[[Labels], bool]


def compile_selector(selector: LabelSelector | None) -> Matcher:
    """A function that says whether labels match; no selector and an empty one match everything.

    Raises Invalid with Kubernetes' text for an unknown operator or values that do not fit it.
    """
    wanted = dict((selector and selector.match_labels) or {})
    tests = [_requirement(r) for r in (selector and selector.match_expressions) or ()]

    def matches(labels: Labels) -> bool:
        return all(labels.get(k) == v for k, v in wanted.items()) and all(test(labels) for test in tests)

    return matches


def _requirement(requirement: LabelRequirement) -> Matcher:
    key, values = requirement.key, frozenset(requirement.values or ())
    match requirement.operator:
        case "In" | "NotIn" if not values:
            raise Invalid("values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty")
        case "In":
            return lambda labels: labels.get(key) in values
        case "NotIn":
            return lambda labels: labels.get(key) not in values
        case "Exists" | "DoesNotExist" if values:
            shown = ", ".join(f'"{v}"' for v in requirement.values or ())
            raise Invalid(f"values: Invalid value: [{shown}]: values set must be empty for exists and does not exist")
        case "Exists":
            return lambda labels: key in labels
        case "DoesNotExist":
            return lambda labels: key not in labels
        case other:
            raise Invalid(f'"{other}" is not a valid label selector operator')


_EXPRESSION = re.compile(
    r"\s*(?:(?P<absent>!)\s*)?(?P<key>[A-Za-z0-9./_-]+)\s*"
    r"(?:(?P<operator>==|!=|=)\s*(?P<value>[A-Za-z0-9._-]*)|(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?\s*(?:,|\Z)"
)


def parse_selector(text: str) -> LabelSelector:
    """The selector of a text as `kubectl -l` takes it: `a=b,c!=d,e in (f,g),h notin (i),j,!k`; raises Invalid."""
    found: list[LabelRequirement] = []
    at = 0
    while at < len(text.strip()):
        match = _EXPRESSION.match(text, at)
        if match is None or (match["absent"] and (match["operator"] or match["set"])):
            raise Invalid(f"{text!r} is not a label selector: write it like key=value,other!=value,!third")
        at = match.end()
        if match["operator"]:
            operator, values = ("NotIn" if match["operator"] == "!=" else "In"), [match["value"]]
        elif match["set"]:
            operator, values = ("In" if match["set"] == "in" else "NotIn"), [v.strip() for v in match["values"].split(",")]
        else:
            operator, values = ("DoesNotExist" if match["absent"] else "Exists"), []
        found.append(LabelRequirement(key=match["key"], operator=operator, values=values or None))
    return LabelSelector(match_expressions=found or None)
