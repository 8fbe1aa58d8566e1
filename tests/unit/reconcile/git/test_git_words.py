"""The pure parts: names, revisions, refspecs, and what git's texts mean."""

# Tables of texts are read line by line.
# ruff: noqa: E501

from __future__ import annotations

import random
import subprocess
from datetime import UTC, datetime, timedelta, timezone

import pytest

from reconcile.errors import Invalid
from reconcile.git.errors import (
    AuthenticationRequired,
    Classifier,
    GitError,
    HostKeyMismatch,
    LostRace,
    MirrorDamaged,
    PushRejected,
    RemoteUnreachable,
    RepositoryNotFound,
    bounded,
)
from reconcile.git.publish import PREFIX, push_arguments, push_error
from reconcile.git.types import RefUpdate, RemoteRefs, Resolved, check_ref, parse_refspec, timestamp
from tests.support.gitrepo import ENV

OID = "a" * 40
OTHER = "b" * 40


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("refs/heads/main:refs/heads/auto", ("refs/heads/main", "refs/heads/auto", False)),
        ("refs/heads/main:refs/for/main", ("refs/heads/main", "refs/for/main", False)),
        ("+refs/heads/main:refs/heads/x", ("refs/heads/main", "refs/heads/x", True)),
        ("refs/heads/main", ("refs/heads/main", "refs/heads/main", False)),
    ],
)
def test_refspecs(text: str, parts: tuple[str, str, bool]) -> None:
    assert parse_refspec(text) == parts


@pytest.mark.parametrize(
    "text", ["", ":", "+", ":refs/heads/x", "+:refs/heads/x", "a:", "refs/*:refs/*", "a b:c", "a:b:c", "a:-x", "a:b..c"]
)
def test_refspecs_that_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_refspec(text)


def test_a_forced_refspec_can_be_refused() -> None:
    with pytest.raises(Invalid, match="forced push"):
        parse_refspec("+a:b", allow_force=False)
    with pytest.raises(Invalid, match="empty source"):
        parse_refspec("+:b", allow_force=False)


def test_reference_names_are_those_of_git() -> None:
    chance = random.Random(7)
    names = [
        "@",
        "refs/heads/@",
        "refs/heads/a.lock",
        "refs/heads/a.lock/b",
        "refs/heads/.a",
        "refs/heads/a.",
        "refs/heads/ü",
        "refs/heads/a@{",
    ]
    pieces = ["a", "/", ".", "..", "@", "{", "~", "^", ":", "?", "*", "[", "\\", " ", "\x7f", "\t", "-", ".lock", "ü", "//"]
    names += ["refs/heads/" + "".join(chance.choices(pieces, k=chance.randint(1, 5))) for _ in range(150)]
    for name in names:
        git = subprocess.run(["git", "check-ref-format", name], env=ENV, check=False).returncode == 0
        try:
            ours = check_ref(name) == name
        except Invalid:
            ours = False
        assert ours == git, name


def test_revisions() -> None:
    assert Resolved(OID, "refs/heads/a/b").revision == f"a/b@sha1:{OID}"
    assert Resolved(OID, "refs/tags/v1").revision == f"v1@sha1:{OID}"
    assert Resolved(OID, "refs/pull/1/head").revision == f"pull/1/head@sha1:{OID}"
    assert Resolved(OID).revision == f"sha1:{OID}"
    assert (Resolved(OID, "refs/tags/v1").branch, Resolved(OID, "refs/heads/x").branch, Resolved(OID).branch) == (None, "x", None)


def test_remote_references() -> None:
    refs = RemoteRefs({"refs/heads/main": OID, "refs/tags/v1": OTHER, "refs/tags/v1^{}": OID, "refs/tags/v2": OTHER})
    assert (refs.commit("refs/tags/v1"), refs.commit("refs/tags/v2"), refs.commit("refs/tags/v3")) == (OID, OTHER, None)
    assert refs.tags() == ["v1", "v2"]
    assert RemoteRefs({}).empty


def test_times() -> None:
    assert timestamp(datetime(2026, 1, 1, tzinfo=UTC)) == "1767225600 +0000"
    assert timestamp(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45)))).endswith(" +0545")
    assert timestamp(datetime(2026, 1, 1, tzinfo=timezone(-timedelta(hours=3, minutes=30)))).endswith(" -0330")
    with pytest.raises(Invalid):
        timestamp(datetime(2026, 1, 1))


def test_every_push_has_a_lease_and_several_are_atomic() -> None:
    one = push_arguments([RefUpdate(OID, "refs/heads/a", OTHER)], ["k=v"])
    assert f"--force-with-lease=refs/heads/a:{OTHER}" in one
    assert "--atomic" not in one
    assert "--push-option=k=v" in one
    assert "--force" not in one
    two = push_arguments([RefUpdate(OID, "refs/heads/a", OTHER), RefUpdate(OID, "refs/heads/b", None)], [])
    assert {"--atomic", "--force-with-lease=refs/heads/b:"} <= set(two)


@pytest.mark.parametrize(
    ("updates", "options"),
    [
        ([], []),
        ([RefUpdate(OID, "refs/heads/a", None)] * 2, []),
        ([RefUpdate("", "refs/heads/a", None)], []),
        ([RefUpdate("refs/heads/x", "refs/heads/a", None)], []),
        ([RefUpdate(OID, "main", None)], []),
        ([RefUpdate(OID, "refs/heads/a b", None)], []),
        ([RefUpdate(OID, "refs/heads/a", "main")], []),
        ([RefUpdate(OID, "refs/heads/a", "")], []),
        ([RefUpdate(OID, "refs/heads/a", None)], ["a\nb"]),
    ],
)
def test_pushes_that_are_refused(updates: list[RefUpdate], options: list[str]) -> None:
    with pytest.raises(Invalid):
        push_arguments(updates, options)


