"""Objects, decrypted by the real sops with real keys; how many processes that takes; where nothing secret is seen."""

import base64
import json
import os
from pathlib import Path

import pytest

from reconcile.kustomize.decrypt import Decryption, Decryptor, EncryptedSecret, is_encrypted_object, refuse_encrypted
from reconcile.kustomize.failure import BuildFailed
from reconcile.yamlio import load_documents
from tests.support.programs import find_program
from tests.support.sops_documents import age_key, encrypted, pgp_key

pytestmark = [pytest.mark.needs("go", "gpg")]

FACTS = json.loads((Path(__file__).parents[2] / "facts" / "reconcile" / "encrypted.json").read_text("utf-8"))["stories"]
SECRET = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  namespace: prod\nstringData:\n  password: correct horse\n"
ONLY_DATA = ("--encrypted-regex", "^(data|stringData)$")


@pytest.fixture(scope="module")
def key():
    return age_key()


@pytest.fixture(scope="module")
def pgp():
    return pgp_key("flux")


@pytest.fixture
def decryption(tmp_path):
    made = Decryption(tmp_path / "homes", sops=find_program("sops"))
    yield made
    made.close()


def parsed(data):
    [(document, _)] = load_documents(data.decode(), "s.yaml")
    return document


async def decrypted(decryption, data, obj, **more):
    async with decryption.opened(data, **more) as decryptor:
        return await decryptor.object(obj)


@pytest.fixture(scope="module")
def secret(key):
    return parsed(encrypted(SECRET, "yaml", age=key, options=ONLY_DATA))


async def test_a_secret_with_an_age_key(decryption, key, secret):
    result = await decrypted(decryption, {"identity.agekey": key.entry}, secret)
    assert result == parsed(SECRET.encode())
    assert decryption.processes == {"sops": 1}


async def test_labels_that_the_build_added_are_kept(decryption, key, secret):
    built = {**secret, "metadata": {**secret["metadata"], "labels": {"added": "by the build"}}}
    result = await decrypted(decryption, {"a.agekey": key.entry}, built)
    assert result["metadata"]["labels"] == {"added": "by the build"}
    assert result["stringData"] == {"password": "correct horse"}


async def test_any_kind_and_all_types(decryption, key):
    text = (
        "apiVersion: v1\nkind: Thing\nmetadata: {name: t}\nspec: {count: 3, half: 1.5, flag: true, list: [a, 2], text: 'a: ü'}\n"
    )
    thing = parsed(encrypted(text, "yaml", age=key, options=("--encrypted-regex", "^spec$")))
    assert thing["spec"]["list"][0].startswith("ENC[")
    assert await decrypted(decryption, {"a.agekey": key.entry}, thing) == parsed(text.encode())


async def test_only_part_of_an_object_is_encrypted(decryption, key):
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: t}\nstringData: {password: x, user_plain: u}\n"
    options = ("--encrypted-regex", "^password$")
    secret = parsed(encrypted(text, "yaml", age=key, options=options))
    assert secret["stringData"]["user_plain"] == "u"
    assert await decrypted(decryption, {"a.agekey": key.entry}, secret) == parsed(text.encode())


async def test_several_identities_in_one_entry_and_post_quantum_ones(decryption, key, secret):
    other, quantum = age_key(), age_key("-pq")
    entry = b"\n".join((other.entry, quantum.entry, key.entry))
    assert (await decrypted(decryption, {"all.agekey": entry}, secret))["stringData"] == {"password": "correct horse"}
    for_quantum = parsed(encrypted(SECRET, "yaml", age=quantum, options=ONLY_DATA))
    assert (await decrypted(decryption, {"all.agekey": entry}, for_quantum))["stringData"] == {"password": "correct horse"}


async def test_many_secrets_need_one_process_each_and_one_import_of_the_pgp_key(decryption, pgp):
    secret = parsed(encrypted(SECRET, "yaml", pgp=pgp, options=ONLY_DATA))
    plain = parsed(SECRET.encode())
    async with decryption.opened({"key.asc": pgp.secret}) as decryptor:
        for _ in range(20):
            assert (await decryptor.object(secret))["stringData"] == {"password": "correct horse"}
            assert await decryptor.object(plain) is plain
        homes = [path for path in decryption_homes(decryption) if path.name == "gnupg"]
        assert len(homes) == 1
    assert decryption.processes == {"gpg": 1, "sops": 20, "gpgconf": 1}
    assert not homes[0].exists()
    assert agents_of(homes[0]) == []


def decryption_homes(decryption):
    session = decryption._workspaces._session
    return list(session.rglob("*")) if session is not None else []


