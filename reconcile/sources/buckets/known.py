"""What is known of a stored artifact: which version of which object each of its files is.

Kept beside the service's other files, so that it outlives a restart. It is only ever a help: without it, or when it speaks of
another artifact, everything is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from reconcile.api.meta import Key

MAX_FILE = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Known:
    """Objects in an artifact.

    Attributes:
        digest: digest of the artifact's file.
        bucket: which bucket they came from; an etag means nothing in another.
        etags: version of each object, by key.
    """

    digest: str = ""
    bucket: str = ""
    etags: Mapping[str, str] = field(default_factory=dict)


class Memory:
    """One file for each Bucket in a folder that belongs to this alone. All methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: Key, digest: str, bucket: str) -> Known:
        """What is known of the artifact with `digest`, which came from `bucket`; nothing when it is of another, or unreadable."""
        nothing = Known(digest, bucket)
        try:
            with self._file(key).open("rb") as file:
                document = orjson.loads(file.read(MAX_FILE))
        except (OSError, orjson.JSONDecodeError):
            return nothing
        if not isinstance(document, dict) or (document.get("digest"), document.get("bucket")) != (digest, bucket):
            return nothing
        etags = document.get("etags")
        if not isinstance(etags, dict) or not all(isinstance(etag, str) for etag in etags.values()):
            return nothing
        return Known(digest, bucket, etags)

    def save(self, key: Key, known: Known) -> None:
        """Keep `known` in the place of what was known; atomic. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = orjson.dumps({"digest": known.digest, "bucket": known.bucket, "etags": dict(known.etags)})
        descriptor, name = tempfile.mkstemp(prefix=".", dir=self._folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(name).replace(self._file(key))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def forget(self, key: Key) -> None:
        """The Bucket is gone."""
        with suppress(OSError):
            self._file(key).unlink()

    def _file(self, key: Key) -> Path:
        return self._folder / (hashlib.sha256(str(key).encode()).hexdigest() + ".json")
