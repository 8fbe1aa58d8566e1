"""Tags in the order of a parsed key, kept sorted while tags come and go. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")


class Ranking(Generic[Key]):
    """Pairs of key and tag, ascending by key and then by tag, as two lists: 16 bytes a tag besides the key."""

    __slots__ = ("keys", "tags")

    def __init__(self) -> None:
        # Any: the standard library's bisect wants a protocol that a type variable cannot name.
        self.keys: list[Any] = []
        self.tags: list[str] = []

    def __len__(self) -> int:
        return len(self.tags)

    def fill(self, keys: Sequence[Key], tags: Sequence[str]) -> None:
        """Take all pairs at once; the tags are ascending, the keys in step with them."""
        order = sorted(range(len(keys)), key=keys.__getitem__)  # type: ignore[arg-type]  # stable, so tags stay ascending
        self.keys = [keys[i] for i in order]
        self.tags = [tags[i] for i in order]

    def add(self, key: Key, tag: str) -> None:
        """Take one more pair."""
        place = self._place(key, tag)
        self.keys.insert(place, key)
        self.tags.insert(place, tag)

    def remove(self, key: Key, tag: str) -> None:
        """Forget a pair that is there."""
        place = self._place(key, tag)
        del self.keys[place]
        del self.tags[place]

    def equals(self, key: Key) -> list[str]:
        """The tags with this key, ascending."""
        return self.tags[bisect_left(self.keys, key) : bisect_right(self.keys, key)]

    def _place(self, key: Key, tag: str) -> int:
        return bisect_left(self.tags, tag, bisect_left(self.keys, key), bisect_right(self.keys, key))
