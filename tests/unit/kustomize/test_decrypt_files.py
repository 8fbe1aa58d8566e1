"""Files that are decrypted before a build: which, in which format, and what is never touched."""

import base64
import json
import os
from pathlib import Path

import pytest

from reconcile.kustomize import encrypted as module
from reconcile.kustomize.decrypt import Decryption
from reconcile.kustomize.encrypted import encrypted_files
from reconcile.kustomize.failure import BuildFailed
from reconcile.yamlio import load_documents
from tests.support.programs import find_program
from tests.support.sops_documents import age_key, encrypted

pytestmark = [pytest.mark.needs("go")]

FACTS = json.loads((Path(__file__).parents[2] / "facts" / "reconcile" / "encrypted.json").read_text("utf-8"))["stories"]
PATCH = "apiVersion: v1\nkind: Secret\nmetadata:\n    name: s\nstringData:\n    a: patched\n"


@pytest.fixture(scope="module")
def key():
    return age_key()


@pytest.fixture
def decryption(tmp_path):
    made = Decryption(tmp_path / "homes", sops=find_program("sops"))
    yield made
    made.close()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    return folder


def put(root, files):
    for path, content in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())


def kustomization(**fields):
    return json.dumps(fields)


async def decrypt(decryption, data, root, path=""):
    async with decryption.opened(data) as decryptor:
        await decryptor.files(root, path)


async def test_generators_and_patches_in_each_format(decryption, key, root):
    documents = {
        "app.yaml": ("yaml", "a: 1\n"),
        "app.json": ("json", '{"a": 1}'),
        "app.env": ("dotenv", "A=1\n"),
        "plain-name": ("dotenv", "B=2\n"),
        "app.ini": ("ini", "[x]\na = 1\n"),
        "blob": ("binary", "bytes\n"),
        "config": ("json", '{"auths": {}}'),
        "patch.yaml": ("yaml", PATCH),
    }
    put(root, {f"in/{name}": encrypted(text, form, age=key) for name, (form, text) in documents.items()})
    files = ["app.yaml", "app.json", "app.ini", "blob", ".dockerconfigjson=config"]
    put(root, {"in/kustomization.yaml": kustomization(
        secretGenerator=[{"name": "a", "files": files}, {"name": "b", "envs": ["app.env", "plain-name"]}],
        patches=[{"path": "patch.yaml"}, {"patch": "inline"}],
    )})  # fmt: skip
    await decrypt(decryption, {"a.agekey": key.entry}, root, "in")
    found = {name: (root / "in" / name).read_text() for name in documents}
    assert found == {
        "app.yaml": "a: 1\n",
        "app.json": '{\n\t"a": 1\n}\n',
        "app.env": "A=1\n",
        "plain-name": "B=2\n",
        "app.ini": "[x]\na = 1\n",
        "blob": "bytes\n",
        "config": '{\n\t"auths": {}\n}\n',
        "patch.yaml": PATCH,
    }
    assert decryption.processes == {"sops": len(documents)}


async def test_what_is_not_named_or_not_encrypted_stays_and_costs_nothing(decryption, key, root):
    secret = encrypted("a: 1\n", "yaml", age=key)
    files = {
        "plain.yaml": "a: 1\n",
        "map.yaml": secret,
        "resource.yaml": secret,
        "legacy.env": encrypted("A=1\n", "dotenv", age=key),
        "key-without-suffix.yaml": secret,
        "kustomization.yaml": kustomization(
            resources=["resource.yaml"],
            secretGenerator=[{"files": ["plain.yaml", "token=key-without-suffix.yaml", "gone.yaml"], "env": "legacy.env"}],
            configMapGenerator=[{"files": ["map.yaml"]}],
        ),
    }
    put(root, files)
    await decrypt(decryption, {"a.agekey": key.entry}, root)
    for path, content in files.items():
        assert (root / path).read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert decryption.processes == {}


async def test_resources_and_components_are_followed_and_each_file_is_decrypted_once(decryption, key, root):
    document = encrypted("a: 1\n", "yaml", age=key)
    generator = [{"files": ["s.yaml", "../shared/s.yaml"]}]
    resources = ["../base", "manifests", "https://example.com/x"]
    put(root, {
        "top/kustomization.yaml": kustomization(resources=resources, components=["../part"]),
        "top/manifests/s.yaml": document,
        "base/kustomization.yml": kustomization(resources=["../top", "./"], secretGenerator=generator),
        "base/s.yaml": document,
        "part/Kustomization": kustomization(secretGenerator=generator),
        "part/s.yaml": document,
        "shared/s.yaml": document,
        "other/kustomization.yaml": kustomization(secretGenerator=generator),
        "other/s.yaml": document,
    })  # fmt: skip
    await decrypt(decryption, {"a.agekey": key.entry}, root, "top")
    plain = {
        path
        for path in ("base", "part", "shared", "other", "top/manifests")
        if (root / path / "s.yaml").read_bytes() == b"a: 1\n"
    }
    assert plain == {"base", "part", "shared"}
    assert decryption.processes == {"sops": 3}


