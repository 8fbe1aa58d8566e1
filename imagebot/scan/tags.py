"""What a scan keeps of a registry's answer: exclusion, order, the latest few, the checksum. Pure."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence

from reconcile.errors import ReconcileError
from reconcile.regexp import Regexp, RegexpError

DEFAULT_EXCLUSION = (r"^.*\.sig$",)
"""In force when an ImageRepository has no `exclusionList`, or an empty one."""

LATEST = 10
"""Tags shown in `status.lastScanResult.latestTags`."""

_SPECIAL = re.compile('["\\\\\x00-\x1f<>&\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class InvalidExclusion(ReconcileError):
    """A pattern of the exclusion list is not a Go regular expression. The text is Flux's, `failed to compile regex <p>: …`."""


class Exclusion:
    """An exclusion list, compiled. A tag is dropped when any pattern is found in it."""

    __slots__ = ("_rules", "patterns")

    def __init__(self, patterns: Sequence[str]) -> None:
        """Compile a list.

        Args:
            patterns: `spec.exclusionList`; empty means the default.

        Raises:
            InvalidExclusion: names the first bad pattern.
        """
        self.patterns = tuple(patterns) or DEFAULT_EXCLUSION
        self._rules = [_compile(pattern) for pattern in self.patterns if (pattern,) != DEFAULT_EXCLUSION]

    def drops(self, tag: str) -> bool:
        """Whether the tag is left out."""
        # The default is in most lists, and a line break, which its dot does not match, is in no tag.
        by_default = DEFAULT_EXCLUSION[0] in self.patterns and tag.endswith(".sig") and "\n" not in tag
        return by_default or any(rule.matches(tag) for rule in self._rules)

    def keep(self, tags: Iterable[str]) -> list[str]:
        """The tags that stay, in descending byte order; duplicates stay, too."""
        return sorted((tag for tag in tags if not self.drops(tag)), reverse=True)


def latest(tags: Sequence[str]) -> list[str]:
    """The first ten of a list that `Exclusion.keep` gave."""
    return list(tags[:LATEST])


def revision(tags: Sequence[str]) -> str:
    """The checksum by which policies notice a change: Adler-32, decimal, of the tags as Go writes them as a JSON array.

    Args:
        tags: in the order of `Exclusion.keep`; equal lists have equal checksums, in every process.
    """
    if not tags:
        return str(zlib.adler32(b"[]"))
    if _SPECIAL.search("".join(tags)):
        tags = [_SPECIAL.sub(_escaped, tag) for tag in tags]
    return str(zlib.adler32(('["' + '","'.join(tags) + '"]').encode("utf-8")))


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if "\ud800" <= char <= "\udfff":
        return "\\ufffd"  # Go reads half a surrogate pair as the replacement character
    return _SHORT.get(char) or f"\\u{ord(char):04x}"


def _compile(pattern: str) -> Regexp:
    try:
        return Regexp(pattern)
    except RegexpError as error:
        raise InvalidExclusion(f"failed to compile regex {pattern}: {error}") from error
