"""The Sprig functions that Flux allows in commit messages (Sprig v3.3 without what reads time, environment or network)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from reconcile.gotemplate.sprig_cases import CASES
from reconcile.gotemplate.sprig_crypto import CRYPTO
from reconcile.gotemplate.sprig_dicts import DICTS
from reconcile.gotemplate.sprig_durations import DURATIONS
from reconcile.gotemplate.sprig_json import JSON
from reconcile.gotemplate.sprig_lists import LISTS
from reconcile.gotemplate.sprig_math import MATH
from reconcile.gotemplate.sprig_misc import MISC
from reconcile.gotemplate.sprig_paths import PATHS
from reconcile.gotemplate.sprig_regex import REGEX
from reconcile.gotemplate.sprig_strings import STRINGS
from reconcile.gotemplate.sprig_urls import URLS
from reconcile.gotemplate.sprig_versions import VERSIONS

SPRIG: Final[Mapping[str, Callable[..., object]]] = MappingProxyType({
    **STRINGS, **CASES, **MATH, **LISTS, **DICTS, **MISC, **PATHS, **JSON, **REGEX, **URLS, **CRYPTO, **DURATIONS, **VERSIONS,
})  # fmt: skip
"""Name to function. `slice` hides the built-in one."""