def agents_of(home):
    """Processes with the home in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if b"gpg-agent" in command and os.fsencode(home) in command:
                found.append(folder.name)
    return found


async def test_nothing_is_started_for_what_is_not_encrypted(decryption, key, pgp):
    objects = [
        parsed(SECRET.encode()),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "mac: ENC["}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s"},
            "data": {"a": "cGxhaW4=", "b": "no base64!", "c": None},
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "sops": {"version": "1"}},
    ]
    async with decryption.opened({"a.agekey": key.entry, "b.asc": pgp.secret}) as decryptor:
        for obj in objects:
            assert await decryptor.object(obj) is obj
    assert decryption.processes == {}
    assert decryption_homes(decryption) == []


async def test_an_annotation_leaves_an_object_alone(decryption, key, secret):
    note = {"kustomize.toolkit.fluxcd.io/decrypt": "disabled"}
    left = {**secret, "metadata": {**secret["metadata"], "annotations": note}}
    assert await decrypted(decryption, {"a.agekey": key.entry}, left) is left
    refuse_encrypted([left])


DOCUMENTS = {
    "app.yaml": ("yaml", "a: 1\nb: two\n", "a: 1\nb: two\n"),
    "app.json": ("json", '{"a": 1, "b": "two"}', '{\n\t"a": 1,\n\t"b": "two"\n}\n'),
    "app.env": ("dotenv", "A=1\nB=two words\n", "A=1\nB=two words\n"),
    "app.ini": ("ini", "[part]\na = 1\n", "[part]\na = 1\n"),
    "app.bin": ("binary", b"\x00\xffbytes\n", b"\x00\xffbytes\n"),
    ".dockerconfigjson": (
        "json",
        '{"auths": {"r": {"auth": "eDp5"}}}',
        '{\n\t"auths": {\n\t\t"r": {\n\t\t\t"auth": "eDp5"\n\t\t}\n\t}\n}\n',
    ),
}


async def test_values_of_a_secret_in_each_format(decryption, key):
    values = {name: base64.b64encode(encrypted(text, form, age=key)).decode() for name, (form, text, _) in DOCUMENTS.items()}
    obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {**values, "plain": "cGxhaW4="}}
    result = await decrypted(decryption, {"a.agekey": key.entry}, obj)
    for name, (_, _, wanted) in DOCUMENTS.items():
        data = base64.b64decode(result["data"][name])
        assert (name, data) == (name, wanted.encode() if isinstance(wanted, str) else wanted)
    assert result["data"]["plain"] == "cGxhaW4="
    assert decryption.processes == {"sops": len(DOCUMENTS)}
    assert obj["data"] == {**values, "plain": "cGxhaW4="}, "the object that came in is as it was"


async def test_the_suffix_of_a_key_decides_the_format_that_is_written(decryption, key):
    value = base64.b64encode(encrypted("a: 1\n", "yaml", age=key)).decode()
    obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a.json": value}}
    result = await decrypted(decryption, {"a.agekey": key.entry}, obj)
    assert base64.b64decode(result["data"]["a.json"]) == b'{\n\t"a": 1\n}\n'


async def test_the_wrong_key(decryption, key, secret):
    with pytest.raises(BuildFailed) as raised:
        await decrypted(decryption, {"a.agekey": age_key().entry}, secret)
    message = str(raised.value)
    first, _, rest = message.partition("\n\n")
    assert first == (
        "decryption failed for 'Secret.v1.[noGrp]/db': failed to decrypt and format 'prod/db' Secret data: "
        "cannot get sops data key: Failed to get the data key required to decrypt the SOPS file."
    )
    assert f"  {key.recipient}: FAILED\n    - | failed to create reader" in rest
    assert "locations" not in message
    assert "identity" in message


@pytest.mark.parametrize("data", [{}, {"unknown": b"x"}, {"other.txt": b"AGE-SECRET-KEY-1"}])
async def test_no_usable_key_is_said_with_the_first_object(decryption, secret, data):
    async with decryption.opened(data) as decryptor:
        with pytest.raises(BuildFailed, match="cannot get sops data key"):
            await decryptor.object(secret)


async def test_messages_of_the_same_failure_are_the_same(decryption, secret):
    texts = set()
    for _ in range(2):
        with pytest.raises(BuildFailed) as raised:
            await decrypted(decryption, {}, secret)
        texts.add(str(raised.value))
    assert len(texts) == 1


async def test_a_damaged_value(decryption, key, secret):
    value = secret["stringData"]["password"]
    damaged = {**secret, "stringData": {"password": value.replace("data:", "data:AA", 1)}}
    with pytest.raises(BuildFailed) as raised:
        await decrypted(decryption, {"a.agekey": key.entry}, damaged)
    assert "error decrypting sops tree" in str(raised.value)
    assert key.identity not in str(raised.value)


async def test_a_damaged_value_of_a_field(decryption, key):
    value = encrypted("a: 1\n", "yaml", age=key).replace(b"-----BEGIN AGE", b"-----BEGIN EGA")
    obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a.yaml": base64.b64encode(value).decode()}}
    with pytest.raises(
        BuildFailed, match=r"^decryption failed for 'Secret.v1.\[noGrp\]/s': .* Secret field 'a.yaml': cannot get"
    ):
        await decrypted(decryption, {"a.agekey": key.entry}, obj)


async def test_a_key_with_a_passphrase_asks_nobody(decryption):
    locked = pgp_key("locked", "sesame")
    secret = parsed(encrypted(SECRET, "yaml", pgp=locked, options=ONLY_DATA))
    with pytest.raises(BuildFailed, match="cannot get sops data key"):
        await decrypted(decryption, {"key.asc": locked.secret}, secret)


async def test_the_shared_secret_gives_age_identities_alone(decryption, key, pgp, secret):
    shared = {"a.agekey": key.entry, "b.asc": b"never looked at"}
    assert (await decrypted(decryption, shared, secret, only_age=True))["stringData"] == {"password": "correct horse"}
    with pytest.raises(BuildFailed, match=r"failed to import 'b.asc' data: no armored key found"):
        await decrypted(decryption, shared, secret)


async def test_a_decryptor_of_its_own_leaves_nothing_in_its_folder(tmp_path, key, pgp, secret):
    sops, keys = find_program("sops"), {"a.agekey": key.entry, "b.asc": pgp.secret}
    async with Decryptor.opened(keys, tmp_path, sops=sops) as one, Decryptor.opened(keys, tmp_path, sops=sops) as other:
        assert await one.object(secret) == await other.object(secret) == parsed(SECRET.encode())
    assert [path.name for path in tmp_path.iterdir()] in ([], ["lock"])


async def test_no_sops(tmp_path, key, secret):
    decryption = Decryption(tmp_path, surrounding={"PATH": "/nonexistent"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        with pytest.raises(Exception, match="'sops' is not installed: install sops v3 and put it on PATH"):
            await decrypted(decryption, {"a.agekey": key.entry}, secret)
    decryption.close()


async def test_nothing_decrypted_is_left_in_the_private_folder(decryption, key, secret, monkeypatch):
    seen = []
    original = Path.unlink

    def unlink(self, missing_ok=False):
        seen.append(self.read_bytes())
        original(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    async with decryption.opened({"a.agekey": key.entry}) as decryptor:
        await decryptor.object(secret)
        left = [path for path in decryption_homes(decryption) if path.is_file() and path.name != "lock"]
    assert {path.name for path in left} == {"gpg.conf", "gpg-agent.conf"}
    assert any(b"ENC[" in data for data in seen)
    assert not any(b"correct horse" in data for data in seen)


@pytest.mark.parametrize("field", ["data", "stringData"])
def test_an_encrypted_secret_that_nobody_decrypts_is_refused(field):
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "n"},
        field: {"a": "ENC["},
        "sops": {"mac": "ENC["},
    }
    other = {**secret, "kind": "Thing"}
    assert is_encrypted_object(secret)
    refuse_encrypted([other, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}])
    with pytest.raises(EncryptedSecret) as raised:
        refuse_encrypted([other, secret])
    assert str(raised.value) == (
        "Secret/n/s is SOPS encrypted, configuring decryption is required for this secret to be reconciled"
    )


def files_of(story):
    return {path: text for step in story["steps"] for path, text in step.get("files", {}).items()}


def keys_of(story):
    applied = [obj for step in story["steps"] for obj in step.get("apply", ())]
    found = [obj for obj in applied if obj["kind"] == "Secret"]
    return {name: text.encode() for obj in found for name, text in obj["stringData"].items()}


@pytest.mark.parametrize("name", ["sops-secret", "sops-data"])
async def test_recorded_secret_agrees(decryption, name):
    [entry] = [entry for entry in FACTS if entry["story"]["name"] == name]
    story = entry["story"]
    obj = parsed(files_of(story)["s.yaml"].encode())
    result = await decrypted(decryption, keys_of(story), obj)
    values = {key: base64.b64encode(text.encode()).decode() for key, text in result.get("stringData", {}).items()}
    wanted = entry["seen"]["observations"]["end"][f"Secret/{name}/s"]["data"]
    assert {**result.get("data", {}), **values} == wanted
    assert "sops" not in result