def classifier(url: str = "https://user:pw@example.com/a.git", secrets: tuple[str, ...] = ()) -> Classifier:
    return Classifier(url, PREFIX, "git-receive-pack", secrets)


@pytest.mark.parametrize(
    ("lines", "kind", "text"),
    [
        (["!\tX:refs/heads/a\t[rejected] (stale info)"], LostRace, "non-fast-forward update: refs/heads/a"),
        (["!\tX:refs/heads/a\t[rejected] (fetch first)"], LostRace, "non-fast-forward update: refs/heads/a"),
        (["!\tX:refs/heads/a\t[remote rejected] (failed to update ref)"], LostRace, "non-fast-forward update: refs/heads/a"),
        (
            ["!\tX:refs/heads/a\t[remote rejected] (cannot lock ref 'refs/heads/a': is at b but expected a)"],
            LostRace,
            "non-fast-forward update: refs/heads/a",
        ),
        (["!\tX:refs/heads/a\t[remote rejected] (reference already exists)"], LostRace, "non-fast-forward update: refs/heads/a"),
        (
            ["!\tX:refs/heads/a\t[remote rejected] (protected branch hook declined)"],
            PushRejected,
            "command error on refs/heads/a: protected branch hook declined",
        ),
        (
            [
                "=\tX:refs/heads/c\t[up to date]",
                "!\tX:refs/heads/a\t[remote rejected] (atomic push failure)",
                "!\tX:refs/heads/b\t[remote rejected] (no)",
            ],
            PushRejected,
            "command error on refs/heads/b: no",
        ),
        (
            ["!\tX:refs/heads/a\t[rejected] (atomic push failed)", "!\tX:refs/heads/b\t[rejected] (stale info)"],
            LostRace,
            "non-fast-forward update: refs/heads/b",
        ),
    ],
)
def test_what_a_push_answers(lines: list[str], kind: type[GitError], text: str) -> None:
    error = push_error("\n".join(["To https://example.com/a.git", *lines, "Done", ""]), "remote: hello\n", classifier())
    assert type(error) is kind
    assert str(error) == PREFIX + text
    assert error.detail == "hello"


@pytest.mark.parametrize(
    ("stderr", "kind", "text"),
    [
        ("fatal: Authentication failed for 'https://example.com/a.git/'", AuthenticationRequired, "authentication required: "),
        (
            "remote: Invalid token\nfatal: Authentication failed for 'x'",
            AuthenticationRequired,
            "authentication required: Invalid token",
        ),
        (
            "fatal: could not read Username for 'https://x': terminal prompts disabled",
            AuthenticationRequired,
            "authentication required: ",
        ),
        (
            "remote: gone\nfatal: repository 'https://example.com/a.git/' not found",
            RepositoryNotFound,
            "repository not found: gone",
        ),
        (
            "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
            RepositoryNotFound,
            "repository not found: ",
        ),
        (
            "fatal: unable to access 'https://example.com/': Failed to connect to example.com port 443 after 3 ms: Connection refused",
            RemoteUnreachable,
            'Get "https://example.com/a.git/info/refs?service=git-receive-pack": dial tcp example.com:443: connect: connection refused',
        ),
        (
            "fatal: unable to access 'x': Failed to connect to example.com port 443: Connection timed out",
            RemoteUnreachable,
            'Get "https://example.com/a.git/info/refs?service=git-receive-pack": dial tcp example.com:443: i/o timeout',
        ),
        ("fatal: the remote end hung up unexpectedly", RemoteUnreachable, "the remote end hung up unexpectedly"),
        (
            "error: RPC failed; curl 18 transfer closed\nfatal: early EOF",
            RemoteUnreachable,
            "RPC failed; curl 18 transfer closed",
        ),
        ("error: object file objects/ab/cd is empty\nfatal: loose object abcd is corrupt", MirrorDamaged, None),
        ("remote: fatal: loose object abcd is corrupt\nfatal: early EOF", RemoteUnreachable, "early EOF"),
        ("remote: Authentication failed for\nfatal: early EOF", RemoteUnreachable, "early EOF"),
        (
            "Host key verification failed.\nfatal: Could not read",
            HostKeyMismatch,
            "ssh: handshake failed: knownhosts: key is unknown",
        ),
        ("something new", GitError, "something new"),
        ("", GitError, "git failed without a message"),
    ],
)
def test_what_git_prints(stderr: str, kind: type[GitError], text: str | None) -> None:
    error = classifier().error(stderr)
    assert type(error) is kind
    if text is not None:
        assert str(error) == PREFIX + text


def test_secrets_and_floods_do_not_get_through() -> None:
    secret = "topsecret-value"
    flood = f"remote: {secret} " + "x" * 1_000_000 + "\x1b[31m\nfatal: unable to access 'https://u:topsecret-value@h/': nothing"
    error = classifier(secrets=(secret,)).error(flood)
    assert secret not in str(error) + error.detail
    assert "\x1b" not in error.detail
    assert len(error.detail) < 5000
    assert secret not in bounded("y" * 4090 + secret, (secret,))
    assert "u:pw" not in classifier(url="https://u:pw@h/r").error("fatal: Authentication failed for 'x'").args[0]
