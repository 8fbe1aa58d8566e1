"""What is secret in objects that commands print: replaced by stars. Pure.

As the flux command has it: what sops has encrypted is shown as `**SOPS**`; in a comparison the values of Secrets are shown as
stars, which say whether a value is another one and not what it is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Any

from reconcile.apply import pointers
from reconcile.apply.pointers import ABSENT, Path
from reconcile.kustomize.decrypt import is_encrypted_object
from reconcile.kustomize.sops import detected
from reconcile.ports.cluster import Object

MASK = "**SOPS**"
MASK64 = base64.b64encode(MASK.encode()).decode()
"""The mask as a value of a Secret's `data`."""
STARS, BEFORE, AFTER = "*****", "***** (before)", "***** (after)"

_CIPHER = "ENC[AES256_GCM,"
_VALUES = ("data", "stringData")


def without_ciphers(found: Object) -> Object:
    """An object in which everything that sops has encrypted is masked; the very same when nothing is."""
    if is_encrypted_object(found):
        bare = {name: value for name, value in found.items() if name != "sops"}
        return {name: _masked(value, base64ed=_is_secret(found) and name == "data") for name, value in bare.items()}
    if not _is_secret(found):
        return found
    masked: Object = {}
    for name in _VALUES:
        values = found.get(name)
        if isinstance(values, dict):
            mask = MASK64 if name == "data" else MASK
            changed = {key: mask for key, value in values.items() if _is_cipher(value, name)}
            if changed:
                # Of an env file the marks of sops became values too.
                masked[name] = {key: changed.get(key, value) for key, value in values.items() if not key.startswith("sops_")}
    return {**found, **masked} if masked else found


def _masked(value: Any, *, base64ed: bool) -> Any:
    if isinstance(value, dict):
        return {name: _masked(each, base64ed=base64ed) for name, each in value.items()}
    if isinstance(value, list):
        return [_masked(each, base64ed=base64ed) for each in value]
    if isinstance(value, str) and value.startswith(_CIPHER):
        return MASK64 if base64ed else MASK
    return value


def _is_cipher(value: Any, field: str) -> bool:
    """Whether a value of a Secret is one that sops has encrypted, or a whole file that it has."""
    if not isinstance(value, str):
        return False
    try:
        data = value.encode() if field == "stringData" else base64.b64decode(value.replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return data.startswith(_CIPHER.encode()) or detected(data) is not None


def _is_secret(found: Object) -> bool:
    return found.get("kind") == "Secret" and found.get("apiVersion") == "v1"


# --- comparing


def masks_in(found: Object) -> list[Path]:
    """Where an object has masks in the place of what sops encrypted."""
    return list(_places(found, (), lambda value: value in (MASK, MASK64)))


def _places(value: Any, path: Path, chosen: Callable[[Any], bool]) -> Iterator[Path]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _places(each, (*path, str(name)), chosen)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _places(each, (*path, str(index)), chosen)
    elif isinstance(value, str) and chosen(value):
        yield path


def with_live_values(found: Object, live: Object) -> Object:
    """An object with the live values in the place of its masks, so that only what is missing in either of them differs."""
    result: Any = found
    for path in masks_in(found):
        value = pointers.value_at(live, path)
        if value is not ABSENT:
            result = pointers.replaced(result, path, value)
    whole: Object = result
    return whole


def hidden(found: Object, beside: Object | None = None, *, mark: str = STARS, places: tuple[Path, ...] = ()) -> Object:
    """An object of which nothing secret is seen.

    Args:
        found: The object.
        beside: What it is compared with: a value that is another one there, or is not there, is shown as `mark`.
        mark: For values that differ.
        places: Further places that hold what sops had encrypted.
    """
    paths = list(places)
    if _is_secret(found):
        paths += [(field, key) for field in _VALUES if isinstance(found.get(field), dict) for key in found[field]]
    result: Any = found
    for path in dict.fromkeys(paths):
        value = pointers.value_at(found, path)
        same = beside is None or value == pointers.value_at(beside, path)
        result = pointers.replaced(result, path, STARS if same else mark)
    whole: Object = result
    return whole
