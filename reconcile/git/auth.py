"""Credentials for a Git remote: from a Secret to a checked value. Pure; the files a process gets are made in `session`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from reconcile.errors import Invalid
from reconcile.git.errors import InvalidCredentials
from reconcile.net.proxy import Proxy

_UNHASHED = {"identity"}


@dataclass(frozen=True, slots=True)
class GitCredentials:
    """What one remote needs; empty fields are not used. Never print it: `repr` shows nothing.

    `identity` names whose credentials these are when they change often (a GitHub App, a token of a cloud), so that a new token
    does not mean a new mirror.
    """

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    bearer_token: str = field(default="", repr=False)
    ca: bytes = field(default=b"", repr=False)
    client_certificate: bytes = field(default=b"", repr=False)
    client_key: bytes = field(default=b"", repr=False)
    ssh_key: bytes = field(default=b"", repr=False)
    ssh_passphrase: str = field(default="", repr=False)
    known_hosts: bytes = field(default=b"", repr=False)
    proxy: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    def digest(self) -> str:
        """Stable name of these credentials; equal credentials share a mirror, different ones never do."""
        if self.identity:
            return hashlib.sha256(b"identity\0" + self.identity.encode()).hexdigest()
        hasher = hashlib.sha256()
        for item in fields(self):
            if item.name not in _UNHASHED:
                value = getattr(self, item.name)
                raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
                hasher.update(len(raw).to_bytes(8, "big") + raw)
        return hasher.hexdigest()

    def secrets(self) -> tuple[str, ...]:
        """Texts that must not appear in any message."""
        proxy = urlsplit(self.proxy)
        return tuple(s for s in (self.password, self.bearer_token, self.ssh_passphrase, unquote(proxy.password or "")) if s)


ANONYMOUS = GitCredentials()


@dataclass(frozen=True, slots=True)
class Remote:
    """A checked URL: `url` without credentials as git gets it, and its parts."""

    url: str
    scheme: str
    origin: str
    """`host[:port]` as git names it in its prompts."""


def parse_remote(url: str, *, allow_file: bool = False) -> tuple[Remote, str, str]:
    """Check a URL and take user and password out of it: the remote, the user, the password.

    Only http, https, ssh (and file for tests) are taken, as in Flux's GitRepository. For ssh the user stays in the URL,
    `git` when there is none. Raises `Invalid`.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Invalid("the repository URL is not a URL") from None
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise Invalid("the repository URL contains blanks or control characters")
    if allow_file and parts.scheme == "file":
        return Remote(url, "file", ""), "", ""
    if parts.scheme not in ("http", "https", "ssh"):
        raise Invalid(f"the repository URL needs one of the schemes http, https, ssh: '{parts.scheme}' is not supported")
    if not host or host.startswith("-"):
        raise Invalid("the repository URL has no host")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    name = f"[{host}]" if ":" in host else host
    origin = f"{name}:{port}" if port is not None else name
    netloc = origin
    if parts.scheme == "ssh":
        if user.startswith("-"):
            raise Invalid("the repository URL has a user that starts with '-'")
        netloc = f"{parts.username or 'git'}@{origin}"
    return Remote(urlunsplit((parts.scheme, netloc, parts.path, parts.query, "")), parts.scheme, origin), user, password


def credentials_from_secret(url: str, data: Mapping[str, bytes], *, proxy: str = "", identity: str = "") -> GitCredentials:
    """Read Flux's Git Secret for `url`: `username` and `password`, `bearerToken` (wins), `ca.crt` or `caFile`, `tls.crt` and
    `tls.key`; for ssh `identity`, `known_hosts` and `password`. An empty Secret stands for no Secret.

    Credentials in the URL are the fallback. Raises `InvalidCredentials` with Flux's text, `Invalid` for the URL.
    """
    remote, user, secret = parse_remote(url, allow_file=True)
    if remote.scheme == "file":
        return ANONYMOUS
    if remote.scheme == "ssh":
        return _ssh(data, proxy, identity)
    values = {key: _text(remote.scheme, key, data) for key in ("username", "password", "bearerToken")}
    token = values["bearerToken"].strip()
    username, password = values["username"], values["password"]
    if password and not username:
        raise InvalidCredentials(f"invalid '{remote.scheme}' auth option: 'password' requires 'username' to be set")
    if not username and not token:
        username, password = user, secret
    certificate, key = data.get("tls.crt") or data.get("certFile") or b"", data.get("tls.key") or data.get("keyFile") or b""
    if bool(certificate) != bool(key):
        missing, given = ("tls.key", "tls.crt") if certificate else ("tls.crt", "tls.key")
        raise InvalidCredentials(f"invalid '{remote.scheme}' auth option: '{given}' requires '{missing}' to be set")
    return GitCredentials(
        username="" if token else username,
        password="" if token else password,
        bearer_token=token,
        ca=data.get("ca.crt") or data.get("caFile") or b"",
        client_certificate=certificate,
        client_key=key,
        proxy=proxy,
        identity=identity,
    )


def proxy_url(proxy: Proxy) -> str:
    """A proxy as the URL that git takes, with its user and password."""
    scheme, _, rest = proxy.address.partition("://")
    if proxy.username is None:
        return proxy.address
    return f"{scheme}://{quote(proxy.username, safe='')}:{quote(proxy.password or '', safe='')}@{rest}"


def _ssh(data: Mapping[str, bytes], proxy: str, identity: str) -> GitCredentials:
    for key in ("identity", "known_hosts"):
        if not data.get(key):
            raise InvalidCredentials(f"invalid 'ssh' auth option: '{key}' is required")
    return GitCredentials(
        ssh_key=data["identity"],
        known_hosts=data["known_hosts"],
        ssh_passphrase=_text("ssh", "password", data),
        proxy=proxy,
        identity=identity,
    )


def _text(transport: str, key: str, data: Mapping[str, bytes]) -> str:
    try:
        text = data.get(key, b"").decode()
    except UnicodeDecodeError:
        raise InvalidCredentials(f"invalid '{transport}' auth option: '{key}' is not UTF-8") from None
    # Secrets made with `echo` end in a newline that no password means; git itself would refuse it.
    text = text.rstrip("\r\n")
    if any(c in text for c in "\r\n\0"):
        raise InvalidCredentials(f"invalid '{transport}' auth option: '{key}' has more than one line")
    return text
