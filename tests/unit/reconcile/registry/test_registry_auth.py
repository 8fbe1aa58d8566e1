"""The token dance, by sending answers into the generator."""

from __future__ import annotations

import httpx
import orjson
import pytest

from reconcile.registry.auth import (
    Challenge,
    Challenges,
    RegistryAuth,
    TokenCache,
    TokenKey,
    check_realm,
    choose_challenge,
    parse_challenges,
)
from reconcile.registry.errors import BadAnswer, CredentialError, StatusError
from reconcile.registry.keychain import Credential

BEARER = 'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull"'
ANN = Credential("ann", "pw")


class Dance:
    """One registry, played by the test."""

    def __init__(self, credential: Credential | None = None) -> None:
        self.now = 0.0
        self.tokens = TokenCache(monotonic=lambda: self.now)
        self.challenges = Challenges()
        self.credential = credential

    async def _source(self) -> Credential | None:
        return self.credential

    def start(self, scope: str = "repository:a/b:pull"):
        auth = RegistryAuth(scope, self._source, self.tokens, self.challenges)
        request = httpx.Request("GET", "https://reg.example/v2/a/b/tags/list")
        steps = auth.steps(request, self.credential)
        return steps, next(steps)


def answer(request: httpx.Request, status: int = 200, body: object = None, **headers: str) -> httpx.Response:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return httpx.Response(status, headers=named, content=orjson.dumps(body), request=request)


def ends(steps, response) -> bool:
    try:
        steps.send(response)
    except StopIteration:
        return True
    return False


def test_no_challenge_no_credentials():
    steps, request = Dance(ANN).start()
    assert "authorization" not in request.headers
    assert ends(steps, answer(request))


def test_basic_after_the_challenge_then_at_once():
    dance = Dance(ANN)
    steps, request = dance.start()
    again = steps.send(answer(request, 401, WWW_Authenticate='Basic realm="x"'))
    assert again.headers["authorization"] == "Basic YW5uOnB3"
    assert ends(steps, answer(again))
    _, request = dance.start()
    assert request.headers["authorization"] == "Basic YW5uOnB3"


def test_a_refused_password_is_not_shown_twice():
    dance = Dance(ANN)
    steps, request = dance.start()
    again = steps.send(answer(request, 401, WWW_Authenticate='Basic realm="x"'))
    assert ends(steps, answer(again, 401, WWW_Authenticate='Basic realm="x"'))
    steps, request = dance.start()
    assert ends(steps, answer(request, 401, WWW_Authenticate='Basic realm="x"'))


def test_bearer_token_is_fetched_with_the_password_and_kept():
    dance = Dance(ANN)
    steps, request = dance.start()
    token = steps.send(answer(request, 401, WWW_Authenticate=BEARER))
    assert token.method == "GET"
    assert token.url.copy_with(query=None) == "https://auth.example/token"
    assert dict(token.url.params) == {"scope": "repository:a/b:pull", "service": "reg"}
    assert token.headers["authorization"] == "Basic YW5uOnB3"
    again = steps.send(answer(token, body={"token": "T1", "expires_in": 100}))
    assert again.url.host == "reg.example"
    assert again.headers["authorization"] == "Bearer T1"
    assert ends(steps, answer(again))
    _, request = dance.start()
    assert request.headers["authorization"] == "Bearer T1"
    dance.now = 91  # past the margin
    _, request = dance.start()
    assert request.url.host == "auth.example"


def test_anonymous_token():
    steps, request = Dance().start()
    token = steps.send(answer(request, 401, WWW_Authenticate=BEARER))
    assert "authorization" not in token.headers
    assert steps.send(answer(token, body={"access_token": "A"})).headers["authorization"] == "Bearer A"


def test_tokens_are_per_scope_and_credential():
    dance = Dance(ANN)
    steps, request = dance.start()
    token = steps.send(answer(request, 401, WWW_Authenticate=BEARER))
    steps.send(answer(token, body={"token": "T1"}))
    _, request = dance.start("repository:other/b:pull")
    assert request.url.host == "auth.example"
    assert request.url.params["scope"] == "repository:other/b:pull"
    dance.credential = Credential("bob", "pw")
    _, request = dance.start()
    assert request.headers["authorization"] == "Basic Ym9iOnB3"
    assert request.url.host == "auth.example"


def test_identity_token_is_posted_and_falls_back_to_get_on_404():
    dance = Dance(Credential("ann", "pw", identity_token="refresh"))
    steps, request = dance.start()
    post = steps.send(answer(request, 401, WWW_Authenticate=BEARER))
    assert post.method == "POST"
    form = dict(httpx.QueryParams(post.content.decode()))
    assert form == {
        "grant_type": "refresh_token",
        "refresh_token": "refresh",
        "service": "reg",
        "scope": "repository:a/b:pull",
        "client_id": "imagebot",
    }
    assert "refresh" not in str(post.url)
    get = steps.send(answer(post, 404))
    assert get.method == "GET"
    assert steps.send(answer(get, body={"token": "T"})).headers["authorization"] == "Bearer T"


def test_registry_token_goes_as_it_is():
    steps, request = Dance(Credential(registry_token="R")).start()
    assert request.headers["authorization"] == "Bearer R"
    assert ends(steps, answer(request, 401, WWW_Authenticate=BEARER))


