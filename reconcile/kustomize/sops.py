"""The `sops` program: formats and their marks, one process per document, and its errors in words that can be shown."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Final

from reconcile.errors import MissingProgram, ReconcileError
from reconcile.git.environment import write_private
from reconcile.kustomize.child import run_child
from reconcile.redact import redact

SECONDS: Final = 60.0
"""For one document; a key service may have to be asked."""

MOST_OUTPUT: Final = 32 * 1024 * 1024
"""Bytes of a decrypted document."""

_NO_DATA_KEY: Final = 128
_MOST_TEXT: Final = 4096
_QUOTE = re.compile(r"(?P<begin> +- \| )(?P<first>.*)(?P<more>(?:\n +\| .*)*)")
_LOCATIONS = re.compile(r" ?Did not find keys in locations? .*", re.DOTALL)


class SopsFailed(ReconcileError):
    """A document cannot be decrypted; the message has sops' words, without paths of ours and without key material."""


class Format(Enum):
    """A format of sops; the value is its name on the command line."""

    JSON = "json"
    YAML = "yaml"
    DOTENV = "dotenv"
    INI = "ini"
    BINARY = "binary"


_MARKS: Final = {
    Format.JSON: b'"mac": "ENC[',
    Format.BINARY: b'"mac": "ENC[',
    Format.YAML: b"mac: ENC[",
    Format.DOTENV: b"sops_mac=ENC[",
    Format.INI: b"[sops]",
}
_SUFFIXES: Final = {
    ".dockerconfigjson": Format.JSON,
    ".json": Format.JSON,
    ".yaml": Format.YAML,
    ".yml": Format.YAML,
    ".env": Format.DOTENV,
    ".ini": Format.INI,
}


def format_for(name: str) -> Format:
    """The format of a file or key by its suffix, binary when it has none that is known."""
    return next((found for suffix, found in _SUFFIXES.items() if name.endswith(suffix)), Format.BINARY)


def is_encrypted(data: bytes, form: Format) -> bool:
    """Whether `data` has the mark of a document of this format that sops has encrypted."""
    return _MARKS[form] in data


def detected(data: bytes) -> Format | None:
    """The format whose mark `data` has. JSON and binary have the same mark and are read the same way."""
    return next((form for form, mark in _MARKS.items() if mark in data), None)


class Sops:
    """Decrypts documents with the keys that an environment leads to."""

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str],
        secrets: Sequence[str],
        *,
        program: Path | None = None,
        seconds: float = SECONDS,
        counts: Counter[str] | None = None,
    ) -> None:
        """
        Args:
            home: A private folder; encrypted documents are put there for sops to read, decrypted ones never.
            environment: The whole environment of each process, keys and credentials among it.
            secrets: Texts that must not be in a message.
            program: sops; the one on PATH by default.
            seconds: How long one document may take.
            counts: Counts processes by the program's name.
        """
        self._home = home
        self._environment = environment
        self._secrets = tuple(secrets)
        self._program = program
        self._seconds = seconds
        self._counts = Counter[str]() if counts is None else counts
        self._number = 0

    async def decrypt(self, data: bytes, source: Format, target: Format) -> bytes:
        """`data`, a document of format `source`, decrypted and written as `target`. Its MAC is not checked: builds add fields.

        Raises:
            SopsFailed: It cannot be decrypted.
            TimedOut: It took too long.
            LimitExceeded: It is too large.
            MissingProgram: There is no sops.
        """
        program = self._program or shutil.which("sops")
        if program is None:
            raise MissingProgram("'sops' is not installed: install sops v3 and put it on PATH")
        self._number += 1
        document = write_private(self._home / f"document-{self._number}", data)
        try:
            argv = [str(program), "--decrypt", "--ignore-mac", "--input-type", source.value, "--output-type", target.value]
            self._counts["sops"] += 1
            ended = await run_child(
                [*argv, str(document)], self._environment, self._home, seconds=self._seconds, most_bytes=MOST_OUTPUT
            )
        finally:
            document.unlink(missing_ok=True)
        if ended.status != 0:
            raise SopsFailed(self._failure(ended.status, ended.stderr.replace(str(document), "document")))
        return ended.stdout

    def _failure(self, status: int, said: str) -> str:
        text = readable(redact(said.replace(str(self._home), "~"), self._secrets)).strip() or f"sops ended with status {status}"
        if status == _NO_DATA_KEY or text.startswith("Failed to get the data key"):
            return f"cannot get sops data key: {text}"
        tree = text.removeprefix("Error decrypting tree: ")
        return f"error decrypting sops tree: {tree}" if tree != text else text


def readable(said: str) -> str:
    """What sops said, without the places where it would have looked for keys of a person, bounded, and wrapped as it does."""
    text = _QUOTE.sub(_requoted, said)
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + " …"


def _requoted(match: re.Match[str]) -> str:
    lines = [match["first"], *(line.partition("| ")[2] for line in match["more"].split("\n")[1:])]
    text = _LOCATIONS.sub("", " ".join(line.strip() for line in lines))
    margin = "\n" + " " * (len(match["begin"]) - 2) + "| "
    return match["begin"] + margin.join(textwrap.wrap(text, 60, break_long_words=False, break_on_hyphens=False))
