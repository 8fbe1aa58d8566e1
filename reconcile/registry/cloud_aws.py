"""Amazon ECR: AWS credentials from the environment, exchanged for a registry password by `GetAuthorizationToken`.

Credentials are looked for where the AWS SDKs look, in this order: environment variables, web identity (IRSA), the shared
credentials file, the container endpoint (ECS, EKS Pod Identity), instance metadata (IMDSv2).
"""

from __future__ import annotations

import base64
import binascii
import configparser
import html
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from reconcile.net.proxy import is_loopback
from reconcile.ports.clock import Clock, SystemClock
from reconcile.registry.cloud import Channels, Issued, exchange, read_json, read_token, text_of
from reconcile.registry.errors import CredentialError
from reconcile.registry.keychain import Credential
from reconcile.registry.sigv4 import AwsKeys, sign

PUBLIC = "public.ecr.aws"
PUBLIC_REGION = "us-east-1"

PATTERN = (
    r"([0-9]+)\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\."
    r"(amazonaws\.com(?:\.cn)?|amazonaws\.eu|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov|on\.aws)"
)
"""Hosts of private registries; groups 3 and 4 are region and domain. Anchored: no password for hosts that only look alike."""

_HOST = re.compile(PATTERN)
_CONTAINER_HOSTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})


@dataclass(frozen=True)
class AwsEndpoints:
    """Where the services are; tests put their own here. `{region}` and `{domain}` are filled in."""

    ecr: str = "https://api.ecr.{region}.{domain}/"
    ecr_fips: str = "https://ecr-fips.{region}.{domain}/"
    ecr_dual_stack: str = "https://ecr.{region}.api.aws/"
    ecr_public: str = "https://api.ecr-public.us-east-1.amazonaws.com/"
    sts: str = "https://sts.{region}.{domain}/"
    container: str = "http://169.254.170.2"
    metadata: str = "http://169.254.169.254"


@dataclass(frozen=True)
class _Place:
    """What a host says about where its API is."""

    region: str
    domain: str
    endpoint: str
    service: str
    target: str