async def test_a_linked_file_is_replaced_and_not_written(decryption, key, root, tmp_path):
    document = encrypted("a: 1\n", "yaml", age=key)
    put(tmp_path, {"artifact/s.yaml": document})
    put(root, {"kustomization.yaml": kustomization(secretGenerator=[{"files": ["s.yaml"]}])})
    os.link(tmp_path / "artifact" / "s.yaml", root / "s.yaml")
    await decrypt(decryption, {"a.agekey": key.entry}, root)
    assert (root / "s.yaml").read_bytes() == b"a: 1\n"
    assert (tmp_path / "artifact" / "s.yaml").read_bytes() == document


@pytest.mark.parametrize("way", ["link", "folder link", "up", "absolute", "nul"])
async def test_nothing_outside_is_read_or_written(decryption, key, root, tmp_path, way):
    document = encrypted("a: 1\n", "yaml", age=key)
    outside = tmp_path / "outside" / "s.yaml"
    put(tmp_path, {"outside/s.yaml": document})
    name = {"link": "s.yaml", "folder link": "in/s.yaml", "up": "../outside/s.yaml", "absolute": str(outside), "nul": "s\0.yaml"}[
        way
    ]
    put(root, {"kustomization.yaml": kustomization(secretGenerator=[{"files": [name]}], resources=[name, "in", "../outside"])})
    if way == "link":
        (root / "s.yaml").symlink_to(outside)
    if way == "folder link":
        put(tmp_path, {"outside/kustomization.yaml": kustomization(secretGenerator=[{"files": ["s.yaml"]}])})
        (root / "in").symlink_to(outside.parent)
    await decrypt(decryption, {"a.agekey": key.entry}, root)
    assert outside.read_bytes() == document
    assert decryption.processes == {}


async def test_the_path_is_clamped_to_the_root(decryption, key, root):
    put(
        root,
        {
            "kustomization.yaml": kustomization(secretGenerator=[{"files": ["s.yaml"]}]),
            "s.yaml": encrypted("a: 1\n", "yaml", age=key),
        },
    )
    await decrypt(decryption, {"a.agekey": key.entry}, root, "../../")
    assert (root / "s.yaml").read_bytes() == b"a: 1\n"


def failure(root, path=""):
    with pytest.raises(BuildFailed) as raised:
        list(encrypted_files(root, path))
    return str(raised.value)


def test_a_folder_without_or_with_two_kustomization_files(root):
    assert failure(root) == "error decrypting sources: no kustomization file found"
    put(root, {"kustomization.yaml": "{}", "Kustomization": "{}"})
    assert failure(root) == "error decrypting sources: found multiple kustomization files: kustomization.yaml, Kustomization"


def test_a_file_that_is_too_large_or_no_file(root, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    put(root, {"kustomization.yaml": kustomization(secretGenerator=[{"files": ["s.yaml"]}]), "s.yaml": "x" * 1001})
    wanted = "error decrypting sources: cannot decrypt file 's.yaml' with size (1001 bytes) exceeding limit (1000)"
    assert failure(root) == wanted
    (root / "s.yaml").unlink()
    os.mkfifo(root / "s.yaml")
    assert failure(root) == "error decrypting sources: cannot decrypt irregular file 's.yaml'"
    (root / "s.yaml").unlink()
    (root / "s.yaml").mkdir()
    assert failure(root) == "error decrypting sources: cannot decrypt irregular file 's.yaml'"


@pytest.mark.parametrize(
    "text", ["a: [", "- 1", "secretGenerator: 3", "secretGenerator: [1, {files: [2, '']}]\npatches: {}", "", "\xff"]
)
def test_a_file_that_kustomize_will_complain_about(root, text):
    put(root, {"kustomization.yaml": text.encode("latin-1")})
    assert list(encrypted_files(root, "")) == []


async def test_a_file_with_another_key_names_the_file_and_no_folder_of_ours(decryption, key, root):
    put(
        root,
        {"in/kustomization.yaml": kustomization(patches=[{"path": "p.yaml"}]), "in/p.yaml": encrypted(PATCH, "yaml", age=key)},
    )
    before = (root / "in/p.yaml").read_bytes()
    with pytest.raises(BuildFailed) as raised:
        await decrypt(decryption, {"a.agekey": age_key().entry}, root, "in")
    assert str(raised.value).startswith(
        "error decrypting sources: failed to decrypt file 'in/p.yaml': cannot get sops data key: Failed to get the data key"
    )
    assert str(root.parent) not in str(raised.value)
    assert (root / "in/p.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["sops-file-generator", "sops-patch-file"])
async def test_recorded_files_agree(decryption, root, name):
    [entry] = [entry for entry in FACTS if entry["story"]["name"] == name]
    steps = entry["story"]["steps"]
    put(root, {path: text for step in steps for path, text in step.get("files", {}).items()})
    secrets = [obj for step in steps for obj in step.get("apply", ()) if obj["kind"] == "Secret"]
    keys = {entry: text.encode() for obj in secrets for entry, text in obj["stringData"].items()}
    await decrypt(decryption, keys, root)
    end = entry["seen"]["observations"]["end"]
    if name == "sops-file-generator":
        wanted = end[f"Secret/{name}/file"]["data"]["conf.json"]
        assert base64.b64encode((root / "enc.json").read_bytes()).decode() == wanted
    else:
        [(patch, _)] = load_documents((root / "p.yaml").read_text(), "p.yaml")
        wanted = end[f"Secret/{name}/s"]["data"]["a"]
        assert base64.b64encode(patch["stringData"]["a"].encode()).decode() == wanted
