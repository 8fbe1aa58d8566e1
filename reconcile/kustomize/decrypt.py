"""Decryption with sops: of files before a build, of objects after it; and the refusal of Secrets that nobody decrypts.

What is decrypted is in memory, or in the private copy of the sources that the build reads, and nowhere else: not in a message,
a log or a temporary file. Keys are in the environment of sops' process or in a private home that goes with the decryptor.
Nothing is started before the first encrypted document, and OpenPGP keys are imported once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from reconcile.errors import Invalid, MissingProgram, ReconcileError
from reconcile.git.environment import write_private
from reconcile.kustomize.child import Ended, run_child
from reconcile.kustomize.encrypted import Encrypted, encrypted_files, replace
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.ids import marked, resource_id
from reconcile.kustomize.keys import KeyRefused, Keys, parse_keys, process_environment
from reconcile.kustomize.sops import SECONDS, Format, Sops, detected, format_for
from reconcile.kustomize.workspace import Workspace, Workspaces
from reconcile.ports.cluster import Object
from reconcile.redact import redact

DECRYPT: Final = "kustomize.toolkit.fluxcd.io/decrypt"
"""Annotation; `disabled` leaves an object encrypted, and nobody complains."""

_GPG_SECONDS: Final = 30.0
_GPG_OUTPUT: Final = 1024 * 1024
_LONGEST_HOME: Final = 80
"""Characters; the path of an agent's socket, some 30 longer, may have 107 bytes."""


class EncryptedSecret(ReconcileError):
    """A Secret would be applied as ciphertext."""


def is_encrypted_object(obj: Mapping[str, Any]) -> bool:
    """Whether sops has encrypted an object: it has a `sops.mac`."""
    sops = obj.get("sops")
    return isinstance(sops, Mapping) and bool(sops.get("mac"))


def refuse_encrypted(objects: Iterable[Mapping[str, Any]]) -> None:
    """Refuse Secrets that are still encrypted, whichever of their fields is. Ask before objects are fitted to their schema.

    Raises:
        EncryptedSecret: Flux's message for the first of them. Flux itself applies those whose `stringData` is encrypted.
    """
    for obj in objects:
        if obj.get("kind") == "Secret" and obj.get("apiVersion") == "v1" and is_encrypted_object(obj) and not _left_alone(obj):
            metadata = obj.get("metadata") or {}
            name = "/".join(str(part) for part in ("Secret", metadata.get("namespace"), metadata.get("name")) if part)
            raise EncryptedSecret(
                f"{name} is SOPS encrypted, configuring decryption is required for this secret to be reconciled"
            )


def _left_alone(obj: Mapping[str, Any]) -> bool:
    return marked(obj, DECRYPT, labels=False)


class Decryption:
    """Makes decryptors; one for the whole process.

    Attributes:
        processes: How many processes have been started, by their names (`sops`, `gpg`, `gpgconf`).
    """

    def __init__(
        self, folder: Path, *, sops: Path | None = None, seconds: float = SECONDS, surrounding: Mapping[str, str] = os.environ
    ) -> None:
        """
        Args:
            folder: Where private homes are made; what a killed process left there goes when the next one needs it.
            sops: The program; the one on PATH by default.
            seconds: How long one document may take.
            surrounding: The service's own environment, see `process_environment`.
        """
        self.processes: Counter[str] = Counter()
        self._workspaces = Workspaces(_short(folder.absolute()))
        self._sops = sops
        self._seconds = seconds
        self._surrounding = surrounding

    @contextlib.asynccontextmanager
    async def opened(self, data: Mapping[str, bytes], *, only_age: bool = False) -> AsyncIterator[Decryptor]:
        """A decryptor with the keys of a Secret.

        Args:
            data: The decoded `data` of the Secret that `spec.decryption.secretRef` names; empty when it names none.
            only_age: Only age identities count, as in the Secret that serves everybody.

        Raises:
            BuildFailed: A key cannot be used. No usable key at all is no error before something is to be decrypted.
        """
        try:
            keys = parse_keys(data, only_age=only_age)
        except KeyRefused as error:
            raise BuildFailed(str(error)) from None
        decryptor = Decryptor(self, keys)
        try:
            yield decryptor
        finally:
            await asyncio.shield(decryptor.close())

    async def home(self) -> Workspace:
        """A new private folder."""
        return await asyncio.to_thread(self._workspaces.make)

    def sops(self, home: Path, keys: Keys) -> Sops:
        """The program, with these keys."""
        environment = self.environment(home, keys)
        return Sops(home, environment, keys.secrets, program=self._sops, seconds=self._seconds, counts=self.processes)

    def environment(self, home: Path, keys: Keys) -> dict[str, str]:
        """The environment of sops and gpg."""
        found = process_environment(keys, str(home), self._surrounding)
        return {**found, **{variable: str(home / variable.lower()) for variable in keys.files}}

    def close(self) -> None:
        """Remove all homes; decryptors must no longer be used."""
        self._workspaces.close()


