"""A body on its way to disk: collected into pieces worth a thread's while, hashed and written there, checked at the end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import BinaryIO

from reconcile.registry.errors import BadAnswer, DigestMismatch

PIECE = 1024 * 1024
"""Bytes collected before a thread is asked to hash and write them."""


async def write_checked(body: AsyncIterator[bytes], out: BinaryIO, digest: str, where: str) -> int:
    """Write `body` to `out`; returns its bytes.

    Args:
        body: pieces of any size.
        out: a file.
        digest: what the whole must have, `sha256:…` or `sha512:…`.
        where: names the request in errors.

    Raises:
        DigestMismatch: the bytes are not those of the digest.
        BadAnswer: the digest is of another kind.
    """
    algorithm = digest.partition(":")[0]
    if algorithm not in {"sha256", "sha512"}:
        raise BadAnswer(f"{where}: digests of kind {algorithm[:40]!r} are not known")
    found, total = await write_hashed(body, out, algorithm)
    if found != digest:
        raise DigestMismatch(f"{where}: digest does not match the content: announced {digest}, content is {found}")
    return total


async def write_hashed(body: AsyncIterator[bytes], out: BinaryIO, algorithm: str = "sha256") -> tuple[str, int]:
    """Write `body` to `out`; returns its digest, `<algorithm>:<hex>`, and its bytes. Hashing and writing are done in a thread."""
    state = hashlib.new(algorithm)
    total = 0

    def write(pieces: list[bytes]) -> None:
        for piece in pieces:
            state.update(piece)
            out.write(piece)

    pieces: list[bytes] = []
    waiting = 0
    async for piece in body:
        pieces.append(piece)
        waiting += len(piece)
        if waiting >= PIECE:
            await asyncio.to_thread(write, pieces)
            total, waiting, pieces = total + waiting, 0, []
    await asyncio.to_thread(write, pieces)
    return f"{algorithm}:{state.hexdigest()}", total + waiting
