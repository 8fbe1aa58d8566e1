"""From the spec of a Bucket to a client for it: Secrets, trust, proxy, credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import orjson

from reconcile.api.meta import Key, LocalReference
from reconcile.api.source import BucketSpec
from reconcile.api.source_bucket import BucketSTS
from reconcile.errors import Failed, Invalid, NotFound, Stalled
from reconcile.net.client import Client, Limits, make_client
from reconcile.net.proxy import Proxy, proxy_from_secret
from reconcile.net.tls import DEFAULT, Tls, tls_from_secret
from reconcile.ports.clock import Clock, SystemClock
from reconcile.ports.store import Secret, Store
from reconcile.registry.sigv4 import AwsKeys
from reconcile.sources.buckets import azure_entra, azure_login
from reconcile.sources.buckets.azure import AzureClient, Login
from reconcile.sources.buckets.client import BucketClient
from reconcile.sources.buckets.gcs import GcsClient
from reconcile.sources.buckets.logins import Logins, Network
from reconcile.sources.buckets.s3 import S3Client
from reconcile.sources.buckets.s3_endpoint import check_bucket, place_of
from reconcile.sources.buckets.sts import check_endpoint
from reconcile.sources.buckets.transfer import AsStored
from reconcile.sources.buckets.trust import AZURE, GOOGLE, belongs_to, check_token_service

AUTHENTICATION_FAILED = "AuthenticationFailed"
CLIENT_ERROR = "ClientError"
INVALID_STS = "InvalidSTSConfiguration"

GOOGLE_HOST = "storage.googleapis.com"

Make = Callable[[Client], BucketClient]
"""Makes the client for a bucket on a client for HTTP; raises Invalid."""


@dataclass
class BucketAccess:
    """Makes clients for buckets.

    Attributes:
        store: where Secrets are.
        logins: logins, and what they gave.
        network: how the outside is reached where a Bucket says nothing of it.
        connections: open connections of one client, which is also how many objects are fetched at once.
        clock: time.
    """

    store: Store
    logins: Logins = field(default_factory=Logins)
    network: Network = field(default_factory=Network)
    connections: int = 32
    clock: Clock = field(default_factory=SystemClock)

    @asynccontextmanager
    async def opened(self, namespace: str, spec: BucketSpec) -> AsyncIterator[BucketClient]:
        """A client for the bucket that `spec` names, with what the Secrets of `namespace` hold; closed at the end.

        Raises:
            Failed: AuthenticationFailed, or ClientError for what can be no address of a bucket.
            Stalled: InvalidSTSConfiguration, URLInvalid.
        """
        try:
            secret = await self._secret(namespace, spec.secret_ref)
            network = replace(self.network, proxy=await self._proxy(namespace, spec.proxy_secret_ref))
            match spec.provider:
                case "gcp":
                    make = self._google(spec, secret, network)
                case "azure":
                    make = self._azure(spec, secret, network)
                case _:
                    network, make = await self._s3(namespace, spec, secret, network)
        except (NotFound, Invalid) as error:
            raise Failed(AUTHENTICATION_FAILED, str(error)) from error
        async with self._http(network) as http:
            try:
                client = make(http)
            except Invalid as error:
                raise Failed(CLIENT_ERROR, str(error)) from error
            yield client

    def _http(self, network: Network) -> Client:
        limits = Limits(connections=self.connections, idle_connections=self.connections)
        return make_client(
            tls=network.tls,
            proxy=network.proxy,
            timeout=network.timeout,
            limits=limits,
            retry=network.retry,
            clock=self.clock,
            around=AsStored,
            environment=network.environment,
        )

    # --- S3

    async def _s3(self, namespace: str, spec: BucketSpec, secret: Secret | None, network: Network) -> tuple[Network, Make]:
        static = _static_keys(secret) if secret is not None else None
        # As upstream, only the generic provider has certificates of its own: Amazon's are known to everybody.
        reference = spec.cert_secret_ref if spec.provider == "generic" else None
        network = replace(network, tls=await self._tls(namespace, reference))
        login = await self._token_service(namespace, spec, spec.sts, network) if spec.sts is not None else None

        def make(http: Client) -> BucketClient:
            place = place_of(spec.endpoint, spec.bucket_name, region=spec.region, insecure=bool(spec.insecure))
            sts = spec.sts.endpoint if spec.sts is not None else ""
            own = replace(network, tls=DEFAULT)

            async def keys(region: str) -> AwsKeys | None:
                if secret is not None:
                    return static
                if spec.provider == "aws":
                    return await self.logins.ambient_aws(region, place.domain, sts, own)
                return await self.logins.ldap(sts, *login[:2], login[2]) if login is not None else None

            return S3Client(http, place, keys, self.clock, network.retry)

        return network, make

    async def _token_service(
        self, namespace: str, spec: BucketSpec, sts: BucketSTS, network: Network
    ) -> tuple[str, str, Network] | None:
        """User, password and network for an LDAP login; None where the identity is the process's own."""
        secret = await self._secret(namespace, sts.secret_ref)
        try:
            tls = await self._tls(namespace, sts.cert_secret_ref)
        except (NotFound, Invalid) as error:
            raise Invalid(f"failed to get STS TLS config: {error}") from error
        wanted = {"aws": "aws", "generic": "ldap"}.get(spec.provider)
        if wanted is None:
            raise Stalled(INVALID_STS, f"STS configuration is not supported for '{spec.provider}' bucket provider")
        if sts.provider != wanted:
            raise Stalled(INVALID_STS, f"STS provider '{sts.provider}' is not supported for '{spec.provider}' bucket provider")
        check_endpoint(sts.endpoint)
        if sts.provider == "aws":
            if secret is not None or sts.cert_secret_ref is not None:
                what = "secretRef" if secret is not None else "certSecretRef"
                raise Stalled(INVALID_STS, f"spec.sts.{what} is not required for the 'aws' STS provider")
            check_token_service(sts.endpoint)
            return None
        values = [secret.data.get(name, b"") if secret is not None else b"" for name in ("username", "password")]
        if not all(values):
            name = secret.key.name if secret is not None else ""
            raise Invalid(f"invalid '{name}' secret data for 'ldap' STS provider: required fields username, password")
        username, password = (_decoded(value, "the STS secret") for value in values)
        return username, password, replace(network, tls=tls)

    # --- Google

    def _google(self, spec: BucketSpec, secret: Secret | None, network: Network) -> Make:
        account = _service_account(secret) if secret is not None else None

        def make(http: Client) -> BucketClient:
            base = _google_base(spec.endpoint, insecure=bool(spec.insecure))
            check_bucket(spec.bucket_name)

            async def token() -> str:
                if account is None and not belongs_to(base, GOOGLE):
                    return ""
                return await self.logins.google(account, network)

            return GcsClient(http, base, spec.bucket_name, token, self.clock, network.retry)

        return make

    # --- Azure

    def _azure(self, spec: BucketSpec, secret: Secret | None, network: Network) -> Make:
        data = secret.data if secret is not None else {}
        if secret is not None and not _speaks_of_azure(data):
            raise Invalid(
                f"invalid '{secret.key.name}' secret data: requires a 'clientId' or 'accountKey' field, a combination of "
                "'tenantId', 'clientId' and 'clientSecret', or 'tenantId', 'clientId' and 'clientCertificate'"
            )
        who = azure_entra.application(data)

        def make(http: Client) -> BucketClient:
            account = azure_login.account_of(spec.endpoint)
            check_bucket(spec.bucket_name.removeprefix("$"))
            login = self._azure_login(account, data, who, network)
            return AzureClient(http, account.base, spec.bucket_name, login, self.clock, network.retry)

        return make

    def _azure_login(
        self,
        account: azure_login.Account,
        data: Mapping[str, bytes],
        who: azure_entra.Application | None,
        network: Network,
    ) -> Login:
        logins = self.logins
        if who is not None:
            return azure_login.Bearer(lambda: logins.application(who, network))
        own = belongs_to(account.base, AZURE)
        client = _decoded(data.get("clientId", b""), "'clientId'").strip()
        if client and own:
            return azure_login.Bearer(lambda: logins.managed(client, network))
        if client:
            raise Invalid(f"the managed identity is only shown to Azure's own https addresses, not to '{account.base}'")
        if "accountKey" in data:
            return azure_login.shared_key(account.name, data["accountKey"], self.clock)
        if "sasKey" in data or account.query:
            return azure_login.sas(data.get("sasKey", b"") or account.query.encode(), account.query)
        return azure_login.Bearer(lambda: logins.ambient_azure(network)) if own else azure_login.Anonymous()

    # --- Secrets

    async def _secret(self, namespace: str, reference: LocalReference | None) -> Secret | None:
        if reference is None:
            return None
        key = Key(namespace, reference.name)
        try:
            return await self.store.secret(key)
        except NotFound as error:
            raise NotFound(f"failed to get secret '{key}': {error}") from error

    async def _proxy(self, namespace: str, reference: LocalReference | None) -> Proxy | None:
        secret = await self._secret(namespace, reference)
        return proxy_from_secret(str(secret.key), secret.data) if secret is not None else self.network.proxy

    async def _tls(self, namespace: str, reference: LocalReference | None) -> Tls:
        secret = await self._secret(namespace, reference)
        return tls_from_secret(str(secret.key), secret.data) if secret is not None else DEFAULT