class Decryptor:
    """Decrypts what belongs to one build."""

    def __init__(self, decryption: Decryption, keys: Keys) -> None:
        """Use `opened`, or `Decryption.opened`."""
        self._decryption = decryption
        self._keys = keys
        self._guard = asyncio.Lock()
        self._home: Workspace | None = None
        self._sops: Sops | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, data: Mapping[str, bytes], folder: Path, *, only_age: bool = False, sops: Path | None = None
    ) -> AsyncIterator[Decryptor]:
        """A decryptor whose private home is below `folder`; the rest as for `Decryption`."""
        decryption = Decryption(folder, sops=sops)
        try:
            async with decryption.opened(data, only_age=only_age) as decryptor:
                yield decryptor
        finally:
            await asyncio.to_thread(decryption.close)

    async def files(self, root: Path, path: str) -> None:
        """Decrypt in place the files that the kustomization in `path` refers to.

        Args:
            root: A private copy of an artifact; files in it are replaced, never written.
            path: The folder, relative to the root.

        Raises:
            BuildFailed: A file cannot be decrypted, or there is no kustomization file.
            MissingProgram: There is no sops, or no gpg that is needed.
        """
        found = encrypted_files(root, path)
        while (one := await asyncio.to_thread(next, found, None)) is not None:
            data = await self._file(one)
            await asyncio.to_thread(replace, root, one.path, data)

    async def _file(self, one: Encrypted) -> bytes:
        try:
            return await self._decrypted(one.data, one.form, one.form)
        except MissingProgram:
            raise
        except ReconcileError as error:
            raise BuildFailed(f"error decrypting sources: failed to decrypt file '{one.path}': {error}") from None

    async def object(self, obj: Object) -> Object:
        """`obj` decrypted: as a whole if sops has encrypted it, else the values of a Secret's `data` that are documents of sops.

        The very same object when nothing in it is encrypted, or its annotation says to leave it alone.

        Raises:
            BuildFailed: `decryption failed for '<id>': …` in Flux's words.
            MissingProgram: There is no sops, or no gpg that is needed.
        """
        if _left_alone(obj):
            return obj
        if is_encrypted_object(obj):
            return await self._whole(obj)
        return await self._values(obj) if obj.get("kind") == "Secret" and isinstance(obj.get("data"), dict) else obj

    async def _whole(self, obj: Object) -> Object:
        try:
            data = await self._decrypted(orjson.dumps(obj, option=orjson.OPT_SORT_KEYS), Format.JSON, Format.JSON)
            found = orjson.loads(data)
        except MissingProgram:
            raise
        except (ReconcileError, orjson.JSONDecodeError, TypeError) as error:
            said = error if isinstance(error, ReconcileError) else "it is no JSON"
            raise _failed(obj, f"{obj.get('kind')} data: {said}") from None
        if not isinstance(found, dict):
            raise _failed(obj, f"{obj.get('kind')} data: it is no object")
        return found

    async def _values(self, obj: Object) -> Object:
        changed: dict[str, str] = {}
        for key, value in obj["data"].items():
            data = _decoded(value)
            source = None if data is None else detected(data)
            if data is None or source is None:
                continue
            try:
                changed[key] = base64.b64encode(await self._decrypted(data, source, format_for(key))).decode()
            except MissingProgram:
                raise
            except ReconcileError as error:
                raise _failed(obj, f"Secret field '{key}': {error}") from None
        return {**obj, "data": {**obj["data"], **changed}} if changed else obj

    async def _decrypted(self, data: bytes, source: Format, target: Format) -> bytes:
        return await (await self._ready()).decrypt(data, source, target)

    async def _ready(self) -> Sops:
        """The program with all keys at hand; the first time they are put where it finds them."""
        async with self._guard:
            if self._sops is None:
                if self._home is None:
                    self._home = await self._decryption.home()
                home = self._home.root
                await asyncio.to_thread(_furnish, home, self._keys)
                await self._import(home)
                self._sops = self._decryption.sops(home, self._keys)
            return self._sops

    async def _import(self, home: Path) -> None:
        for name, key in self._keys.pgp.items():
            ended = await self._gpg(home, "gpg", "--batch", "--no-tty", "--quiet", "--import", stdin=key)
            if ended is None:
                raise MissingProgram("'gpg' is not installed: install GnuPG 2 and put it on PATH")
            if ended.status != 0:
                lines = redact(ended.stderr.replace(str(home), "~")).strip().splitlines() or [f"gpg ended with {ended.status}"]
                raise Invalid(f"failed to import '{name}' data: {lines[-1][:500]}")

    async def _gpg(self, home: Path, program: str, *arguments: str, stdin: bytes = b"") -> Ended | None:
        """What `gpg` or `gpgconf` said; None when it is not installed."""
        environment = self._decryption.environment(home, Keys())
        found = shutil.which(program, path=environment.get("PATH"))
        if found is None:
            return None
        self._decryption.processes[program] += 1
        return await run_child([found, *arguments], environment, home, stdin=stdin, seconds=_GPG_SECONDS, most_bytes=_GPG_OUTPUT)

    async def close(self) -> None:
        """End what gpg has left running, remove the home."""
        async with self._guard:
            home, self._home, self._sops = self._home, None, None
            if home is None:
                return
            try:
                if (home.root / "gnupg" / "S.gpg-agent").exists():
                    with contextlib.suppress(ReconcileError):
                        await self._gpg(home.root, "gpgconf", "--kill", "all")
            finally:
                await asyncio.to_thread(home.remove)


