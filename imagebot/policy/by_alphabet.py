"""Choose by byte order, as Flux's alphabetical policy does. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from imagebot.policy.base import Choice, NoChoice
from imagebot.policy.extract import Values
from imagebot.policy.ranking import Ranking


class AlphabetView:
    """Tags by their value; the order of code points is the order of UTF-8 bytes."""

    __slots__ = ("_ranking", "_values")

    def __init__(self, values: Values) -> None:
        self._values = values
        self._ranking: Ranking[str] = Ranking()

    @property
    def matched(self) -> int:
        """See `View`."""
        return len(self._ranking)

    def __len__(self) -> int:
        return len(self._ranking)

    def build(self, tags: Iterable[str]) -> None:
        """See `View`."""
        of = self._values.of
        pairs = [(value, tag) for tag in tags if (value := of(tag)) is not None]
        self._ranking.fill([value for value, _ in pairs], [tag for _, tag in pairs])

    def add(self, tag: str) -> None:
        """See `View`."""
        value = self._values.of(tag)
        if value is not None:
            self._ranking.add(value, tag)

    def remove(self, tag: str) -> None:
        """See `View`."""
        value = self._values.of(tag)
        if value is not None:
            self._ranking.remove(value, tag)

    def choose(self, *, descending: bool) -> Choice:
        """The last value, or the first when descending; for it the byte-wise smallest tag that has it.

        Raises:
            NoChoice: there are no tags.
        """
        keys = self._ranking.keys
        if not keys:
            raise NoChoice("version list argument cannot be empty")
        place = 0 if descending else bisect_left(keys, keys[-1])
        how = (
            "the only tag" if len(keys) == 1 else f"{'first' if descending else 'last'} of {len(keys)} tags in alphabetical order"
        )
        return Choice(self._ranking.tags[place], keys[place], len(keys), how)
