"""Cleaning an index: what is dropped, what is refused, the order, and the program that does it."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest

from reconcile.sources import helm_index
from reconcile.sources.helm_fetch import BadUrl, Validators, index_url
from reconcile.sources.helm_index import InvalidIndex, clean, human_size


def index(*versions: object, name: str = "app") -> bytes:
    return orjson.dumps({"apiVersion": "v1", "entries": {name: list(versions)}})


def kept(raw: bytes) -> list[str]:
    return [entry["version"] for entry in orjson.loads(clean(raw).json)["entries"]["app"]]


def chart(version: object = "1.0.0", **more: object) -> dict[str, object]:
    return {"name": "app", "version": version, **more}


def test_versions_go_from_the_highest_to_the_lowest():
    versions = ["1.2.0", "v1.10.0", "1.10.0-rc.1", "0.9", "2", "1.2.0+build"]
    assert kept(index(*map(chart, versions))) == ["2", "v1.10.0", "1.10.0-rc.1", "1.2.0", "1.2.0+build", "0.9"]


@pytest.mark.parametrize(
    "version",
    [
        None,
        "text",
        {"version": "1.0.0"},
        {"name": "app"},
        chart(""),
        chart("one"),
        chart(1.0),
        {"name": "../app", "version": "1.0.0"},
        {"name": "..", "version": "1.0.0"},
        chart(type="program"),
        chart(dependencies=[None]),
        chart(maintainers=[None]),
    ],
)
def test_versions_that_are_dropped(version):
    cleaned = clean(index(version, chart("2.0.0")))
    assert kept(index(version, chart("2.0.0"))) == ["2.0.0"]
    assert (cleaned.charts, cleaned.versions, cleaned.dropped) == (1, 1, 1)


def test_a_chart_without_versions_stays_without():
    assert orjson.loads(clean(b"apiVersion: v1\nentries:\n  app:\n  other: []\n").json)["entries"] == {"app": [], "other": []}


def test_the_api_version_of_a_chart_is_filled_in_and_other_fields_stay():
    entry = orjson.loads(clean(index(chart(own={"a": 1}))).json)["entries"]["app"][0]
    assert entry == {"name": "app", "version": "1.0.0", "own": {"a": 1}, "apiVersion": "v1"}


def test_json_and_yaml_give_the_same_bytes_whatever_the_order_of_charts():
    yaml = b"apiVersion: v1\nentries:\n  b:\n  - {name: b, version: 1.0.0}\n  a:\n  - name: a\n    version: '2.0'\n"
    json = orjson.dumps(
        {"apiVersion": "v1", "entries": {"a": [{"name": "a", "version": "2.0"}], "b": [{"name": "b", "version": "1.0.0"}]}}
    )
    assert clean(yaml).json == clean(json).json
    assert clean(json).json.startswith(b'{\n  "apiVersion": "v1",\n  "entries": {\n    "a": [\n')
    assert clean(clean(yaml).json).json == clean(yaml).json


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "empty index.yaml file"),
        (b" \n", "empty index.yaml file"),
        (b"- a\n", "the index is not a mapping"),
        (b"entries: {}\n", "no API version specified"),
        (b"apiVersion: ''\n", "no API version specified"),
        (b"apiVersion: v1\nentries: text\n", "entries is not a mapping"),
        (b"apiVersion: v1\nentries: {a: text}\n", "entries.a is not a list"),
        (b"apiVersion: v1\napiVersion: v2\n", "key 'apiVersion' is set twice"),
        (b"apiVersion: v1\nentries: {a: [], a: []}\n", "key 'a' is set twice"),
        (b"apiVersion: v1\n---\napiVersion: v1\n", "2 YAML documents"),
        (b"# nothing\n", "0 YAML documents"),
        (b"apiVersion: [\n", "index.yaml:"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_what_is_no_index(raw, message):
    with pytest.raises(InvalidIndex, match=message):
        clean(raw)


def test_aliases_cannot_make_an_index_large():
    bomb = b"apiVersion: v1\nbig: &a '" + b"x" * 1000 + b"'\nall: [" + b", ".join([b"*a"] * 65) + b"]\n"
    with pytest.raises(InvalidIndex, match="more than 64 aliases"):
        clean(bomb)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (10_506_397, "10.51MB"), (1_234_567_890, "1.235GB")],
)
def test_sizes_for_people(size, text):
    assert human_size(size) == text


def run(raw: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", helm_index.__name__], input=raw, capture_output=True, check=False, timeout=60)


def test_the_program():
    good = run(index(chart()))
    assert (good.returncode, good.stdout, good.stderr) == (0, clean(index(chart())).json, b"")
    bad = run(b"entries: {}")
    assert (bad.returncode, bad.stdout, bad.stderr) == (2, b"", b"no API version specified")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/charts", "https://host/charts/index.yaml"),
        ("https://host/charts//", "https://host/charts/index.yaml"),
        ("http://host", "http://host/index.yaml"),
        ("https://host:8443/a?token=x", "https://host:8443/a/index.yaml?token=x"),
        ("https://ann:x@host/a", "https://ann:x@host/a/index.yaml"),
    ],
)
def test_where_an_index_is(url, expected):
    assert index_url(url) == expected


@pytest.mark.parametrize("url", ["http://", "ftp://host/a", "text", "https://user:secret-password@:80:80/"])
def test_where_no_index_can_be(url):
    with pytest.raises(BadUrl) as caught:
        index_url(url)
    assert "secret-password" not in str(caught.value)


def test_what_a_server_is_asked_by():
    assert Validators().headers() == {}
    assert Validators(modified="Thu").headers() == {"If-Modified-Since": "Thu"}
    assert Validators('"a"', "Thu").headers() == {"If-None-Match": '"a"'}
