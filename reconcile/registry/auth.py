"""The registry's token dance as a generator: yield a request, receive the answer, yield the next.

Challenge → token → the same request again, as the distribution token and OAuth specifications say. No I/O happens here, so a test
plays the server by sending answers into the generator. Credentials are put on a request only after its host was checked: a
redirect or a challenge from another host never receives any.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import httpx
import orjson

from reconcile.net.guard import BODY_LIMIT, is_inner_address
from reconcile.net.retry import DEADLINE, IDEMPOTENT
from reconcile.registry.errors import BadAnswer, CredentialError, StatusError
from reconcile.registry.keychain import Credential

CLIENT_ID = "imagebot"
TOKEN_BODY_LIMIT = 64 * 1024
DEFAULT_LIFE = 60.0
"""Seconds a token is good for when the server does not say (distribution token specification)."""

# Registries write these headers: no two repetitions side by side may share blanks, or a long run of them would take for ever.
_CHALLENGE = re.compile(r"\s*(?:,\s*)?(?P<scheme>[A-Za-z][A-Za-z0-9_-]*)(?=\s+[A-Za-z_-]+\s*=|\s*(?:,|$))")
_PARAMETER = re.compile(r'\s*(?:,\s*)?(?P<name>[A-Za-z0-9_-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s",]+))')


@dataclass(frozen=True)
class Challenge:
    """One way to authenticate that a server offers.

    Attributes:
        scheme: lower case: `basic`, `bearer`, or another that we cannot serve.
        realm: for bearer, the URL of the token endpoint.
        service: for bearer, the name the token is for; empty when not given.
    """

    scheme: str
    realm: str = ""
    service: str = ""


def parse_challenges(headers: Sequence[str]) -> tuple[Challenge, ...]:
    """The challenges in all `WWW-Authenticate` headers, in order; what cannot be read is left out."""
    found: list[Challenge] = []
    for header in headers:
        position = 0
        while match := _CHALLENGE.match(header, position):
            position = match.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(header, position):
                position = parameter.end()
                quoted = parameter["quoted"]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else parameter["plain"]
                parameters.setdefault(parameter["name"].lower(), value)
            found.append(Challenge(match["scheme"].lower(), parameters.get("realm", ""), parameters.get("service", "")))
    return tuple(found)


def choose_challenge(challenges: Sequence[Challenge], credential: Credential | None) -> Challenge | None:
    """The first challenge we can answer: Basic needs a user, Bearer can be had anonymously."""
    usable = [challenge for challenge in challenges if challenge.scheme in {"basic", "bearer"}]
    if credential is None:
        usable.sort(key=lambda challenge: challenge.scheme != "bearer")
    return usable[0] if usable else None


def check_realm(realm: str, registry: httpx.URL) -> httpx.URL:
    """The token endpoint's URL, if a credential may go there.

    It must be https, or http for a registry on http; and no loopback, private or link-local address literal unless that is the
    registry's own host, so that a registry cannot make us call a metadata service with somebody's password.

    Raises:
        BadAnswer: with the reason.
    """
    try:
        url = httpx.URL(realm)
    except httpx.InvalidURL as error:
        raise BadAnswer("invalid realm in www-authenticate: not a URL") from error
    if not realm:
        raise BadAnswer("malformed www-authenticate, missing realm")
    if url.scheme != "https" and not (url.scheme == "http" and registry.scheme == "http"):
        raise BadAnswer(f"invalid realm in www-authenticate: realm scheme {url.scheme[:20]!r} not allowed; must be https")
    if not url.host:
        raise BadAnswer("invalid realm in www-authenticate: no host")
    if url.host != registry.host and is_inner_address(url.host):
        raise BadAnswer(f"invalid realm in www-authenticate: realm host {url.host!r} is a private or link-local address")
    return url


@dataclass(frozen=True)
class TokenKey:
    """What a bearer token is good for."""

    realm: str
    service: str
    scope: str
    credential: Credential | None


@dataclass
class TokenCache:
    """Bearer tokens for their life less a margin; the least recently used goes first.

    Attributes:
        max_entries: tokens kept.
        max_bytes: characters of all tokens together.
        monotonic: seconds that never run backwards.
    """

    max_entries: int = 10_000
    max_bytes: int = 16 * 1024 * 1024
    monotonic: Callable[[], float] = time.monotonic
    _tokens: OrderedDict[TokenKey, tuple[str, float]] = field(default_factory=OrderedDict, repr=False)
    _bytes: int = field(default=0, repr=False)

    def get(self, key: TokenKey) -> str | None:
        """The token for `key` if it is still good."""
        entry = self._tokens.get(key)
        if entry is None:
            return None
        token, good_until = entry
        if self.monotonic() >= good_until:
            self.drop(key)
            return None
        self._tokens.move_to_end(key)
        return token

    def put(self, key: TokenKey, token: str, life: float) -> None:
        """Keep `token` for `life` seconds less a margin of a tenth, at most 30 s, for the way and for clocks that differ."""
        self.drop(key)
        self._tokens[key] = token, self.monotonic() + life - min(30.0, life * 0.1)
        self._bytes += len(token)
        while len(self._tokens) > self.max_entries or self._bytes > self.max_bytes:
            self.drop(next(iter(self._tokens)))

    def drop(self, key: TokenKey) -> None:
        """Forget the token for `key`."""
        token, _ = self._tokens.pop(key, ("", 0.0))
        self._bytes -= len(token)

    def __len__(self) -> int:
        return len(self._tokens)


@dataclass
class Challenges:
    """The challenge that each registry gave last, so that the next request brings its credential along.

    Keyed by URL origin and by whether there is a credential; bounded, the oldest goes first.
    """

    max_entries: int = 1_000
    _known: OrderedDict[tuple[str, bool], Challenge] = field(default_factory=OrderedDict, repr=False)

    def get(self, origin: str, known: bool) -> Challenge | None:
        """The remembered challenge of `origin` for callers with (`known`) or without a credential."""
        return self._known.get((origin, known))

    def put(self, origin: str, known: bool, challenge: Challenge) -> None:
        """Remember `challenge`."""
        self._known[origin, known] = challenge
        self._known.move_to_end((origin, known))
        while len(self._known) > self.max_entries:
            self._known.popitem(last=False)


CredentialSource = Callable[[], Awaitable[Credential | None]]
"""Gives the credential at the time of a request; cloud logins renew theirs in between."""


class RegistryAuth(httpx.Auth):
    """Authentication of one request to a registry, as httpx runs it.

    Args:
        scope: the token scope the request needs.
        source: gives the credential.
        tokens: cache shared by all requests.
        challenges: what registries asked for before, shared by all requests.
    """

    requires_response_body = False

    def __init__(self, scope: str, source: CredentialSource, tokens: TokenCache, challenges: Challenges) -> None:
        self._scope = scope
        self._source = source
        self._tokens = tokens
        self._challenges = challenges

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Drive `steps`, reading the bodies of token answers (and of those only) in between."""
        steps = self.steps(request, await self._source())
        outgoing = next(steps)
        try:
            while True:
                response = yield outgoing
                if outgoing is not request:
                    await response.aread()
                outgoing = steps.send(response)
        except StopIteration:
            return

    def steps(self, request: httpx.Request, credential: Credential | None) -> Generator[httpx.Request, httpx.Response, None]:
        """The dance: send with what is known, answer a challenge, refresh a refused token once.

        Raises:
            RegistryError: the challenge or the token answer makes no sense, or the token endpoint refused.
        """
        origin = _origin(request.url)
        if credential is not None and credential.registry_token:
            request.headers["Authorization"] = f"Bearer {credential.registry_token}"
            yield request
            return
        known = credential is not None
        challenge = self._challenges.get(origin, known)
        cached = False
        if challenge is not None:
            cached = self._cached(request, challenge, credential)
            if not cached:
                yield from self._authorize(request, challenge, credential)
        response = yield request
        if response.status_code != 401 or _origin(response.request.url) != origin:
            return
        fresh = choose_challenge(parse_challenges(response.headers.get_list("www-authenticate")), credential)
        if fresh is None or (fresh == challenge and not cached):
            return  # what we just showed was refused; showing it again would not help
        if fresh.scheme == "basic" and credential is None:
            return
        self._challenges.put(origin, known, fresh)
        self._tokens.drop(self._key(fresh, credential))
        yield from self._authorize(request, fresh, credential)
        yield request

    def _cached(self, request: httpx.Request, challenge: Challenge, credential: Credential | None) -> bool:
        if challenge.scheme != "bearer":
            return False
        token = self._tokens.get(self._key(challenge, credential))
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        return token is not None

    def _authorize(
        self, request: httpx.Request, challenge: Challenge, credential: Credential | None
    ) -> Generator[httpx.Request, httpx.Response, None]:
        if challenge.scheme == "basic":
            basic = credential.basic() if credential is not None else None
            if basic is not None:
                request.headers["Authorization"] = basic
            return
        token, life = yield from self._fetch(request, challenge, credential)
        self._tokens.put(self._key(challenge, credential), token, life)
        request.headers["Authorization"] = f"Bearer {token}"

    def _fetch(
        self, request: httpx.Request, challenge: Challenge, credential: Credential | None
    ) -> Generator[httpx.Request, httpx.Response, tuple[str, float]]:
        realm = check_realm(challenge.realm, request.url)
        if credential is not None and credential.identity_token:
            response = yield self._oauth(request, realm, challenge.service, credential)
            if response.status_code == 404:  # not all token servers know the OAuth way
                response = yield self._simple(request, realm, challenge.service, credential)
        else:
            response = yield self._simple(request, realm, challenge.service, credential)
        return parse_token(response)

    def _simple(self, request: httpx.Request, realm: httpx.URL, service: str, credential: Credential | None) -> httpx.Request:
        parameters = realm.params.set("scope", self._scope)
        if service:
            parameters = parameters.set("service", service)
        basic = credential.basic() if credential is not None else None
        headers = {"Authorization": basic} if basic is not None else {}
        return _token_request(request, "GET", realm.copy_with(params=parameters), headers)

    def _oauth(self, request: httpx.Request, realm: httpx.URL, service: str, credential: Credential) -> httpx.Request:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credential.identity_token,
            "client_id": CLIENT_ID,
        }
        form |= {"service": service, "scope": self._scope}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return _token_request(request, "POST", realm, headers, urlencode(form).encode())

    def _key(self, challenge: Challenge, credential: Credential | None) -> TokenKey:
        return TokenKey(challenge.realm, challenge.service, self._scope, credential)


