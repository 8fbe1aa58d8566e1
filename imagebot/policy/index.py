"""The tags of one repository, and what policies need of them, kept up to date by differences. Pure.

A view holds the tags as one filter and one kind of policy see them: parsed and sorted. Policies with the same filter share it, so
that each tag is parsed once for all of them, and a new tag costs a binary search and not another pass over the list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, overload

from imagebot.policy.base import View

MAX_VIEWS = 32
MAX_ENTRIES = 2_500_000
"""Tags in all views of one index together: some 70 bytes each. The view in use is kept even if it alone is larger."""

_FEW = 64
_SHARE = 16

AnyView = TypeVar("AnyView", bound=View)


@dataclass(frozen=True, slots=True)
class Delta:
    """How a list of tags differs from the one before, each part ascending."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


class Descending(Sequence[str]):
    """An ascending list read from its end, without a copy. It changes with the list."""

    __slots__ = ("_ascending",)

    def __init__(self, ascending: list[str]) -> None:
        self._ascending = ascending

    def __len__(self) -> int:
        return len(self._ascending)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._ascending[-1 - i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._ascending[-1 - index]

    def __iter__(self) -> Iterator[str]:
        return reversed(self._ascending)


class TagIndex:
    """The kept tags of one repository, without duplicates. Not safe for use by two threads at once."""

    __slots__ = ("_hidden", "_max_entries", "_max_views", "_tags", "_views")

    def __init__(self, tags: Iterable[str] = (), *, max_views: int = MAX_VIEWS, max_entries: int = MAX_ENTRIES) -> None:
        self._tags = sorted(set(tags))
        self._views: OrderedDict[Hashable, View] = OrderedDict()
        self._hidden: set[str] = set()
        self._max_views = max_views
        self._max_entries = max_entries

    def __len__(self) -> int:
        return len(self._tags)

    def __contains__(self, tag: object) -> bool:
        if not isinstance(tag, str):
            return False
        if tag in self._hidden:
            return True
        place = bisect_left(self._tags, tag)
        return place < len(self._tags) and self._tags[place] == tag

    @property
    def tags(self) -> Sequence[str]:
        """All tags in descending byte order, the order in which Flux stores them."""
        return Descending(self._tags)

    @property
    def view_sizes(self) -> Sequence[int]:
        """Entries of each view that is kept at present, least recently used first."""
        return [len(view) for view in self._views.values()]

    def replace(self, tags: Sequence[str]) -> Delta:
        """Take a new list of tags, in any order, and bring all views up to date.

        Returns:
            What is new and what is gone. Strings that stay are not exchanged, so that the new list's memory can be freed.
        """
        fresh = set(tags)
        added = sorted(fresh.difference(self._tags))
        removed = [tag for tag in self._tags if tag not in fresh] if len(fresh) - len(added) < len(self._tags) else []
        if len(added) + len(removed) > _FEW + len(self._tags) // _SHARE:
            gone = set(removed)
            self._tags = sorted([tag for tag in self._tags if tag not in gone] + added)
            self._views.clear()
            return Delta(tuple(added), tuple(removed))
        for tag in removed:
            del self._tags[bisect_left(self._tags, tag)]
            for view in self._views.values():
                view.remove(tag)
        for tag in added:
            self._tags.insert(bisect_left(self._tags, tag), tag)
            for view in self._views.values():
                view.add(tag)
        return Delta(tuple(added), tuple(removed))

    @contextmanager
    def hiding(self) -> Iterator[Callable[[str], None]]:
        """While inside, tags that the given function is called with take no part in any choice.

        They are still `in` the index, and are back at the end. Nothing else may change the tags meanwhile.
        """
        hidden: list[str] = []

        def hide(tag: str) -> None:
            place = bisect_left(self._tags, tag)
            if tag in self._hidden or place == len(self._tags) or self._tags[place] != tag:
                return
            del self._tags[place]
            for view in self._views.values():
                view.remove(tag)
            self._hidden.add(tag)
            hidden.append(tag)

        try:
            yield hide
        finally:
            for tag in hidden:
                self._hidden.remove(tag)
                self._tags.insert(bisect_left(self._tags, tag), tag)
                for view in self._views.values():
                    view.add(tag)

    def view(self, key: Hashable, make: Callable[[], AnyView]) -> AnyView:
        """The view for a key, made and filled if it is not kept; the least recently used ones give way to the bounds.

        Args:
            key: says which view it is; whoever uses a key always makes the same type.
            make: gives an empty view; what it raises comes through, and nothing is kept then.
        """
        kept = self._views.get(key)
        if kept is None:
            made = make()
            made.build(self._tags)
            self._views[key] = made
        else:
            made = kept  # type: ignore[assignment]  # the key says which type
            self._views.move_to_end(key)
        while len(self._views) > 1 and (
            len(self._views) > self._max_views or sum(map(len, self._views.values())) > self._max_entries
        ):
            self._views.popitem(last=False)
        return made
