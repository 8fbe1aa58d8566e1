"""Keys for a limited time from a security token service, for LDAP users (MinIO's `AssumeRoleWithLDAPIdentity`)."""

from __future__ import annotations

import httpx

from reconcile.errors import Stalled
from reconcile.net.client import Client
from reconcile.ports.clock import Clock, parse_timestamp
from reconcile.registry.cloud import exchange
from reconcile.registry.errors import CredentialError
from reconcile.registry.sigv4 import AwsKeys
from reconcile.sources.buckets.client import BadAnswer
from reconcile.sources.buckets.xmldata import parse

VERSION = "2011-06-15"
DEFAULT_LIFE = 3600.0
"""Seconds that keys are good for where the service does not say."""


def check_endpoint(endpoint: str) -> str:
    """`endpoint` if it is a URL; raises Stalled with reason URLInvalid."""
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL as error:
        raise Stalled("URLInvalid", f"failed to parse STS endpoint '{endpoint}': {error}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise Stalled("URLInvalid", f"failed to parse STS endpoint '{endpoint}': not an http or https URL with a host")
    return endpoint


async def ldap_keys(http: Client, endpoint: str, username: str, password: str, clock: Clock) -> tuple[AwsKeys, float]:
    """Keys for an LDAP user and their life in seconds; raises CredentialError, NetworkError."""
    what = "sts: AssumeRoleWithLDAPIdentity"
    form = {
        "Action": "AssumeRoleWithLDAPIdentity",
        "Version": VERSION,
        "LDAPUsername": username,
        "LDAPPassword": password,
    }
    response = await exchange(http, "POST", endpoint, what=what, form=form)
    try:
        found = parse(response.content, "Credentials").rows
    except BadAnswer as error:
        raise CredentialError(f"{what}: {error}") from error
    credentials = found[0] if found else {}
    access, secret, session = (credentials.get(name, "").strip() for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
    if not (access and secret):
        raise CredentialError(f"{what}: the answer has no keys")
    try:
        life = (parse_timestamp(credentials.get("Expiration", "").strip()) - clock.now()).total_seconds()
    except ValueError:
        life = DEFAULT_LIFE
    return AwsKeys(access, secret, session), max(0.0, life)
