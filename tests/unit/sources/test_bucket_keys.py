"""Keys as paths, and revisions, as tables."""

from __future__ import annotations

import hashlib

import pytest

from reconcile.sources.buckets.keys import UnusableKey, path_of, paths_of, revision, same_revision, takes_part


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a", "a"),
        ("a/b.yaml", "a/b.yaml"),
        ("a//b", "a/b"),
        ("...", "..."),
        ("a/..b/c..", "a/..b/c.."),
        ("ünï", "ünï"),
        ("x" * 255, "x" * 255),
        ("C:/x", "C:/x"),
    ],
)
def test_keys_that_are_paths(key, path):
    assert path_of(key) == path


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("../a", "'.' or '..'"),
        ("a/../../etc/passwd", "'.' or '..'"),
        ("a/..", "'.' or '..'"),
        ("a/./b", "'.' or '..'"),
        (".", "'.' or '..'"),
        ("/etc/passwd", "absolute"),
        ("//a", "absolute"),
        ("a\\..\\b", "backslash"),
        ("a\nb", "control character"),
        ("a\0b", "control character"),
        ("a\x7f", "control character"),
        ("x" * 256, "longer than 255 bytes"),
        ("a/" + "ü" * 128, "longer than 255 bytes"),
        ("a/" * 128 + "b", "128 folders"),
        ("a\udcff", "Unicode"),
    ],
)
def test_keys_that_are_none(key, why):
    with pytest.raises(UnusableKey, match=why) as caught:
        path_of(key)
    assert str(caught.value).isprintable()


def test_the_error_names_the_key():
    with pytest.raises(UnusableKey, match=r"^object 'some/\.\./key' cannot be a file"):
        path_of("some/../key")


def test_paths_come_in_the_order_of_a_walk_through_folders():
    assert list(paths_of(["a.txt", "a/x", "b", "a-b"]).values()) == ["a/x", "a-b", "a.txt", "b"]
    assert list(paths_of(["b", "a//c"]).items()) == [("a//c", "a/c"), ("b", "b")]


@pytest.mark.parametrize(
    "keys", [["a", "a/b"], ["a/b/c/d", "a/b"], ["a/b", "a//b"], ["a", "a/b", "a.b"], ["a//b", "a"], ["x", "a/b/c", "a"]]
)
def test_keys_that_exclude_each_other(keys):
    with pytest.raises(UnusableKey, match="object '"):
        paths_of(keys)


def test_what_takes_no_part():
    assert [key for key in ("a", "a/", "/", ".sourceignore", "x/.sourceignore") if takes_part(key)] == ["a", "x/.sourceignore"]


def test_a_revision_is_the_digest_of_sorted_lines():
    etags = {"b": "2", "a": '"1"', "a/b": "3"}
    text = b'a "1"\na/b 3\nb 2\n'
    assert revision(etags) == "sha256:" + hashlib.sha256(text).hexdigest()
    assert revision(etags, "sha512") == "sha512:" + hashlib.sha512(text).hexdigest()
    assert revision({}) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_revision_is_the_same_in_its_own_algorithm():
    etags = {"a": "1"}
    for algorithm in ("sha256", "sha384", "sha512", "sha1"):
        assert same_revision(etags, revision(etags, algorithm))
    assert not same_revision(etags, revision({"a": "2"}))
    for stored in ("", "sha256:", "sha256", "md5:" + hashlib.md5(b"a 1\n").hexdigest(), "blake9:00"):
        assert not same_revision(etags, stored)