def parse_token(response: httpx.Response) -> tuple[str, float]:
    """Token and life in seconds out of a token endpoint's answer.

    Raises:
        StatusError: the endpoint refused.
        CredentialError: the answer holds no token; the answer is not quoted.
    """
    url = str(response.request.url)
    method = response.request.method
    if response.status_code != 200:
        raise StatusError(method, url, response.status_code, response.content, response.headers.get("content-type", ""))
    where = f"{method} {response.request.url.copy_with(query=None, username=None, password=None)}"
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise CredentialError(f"{where}: the token answer is not JSON") from error
    if not isinstance(document, dict):
        raise CredentialError(f"{where}: no token in bearer response")
    token = document.get("access_token") or document.get("token")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise CredentialError(f"{where}: no token in bearer response")
    life = document.get("expires_in")
    if not isinstance(life, int | float) or isinstance(life, bool) or life <= 0:
        life = DEFAULT_LIFE
    return token, min(float(life), 86_400.0)


def _token_request(
    request: httpx.Request, method: str, url: httpx.URL, headers: dict[str, str], content: bytes | None = None
) -> httpx.Request:
    extensions = {BODY_LIMIT: TOKEN_BODY_LIMIT, IDEMPOTENT: True}
    for name in ("timeout", DEADLINE):
        if name in request.extensions:
            extensions[name] = request.extensions[name]
    common = {name: request.headers[name] for name in ("User-Agent", "Accept-Encoding") if name in request.headers}
    return httpx.Request(method, url, headers={**common, **headers}, content=content, extensions=extensions)


def _origin(url: httpx.URL) -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    return f"{url.scheme}://{url.host}:{port}"
