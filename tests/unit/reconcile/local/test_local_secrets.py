"""Secret manifests: where values come from, what is refused, and that no value is ever told."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconcile.api.meta import Key
from reconcile.errors import Invalid
from reconcile.local import secrets
from reconcile.local.files import Folder
from reconcile.local.secrets import SecretSource
from reconcile.ports.store import Secret
from tests.support.bench import Bench, all_kinds, bench, manifest

KEY = Key("default", "s")
HIDDEN = "hunter2-is-secret"


def parse(folder: Path = Path(), **body: Any) -> SecretSource:
    return SecretSource.parse(KEY, body, folder)


def read(folder: Path = Path(), **body: Any) -> dict[str, bytes]:
    return dict(parse(folder, **body).read().data)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


def test_data_is_base64_and_string_data_wins() -> None:
    encoded = base64.b64encode(b"\x00\xff" * 50).decode()
    folded = "\n".join(encoded[i : i + 20] for i in range(0, len(encoded), 20)) + "\r\n"
    found = read(data={"a": "YQ==", "b": "Yg==", "c": folded, "e": None, "f": ""}, stringData={"b": "ü"})
    assert found == {"a": b"a", "b": "ü".encode(), "c": b"\x00\xff" * 50, "e": b"", "f": b""}


def test_the_type_is_kept() -> None:
    assert parse(type="kubernetes.io/dockerconfigjson").read().type == "kubernetes.io/dockerconfigjson"
    assert parse().read() == Secret(KEY, "Opaque", {})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": {"p": HIDDEN}}, "data.p is not base64; use stringData for plain text"),
        ({"data": {"p": f"{HIDDEN} "}}, "data.p is not base64; use stringData for plain text"),
        ({"data": {"p": "YQ"}}, "data.p is not base64; use stringData for plain text"),
        ({"data": {"p": "ü"}}, "data.p is not base64; use stringData for plain text"),
        ({"data": {"p": 12345678}}, "data.p is not base64; use stringData for plain text"),
        ({"data": {"p": [HIDDEN]}}, "data.p is not base64; use stringData for plain text"),
        ({"data": HIDDEN}, "data must be a mapping"),
        ({"data": []}, "data must be a mapping"),
        ({"stringData": {"p": 5}}, "stringData.p must be a string; put it in quotes"),
        ({"stringData": {"p": {"x": HIDDEN}}}, "stringData.p must be a string; put it in quotes"),
        ({"stringData": HIDDEN}, "stringData must be a mapping"),
        ({"dataFrom": {"p": HIDDEN}}, "dataFrom.p must be {env: NAME} or {file: PATH}"),
        ({"dataFrom": {"p": {"env": 5}}}, "dataFrom.p must be {env: NAME} or {file: PATH}"),
        ({"dataFrom": {"p": {}}}, "dataFrom.p must be {env: NAME} or {file: PATH}"),
        ({"dataFrom": {"p": {"env": "A", "file": "b"}}}, "dataFrom.p must be {env: NAME} or {file: PATH}"),
        ({"dataFrom": {"p": {"vault": HIDDEN}}}, "dataFrom.p must be {env: NAME} or {file: PATH}, not vault"),
        (
            {"dataFrom": {"p": {"file": "~nobody-has-this-name/x"}}},
            "dataFrom.p: there is no such user as in ~nobody-has-this-name",
        ),
    ],
)
def test_what_is_wrong_is_said_without_the_value(body: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(**body)
    assert str(caught.value) == message
    assert HIDDEN not in repr(caught.value.__context__)


def test_values_come_from_the_environment_when_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    source = parse(dataFrom={"p": {"env": "IMAGEBOT_TEST_VALUE"}})
    with pytest.raises(Invalid) as caught:
        source.read()
    assert str(caught.value) == (
        "key 'p' of secret 'default/s' needs the environment variable IMAGEBOT_TEST_VALUE, which is not set"
    )
    monkeypatch.setenv("IMAGEBOT_TEST_VALUE", "one")
    assert source.read().data == {"p": b"one"}
    monkeypatch.setenv("IMAGEBOT_TEST_VALUE", os.fsdecode(b"\xff\x00"[:1]))
    assert source.read().data == {"p": b"\xff"}


def test_values_come_from_a_file_beside_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "value").write_bytes(b"one\n")
    source = parse(tmp_path, dataFrom={"p": {"file": "./value"}, "q": {"file": str(tmp_path / "value")}})
    assert source.read().data == {"p": b"one\n", "q": b"one\n"}
    (tmp_path / "value").write_bytes(b"two")
    assert source.read().data["p"] == b"two"


def test_a_file_of_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "value").write_bytes(b"one")
    assert read(dataFrom={"p": {"file": "~/value"}}) == {"p": b"one"}


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 2048)
    monkeypatch.setattr(secrets, "MAX_VALUE", 1024)
    for name, cause in [
        ("none", "No such file or directory"),
        (".", "Is a directory"),
        ("pipe", "not a regular file"),
        ("large", "larger than 1 KiB"),
        ("a\0b", "embedded null byte"),
        ("x" * 300, "File name too long"),
    ]:
        with pytest.raises(Invalid) as caught:
            read(tmp_path, dataFrom={"p": {"file": name}})
        assert str(caught.value) == f"key 'p' of secret 'default/s' needs the file {tmp_path / name}: {cause}"


def test_a_source_and_a_secret_show_their_keys_only() -> None:
    source = parse(stringData={"b": HIDDEN}, dataFrom={"a": {"env": "X"}})
    assert repr(source) == "SecretSource(default/s, keys=['a', 'b'])"
    assert repr(parse(stringData={"b": HIDDEN}).read()) == "Secret(default/s, type='Opaque', keys=['b'])"


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": HIDDEN}}


@pytest.mark.parametrize(
    "text",
    [
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData:\n  p: *{HIDDEN}\n",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData:\n  p: !!int {HIDDEN}\n",
        f"apiVersion: v1\n'kind': 'Secret'\nmetadata: {{name: s}}\nstringData:\n  p: !!bool {HIDDEN}\n",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData:\n  p: [{HIDDEN}\n",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData:\n  p: 'x': {HIDDEN}\n",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {HIDDEN}\n",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{p: {HIDDEN}}}\n",
    ],
)
def test_no_problem_quotes_a_value(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    found = Folder(tmp_path, all_kinds()).scan()
    assert found is not None
    assert len(found.problems) == 1
    assert HIDDEN not in str(found.problems[0])


async def test_a_secret_that_stands_twice_is_reported_and_the_first_counts(world: Bench) -> None:
    other = SECRET | {"stringData": {"p": "other"}}
    (world.folder / "a.yaml").write_text(yaml.safe_dump_all([SECRET, other]))
    (world.folder / "b.yaml").write_text(yaml.safe_dump(other))
    await world.store.sync()
    assert (await world.store.secret(KEY)).data == {"p": HIDDEN.encode()}
    assert [(p.path, p.line) for p in world.store.problems] == [("a.yaml", 8), ("b.yaml", None)]


async def test_secrets_never_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEBOT_TEST_VALUE", f"{HIDDEN}-from-env")
    async with bench(tmp_path) as world:
        body = SECRET | {
            "data": {"q": base64.b64encode(HIDDEN.encode()).decode()},
            "dataFrom": {"e": {"env": "IMAGEBOT_TEST_VALUE"}},
        }
        await world.declare(manifest("a", secretRef={"name": "s"}))
        await world.declare(body)
        secret = await world.store.secret(KEY)
        assert secret.data == {"p": HIDDEN.encode(), "q": HIDDEN.encode(), "e": f"{HIDDEN}-from-env".encode()}
        await world.step()
        state = tmp_path / "state"
        written = {path.name: path.read_bytes() for path in state.iterdir()}
        assert {"state.db", "state.db-wal"} <= set(written)
        needles = [HIDDEN.encode(), base64.b64encode(HIDDEN.encode())]
        assert not [name for name, content in written.items() if any(needle in content for needle in needles)]
        assert b"registry.example/a" in b"".join(written.values())  # the search would have found it
    assert not [p for p in state.iterdir() if HIDDEN.encode() in p.read_bytes()]
