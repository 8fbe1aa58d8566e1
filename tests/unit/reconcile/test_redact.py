"""Secrets leave texts, and harmless texts stay as they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcile.redact import MASK, redact, redact_url

TOKEN = "ghp_" + "a1B2" * 9

HIDDEN = [
    ("https://user:hunter2@host/x", "https://host/x"),
    ("https://hunter2@host/x", "https://host/x"),
    ("https://user:p@hunter2@host/x", "https://host/x"),
    ("https://user:it's-hunter2@host", "https://host"),
    ("ssh://git:hunter2@host:22/x and http://a:hunter2@b", "ssh://host:22/x and http://b"),
    ("proxy socks5h://u:hunter2@127.0.0.1:1080 failed", "proxy socks5h://127.0.0.1:1080 failed"),
    ("https://host/x?token=hunter2&a=b", f"https://host/x?token={MASK}&a=b"),
    ("https://host/x?a=b&access_token=hunter2", f"https://host/x?a=b&access_token={MASK}"),
    ("https://host/x?private_token=hunter2", f"https://host/x?private_token={MASK}"),
    ("https://host/x?client_secret=hunter2", f"https://host/x?client_secret={MASK}"),
    ("https://host/x?X-Amz-Signature=hunter2", f"https://host/x?X-Amz-Signature={MASK}"),
    ("https://host/x?X-Goog-Signature=hunter2", f"https://host/x?X-Goog-Signature={MASK}"),
    ("Authorization: Basic aHVudGVyMg==", f"Authorization: Basic {MASK}"),
    ("authorization=Bearer hunter2hunter2", f"authorization=Bearer {MASK}"),
    ("{'Authorization': 'token hunter2'}", f"{{'Authorization': 'token {MASK}'}}"),
    ("Proxy-Authorization: Basic aHVudGVyMg==", f"Proxy-Authorization: Basic {MASK}"),
    ("sent Bearer hunter2.hunter2", f"sent Bearer {MASK}"),
    ("sent basic aHVudGVyMjpodW50ZXIy", f"sent basic {MASK}"),
    (f"remote: token {TOKEN} is expired", f"remote: token {MASK} is expired"),
    ("glpat-abcdefghijklmnopqrst", MASK),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", f"jwt {MASK}"),
    ("key -----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----.", f"key {MASK}."),
    ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nhunter2 cut", MASK),
]

KEPT = [
    "",
    "registry.example/app@sha256:0123456789abcdef",
    "https://host:5000/v2/app/manifests/sha256:0123?service=host&scope=repository:app:pull",
    "https://host/@scope/package",
    "the server wants Basic authentication",
    "Basic Authentication is not allowed",
    'WWW-Authenticate: Bearer realm="https://auth.example/token"',
    "authorization failed",
    "unauthorized: bearer of bad news",
    "mail bot@example.com at https://host",
    "git@host:owner/repository",
]


@pytest.mark.parametrize(("text", "expected"), HIDDEN)
def test_credentials_are_masked(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(redact(text)) == expected


@pytest.mark.parametrize("text", KEPT)
def test_harmless_text_stays(text: str) -> None:
    assert redact(text) == text


def test_given_secrets_are_masked_the_longest_first() -> None:
    assert redact("hunter2 hunter2000", ("hunter2", "hunter2000")) == f"{MASK} {MASK}"


def test_short_secrets_are_no_secrets_since_they_would_eat_the_message() -> None:
    assert redact("a failure", ("a", "", "fai")) == "a failure"


def test_a_url_loses_its_user_and_keeps_the_rest() -> None:
    assert redact_url("https://bot@host/a?b=c#d") == "https://host/a?b=c#d"


@given(
    st.from_regex(r"[A-Za-z0-9._~!$&()*+,;=:@%-]{1,40}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._~!$&()*+,;=:@%-]{8,40}", fullmatch=True),
)
def test_no_password_survives_in_a_url(user: str, password: str) -> None:
    assert redact(f"cannot reach https://{user}:{password}@host.example/path: refused") == (
        "cannot reach https://host.example/path: refused"
    )


@pytest.mark.parametrize(
    "piece", ["a", "a.", "https://", "?", "&token=", "Authorization: ", "Bearer ", "-----BEGIN PRIVATE KEY-----", "eyJ", "@"]
)
def test_a_long_text_is_worked_through_in_one_go(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    assert len(redact(text)) <= len(text) * 2  # quadratic work would run into the time limit of the tests
