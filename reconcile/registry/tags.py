"""Pages of a tag list: sizes, links from page to page, and what is in them. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from reconcile.registry.errors import BadAnswer, body_text

_LISTED = re.compile(r"[!-.0-9;-?A-~]{1,128}")
"""What is taken from a list: as upstream, more than a tag may be by the specification, but nothing that would be
something else in a reference (`/`, `:`, `@`) or hide in a text."""
_LINK = re.compile(r"\s*<(?P<target>[^>]*)>(?P<parameters>(?:[^,\"]|\"[^\"]*\")*)")
_REL = re.compile(r"(?i);\s*rel\s*=\s*\"?(?P<rel>[^\";]*)")


@dataclass(frozen=True)
class TagLimits:
    """Bounds of one tag list; over a bound the list is refused, never cut.

    Attributes:
        page_size: tags asked for per page at first (`n`); more makes some registries fail.
        smallest_page: `n` is halved after a 400 down to this.
        page_bytes: bytes of one page, unpacked.
        total_bytes: bytes of all pages.
        tags: tags in all.
        pages: pages in all.
    """

    page_size: int = 1000
    smallest_page: int = 10
    page_bytes: int = 64 * 1024 * 1024
    total_bytes: int = 256 * 1024 * 1024
    tags: int = 2_000_000
    pages: int = 20_000


@dataclass(frozen=True, slots=True)
class TagPages:
    """A complete tag list.

    Attributes:
        digest: of the bytes of all pages; equal bytes give equal digests.
        tags: in the registry's order, as often as the registry names them.
        pages: pages read.
        bytes: bytes read.
        dropped: entries left out because they cannot be tags.
        unchanged: the bytes equal those of the list given as `previous`; nothing was parsed.
    """

    digest: str
    tags: tuple[str, ...]
    pages: int
    bytes: int
    dropped: int = 0
    unchanged: bool = False


def digest_of_pages(pages: Iterable[bytes]) -> str:
    """A short digest of the bytes of all `pages` and of where each ends."""
    state = hashlib.blake2b(digest_size=16)
    for page in pages:
        state.update(len(page).to_bytes(8, "big"))
        state.update(page)
    return state.hexdigest()


def parse_page(page: bytes, where: str, content_type: str = "") -> tuple[list[str], int]:
    """The tags of one page and how many entries were dropped because they cannot be tags; `null` means none.

    Raises:
        BadAnswer: the page is not a tag list.
    """
    try:
        document = orjson.loads(page)
    except orjson.JSONDecodeError as error:
        what = content_type.partition(";")[0].strip() or "an answer without type"
        raise BadAnswer(f"{where}: the tag list is not JSON but {what}: {body_text(page, content_type)}") from error
    entries: Any = document.get("tags") if isinstance(document, dict) else document
    if entries is None and isinstance(document, dict):
        return [], 0
    if not isinstance(entries, list):
        raise BadAnswer(f"{where}: the answer is not a tag list: no list 'tags' in it")
    for position, entry in enumerate(entries):
        if type(entry) is not str:
            raise BadAnswer(f"{where}: the answer is not a tag list: entry {position} of 'tags' is not a string")
    if all(map(_LISTED.fullmatch, entries)):
        return entries, 0  # the usual case, without a second list of a million
    tags = [entry for entry in entries if _LISTED.fullmatch(entry)]
    return tags, len(entries) - len(tags)


def next_page(links: Sequence[str], current: httpx.URL, where: str) -> httpx.URL | None:
    """The URL of the next page that the `Link` headers name, or None on the last page.

    Args:
        links: all `Link` headers of the answer.
        current: URL that was asked; relative links start here.
        where: names the request in errors.

    Raises:
        BadAnswer: the link cannot be read, or leads to another scheme or host.
    """
    for header in links:
        position = 0
        while position < len(header):
            match = _LINK.match(header, position)
            if match is None:
                raise BadAnswer(f"{where}: failed to parse link header: missing '<' in: {header[:200]!r}")
            position = match.end() + 1
            rel = _REL.search(match["parameters"])
            if rel is None or "next" in rel["rel"].lower().split():
                return _target(match["target"], current, where)
    return None


def _target(link: str, current: httpx.URL, where: str) -> httpx.URL:
    try:
        target = current.join(link)
    except (httpx.InvalidURL, ValueError) as error:
        raise BadAnswer(f"{where}: failed to parse link header: not a URL: {link[:200]!r}") from error
    if (target.scheme, target.netloc) != (current.scheme, current.netloc) or target.userinfo:
        raise BadAnswer(f"{where}: the link to the next page leads to another host: {target.scheme}://{target.host}")
    return target.copy_with(fragment=None)
