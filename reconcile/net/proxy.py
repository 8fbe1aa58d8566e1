"""Which proxy a request takes: the one of a Secret, or what the environment says. Pure but for reading the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from reconcile.errors import Invalid

SCHEMES = ("http", "https", "socks5")
MAX_ADDRESS = 2048


@dataclass(frozen=True)
class Proxy:
    """A proxy for every request of one client; user and password never show in `repr`.

    Attributes:
        address: URL with scheme http, https or socks5, without user information.
        username: user at the proxy, or None.
        password: password at the proxy, or None.
    """

    address: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def to_httpx(self) -> httpx.Proxy:
        """The same in httpx's type."""
        auth = (self.username, self.password or "") if self.username is not None else None
        return httpx.Proxy(self.address, auth=auth)


def proxy_from_secret(name: str, data: Mapping[str, bytes]) -> Proxy:
    """The proxy that a Secret describes with `address` and optional `username` and `password`.

    Args:
        name: `<namespace>/<name>` of the Secret, for messages.
        data: the decoded values.

    Raises:
        Invalid: a value is missing or does not fit; texts as Flux gives them.
    """
    if "address" not in data:
        raise Invalid(f"secret '{name}': key 'address' not found")
    try:
        address = data["address"].decode().strip()
    except UnicodeDecodeError as error:
        raise Invalid(f"secret '{name}': proxy address is not UTF-8 text") from error
    if not address:
        raise Invalid(f"secret '{name}': proxy address is empty")
    if len(address) > MAX_ADDRESS:
        raise Invalid(f"secret '{name}': proxy URL exceeds maximum length of {MAX_ADDRESS} characters")
    username, password = data.get("username"), data.get("password")
    try:
        return make_proxy(
            address,
            username.decode() if username is not None else None,
            password.decode() if password is not None else None,
        )
    except Invalid as error:
        raise Invalid(f"secret '{name}': {error}") from error


def make_proxy(address: str, username: str | None = None, password: str | None = None) -> Proxy:
    """A checked `Proxy`; user information inside `address` is taken out unless given beside it.

    Raises:
        Invalid: the scheme is not one of `SCHEMES`, or the address is not a URL with a host.
    """
    scheme, separator, _ = address.partition("://")
    if scheme.lower() not in SCHEMES or not separator:
        got = scheme.lower() if separator else ""
        raise Invalid(f"proxy URL must use one of the supported schemes ({', '.join(SCHEMES)}), got '{got}'")
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise Invalid("failed to parse proxy address") from error
    if not url.host:
        raise Invalid("failed to parse proxy address: no host")
    username = username if username is not None else (url.username or None)
    password = password if password is not None else (url.password or None)
    return Proxy(str(url.copy_with(username=None, password=None)), username, password)


@dataclass(frozen=True)
class ProxyEnvironment:
    """HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, read as Go reads them.

    Requests to loopback never take a proxy. NO_PROXY entries are host names (with their subdomains), `.suffix`, `*`, addresses,
    CIDR ranges, each with an optional port.
    """

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    exceptions: tuple[str, ...] = ()

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> ProxyEnvironment:
        """The settings in `environment` (default: the process's). Lower-case names are honoured too, upper case first.

        HTTP_PROXY is ignored where REQUEST_METHOD is set: in a CGI program the caller's header would choose the proxy.
        """
        variables = os.environ if environment is None else environment

        def value(name: str) -> str | None:
            return (variables.get(name) or variables.get(name.lower()) or "").strip() or None

        everything = value("ALL_PROXY")
        http = None if "REQUEST_METHOD" in variables else value("HTTP_PROXY")
        entries = tuple(entry.strip().lower() for entry in (value("NO_PROXY") or "").split(",") if entry.strip())
        return cls(_with_scheme(http or everything), _with_scheme(value("HTTPS_PROXY") or everything), entries)

    def choose(self, scheme: str, host: str, port: int) -> str | None:
        """The proxy URL for a request to `host` and `port`, or None for a direct connection."""
        proxy = self.https if scheme == "https" else self.http
        if (
            proxy is None
            or is_loopback(host)
            or any(_excepts(entry, host.lower().rstrip("."), port) for entry in self.exceptions)
        ):
            return None
        return proxy


def is_loopback(host: str) -> bool:
    """Whether `host` is `localhost` or a loopback address."""
    if host == "localhost":
        return True
    address = parse_ip(host)
    return address is not None and address.is_loopback


def parse_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """`host` as an IP address (brackets allowed, IPv4-mapped unwrapped), or None when it is a name."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _with_scheme(proxy: str | None) -> str | None:
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _excepts(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    address = parse_ip(host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, separator, digits = entry.rpartition(":")
    if separator and digits.isdigit() and (":" not in name or name.endswith("]")):
        if int(digits) != port:
            return False
        entry = name
    if address is not None:
        return parse_ip(entry) == address
    suffix = entry.removeprefix("*")
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith("." + suffix)