@dataclass
class Aws:
    """The provider `aws`.

    Attributes:
        environment: environment variables.
        endpoints: where the services are.
        clock: time for signatures and lives.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    endpoints: AwsEndpoints = field(default_factory=AwsEndpoints)
    clock: Clock = field(default_factory=SystemClock)
    name: str = "aws"

    def key(self, registry: str) -> str:
        """The registry itself: tokens are for one account and region."""
        self._place(registry)
        return registry

    async def log_in(self, registry: str, channels: Channels) -> Issued:
        """User `AWS` and its password, good for up to 12 hours."""
        place = self._place(registry)
        keys = await self.keys(place.region, place.domain, channels)
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": place.target}
        signed = sign(
            keys,
            method="POST",
            url=place.endpoint,
            headers=headers,
            body=b"{}",
            region=place.region,
            service=place.service,
            moment=self.clock.now(),
        )
        what = "aws: GetAuthorizationToken"
        response = await exchange(channels.http, "POST", place.endpoint, what=what, headers=signed, content=b"{}")
        return self._issued(read_json(response, what), what)

    def _place(self, registry: str) -> _Place:
        if registry == PUBLIC:
            target = "SpencerFrontendService.GetAuthorizationToken"
            return _Place(PUBLIC_REGION, "amazonaws.com", self.endpoints.ecr_public, "ecr-public", target)
        match = _HOST.fullmatch(registry)
        if match is None:
            raise CredentialError(f"invalid AWS registry: '{registry}'. must match {PATTERN}")
        region, domain = match[3], match[4]
        template = self.endpoints.ecr_fips if match[2] else self.endpoints.ecr
        if domain == "on.aws":
            template, domain = self.endpoints.ecr_dual_stack, "amazonaws.com"
        endpoint = template.format(region=region, domain=domain)
        return _Place(region, domain, endpoint, "ecr", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")

    def _issued(self, document: dict[str, Any], what: str) -> Issued:
        data = document.get("authorizationData")
        entry = data[0] if isinstance(data, list) and data else data
        if not isinstance(entry, dict):
            raise CredentialError(f"{what}: no authorization data returned")
        try:
            decoded = base64.b64decode(text_of(entry, "authorizationToken", what), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise CredentialError(f"{what}: failed to parse authorization token") from error
        username, colon, password = decoded.partition(":")
        if not colon:
            raise CredentialError(f"{what}: invalid authorization token format")
        expires = entry.get("expiresAt")
        life = expires - self.clock.now().timestamp() if isinstance(expires, int | float) else 3600.0
        return Issued(Credential(username, password), max(0.0, life))

    async def keys(self, region: str, domain: str, channels: Channels) -> AwsKeys:
        """The keys of this process's identity, found in `region` of the partition with `domain`; raises `CredentialError`."""
        environment = self.environment
        access, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        if access and secret:
            return AwsKeys(access, secret, environment.get("AWS_SESSION_TOKEN", ""))
        if environment.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environment.get("AWS_ROLE_ARN"):
            return await self._web_identity(region, domain, channels)
        shared = self._shared_file()
        if shared is not None:
            return shared
        relative, full = (environment.get(f"AWS_CONTAINER_CREDENTIALS_{kind}_URI") for kind in ("RELATIVE", "FULL"))
        if relative:
            return await self._container(self.endpoints.container + relative, channels)
        if full:
            return await self._container(_container_url(full), channels)
        if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise CredentialError("aws: no credentials in the environment, and instance metadata is disabled")
        return await self._instance(channels)

    async def _web_identity(self, region: str, domain: str, channels: Channels) -> AwsKeys:
        what = "aws: AssumeRoleWithWebIdentity"
        environment = self.environment
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": environment["AWS_ROLE_ARN"],
            "RoleSessionName": environment.get("AWS_ROLE_SESSION_NAME") or "imagebot",
            "WebIdentityToken": read_token(environment["AWS_WEB_IDENTITY_TOKEN_FILE"], what),
        }
        url = self.endpoints.sts.format(region=environment.get("AWS_REGION") or region, domain=domain)
        response = await exchange(channels.http, "POST", url, what=what, form=form)
        # The answer is XML of a few flat fields; picking them out needs no parser, and no entity is ever expanded.
        found = {
            name: html.unescape(match[1]).strip()
            for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
            if (match := re.search(rf"<{name}>([^<]+)</{name}>", response.text))
        }
        return _keys_of(found, what, "SessionToken")

    def _shared_file(self) -> AwsKeys | None:
        path = self.environment.get("AWS_SHARED_CREDENTIALS_FILE")
        home = self.environment.get("HOME")
        file = Path(path) if path else Path(home, ".aws", "credentials") if home else None
        if file is None or not file.is_file():
            return None
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise CredentialError(f"aws: cannot read '{file}': {type(error).__name__}") from error
        profile = self.environment.get("AWS_PROFILE") or "default"
        if not parser.has_section(profile) or not parser.has_option(profile, "aws_access_key_id"):
            return None
        section = parser[profile]
        return AwsKeys(
            section["aws_access_key_id"], section.get("aws_secret_access_key", ""), section.get("aws_session_token", "")
        )

    async def _container(self, url: str, channels: Channels) -> AwsKeys:
        what = "aws: container credentials"
        file = self.environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
        token = read_token(file, what) if file else self.environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        response = await exchange(channels.direct, "GET", url, what=what, headers={"Authorization": token} if token else {})
        return _keys_of(read_json(response, what), what, "Token")

    async def _instance(self, channels: Channels) -> AwsKeys:
        what = "aws: instance metadata"
        base = self.environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").rstrip("/") or self.endpoints.metadata
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        token = (await exchange(channels.direct, "PUT", f"{base}/latest/api/token", what=what, headers=ttl)).text
        headers = {"X-aws-ec2-metadata-token": token}
        path = f"{base}/latest/meta-data/iam/security-credentials/"
        role = (await exchange(channels.direct, "GET", path, what=what, headers=headers)).text.strip().partition("\n")[0]
        if not re.fullmatch(r"[\w+=,.@-]{1,128}", role):
            raise CredentialError(f"{what}: the instance has no role")
        response = await exchange(channels.direct, "GET", path + role, what=what, headers=headers)
        return _keys_of(read_json(response, what), what, "Token")


def _keys_of(document: Mapping[str, Any], what: str, token_name: str) -> AwsKeys:
    names = ("AccessKeyId", "SecretAccessKey", token_name)
    return AwsKeys(*(text_of(document, name, what) for name in names))


def _container_url(url: str) -> str:
    """A full container endpoint; without TLS only the addresses that AWS uses, so that a variable cannot send us anywhere."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CredentialError("aws: AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL") from error
    if parsed.scheme == "https" or (parsed.scheme == "http" and (parsed.host in _CONTAINER_HOSTS or is_loopback(parsed.host))):
        return url
    raise CredentialError(f"aws: AWS_CONTAINER_CREDENTIALS_FULL_URI: host '{parsed.host}' is not allowed without https")
