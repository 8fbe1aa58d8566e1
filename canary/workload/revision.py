"""Short hashes that are equal exactly when what they stand for is equal in meaning. Pure.

Flagger writes FNV sums of a dump of Go's structs, which nobody else can compute and which move with the version of its libraries.
Ours is a SHA-256 of canonical JSON, in Flagger's alphabet, but longer than Flagger's can be, so that the two are told apart.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from reconcile.api.jsondata import encoded

ALPHABET = "456789bcdf"
"""Flagger's: the digits that are safe in names, one for each decimal digit."""
LENGTH = 12
"""Flagger's hashes are 32 bits in decimal: ten characters at most."""

MAX_KNOWN = 8192
"""Hashes that are remembered: the same template is met several times in each tick, and made canonical once."""

_known: OrderedDict[bytes, str] = OrderedDict()

_MEANT_WHEN_EMPTY = frozenset({"labelSelector", "namespaceSelector"})
"""An empty selector selects everything, none selects nothing."""


def canonical(data: Any) -> Any:
    """What is left of JSON data when all is gone that says nothing: nulls, empty objects and lists as values of an object.

    Items of lists stay where they are, and so do empty selectors of labels and namespaces: those select everything.
    """
    if isinstance(data, Mapping):
        kept = ((name, canonical(value)) for name, value in data.items() if value is not None)
        return {name: value for name, value in kept if name in _MEANT_WHEN_EMPTY or value not in ({}, [])}
    if isinstance(data, list | tuple):
        return [canonical(item) for item in data]
    if isinstance(data, float) and data.is_integer():
        return int(data)
    return data


def revision_of(data: Any) -> str:
    """The hash of JSON data: 12 characters of `456789bcdf`.

    The order of names, nulls and empty containers make no difference (`canonical`); everything else does.
    """
    digest = hashlib.sha256(encoded(data)).digest()
    known = _known.get(digest)
    if known is None:
        while len(_known) >= MAX_KNOWN:
            _known.popitem(last=False)
        known = _known[digest] = _hashed(data)
    return known


def _hashed(data: Any) -> str:
    text = json.dumps(canonical(data), sort_keys=True, separators=(",", ":"))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") % 10**LENGTH
    return "".join(ALPHABET[int(digit)] for digit in f"{number:0{LENGTH}}")


def is_ours(text: str) -> bool:
    """Whether a stored hash is one of `revision_of`; those of Flagger are shorter."""
    return len(text) == LENGTH and all(char in ALPHABET for char in text)


def pair_checksum(configs: Mapping[str, str] | None, revision: str) -> str:
    """The `checksum` of webhook payloads: moves when the revision or a tracked ConfigMap or Secret does.

    Args:
        configs: `status.trackedConfigs`; none and none tracked are the same.
        revision: `status.lastAppliedSpec`.
    """
    return revision_of({"trackedConfigs": dict(configs or {}), "lastAppliedSpec": revision})
