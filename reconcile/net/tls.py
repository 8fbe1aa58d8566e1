"""TLS trust and client certificates for one server, from a Secret or from the machine."""

from __future__ import annotations

import functools
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import certifi

from reconcile.errors import Invalid

_LEGACY = {"tls.crt": "certFile", "tls.key": "keyFile", "ca.crt": "caFile"}


@dataclass(frozen=True)
class Tls:
    """Extra trust and client identity, beside the machine's own trusted authorities.

    Two values are equal when their bytes are, so one serves as part of a cache key. The private key never shows in `repr`.

    Attributes:
        ca: PEM bundle added to the trusted authorities, or None.
        certificate: PEM chain of the client, or None.
        key: PEM private key that belongs to `certificate`, or None.
        unchecked: takes whatever certificate the server shows: for those who were told to.
    """

    ca: bytes | None = None
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    unchecked: bool = False

    def context(self) -> ssl.SSLContext:
        """A client context that trusts the machine's authorities and `ca`, and shows the client certificate.

        Raises:
            Invalid: the PEM texts cannot be read; texts as Flux gives them.
        """
        return _context(self)


DEFAULT = Tls()
"""The machine's trusted authorities and no client certificate."""


def tls_from_secret(name: str, data: Mapping[str, bytes]) -> Tls:
    """The `Tls` that a Secret holds under `ca.crt`, `tls.crt` and `tls.key` (older: `caFile`, `certFile`, `keyFile`).

    Args:
        name: `<namespace>/<name>` of the Secret, for messages.
        data: the decoded values.

    Raises:
        Invalid: keys are missing or do not parse; texts as Flux gives them.
    """
    ca, certificate, key = (data.get(field_) or data.get(_LEGACY[field_]) or None for field_ in ("ca.crt", "tls.crt", "tls.key"))
    if certificate and not key:
        raise Invalid(f"secret '{name}' contains 'tls.crt' but missing 'tls.key'")
    if key and not certificate:
        raise Invalid(f"secret '{name}' contains 'tls.key' but missing 'tls.crt'")
    if not (ca or certificate):
        raise Invalid(f"secret '{name}' must contain either 'ca.crt' or both 'tls.crt' and 'tls.key'")
    tls = Tls(ca=ca, certificate=certificate, key=key)
    tls.context()
    return tls


@functools.lru_cache(maxsize=64)
def _context(tls: Tls) -> ssl.SSLContext:
    # Kept because loading the machine's authorities takes milliseconds, and every pass over an object asks again.
    context = _fresh()
    if tls.unchecked:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.ca is not None:
        try:
            context.load_verify_locations(cadata=tls.ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise Invalid("failed to parse CA certificate") from error
    if tls.certificate is not None and tls.key is not None:
        _load_pair(context, tls.certificate, tls.key)
    return context


def _fresh() -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not (paths.capath and any(Path(paths.capath).iterdir())):
        context.load_verify_locations(cafile=certifi.where())  # a slim image without the ca-certificates package
    return context


def _load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # The ssl module reads client pairs from files only; the folder is private and gone before anybody connects.
    with tempfile.TemporaryDirectory(prefix="imagebot-tls-") as folder:
        pair = Path(folder, "pair.pem")
        pair.touch(mode=0o600)
        pair.write_bytes(certificate.rstrip() + b"\n" + key.rstrip() + b"\n")
        try:
            context.load_cert_chain(pair, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "not a matching PEM certificate and private key"
            raise Invalid(f"failed to parse TLS certificate and key: {str(reason).replace('_', ' ').lower()}") from error


def _no_password() -> str:
    """Refuse encrypted keys instead of prompting on a terminal."""
    raise ValueError("the private key is encrypted")
