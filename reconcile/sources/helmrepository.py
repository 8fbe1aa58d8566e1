"""HelmRepository: the index of a chart repository over HTTP, as the Flux source-controller fetches it.

An unchanged index costs one conditional request. A repository of type `oci` is only data for those who use it: it has no
finalizer, no conditions and no artifact, and what it has from another time is cleared.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.source import HelmRepositorySpec
from reconcile.errors import Failed, Invalid, NotFound, ReconcileError, Stalled
from reconcile.net.proxy import ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.net.tls import DEFAULT, Tls, tls_from_secret
from reconcile.redact import redact_url
from reconcile.runtime.outcome import Success
from reconcile.sources.base import SourcePass, SourceReconciler, SourceTools
from reconcile.sources.helm_fetch import BadUrl, Fetched, Login, Validators, cleaned, fetch, index_url
from reconcile.sources.helm_index import MAX_SIZE, InvalidIndex, human_size
from reconcile.sources.summary import FETCH_FAILED

TIMEOUT = 60.0
INTERVAL = 60.0
OCI = "oci"
TLS_KEYS = frozenset({"tls.crt", "tls.key", "ca.crt", "certFile", "keyFile", "caFile"})


@dataclass(frozen=True, slots=True)
class _Known:
    """What was fetched last, from where and as whom."""

    url: str
    login: Login
    revision: str
    validators: Validators


class HelmRepositoryReconciler(SourceReconciler):
    """Steps: find credentials, ask for the index, clean and store it."""

    kind = "HelmRepository"
    link = "index.yaml"

    def __init__(
        self,
        tools: SourceTools,
        *,
        most_bytes: int = MAX_SIZE,
        environment: ProxyEnvironment | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """`most_bytes` bounds an index; `environment` are proxy variables, by default the process's."""
        super().__init__(tools)
        self._most = most_bytes
        self._environment = environment
        self._retry = retry
        self._known: dict[Key, _Known] = {}
        self._reading = asyncio.Semaphore(1)  # an index of 50 MiB takes half a gigabyte while it is read

    def static(self, resource: AnyResource) -> bool:
        """Whether the object is only data: there is nothing to do for it, and nothing of ours may be on it."""
        return bool(resource.spec.type == OCI)

    async def produce(self, work: SourcePass) -> Success:
        """One pass; raises Stalled for a bad URL, Failed for everything that may pass."""
        spec: HelmRepositorySpec = work.spec
        url = self._url(work)
        login = await self._login(work)
        with tempfile.TemporaryFile() as raw:
            fetched = await self._fetch(work, url, login, raw)
            if fetched is not None and (work.artifact is None or work.artifact.revision != fetched.revision):
                await self._store(work, raw, fetched)
            if fetched is not None:
                self._known[work.key] = _Known(url, login, fetched.revision, fetched.validators)
        artifact = work.artifact
        revision = artifact.revision if artifact is not None else ""
        size = human_size(artifact.size or 0) if artifact is not None else ""
        return work.done(
            f"stored artifact: revision '{revision}'",
            told=f"stored fetched index of size {size} from '{redact_url(spec.url)}'",
            trace=("ArtifactUpToDate", f"artifact up-to-date with remote revision: '{revision}'"),
            interval=float(spec.interval) if spec.interval is not None else INTERVAL,
        )

    async def removed(self, resource: AnyResource) -> None:
        """Forget the object and remove its artifacts."""
        self._known.pop(resource.key, None)
        await super().removed(resource)

    def _url(self, work: SourcePass) -> str:
        url = work.spec.url
        if url.startswith("oci://"):
            text = "'oci' URL scheme cannot be used with 'default' HelmRepository type"
            raise self._invalid(work, text)
        try:
            return index_url(url)
        except BadUrl as error:
            raise self._invalid(work, str(error)) from error

    def _invalid(self, work: SourcePass, text: str) -> Stalled:
        return work.failed(FETCH_FAILED, Stalled("URLInvalid", f"invalid Helm repository URL: {text}"))

    # --- credentials

    async def _login(self, work: SourcePass) -> Login:
        try:
            return await self._read_login(work)
        except ReconcileError as error:
            raise work.failed(FETCH_FAILED, Failed("AuthenticationFailed", str(error))) from error

    async def _read_login(self, work: SourcePass) -> Login:
        spec: HelmRepositorySpec = work.spec
        store, namespace = self.tools.store, work.key.namespace
        tls: Tls | None = None
        if spec.cert_secret_ref is not None:
            key = Key(namespace, spec.cert_secret_ref.name)
            try:
                tls = tls_from_secret(str(key), (await store.secret(key)).data)
            except ReconcileError as error:
                raise Invalid(f"failed to construct Helm client's TLS config: {error}") from error
        username = password = ""
        if spec.secret_ref is not None:
            key = Key(namespace, spec.secret_ref.name)
            try:
                data = (await store.secret(key)).data
            except NotFound as error:
                raise NotFound(f"failed to get authentication secret '{key}': {error}") from error
            username, password = (_text(key, name, data.get(name, b"")) for name in ("username", "password"))
            for has, lacks in (("username", "password"), ("password", "username")):
                if data.get(has) and not data.get(lacks):
                    raise Invalid(f"secret '{key}': malformed basic auth - has '{has}' but missing '{lacks}'")
            if tls is None and not TLS_KEYS.isdisjoint(data):
                tls = tls_from_secret(str(key), data)
        return Login(username, password, tls or DEFAULT)

    # --- index

    async def _fetch(self, work: SourcePass, url: str, login: Login, raw: BinaryIO) -> Fetched | None:
        """The index, or None if it is the one that is stored."""
        spec: HelmRepositorySpec = work.spec
        timeout = float(spec.timeout) if spec.timeout is not None else TIMEOUT
        try:
            return await fetch(
                url,
                login,
                self._conditions(work, url, login),
                raw,
                most=self._most,
                timeout=max(timeout, 1.0),
                environment=self._environment,
                retry=self._retry,
            )
        except ReconcileError as error:
            self._fail(work, str(error), error)
        except TimeoutError as error:
            self._fail(work, f"failed to fetch {redact_url(url)} : context deadline exceeded", error)

    def _fail(self, work: SourcePass, text: str, error: Exception) -> NoReturn:
        raise work.failed(
            FETCH_FAILED,
            Failed("Failed", f"failed to fetch Helm repository index: failed to cache index to temporary file: {text}"),
        ) from error

    def _conditions(self, work: SourcePass, url: str, login: Login) -> Validators | None:
        """What to ask a server by; None for the whole index: somebody asks for it, or it is not the one that we know of."""
        known, artifact = self._known.get(work.key), work.artifact
        if known is None or artifact is None or work.run.requested or work.run.new_generation:
            return None
        same = (known.url, known.login, known.revision) == (url, login, artifact.revision)
        return known.validators if same else None

    async def _store(self, work: SourcePass, raw: BinaryIO, fetched: Fetched) -> None:
        await work.outdated("NewRevision", f"new index revision '{fetched.revision}'")
        with tempfile.TemporaryFile() as text:
            try:
                async with self._reading:
                    await cleaned(raw, fetched.size, text)
            except InvalidIndex as error:
                message = f"failed to load Helm repository from index YAML: {error}"
                raise work.failed(FETCH_FAILED, Failed("IndexationFailed", message)) from error

            def write(out: BinaryIO) -> None:
                text.seek(0)
                shutil.copyfileobj(text, out, 1024 * 1024)

            hexadecimal = fetched.revision.partition(":")[2]
            await work.store(f"index-{hexadecimal}.yaml", fetched.revision, write)


def _text(key: Key, name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Invalid(f"secret '{key}': '{name}' is not UTF-8 text") from None