def _static_keys(secret: Secret) -> AwsKeys | None:
    if not {"accesskey", "secretkey"} <= secret.data.keys():
        raise Invalid(f"invalid '{secret.key.name}' secret data: required fields 'accesskey' and 'secretkey'")
    what = f"secret '{secret.key}'"
    access, private = (_decoded(secret.data[name], what).strip() for name in ("accesskey", "secretkey"))
    return AwsKeys(access, private) if access and private else None  # empty ones stand for nobody, as upstream


def _service_account(secret: Secret) -> tuple[dict[str, Any], bytes]:
    """The content of a key; other kinds of credentials name files and addresses to read, which no Secret shall do."""
    if "serviceaccount" not in secret.data:
        raise Invalid(f"invalid '{secret.key.name}' secret data: required fields 'serviceaccount'")
    text = secret.data["serviceaccount"]
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or found.get("type") != "service_account":
        raise Invalid(f"invalid '{secret.key.name}' secret data: 'serviceaccount' is not the JSON key of a service account")
    return found, text


def _speaks_of_azure(data: Mapping[str, bytes]) -> bool:
    return any(name in data for name in ("clientId", "accountKey", "sasKey", "authorityHost"))


def _google_base(endpoint: str, *, insecure: bool) -> str:
    scheme = "http" if insecure else "https"
    text = endpoint.partition("://")[2] if "://" in endpoint else endpoint
    try:
        url = httpx.URL(f"{scheme}://{text or GOOGLE_HOST}")
    except httpx.InvalidURL:
        raise Invalid(f"endpoint '{endpoint}' is not a host with an optional port") from None
    if not url.host or url.path not in {"", "/"} or url.query or url.userinfo:
        raise Invalid("the endpoint must be a host with an optional port, and nothing more")
    return f"{scheme}://{url.netloc.decode('ascii')}"


def _decoded(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{what}: a value is not UTF-8 text") from None
