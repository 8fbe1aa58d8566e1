"""From tags to the values that a policy compares: `filterTags`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imagebot.policy.base import InvalidFilter, TagFilter
from reconcile.regexp import Regexp, RegexpError


@dataclass(frozen=True, slots=True)
class Values:
    """What a tag is compared by. `of` gives None for a tag that is filtered out; `rewrites` says that it may give another
    text than the tag, and so the same text for several tags."""

    of: Callable[[str], str | None]
    rewrites: bool

    def leader(self, tags: Sequence[str]) -> str:
        """Of tags that rank equally (ascending, at least one), the one that is chosen.

        Among tags with the same value the byte-wise smallest stands for all, as Flux's map of extracted values has it; among
        tags with different values the byte-wise greatest wins, which is the first in the stored order.
        """
        if not self.rewrites or len(tags) == 1:
            return tags[-1]
        return self.representatives(tags)[-1]

    def representatives(self, tags: Sequence[str]) -> list[str]:
        """The smallest tag for each distinct value, ascending; `tags` are ascending and all pass the filter."""
        if not self.rewrites:
            return list(tags)
        seen: dict[str | None, str] = {}
        for tag in tags:
            seen.setdefault(self.of(tag), tag)
        return list(seen.values())


def values_of(tag_filter: TagFilter, only: str = "") -> Values:
    """Compile a filter.

    Args:
        tag_filter: pattern and replacement in the form of Go's `Regexp.Expand`.
        only: a second pattern that the tag itself must match as well; "" for none.

    Raises:
        InvalidFilter: a pattern is not a Go regular expression.
    """
    values = _filtered(tag_filter)
    if not only:
        return values
    wanted = _compile(only).matches
    before = values.of
    return Values(lambda tag: before(tag) if wanted(tag) else None, values.rewrites)


def _filtered(tag_filter: TagFilter) -> Values:
    if not tag_filter.pattern and not tag_filter.extract:
        return Values(str, rewrites=False)
    pattern = _compile(tag_filter.pattern)
    if not tag_filter.extract:
        matches = pattern.matches
        return Values(lambda tag: tag if matches(tag) else None, rewrites=False)
    return Values(pattern.expander(tag_filter.extract), rewrites=True)


def _compile(pattern: str) -> Regexp:
    try:
        return Regexp(pattern)
    except RegexpError as error:
        raise InvalidFilter(f"invalid regular expression pattern '{pattern}': {error}") from error