def _failed(obj: Mapping[str, Any], what: str) -> BuildFailed:
    metadata = obj.get("metadata") or {}
    name = f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}"
    return BuildFailed(f"decryption failed for '{resource_id(obj)}': failed to decrypt and format '{name}' {what}")


def _decoded(value: Any) -> bytes | None:
    """The bytes of a value; None when it is no base64, which the API server will say."""
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return None


def _furnish(home: Path, keys: Keys) -> None:
    """Put credentials that must be files, and settings that keep gpg from asking anybody."""
    gnupg = home / "gnupg"
    if gnupg.exists():
        return
    for variable, data in keys.files.items():
        write_private(home / variable.lower(), data)
    gnupg.mkdir(0o700)
    write_private(gnupg / "gpg.conf", b"batch\nquiet\nno-tty\npinentry-mode error\nno-auto-key-retrieve\nno-greeting\n")
    write_private(gnupg / "gpg-agent.conf", b"disable-scdaemon\nno-allow-external-cache\n")


def _short(folder: Path) -> Path:
    """`folder`, or one for temporary files if sockets below it would have too long a path."""
    if len(os.fsencode(folder)) <= _LONGEST_HOME - 25:
        return folder
    other = Path(tempfile.gettempdir()) / f"imagebot-sops-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        other.mkdir(0o700)
    status = other.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise Invalid(f"'{other}' is not a private folder of ours")
    return other
