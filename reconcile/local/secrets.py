"""Secrets of local mode: manifests whose values may come from the environment or from a file.

::

    apiVersion: v1
    kind: Secret
    metadata: {name: git}
    stringData: {username: bot}
    dataFrom:                          # Extension: nothing secret stands in the folder
      password: {env: GIT_TOKEN}
      ca.crt: {file: ./ca.pem}         # relative to the manifest

Values are read when they are used, never kept, and never appear in a message.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconcile.api.meta import Key
from reconcile.errors import Invalid
from reconcile.ports.store import Secret

MAX_VALUE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where the values of one Secret come from. Its repr shows no value."""

    key: Key
    type: str
    values: dict[str, bytes]
    env: dict[str, str]
    files: dict[str, Path]

    def __repr__(self) -> str:
        return f"SecretSource({self.key}, keys={sorted([*self.values, *self.env, *self.files])})"

    @staticmethod
    def parse(key: Key, body: dict[str, Any], folder: Path) -> SecretSource:
        """The source that a manifest describes; raises Invalid without quoting any value."""
        values: dict[str, bytes] = {}
        for name, text in _mapping(body, "data").items():
            try:
                # Line ends are left out and nothing else is, as in Go: a plain text put here by mistake is told apart.
                plain = re.sub(r"[\r\n]", "", text if text is not None else "")
                values[str(name)] = base64.b64decode(plain, validate=True)
            except (binascii.Error, ValueError, TypeError):
                raise Invalid(f"data.{name} is not base64; use stringData for plain text") from None
        for name, text in _mapping(body, "stringData").items():
            if not isinstance(text, str):
                raise Invalid(f"stringData.{name} must be a string; put it in quotes")
            values[str(name)] = text.encode()
        env, files = {}, {}
        for name, source in _mapping(body, "dataFrom").items():
            if not isinstance(source, dict) or len(source) != 1 or not all(isinstance(v, str) for v in source.values()):
                raise Invalid(f"dataFrom.{name} must be {{env: NAME}} or {{file: PATH}}")
            (kind, value), *_ = source.items()
            if kind == "env":
                env[str(name)] = value
            elif kind == "file":
                files[str(name)] = folder / _expanded(name, value)
            else:
                raise Invalid(f"dataFrom.{name} must be {{env: NAME}} or {{file: PATH}}, not {kind}")
        return SecretSource(key, str(body.get("type") or "Opaque"), values, env, files)

    def read(self) -> Secret:
        """The Secret with all its values; blocks on the disk. Raises Invalid naming the key and the missing source."""
        data = dict(self.values)
        for name, variable in self.env.items():
            text = os.environ.get(variable)
            if text is None:
                raise Invalid(f"key '{name}' of secret '{self.key}' needs the environment variable {variable}, which is not set")
            data[name] = os.fsencode(text)  # the environment may hold bytes that are no text
        for name, path in self.files.items():
            try:
                data[name] = read_regular(path, MAX_VALUE)
            except (OSError, ValueError) as error:
                cause = (error.strerror if isinstance(error, OSError) else None) or str(error)
                raise Invalid(f"key '{name}' of secret '{self.key}' needs the file {path}: {cause}") from None
        return Secret(self.key, self.type, data)


def _mapping(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{name} must be a mapping")
    return value


def _expanded(name: str, value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise Invalid(f"dataFrom.{name}: there is no such user as in {value.partition('/')[0]}") from None


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file; raises OSError, or ValueError for what is none or is larger than `limit`.

    A pipe or a device could block all work for ever, so nothing else is read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"larger than {limit // 1024} KiB")
    return content
