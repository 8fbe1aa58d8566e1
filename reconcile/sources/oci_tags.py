"""The newest tag in a range, found anew only when the registry's tag list or the question changed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from reconcile.api.meta import Key
from reconcile.api.source import OCIReference
from reconcile.registry.client import RegistryClient
from reconcile.registry.names import Repository
from reconcile.registry.tags import TagPages
from reconcile.sources.oci_resolve import newest_tag


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What was asked, the digest of the list it was asked of, and the answer."""

    question: tuple[str, str | None, str | None, str | None]
    digest: str
    tag: str


class TagMemory:
    """Answers by key of the object; bounded by the number of objects. A restart asks again."""

    def __init__(self) -> None:
        self._chosen: dict[Key, _Chosen] = {}

    async def newest(
        self, key: Key, client: RegistryClient, repository: Repository, reference: OCIReference, media_type: str | None
    ) -> str:
        """The tag that `newest_tag` gives for the registry's present list.

        Raises:
            NoSuchTag: there is none.
            RegistryError: the list cannot be had.
        """
        question = (repository.canonical, reference.semver, reference.semver_filter, media_type)
        last = self._chosen.get(key)
        known = last if last is not None and last.question == question else None
        pages = await client.list_tags(repository, TagPages(known.digest, (), 0, 0) if known is not None else None)
        if known is not None and pages.unchanged:
            return known.tag
        tag = await asyncio.to_thread(newest_tag, pages.tags, reference, media_type)
        self._chosen[key] = _Chosen(question, pages.digest, tag)
        return tag

    def drop(self, key: Key) -> None:
        """Forget an object."""
        self._chosen.pop(key, None)
