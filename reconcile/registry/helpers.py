"""The user's own docker configuration with its credential helper programs; for the mode without a cluster.

A helper is a program `docker-credential-<name>` on PATH that answers one host on standard input with JSON on standard output
(docker's credential helper protocol). Answers are kept for a few minutes, so that a steady scan starts no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from reconcile.errors import Invalid, MissingProgram
from reconcile.ports.clock import Clock, SystemClock
from reconcile.redact import redact
from reconcile.registry.errors import CredentialError
from reconcile.registry.keychain import Anonymous, Credential, DockerKeychain, Keychain, keychain_from_docker_config
from reconcile.registry.names import DOCKER_HUB, Repository
from reconcile.runtime.processes import end, start

MAX_CONFIG = 1024 * 1024
MAX_ANSWER = 64 * 1024
HELPER_TIMEOUT = 10.0
"""Seconds for one run of a helper; some ask a key ring, none may wait for a person."""

HELPER_LIFE = 300.0
"""Seconds an answer is kept."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HUB_URL = "https://index.docker.io/v1/"
_NOT_FOUND = ("credentials not found", "no credentials", "not found in native keychain")
_TOKEN_USER = "<token>"  # noqa: S105 - the protocol's marker, not a secret
_KEPT = 1_000


@dataclass
class UserKeychain:
    """Credentials as docker and podman find them: a helper for the host, the general store, then `auths`.

    Attributes:
        path: the configuration file; read again when it changes.
        environment: environment variables for helpers.
        timeout: seconds for one run of a helper.
        clock: time.
    """

    path: Path
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    timeout: float = HELPER_TIMEOUT
    clock: Clock = field(default_factory=SystemClock)
    _state: tuple[int, int] | None = field(default=None, repr=False)
    _config: dict[str, Any] = field(default_factory=dict, repr=False)
    _auths: DockerKeychain = field(default_factory=lambda: DockerKeychain(()), repr=False)
    _answers: OrderedDict[tuple[str, str], tuple[Credential | None, float]] = field(default_factory=OrderedDict, repr=False)

    async def resolve(self, repository: Repository) -> Credential | None:
        """The credential for `repository`, or None.

        Raises:
            Invalid: the configuration cannot be read.
            MissingProgram: the helper that the configuration names is not installed.
            CredentialError: the helper failed.
        """
        self._load()
        host = repository.registry
        helpers = self._config.get("credHelpers")
        named = helpers if isinstance(helpers, dict) else {}
        keys = (_HUB_URL, DOCKER_HUB, "docker.io") if host == DOCKER_HUB else (host, f"https://{host}")
        helper = next((named[key] for key in keys if key in named), None) or self._config.get("credsStore")
        if helper:
            credential = await self._ask(str(helper), _HUB_URL if host == DOCKER_HUB else host)
            if credential is not None:
                return credential
        return self._auths.find(repository)

    def _load(self) -> None:
        try:
            status = self.path.stat()
            if (status.st_mtime_ns, status.st_size) == self._state:
                return
            with self.path.open("rb") as file:
                content = file.read(MAX_CONFIG + 1)
        except FileNotFoundError:
            self._state, self._config, self._auths = None, {}, DockerKeychain(())
            return
        except OSError as error:
            raise Invalid(f"cannot read '{self.path}': {error.strerror}") from error
        if len(content) > MAX_CONFIG:
            raise Invalid(f"'{self.path}' is larger than {MAX_CONFIG} bytes")
        self._auths = keychain_from_docker_config(content)
        self._config = orjson.loads(content)
        self._state = status.st_mtime_ns, status.st_size
        self._answers.clear()

    async def _ask(self, helper: str, server: str) -> Credential | None:
        key = helper, server
        credential, until = self._answers.get(key, (None, 0.0))
        if self.clock.monotonic() < until:
            return credential
        credential = await run_helper(helper, server, environment=self.environment, timeout=self.timeout)
        self._answers[key] = credential, self.clock.monotonic() + HELPER_LIFE
        while len(self._answers) > _KEPT:
            self._answers.popitem(last=False)
        return credential


def keychain_from_user_docker_config(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Keychain:
    """The keychain of the user's configuration, or of `path`.

    Without `path`: `$DOCKER_CONFIG/config.json` (or `~/.docker/config.json`), `$REGISTRY_AUTH_FILE`,
    `$XDG_RUNTIME_DIR/containers/auth.json`, the first that exists. None of them there is anonymous access.
    """
    variables = os.environ if environment is None else environment
    if path is not None:
        return UserKeychain(path, variables)
    places = (
        (variables.get("DOCKER_CONFIG") or f"{variables.get('HOME') or Path.home()}/.docker", "config.json"),
        (variables.get("REGISTRY_AUTH_FILE"), ""),
        (variables.get("XDG_RUNTIME_DIR"), "containers/auth.json"),
    )
    for folder, name in places:
        if folder and (file := Path(folder, name)).is_file():
            return UserKeychain(file, variables)
    return Anonymous()


async def run_helper(
    name: str, server: str, *, environment: Mapping[str, str], timeout: float = HELPER_TIMEOUT
) -> Credential | None:
    """What `docker-credential-<name> get` says about `server`; None when it has no credential.

    Raises:
        MissingProgram: no such program.
        CredentialError: it failed, took too long, or said something else; its answer is not quoted.
    """
    program = f"docker-credential-{name}"
    if not _NAME.fullmatch(name):
        raise CredentialError(f"docker configuration: {name[:40]!r} cannot be the name of a credential helper")
    found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        raise MissingProgram(
            f"the docker configuration asks for '{program}', which is not on PATH; install it or remove it there"
        )
    process = await start(
        found,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environment),
    )
    try:
        async with asyncio.timeout(timeout):
            output = await _talk(process, f"{server}\n".encode())
            code = await process.wait()
    except TimeoutError as error:
        raise CredentialError(f"{program}: no answer within {timeout:g}s") from error
    finally:
        await end(process)
    return _parse(output, code, program)


async def _talk(process: asyncio.subprocess.Process, question: bytes) -> bytes:
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101 - likewise
    with contextlib.suppress(ConnectionError):  # a helper may answer without reading
        process.stdin.write(question)
        await process.stdin.drain()
        process.stdin.close()
    output = bytearray()
    while len(output) <= MAX_ANSWER:
        piece = await process.stdout.read(MAX_ANSWER)
        if not piece:
            return bytes(output)
        output += piece
    raise CredentialError(f"credential helper: the answer is larger than {MAX_ANSWER} bytes")


def _parse(output: bytes, code: int, program: str) -> Credential | None:
    if code != 0:
        said = redact(output[:200].decode("utf-8", "replace").strip())
        if any(phrase in said.lower() for phrase in _NOT_FOUND):
            return None
        raise CredentialError(f"{program}: exit status {code}: {said}")
    try:
        document = orjson.loads(output)
        username, secret = document["Username"], document["Secret"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CredentialError(f"{program}: the answer has no Username and Secret") from error
    if not isinstance(username, str) or not isinstance(secret, str):
        raise CredentialError(f"{program}: Username and Secret are not texts")
    if not username and not secret:
        return None
    return Credential(identity_token=secret) if username == _TOKEN_USER else Credential(username, secret)
