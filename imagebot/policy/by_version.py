"""Choose the highest version in a range, as Flux's semver policy does. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from imagebot.policy.base import Choice, NoChoice
from imagebot.policy.extract import Values
from imagebot.policy.ranking import Ranking
from reconcile.versions import Constraint, is_prerelease, version_key


class VersionView:
    """Tags whose value is a version, releases and pre-releases apart, by precedence."""

    __slots__ = ("_leaders", "_prereleases", "_releases", "_values", "matched")

    def __init__(self, values: Values) -> None:
        self.matched = 0
        self._values = values
        self._releases: Ranking[bytes] = Ranking()
        self._prereleases: Ranking[bytes] = Ranking()
        self._leaders: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self._releases) + len(self._prereleases)

    def build(self, tags: Iterable[str]) -> None:
        """See `View`."""
        of = self._values.of
        keys: tuple[list[bytes], list[bytes]] = ([], [])
        kept: tuple[list[str], list[str]] = ([], [])
        for tag in tags:
            value = of(tag)
            if value is None:
                continue
            self.matched += 1
            key = _key(value)
            if key is not None:
                kind = is_prerelease(key)
                keys[kind].append(key)
                kept[kind].append(tag)
        self._releases.fill(keys[False], kept[False])
        self._prereleases.fill(keys[True], kept[True])

    def add(self, tag: str) -> None:
        """See `View`."""
        value = self._values.of(tag)
        if value is not None:
            self.matched += 1
            if (key := _key(value)) is not None:
                self._leaders.pop(key, None)
                self._ranking(key).add(key, tag)

    def remove(self, tag: str) -> None:
        """See `View`."""
        value = self._values.of(tag)
        if value is not None:
            self.matched -= 1
            if (key := _key(value)) is not None:
                self._leaders.pop(key, None)
                self._ranking(key).remove(key, tag)

    def choose(self, constraint: Constraint) -> Choice:
        """The highest version that satisfies the constraint; of equal ones see `Values.leader`.

        Raises:
            NoChoice: there is none.
        """
        found: list[bytes] = []
        for ranking, prereleases in ((self._releases, False), (self._prereleases, True)):
            index = constraint.newest(ranking.keys, prereleases=prereleases)
            if index >= 0:
                found.append(ranking.keys[index])
        if not found:
            raise NoChoice("unable to determine latest version from provided list")
        best = max(found)
        tag = self._leader(best)
        inside = constraint.count(self._releases.keys, prereleases=False) + constraint.count(
            self._prereleases.keys, prereleases=True
        )
        how = "the only version" if inside == 1 else f"highest of {inside} versions"
        return Choice(tag, self._values.of(tag) or "", len(self), f"{how} in {constraint}")

    def _leader(self, key: bytes) -> str:
        leader = self._leaders.get(key)
        if leader is None:
            # Remembered, because a pattern can give one version to all tags, and many policies ask for it.
            leader = self._leaders[key] = self._values.leader(self._ranking(key).equals(key))
        return leader

    def _ranking(self, key: bytes) -> Ranking[bytes]:
        return self._prereleases if is_prerelease(key) else self._releases


def _key(value: str) -> bytes | None:
    # Flux takes a text for a version only if it has three parts between dots, whatever these are.
    return version_key(value) if value.count(".") >= 2 else None
