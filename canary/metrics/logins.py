"""Logins of clouds for their metrics: with the identity of this process, or a key of a Secret, kept for most of their life."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from reconcile.errors import Invalid
from reconcile.net.client import Client, make_client
from reconcile.net.proxy import ProxyEnvironment
from reconcile.net.retry import RetryPolicy
from reconcile.ports.clock import Clock, SystemClock
from reconcile.registry.cloud import Channels, Kept
from reconcile.registry.cloud_aws import Aws
from reconcile.registry.cloud_gcp import Gcp
from reconcile.registry.sigv4 import AwsKeys

METADATA_TIMEOUT: Final = 3.0
"""Seconds for each connect, read and write."""
AWS_LIFE: Final = 300.0
"""Seconds for which AWS keys are good whatever is known of them: the services renew them five minutes before their end."""


class Logins:
    """AWS keys and Google tokens.

    Args:
        http: For public endpoints; not this object's to close.
        clock: Time for signatures and lives.
        aws: Who knows the AWS identity; the environment of this process if not given.
        gcp: Who knows the Google identity; the same.
    """

    def __init__(self, http: Client, clock: Clock | None = None, *, aws: Aws | None = None, gcp: Gcp | None = None) -> None:
        clock = clock or SystemClock()
        self._http = http
        self._direct: Client | None = None
        self._clock = clock
        self._aws = aws or Aws(clock=clock)
        self._gcp = gcp or Gcp(clock=clock)
        self._keys: Kept[AwsKeys] = Kept(clock=clock)
        self._tokens: Kept[str] = Kept(clock=clock)

    async def aws_keys(self, region: str, domain: str) -> AwsKeys:
        """AWS keys for a region of the partition with this domain; raises ReconcileError."""

        async def log_in() -> tuple[AwsKeys, float]:
            return await self._aws.keys(region, domain, self._channels()), AWS_LIFE

        return await self._keys.get((region, domain), log_in)

    async def google_token(self, key: bytes | None) -> str:
        """An access token for a service account's key, or for the identity of this process; raises ReconcileError."""

        async def log_in() -> tuple[str, float]:
            if key is None:
                return await self._gcp.token(self._channels())
            return await self._gcp.service_account(_service_account(key), self._channels())

        return await self._tokens.get(key and hashlib.sha256(key).digest(), log_in)

    async def aclose(self) -> None:
        """Close the connections to metadata services."""
        if self._direct is not None:
            await self._direct.aclose()

    def _channels(self) -> Channels:
        if self._direct is None:  # metadata services are on this machine or beside it, never behind a proxy
            self._direct = make_client(
                timeout=METADATA_TIMEOUT, retry=RetryPolicy(attempts=1), clock=self._clock, environment=ProxyEnvironment()
            )
        return Channels(self._http, self._direct)


def _service_account(key: bytes) -> Mapping[str, Any]:
    """The content of a key; other kinds of credentials name files and addresses to read, which no Secret shall do."""
    try:
        found = orjson.loads(key)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or found.get("type") != "service_account":
        raise Invalid("the service account key is not the JSON of a key of type service_account")
    return found
