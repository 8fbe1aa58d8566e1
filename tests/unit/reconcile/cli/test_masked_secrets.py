"""Nothing secret in what is built and compared."""

from __future__ import annotations

import base64
from typing import Any

from reconcile.cli.comparing import unified
from reconcile.cli.masking import AFTER, BEFORE, MASK, MASK64, STARS, hidden, masks_in, with_live_values, without_ciphers

Object = dict[str, Any]
CIPHER = "ENC[AES256_GCM,data:zzz,iv:zzz,tag:zzz,type:str]"
SOPS = {"mac": CIPHER, "version": "3.9.0"}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(**fields: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, **fields}


def test_an_encrypted_object_is_masked_where_it_is_encrypted() -> None:
    found = secret(data={"password": CIPHER, "user": b64("me")}, stringData={"token": CIPHER}, sops=SOPS)
    assert without_ciphers(found) == secret(data={"password": MASK64, "user": b64("me")}, stringData={"token": MASK})
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": [CIPHER, "b"]}, "sops": SOPS}
    assert without_ciphers(other) == {**{k: v for k, v in other.items() if k != "sops"}, "data": {"a": [MASK, "b"]}}


def test_encrypted_files_in_a_secret_are_masked() -> None:
    document = '{"a": "x", "sops": {"mac": "ENC[AES256_GCM,data:zzz"}}'
    found = secret(data={"file.json": b64(document), "plain": b64("x"), "no base64": "%"}, stringData={"file.json": document})
    assert without_ciphers(found) == secret(
        data={"file.json": MASK64, "plain": b64("x"), "no base64": "%"}, stringData={"file.json": MASK}
    )
    env = secret(data={"TOKEN": b64(CIPHER), "sops_mac": b64(CIPHER), "sops_version": b64("3.9.0")})
    assert without_ciphers(env) == secret(data={"TOKEN": MASK64})


def test_what_is_not_encrypted_stays_the_same_object() -> None:
    for found in (secret(data={"a": b64("x")}), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": CIPHER}}):
        assert without_ciphers(found) is found


def test_masks_are_compared_by_their_keys_alone() -> None:
    wanted = secret(data={"same": MASK64, "new": MASK64})
    live = secret(data={"same": b64("hush"), "old": b64("hush")})
    assert masks_in(wanted) == [("data", "same"), ("data", "new")]
    assert with_live_values(wanted, live) == secret(data={"same": b64("hush"), "new": MASK64})


def test_stars_say_whether_and_not_what() -> None:
    live, wanted = secret(data={"a": b64("1"), "b": b64("2"), "c": b64("3")}), secret(data={"a": b64("1"), "b": b64("X")})
    assert hidden(live, wanted, mark=BEFORE)["data"] == {"a": STARS, "b": BEFORE, "c": BEFORE}
    assert hidden(wanted, live, mark=AFTER)["data"] == {"a": STARS, "b": AFTER}
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": "open", "b": "hush"}}
    assert hidden(other, other, places=(("data", "b"),))["data"] == {"a": "open", "b": STARS}


def test_a_difference_shows_its_surroundings() -> None:
    before = {"kind": "X", "spec": {"b": 1, "a": [1, 2]}}
    after = {"spec": {"a": [1, 3], "b": 1}, "kind": "X"}
    assert unified(before, before) == []
    assert unified(before, after) == ["@@ -2,5 +2,5 @@", " spec:", "   a:", "   - 1", "-  - 2", "+  - 3", "   b: 1"]