def test_a_refused_token_is_renewed_once():
    dance = Dance(ANN)
    steps, request = dance.start()
    token = steps.send(answer(request, 401, WWW_Authenticate=BEARER))
    steps.send(answer(token, body={"token": "T1"}))
    steps, request = dance.start()
    assert request.headers["authorization"] == "Bearer T1"
    token = steps.send(answer(request, 401, WWW_Authenticate=BEARER))
    again = steps.send(answer(token, body={"token": "T2"}))
    assert again.headers["authorization"] == "Bearer T2"
    assert ends(steps, answer(again, 401, WWW_Authenticate=BEARER))


def test_a_challenge_of_another_host_is_ignored():
    dance = Dance(ANN)
    steps, _ = dance.start()
    elsewhere = httpx.Request("GET", "https://evil.example/v2/a/b/tags/list")
    assert ends(steps, answer(elsewhere, 401, WWW_Authenticate='Basic realm="x"'))
    steps, _ = dance.start()
    other_port = httpx.Request("GET", "https://reg.example:444/v2/a/b/tags/list")
    assert ends(steps, answer(other_port, 401, WWW_Authenticate='Basic realm="x"'))


def test_token_endpoint_refuses():
    steps, request = Dance(ANN).start()
    token = steps.send(answer(request, 401, WWW_Authenticate=BEARER))
    with pytest.raises(StatusError) as caught:
        steps.send(answer(token, 401, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}))
    assert str(caught.value) == (
        "GET https://auth.example/token?scope=repository%3Aa%2Fb%3Apull&service=reg: UNAUTHORIZED: incorrect username or password"
    )


@pytest.mark.parametrize(
    "body", [None, [], {}, {"token": ""}, {"token": 5}, {"token": "a\nb"}, {"token": "ü"}, {"access_token": None}]
)
def test_token_answers_without_a_token(body):
    steps, request = Dance(ANN).start()
    token = steps.send(answer(request, 401, WWW_Authenticate=BEARER))
    with pytest.raises(CredentialError, match="no token in bearer response"):
        steps.send(answer(token, body=body))


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (['Basic realm="x"'], [("basic", "x", "")]),
        (["Negotiate", 'Basic realm="x"'], [("negotiate", "", ""), ("basic", "x", "")]),
        (['Negotiate, Basic realm="x"'], [("negotiate", "", ""), ("basic", "x", "")]),
        (
            ['Bearer realm="https://a/t?x=1,2",service="s", Basic realm="y"'],
            [("bearer", "https://a/t?x=1,2", "s"), ("basic", "y", "")],
        ),
        (["bearer realm=https://a/t,service=s"], [("bearer", "https://a/t", "s")]),
        (['Bearer realm="a\\"b"'], [("bearer", 'a"b', "")]),
        (['Bearer realm = "x" , service = "s"'], [("bearer", "x", "s")]),
        (['Digest realm="d", nonce="n", Bearer realm="b"'], [("digest", "d", ""), ("bearer", "b", "")]),
        (['Bearer scope="repository:a/b:pull,push",realm="r"'], [("bearer", "r", "")]),
        ([""], []),
        (['"'], []),
        (["Bearer"], [("bearer", "", "")]),
    ],
)
def test_challenges(headers, wanted):
    assert [(c.scheme, c.realm, c.service) for c in parse_challenges(headers)] == wanted


def test_which_challenge_is_answered():
    basic, bearer, other = Challenge("basic"), Challenge("bearer", "r"), Challenge("negotiate")
    assert choose_challenge([other, basic, bearer], ANN) is basic
    assert choose_challenge([other, bearer, basic], ANN) is bearer
    assert choose_challenge([basic, bearer], None) is bearer
    assert choose_challenge([other], ANN) is None


@pytest.mark.parametrize(
    ("realm", "registry", "text"),
    [
        ("https://auth.example/token", "https://reg.example/", None),
        ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000/", None),
        ("http://auth.example/token", "http://reg.example/", None),
        ("http://auth.example/token", "https://reg.example/", "must be https"),
        ("https://169.254.169.254/", "https://reg.example/", "private or link-local"),
        ("https://10.0.0.1/", "https://reg.example/", "private or link-local"),
        ("https://[fe80::1]/", "https://reg.example/", "private or link-local"),
        ("https://[::ffff:127.0.0.1]/", "https://reg.example/", "private or link-local"),
        ("https://localhost/", "https://reg.example/", "private or link-local"),
        ("/token", "https://reg.example/", "must be https"),
        ("gopher://x", "http://reg.example/", "must be https"),
    ],
)
def test_realms(realm, registry, text):
    if text is None:
        assert str(check_realm(realm, httpx.URL(registry))) == realm
        return
    with pytest.raises(BadAnswer, match=text):
        check_realm(realm, httpx.URL(registry))


def test_the_token_cache_is_bounded_in_number_and_size():
    cache = TokenCache(max_entries=3, max_bytes=10, monotonic=lambda: 0.0)
    keys = [TokenKey("r", "s", str(number), None) for number in range(5)]
    for key in keys[:4]:
        cache.put(key, "ab", 100)
    assert len(cache) == 3
    assert cache.get(keys[0]) is None
    assert cache.get(keys[1]) == "ab"
    cache.put(keys[4], "x" * 8, 100)
    assert cache.get(keys[4]) == "x" * 8
    assert cache.get(keys[1]) == "ab"  # used last, so kept
    assert len(cache) == 2
    cache.put(keys[4], "x" * 11, 100)
    assert len(cache) == 0
