"""A folder of manifests: what counts, what is reported, and what stays in force."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconcile.api.meta import FINALIZER, Key
from reconcile.errors import Invalid, NotFound
from reconcile.local import files, walk
from reconcile.local.files import Folder, Snapshot
from tests.support.bench import KEY, KIND, Bench, all_kinds, bench, manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    return folder


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as made:
        yield made


def write(path: Path, *bodies: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("---\n".join(body if isinstance(body, str) else yaml.safe_dump(body) for body in bodies))


def scan(root: Path) -> Snapshot:
    found = Folder(root, all_kinds()).scan()
    assert found is not None
    return found


def names(snapshot: Snapshot) -> list[str]:
    return sorted(key.name for _, key in snapshot.objects)


def problems(snapshot: Snapshot) -> list[str]:
    return [str(problem) for problem in snapshot.problems]


# --- what counts


def test_all_files_with_manifests_are_read(root: Path) -> None:
    write(root / "a.yaml", manifest("a"))
    write(root / "deep" / "er" / "b.yml", manifest("b"), manifest("c"))
    (root / "d.json").write_text(json.dumps(manifest("d"), indent=2))
    write(root / "other.txt", manifest("e"))
    write(root / "deployment.yaml", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}})
    write(root / "values.yaml", {"image": {"tag": "1"}}, "just text\n")
    found = scan(root)
    assert names(found) == ["a", "b", "c", "d"]
    assert (problems(found), found.ignored) == ([], 3)


def test_hidden_files_and_folders_are_left_out(root: Path) -> None:
    write(root / ".git" / "a.yaml", manifest("a"))
    write(root / ".b.yaml", manifest("b"))
    assert names(scan(root)) == []


def test_a_list_is_the_objects_in_it(root: Path) -> None:
    write(root / "list.yaml", {"apiVersion": "v1", "kind": "List", "items": [manifest("a"), None, manifest("b")]})
    assert names(scan(root)) == ["a", "b"]
    write(root / "list.yaml", {"apiVersion": "v1", "kind": "List", "items": None})
    assert problems(scan(root)) == []


@pytest.mark.parametrize("items", [5, "abc", {"a": 1}])
def test_the_items_of_a_list_are_a_list(root: Path, items: Any) -> None:
    write(root / "list.yaml", {"apiVersion": "v1", "kind": "List", "items": items})
    assert problems(scan(root)) == ["list.yaml:1: items must be a list"]


def test_what_a_server_sets_is_not_declared(root: Path) -> None:
    body = manifest("a")
    body["metadata"] |= {"uid": "x", "resourceVersion": "7", "generation": 9, "finalizers": ["f"], "creationTimestamp": None}
    write(root / "a.yaml", body | {"status": {"observedGeneration": 5}})
    declared = scan(root).objects[KIND, KEY]
    assert (declared.resource.meta.uid, declared.resource.meta.generation, declared.resource.meta.finalizers) == ("", 1, [])
    assert b"status" not in declared.manifest


def test_a_folder_that_did_not_change_is_not_read_again(root: Path) -> None:
    write(root / "a.yaml", manifest("a"))
    folder = Folder(root, all_kinds())
    assert folder.scan() is not None
    assert folder.scan() is None
    folder.forget()
    assert folder.scan() is not None


def test_a_change_that_keeps_size_and_time_is_noticed(root: Path) -> None:
    path = root / "a.yaml"
    write(path, manifest("a", interval="1m"))
    folder = Folder(root, all_kinds())
    folder.scan()
    before = path.stat()
    with path.open("r+") as file:  # in place: the same inode
        text = file.read().replace("1m", "2m")
        file.seek(0)
        file.write(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = folder.scan()
    assert found is not None
    assert found.objects[KIND, KEY].resource.spec.interval == 120


# --- what is refused, with file and line


BROKEN = [
    ("a: [1\n", "a.yaml:2: while parsing a flow sequence, did not find expected ',' or ']' (column 1)"),
    ("a: b: c\n", "a.yaml:1: mapping values are not allowed in this context (column 5)"),
    ("x: 1\n\ty: 2\n", "a.yaml:2: "),
    ("a: 1\nb: 2\na: 3\n", "a.yaml:3: key 'a' is set twice in one mapping (column 1)"),
    ("a: *nobody\n", "a.yaml:1: alias *nobody refers to no finished value (column 4)"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_file_that_does_not_parse_is_named_with_its_line(root: Path, text: str, message: str) -> None:
    write(root / "a.yaml", text)
    write(root / "b.yaml", manifest("b"))
    found = scan(root)
    assert len(found.problems) == 1
    assert problems(found)[0].startswith(message)
    assert names(found) == ["b"]


WRONG: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (
        lambda b: b | {"kind": "ImageRepositry"},
        'ImageRepositry: no kind "ImageRepositry" in group "image.toolkit.fluxcd.io" (did you mean',
    ),
    (lambda b: b | {"apiVersion": "image.toolkit.fluxcd.io/v9"}, 'ImageRepository default/a: no version "v9" of ImageRepository'),
    (
        lambda b: b | {"spec": b["spec"] | {"intervall": "1m"}},
        "ImageRepository default/a: unknown field spec.intervall (did you mean",
    ),
    (lambda b: b | {"spec": []}, "ImageRepository default/a: spec must be a mapping, not a list"),
    (lambda b: b | {"spec": None}, "ImageRepository default/a: spec.image: is required; spec.interval: is required"),
    (lambda b: b | {"metadata": {}}, "ImageRepository: metadata.name is required"),
    (lambda b: b | {"metadata": []}, "ImageRepository: metadata.name is required"),
    (lambda b: b | {"metadata": "a"}, "ImageRepository: metadata.name is required"),
    (lambda b: b | {"metadata": {"name": 5}}, "ImageRepository: metadata.name that is no text is not a valid name"),
    (lambda b: b | {"metadata": {"name": "Ä"}}, "ImageRepository: metadata.name 'Ä' is not a valid name: lower case"),
    (lambda b: b | {"metadata": {"name": "приложение"}}, "ImageRepository: metadata.name 'приложение' is not a valid name"),
    (lambda b: b | {"metadata": {"name": "a" * 254}}, "ImageRepository: metadata.name 'aaa"),
    (lambda b: b | {"metadata": {"name": "../a"}}, "ImageRepository: metadata.name '../a' is not a valid name"),
    (lambda b: b | {"metadata": {"name": "a", "namespace": "X"}}, "ImageRepository: metadata.namespace 'X' is not a valid name"),
    (
        lambda b: b | {"metadata": {"name": "a", "labels": {"x": 5}}},
        "ImageRepository default/a: metadata.labels.x: Input should be",
    ),
    (lambda b: b | {"metadata": {"name": "a", "labels": [1]}}, "ImageRepository default/a: metadata.labels: Input should be"),
    (lambda b: {k: v for k, v in b.items() if k != "kind"}, "kind is required"),
    (
        lambda b: {k: v for k, v in b.items() if k != "apiVersion"},
        "ImageRepository default/a: apiVersion is required: image.toolkit",
    ),
    (
        lambda b: {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns", "labels": [1]}},
        "Namespace ns: metadata.labels must",
    ),
    (
        lambda b: {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "s"}, "imagePullSecrets": 5},
        "ServiceAccount default/s: imagePullSecrets must be a list of {name: NAME}",
    ),
    (
        lambda b: {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "s", "annotations": 5}},
        "ServiceAccount default/s: metadata.annotations must be a mapping of texts",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_one_wrong_document_is_named_and_the_others_count(root: Path, change: Callable[[Any], Any], message: str) -> None:
    write(root / "a.yaml", manifest("good"), change(manifest("a")), manifest("fine"))
    found = scan(root)
    assert names(found) == ["fine", "good"]
    assert len(found.problems) == 1
    assert found.problems[0].line == 11
    assert str(found.problems[0]).removeprefix("a.yaml:11: ").startswith(message)
    assert len(str(found.problems[0])) < 500


def test_the_same_object_twice_is_reported_and_the_first_counts(root: Path) -> None:
    write(root / "a.yaml", manifest("a", interval="1m"), manifest("a", interval="2m"))
    write(root / "b.yaml", manifest("a", interval="3m"))
    found = scan(root)
    assert found.objects[KIND, KEY].resource.spec.interval == 60
    assert problems(found) == [
        "a.yaml:11: ImageRepository default/a: stands twice in this file; the first one counts",
        "b.yaml:1: ImageRepository default/a stands in a.yaml:1 already; that one counts",
    ]


def test_a_yaml_bomb_is_refused(root: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    write(root / "bomb.yaml", "\n".join(lines))
    assert "counting what aliases stand for" in problems(scan(root))[0]


def test_a_bomb_of_long_texts_is_refused(root: Path) -> None:
    text = f"long: &a {'x' * 100_000}\n" + yaml.safe_dump(manifest("a")) + "  exclusionList: [" + ", ".join(["*a"] * 25) + "]\n"
    write(root / "bomb.yaml", text)
    assert problems(scan(root)) == ["bomb.yaml:1: ImageRepository default/a: is larger than 1536 KiB"]


def test_a_file_of_a_hundred_thousand_lines_is_read(root: Path) -> None:
    write(root / "long.yaml", "# nothing\n" * 90_000, *(manifest(f"n{i}") for i in range(1200)))
    found = scan(root)
    assert (len(found.objects), found.problems) == (1200, ())
    assert found.objects[KIND, Key("default", "n1199")].line > 90_000


def test_a_file_above_the_limit_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1024 * 1024)
    write(root / "big.yaml", "# " + "x" * 1024 * 1024, manifest("a"))
    write(root / "b.yaml", manifest("b"))
    found = scan(root)
    assert problems(found) == ["big.yaml: is larger than 1 MiB"]
    assert names(found) == ["b"]


def test_more_files_than_the_limit_are_reported_and_take_nothing_away(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / "m.yaml", manifest("m"))
    folder = Folder(root, all_kinds())
    folder.scan()
    monkeypatch.setattr(walk, "MAX_FILES", 2)
    for name in "abc":
        write(root / f"{name}.yaml", manifest(name))
    found = folder.scan()
    assert found is not None
    assert names(found) == ["a", "b", "m"]
    assert problems(found) == ["c.yaml: more than 2 manifest files: the rest is left out"]
    assert found.keeps((KIND, KEY), "anything.yaml")


def test_folders_deeper_than_the_limit_are_reported(root: Path) -> None:
    write(root.joinpath(*["d"] * (walk.MAX_DEPTH + 1), "a.yaml"), manifest("a"))
    found = scan(root)
    assert names(found) == []
    assert problems(found)[0].endswith("is more than 32 folders deep: left out")


def test_not_every_problem_is_listed(root: Path) -> None:
    for n in range(3):
        write(root / f"{n}.yaml", *({"kind": KIND, "spec": n} for n in range(90)))
    found = scan(root)
    assert len(found.problems) == files.MAX_PROBLEMS + 1
    assert problems(found)[-1] == ".: 170 more problems are not shown"


# --- links and odd files


def test_links_that_leave_the_folder_are_not_followed(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "outside" / "a.yaml", manifest("a"))
    (root / "link.yaml").symlink_to(tmp_path / "outside" / "a.yaml")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "up.yaml").symlink_to("../outside/a.yaml")
    (root / "readme").symlink_to("/etc/hostname")
    found = scan(root)
    assert names(found) == []
    text = "is a link that leads out of the folder: not followed"
    assert problems(found) == [f"folder: {text}", f"link.yaml: {text}", f"up.yaml: {text}"]


def test_a_folder_whose_name_begins_like_ours_is_outside(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "manifests-2" / "a.yaml", manifest("a"))
    (root / "a.yaml").symlink_to("../manifests-2/a.yaml")
    assert names(scan(root)) == []


def test_a_mounted_config_map_is_followed_and_its_exchange_is_noticed(root: Path) -> None:
    for version, interval in (("..2026_1", "1m"), ("..2026_2", "2m")):
        write(root / version / "a.yaml", manifest("a", interval=interval))
    (root / "..data").symlink_to("..2026_1")
    (root / "a.yaml").symlink_to("..data/a.yaml")
    folder = Folder(root, all_kinds())
    first = folder.scan()
    (root / "..new").symlink_to("..2026_2")
    (root / "..new").rename(root / "..data")
    second = folder.scan()
    assert first is not None
    assert second is not None
    assert [s.objects[KIND, KEY].resource.spec.interval for s in (first, second)] == [60, 120]
    assert problems(second) == []


def test_a_link_loop_ends(root: Path) -> None:
    write(root / "sub" / "a.yaml", manifest("a"))
    (root / "sub" / "loop").symlink_to("..")
    (root / "self.yaml").symlink_to("self.yaml")
    found = scan(root)
    assert names(found) == ["a"]
    assert len(found.problems) == 1
    assert problems(found)[0].startswith("self.yaml: ")


def test_odd_files_are_not_read(root: Path) -> None:
    os.mkfifo(root / "pipe.yaml")
    (root / "folder.yaml").mkdir()
    write(root / "folder.yaml" / "a.yaml", manifest("a"))
    assert names(scan(root)) == ["a"]


def test_file_names_of_any_script(root: Path) -> None:
    write(root / "日本" / "прил 😀.yaml", manifest("a"), "b: [\n")
    assert problems(scan(root))[0].startswith("日本/прил 😀.yaml:")


def test_a_file_name_that_is_no_text_is_reported(root: Path) -> None:
    write(root / "a.yaml", manifest("a"))
    shutil.copy(root / "a.yaml", os.fsencode(root) + b"/\xff.yaml")
    found = scan(root)
    assert problems(found) == ["\\udcff.yaml: has a name that is not UTF-8: left out"]
    assert names(found) == ["a"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc", "a: ö".encode("latin-1")])
def test_a_file_that_is_no_text_is_reported(root: Path, content: bytes) -> None:
    (root / "a.yaml").write_bytes(content)
    assert problems(scan(root)) == ["a.yaml: is not UTF-8 text"]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(root: Path) -> None:
    (root / "a.yaml").write_bytes(b"\xef\xbb\xbf" + yaml.safe_dump(manifest("a")).replace("\n", "\r\n").encode())
    assert names(scan(root)) == ["a"]


# --- the last good version stays in force


async def test_added_changed_and_deleted_files_are_taken_over(world: Bench) -> None:
    await world.declare(manifest("a"))
    await world.declare(manifest("b"))
    await world.declare(manifest("a", interval="2m"))
    assert [(r.key.name, r.meta.generation) for r in await world.store.list(KIND)] == [("a", 2), ("b", 1)]
    await world.withdraw("b")
    assert [r.key.name for r in await world.store.list(KIND)] == ["a"]


async def test_nulls_and_order_do_not_raise_the_generation(world: Bench) -> None:
    await world.declare(manifest("a"))
    body = manifest("a")
    body["spec"] = {"timeout": None, **dict(reversed(body["spec"].items()))}
    await world.declare(body)
    assert (await world.get()).meta.generation == 1


BREAKS: list[Callable[[Path], Any]] = [
    lambda p: p.write_text("a: [\n"),
    lambda p: p.write_text(yaml.safe_dump(manifest("a", intervall="1m"))),
    lambda p: p.write_text(yaml.safe_dump(manifest("a") | {"kind": "ImageRepositry"})),
    lambda p: p.write_text(yaml.safe_dump(manifest("a") | {"apiVersion": "image.toolkit.fluxcd.io/v2"})),
    lambda p: p.write_text(yaml.safe_dump(manifest("A_"))),
    lambda p: p.write_text(yaml.safe_dump({k: v for k, v in manifest("a").items() if k != "kind"})),
    lambda p: p.write_text(yaml.safe_dump({k: v for k, v in manifest("a").items() if k != "apiVersion"})),
    lambda p: p.write_bytes(b"\xff"),
    lambda p: (p.unlink(), p.symlink_to("nowhere.yaml")),
    lambda p: (p.unlink(), p.symlink_to("/etc/hostname")),
    lambda p: (p.unlink(), p.symlink_to(p.name)),
]


@pytest.mark.parametrize("damage", BREAKS)
@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
async def test_a_broken_file_keeps_its_last_good_version(tmp_path: Path, damage: Callable[[Path], Any], restart: bool) -> None:
    async with bench(tmp_path) as world:
        await world.declare(manifest("a"))
        before = await world.get()
        damage(world.folder / "a.yaml")
        if not restart:
            await world.store.sync()
            assert await world.get() == before
            assert [p.path for p in world.store.problems] == ["a.yaml"]
    async with bench(tmp_path) as world:
        assert await world.get() == before
        assert [p.path for p in world.store.problems] == ["a.yaml"]
        await world.declare(manifest("a", interval="2m")) if not (path := world.folder / "a.yaml").is_symlink() else path.unlink()
        await world.store.sync()
        assert world.store.problems == ()


async def test_of_a_broken_document_the_object_stays_and_its_neighbours_change(world: Bench) -> None:
    path = world.folder / "all.yaml"
    write(path, manifest("a"), manifest("b"), manifest("c"))
    await world.store.sync()
    write(path, manifest("a", intervall="1m"), manifest("b", interval="2m"))
    await world.store.sync()
    assert [(r.key.name, r.meta.generation) for r in await world.store.list(KIND)] == [("a", 1), ("b", 2)]


async def test_while_a_document_cannot_be_told_nothing_in_its_file_is_deleted(world: Bench) -> None:
    path = world.folder / "all.yaml"
    write(path, manifest("a"), manifest("b"))
    await world.store.sync()
    write(path, manifest("a", interval="2m"), manifest("b") | {"kind": "ImageRepositry"})
    await world.store.sync()
    assert [(r.key.name, r.meta.generation) for r in await world.store.list(KIND)] == [("a", 2), ("b", 1)]
    write(path, manifest("a", interval="2m"))
    await world.store.sync()
    assert [r.key.name for r in await world.store.list(KIND)] == ["a"]


async def test_a_folder_that_cannot_be_listed_takes_nothing_away(world: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write(world.folder / "sub" / "deep" / "a.yaml", manifest("a"))
    write(world.folder / "b.yaml", manifest("b"))
    await world.store.sync()
    listing = os.scandir

    def refused(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(os, "scandir", refused)
    (world.folder / "b.yaml").unlink()
    await world.store.sync()
    assert [r.key.name for r in await world.store.list(KIND)] == ["a"]
    assert [str(p) for p in world.store.problems] == ["sub: cannot be read: Permission denied"]
    monkeypatch.undo()
    await world.store.sync()
    assert world.store.problems == ()


async def test_a_file_that_cannot_be_read_is_tried_again_although_it_looks_the_same(
    world: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, limit: int) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "read_regular", refused)
        write(world.folder / "a.yaml", manifest("a"))
        await world.store.sync()
        assert [str(p) for p in world.store.problems] == ["a.yaml: cannot be read: Input/output error"]
    await world.store.sync()
    assert (world.store.problems, (await world.get()).meta.generation) == ((), 1)


# --- the folder itself


async def test_a_folder_that_vanishes_takes_nothing_away_and_comes_back(world: Bench) -> None:
    await world.declare(manifest("a"))
    write(world.folder / "broken.yaml", "a: [\n")
    await world.store.sync()
    broken = world.store.problems
    away = world.folder.rename(world.folder.with_name("away"))
    with pytest.raises(Invalid, match="is not a folder"):
        await world.store.sync()
    assert (await world.get()).meta.generation == 1
    away.rename(world.folder)
    await world.store.sync()
    assert world.store.problems == broken
    assert (await world.get()).meta.generation == 1


async def test_secrets_of_a_broken_file_stay_too(world: Bench) -> None:
    path = world.folder / "s.yaml"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "v"}}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "s"}, "imagePullSecrets": [{"name": "x"}]}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns", "labels": {"team": "red"}}}
    write(path, secret, account, space)
    await world.store.sync()
    write(path, secret | {"stringData": 5}, account | {"imagePullSecrets": 5}, space | {"metadata": {"name": "ns", "labels": 5}})
    await world.store.sync()
    assert len(world.store.problems) == 3
    key = Key("default", "s")
    assert (await world.store.secret(key)).data == {"p": b"v"}
    assert (await world.store.service_account(key)).image_pull_secrets == ("x",)
    assert await world.store.namespace_labels("ns") == {"kubernetes.io/metadata.name": "ns", "team": "red"}
    write(path, account)
    await world.store.sync()
    with pytest.raises(NotFound):
        await world.store.secret(key)


async def test_an_object_that_returns_while_it_is_deleted_comes_back_new(world: Bench) -> None:
    await world.declare(manifest("a"))
    first = await world.store.write_finalizers(await world.get(), [FINALIZER])
    await world.withdraw("a")
    await world.declare(manifest("a"))
    going = await world.get()
    assert going.meta.deletion_timestamp
    await world.store.write_finalizers(going, [])
    await world.store.sync()
    again = await world.get()
    assert (again.meta.uid == first.meta.uid, again.meta.deletion_timestamp) == (False, None)
