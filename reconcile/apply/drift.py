"""Whether a live object is what applying ours would make of it, and where not. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from reconcile.api.appliers import IgnoreRule, Selector
from reconcile.api.selectors import compile_selector, parse_selector
from reconcile.apply import fields, pointers
from reconcile.apply.changeset import Drift
from reconcile.apply.owner import annotations_of, labels_of
from reconcile.apply.pointers import ABSENT, Path
from reconcile.errors import Invalid
from reconcile.ports.cluster import Object, Reference
from reconcile.regexp.engine import Regexp
from reconcile.regexp.syntax import RegexpError

MOST_PATHS = 20
"""Fields of one object that a change set names."""

Chooses = Callable[[Object], bool]


class Ignored:
    """Which fields of which objects are left as they are in the cluster: all rules that choose an object count.

    Raises:
        Invalid: A rule has a regular expression, a selector or a pointer that is none; says which.
    """

    def __init__(self, rules: Iterable[IgnoreRule] = ()) -> None:
        self._rules = [(_chooser(rule.target), tuple(pointers.parse(path) for path in rule.paths)) for rule in rules]

    def paths(self, found: Object) -> tuple[Path, ...]:
        """The fields of an object that are left alone, each once."""
        return tuple(dict.fromkeys(path for chooses, paths in self._rules if chooses(found) for path in paths))


def _chooser(target: Selector | None) -> Chooses:
    if target is None:
        return lambda _: True
    wanted = {
        name: _anchored(text) for name in ("group", "version", "kind", "namespace", "name") if (text := getattr(target, name))
    }
    labels = compile_selector(parse_selector(target.label_selector)) if target.label_selector else None
    notes = compile_selector(parse_selector(target.annotation_selector)) if target.annotation_selector else None

    def chooses(found: Object) -> bool:
        reference = Reference.of(found)
        has = {
            "group": reference.group,
            "version": reference.api_version.rpartition("/")[2],
            "kind": reference.kind,
            "namespace": reference.namespace,
            "name": reference.name,
        }
        return (
            all(expression.matches(has[name]) for name, expression in wanted.items())
            and (labels is None or labels(labels_of(found)))
            and (notes is None or notes(annotations_of(found)))
        )

    return chooses


def _anchored(text: str) -> Regexp:
    try:
        return Regexp(f"^(?:{text})$")
    except RegexpError as error:
        raise Invalid(f"{text!r} is not a regular expression: {error}") from error


def drifted(live: Object, wanted: Object, ignored: Sequence[Path] = ()) -> list[Path]:
    """Where a live object differs from the result of the dry run of its apply, but for ignored fields.

    What counts are labels, annotations, and everything outside metadata and status.
    """
    if () in ignored:
        return []
    one, other = _compared(live), _compared(wanted)
    for path in sorted(ignored, key=_last_first, reverse=True):
        one, other = pointers.without(one, path), pointers.without(other, path)
    return [path for path in pointers.differences(one, other) if not _emptied(one, other, path, ignored)]


def _last_first(path: Path) -> list[tuple[int, str]]:
    """Places of a list in the order of their numbers: from its end, no removal moves what is still to be removed."""
    return [(int(part[:9]), "") if part.isascii() and part.isdigit() else (-1, part) for part in path]


def _emptied(one: Any, other: Any, path: Path, ignored: Sequence[Path]) -> bool:
    """Whether a difference is only that between nothing and what held nothing but an ignored field."""
    holds = any(len(each) > len(path) and each[: len(path)] == path for each in ignored)
    return holds and all(
        value is ABSENT or value in ({}, []) for value in (pointers.value_at(one, path), pointers.value_at(other, path))
    )


def _compared(found: Object) -> Any:
    rest = {name: value for name, value in found.items() if name not in {"metadata", "status"}}
    return {**rest, "metadata": {"labels": labels_of(found), "annotations": annotations_of(found)}}


def told(live: Object, paths: Sequence[Path], manager: str) -> tuple[Drift, ...]:
    """Who owns the fields that differ, for those who want to know who changed them."""
    return tuple(Drift(pointers.text_of(path), fields.owners(live, path, without=manager)) for path in paths[:MOST_PATHS])


def payload_beside(desired: Object, live: Object, ignored: Sequence[Path], manager: str) -> Object:
    """What to apply to an object of which some fields are left alone.

    Such a field that differs is left out when another manager applies it too, else it is given as it is in the cluster: so that
    the rest is applied without a change to it, and without taking it from anybody.
    """
    found: Any = desired
    for path in ignored:
        ours, theirs = pointers.value_at(found, path), pointers.value_at(live, path)
        if not path or ours is ABSENT or ours == theirs:
            continue
        elsewhere = theirs is not ABSENT and fields.owners(live, path, without=manager, operation="Apply")
        found = pointers.without(found, path) if elsewhere or theirs is ABSENT else pointers.replaced(found, path, theirs)
    result: Object = found
    return result
