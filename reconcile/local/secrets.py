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
                values[str(name)] = base64.b64decode(str(text or ""), validate=False)
            except (binascii.Error, ValueError):
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
                files[str(name)] = folder / Path(value).expanduser()
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
            data[name] = text.encode()
        for name, path in self.files.items():
            try:
                with path.open("rb") as file:
                    data[name] = file.read(MAX_VALUE + 1)
            except OSError as error:
                raise Invalid(f"key '{name}' of secret '{self.key}' needs the file {path}: {error.strerror}") from error
            if len(data[name]) > MAX_VALUE:
                raise Invalid(f"key '{name}' of secret '{self.key}': the file {path} is larger than {MAX_VALUE // 1024} KiB")
        return Secret(self.key, self.type, data)


def _mapping(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise Invalid(f"{name} must be a mapping")
    return value
