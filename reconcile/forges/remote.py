"""Where the API of a forge is, and which repository is meant: out of the URL of a Git repository. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from reconcile.errors import Invalid

GITHUB = "github.com"
GITHUB_API = "https://api.github.com"
_PATHS = {"github": "/api/v3", "gitlab": "/api/v4", "gitea": "/api/v1"}
_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@\[\]]+):(?!//)(?P<path>.+)")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")


@dataclass(frozen=True, slots=True)
class Place:
    """A repository on a forge.

    Attributes:
        provider: github, gitlab or gitea.
        api: address of the API, without a slash at its end.
        host: host, with a port that is not the scheme's own, for messages.
        path: names down to the repository: owner and name; at GitLab groups, sub-groups and name.
    """

    provider: str
    api: str
    host: str
    path: tuple[str, ...]

    @property
    def name(self) -> str:
        """For messages: `github.com/acme/fleet`."""
        return f"{self.host}/{'/'.join(self.path)}"

    @property
    def project(self) -> str:
        """Path of the repository as part of a URL: `acme/fleet`; at GitLab one part, `acme%2Fapps%2Ffleet`."""
        separator = "%2F" if self.provider == "gitlab" else "/"
        return separator.join(quote(part, safe="") for part in self.path)

    @property
    def graphql(self) -> str:
        """Address of GitHub's GraphQL API: `/graphql`; on GitHub Enterprise Server `/api/graphql` beside `/api/v3`."""
        return f"{self.api.removesuffix('/v3')}/graphql"


def place(provider: str, url: str, address: str = "") -> Place:
    """The repository that `url` names, on the API at `address`, or where the provider has it for the URL's host.

    Over SSH the API is asked on the host's HTTPS port. Where the whole forge is below a folder of its host, the last two names
    of the URL are the repository's and those before are that folder; at GitLab, which has sub-groups, only `address` can tell.

    Raises:
        Invalid: the provider is unknown, or the URL names no repository.
    """
    if provider not in _PATHS:
        raise Invalid(f"unknown provider '{provider}' of pull requests: it must be one of {', '.join(sorted(_PATHS))}")
    scheme, host, port, path = _parts(url)
    names = [unquote(part) for part in path.strip("/").removesuffix(".git").split("/") if part]
    if len(names) < 2 or not all(_NAME.fullmatch(name) and name not in (".", "..") for name in names):
        raise Invalid("the URL of the Git repository names no repository of a forge: it must end with its owner and its name")
    shown = _host(host, port if scheme in ("http", "https") else None)
    prefix = [] if provider == "gitlab" else names[:-2]
    api = _given(provider, address) if address else _derived(provider, scheme, shown, prefix)
    return Place(provider, api, shown, tuple(_below(names, api, provider) if provider == "gitlab" else names[-2:]))


def _below(names: list[str], api: str, provider: str) -> list[str]:
    """`names` without those of the folder below which the whole forge is served."""
    folder = [part for part in urlsplit(api).path.removesuffix(_PATHS[provider]).split("/") if part]
    return names[len(folder) :] if names[: len(folder)] == folder and len(names) >= len(folder) + 2 else names


def _parts(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path of a URL, or of the short form of SSH, `git@host:path`."""
    short = None if "://" in url else _SCP.fullmatch(url)
    if short is not None:
        return "ssh", short["host"].strip("[]").lower(), None, short["path"]
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Invalid("the URL of the Git repository cannot be read") from None
    if parts.scheme not in ("http", "https", "ssh") or not parts.hostname:
        raise Invalid("pull requests need a Git repository with a URL of http, https or ssh")
    return parts.scheme, parts.hostname, port, parts.path


def _host(host: str, port: int | None) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


def _derived(provider: str, scheme: str, host: str, prefix: list[str]) -> str:
    if provider == "github" and host in (GITHUB, f"www.{GITHUB}", f"ssh.{GITHUB}"):
        return GITHUB_API
    if provider == "gitlab" and host == "altssh.gitlab.com":
        host = "gitlab.com"
    below = "".join(f"/{quote(part, safe='')}" for part in prefix)
    return f"{'http' if scheme == 'http' else 'https'}://{host}{below}{_PATHS[provider]}"


def _given(provider: str, address: str) -> str:
    """`address` as the API's; the provider's own path is appended to one without a path."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        usable = usable and parts.username is None and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise Invalid("the address of the forge's API is not an address: it must be http:// or https:// with a host")
    base = address.rstrip("/")
    if parts.path.strip("/") or base == GITHUB_API:
        return base
    if provider == "github" and parts.hostname == GITHUB:
        return GITHUB_API
    return base + _PATHS[provider]
