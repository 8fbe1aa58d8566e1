"""Entra tokens for Azure Blob Storage out of a Secret: client secret, client certificate, or a managed identity by its id."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12

from reconcile.errors import Invalid
from reconcile.ports.clock import Clock
from reconcile.registry.cloud import Channels, exchange
from reconcile.registry.cloud_azure import ASSERTION, Azure, token_of

RESOURCE = "https://storage.azure.com"
AUTHORITY = "https://login.microsoftonline.com"

ASSERTION_LIFE = 600
"""Seconds for which a proof of the certificate's key is good."""

_TENANT = re.compile(r"[A-Za-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate with its key and the certificates above it."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: rsa.RSAPrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Application:
    """An application of a tenant, and how it proves to be it: by `secret` or by `certificate`.

    Attributes:
        tenant: id or domain of the tenant.
        client: id of the application.
        authority: where tokens are asked for.
        secret: client secret.
        certificate: client certificate.
        send_chain: whether the proof shows the certificates (subject name and issuer authentication).
    """

    tenant: str
    client: str
    authority: str
    secret: str = field(default="", repr=False)
    certificate: Certificate | None = field(default=None, repr=False)
    send_chain: bool = False


def application(data: Mapping[str, bytes]) -> Application | None:
    """The application that a Secret describes; None when it describes none. Raises Invalid."""
    tenant, client, secret, authority = (_text(data, name) for name in ("tenantId", "clientId", "clientSecret", "authorityHost"))
    if not (tenant and client and (secret or data.get("clientCertificate"))):
        return None
    if not _TENANT.fullmatch(tenant):
        raise Invalid("'tenantId' is not a tenant")
    authority = (authority or AUTHORITY).rstrip("/")
    if not authority.startswith("https://"):
        raise Invalid("'authorityHost' is not an https URL")
    if secret:
        return Application(tenant, client, authority, secret=secret)
    certificate = _certificate(data["clientCertificate"], data.get("clientCertificatePassword"))
    send = _text(data, "clientCertificateSendChain").lower() in {"1", "true"}
    return Application(tenant, client, authority, certificate=certificate, send_chain=send)


async def token(who: Application, channels: Channels, clock: Clock, authority: str = "") -> tuple[str, float]:
    """A token and its life in seconds, from `authority` instead of its own if given; raises CredentialError, NetworkError."""
    what = "azure: client secret" if who.secret else "azure: client certificate"
    url = f"{authority or who.authority}/{who.tenant}/oauth2/v2.0/token"
    form = {"grant_type": "client_credentials", "client_id": who.client, "scope": f"{RESOURCE}/.default"}
    if who.certificate is not None:
        form |= {"client_assertion_type": ASSERTION, "client_assertion": assertion(who, who.certificate, url, clock)}
    else:
        form["client_secret"] = who.secret
    return token_of(await exchange(channels.http, "POST", url, what=what, form=form), what)


def assertion(who: Application, certificate: Certificate, audience: str, clock: Clock) -> str:
    """A JSON web token signed by the certificate's key (Microsoft's "certificate credentials")."""
    der = certificate.leaf.public_bytes(Encoding.DER)
    header: dict[str, object] = {"alg": "RS256", "typ": "JWT", "x5t#S256": _base64(hashlib.sha256(der).digest()).decode()}
    header["x5t"] = _base64(hashlib.sha1(der, usedforsecurity=False).digest()).decode()
    if who.send_chain:
        chain = (certificate.leaf, *certificate.chain)
        header["x5c"] = [base64.b64encode(entry.public_bytes(Encoding.DER)).decode() for entry in chain]
    now = int(clock.now().timestamp())
    claims = {"aud": audience, "iss": who.client, "sub": who.client, "jti": str(uuid.uuid4())}
    times = {"nbf": now, "iat": now, "exp": now + ASSERTION_LIFE}
    unsigned = b".".join(_base64(orjson.dumps(part)) for part in (header, {**claims, **times}))
    signature = certificate.key.sign(unsigned, padding.PKCS1v15(), hashes.SHA256())
    return (unsigned + b"." + _base64(signature)).decode("ascii")


async def ambient(azure: Azure, channels: Channels) -> tuple[str, float]:
    """A token of this process's identity; raises CredentialError, NetworkError."""
    return await azure.token(RESOURCE, channels, authority=AUTHORITY)


async def managed(azure: Azure, client: str, channels: Channels) -> tuple[str, float]:
    """A token of the managed identity with this client id; raises CredentialError, NetworkError."""
    return await azure.managed_identity(RESOURCE, client, channels)


def _certificate(data: bytes, password: bytes | None) -> Certificate:
    """Certificate and key out of PEM or PKCS #12."""
    secret = password.strip() or None if password else None
    try:
        if b"-----BEGIN" in data:
            key: object = load_pem_private_key(_block(data, b"PRIVATE KEY"), secret)
            certificates = list(x509.load_pem_x509_certificates(data))
        else:
            key, leaf, others = pkcs12.load_key_and_certificates(data, secret)
            certificates = [*([leaf] if leaf is not None else []), *others]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid("failed to parse client certificates: not PEM or PKCS #12 of a certificate and its key") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Invalid("failed to parse client certificates: the key is not an RSA key")
    numbers = key.public_key().public_numbers()
    for certificate in certificates:
        public = certificate.public_key()
        if isinstance(public, rsa.RSAPublicKey) and public.public_numbers() == numbers:
            return Certificate(certificate, tuple(other for other in certificates if other != certificate), key)
    raise Invalid("failed to parse client certificates: no certificate belongs to the key")


def _block(data: bytes, what: bytes) -> bytes:
    found = re.search(rb"-----BEGIN ([A-Z ]*%s)-----.*?-----END \1-----" % what, data, re.DOTALL)
    if found is None:
        raise ValueError("no private key")
    return found[0] + b"\n"


def _text(data: Mapping[str, bytes], name: str) -> str:
    try:
        return data.get(name, b"").decode().strip()
    except UnicodeDecodeError:
        raise Invalid(f"'{name}' is not UTF-8 text") from None


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
