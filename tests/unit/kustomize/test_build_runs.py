"""Runs of kustomize: what they show, how many there are, and that nothing stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconcile.errors import MissingProgram
from reconcile.kustomize.build import Builder, build_id, objects_of
from reconcile.kustomize.confine import Allowance
from reconcile.kustomize.failure import BuildFailed, PathNotFound
from reconcile.kustomize.messages import failure
from reconcile.kustomize.tree import clamped, resolve_path
from tests.support.kustomize_builds import NOTHING_FORBIDDEN, config_map, digests, kustomize, rendered, spec_of, unpacked

A = {"kustomization.yaml": "resources: [a.yaml]\n", "a.yaml": config_map("a", k="v")}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def builder(work: Path) -> Iterator[Builder]:
    made = Builder(work, program=kustomize())
    yield made
    made.close()


def pretended(folder: Path, body: str) -> Path:
    """A kustomize that says it is version 5 and does what `body` says."""
    program = folder / "kustomize"
    program.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\nif [ "$1" = version ]; then echo v5.0.0; exit; fi\n{body}\n')
    program.chmod(0o755)
    return program


def pretender(work: Path, folder: Path, body: str, **options: object) -> Builder:
    return Builder(work, program=pretended(folder, body), able=NOTHING_FORBIDDEN, **options)  # type: ignore[arg-type]


def remains(work: Path) -> list[Path]:
    return [path for session in work.iterdir() if session.is_dir() for path in session.iterdir() if path.name != "lock"]


# --- what comes out


async def test_objects_come_in_the_order_of_kustomize(builder: Builder, tmp_path: Path) -> None:
    tree = unpacked(tmp_path / "a", {"b.yaml": config_map("b"), "a.yaml": config_map("a") + "---\n" + config_map("c")})
    assert [build_id(one) for one in await rendered(builder, tree)] == [
        "ConfigMap.v1.[noGrp]/a",
        "ConfigMap.v1.[noGrp]/c",
        "ConfigMap.v1.[noGrp]/b",
    ]


async def test_scalars_keep_their_types(builder: Builder, tmp_path: Path) -> None:
    spec = "{i: 1, f: 1.5, e: 1e3, yes: yes, t: true, n: null, d: 2024-01-01, o: '0777', s: '1', b: 'true', h: '0x1F', u: 'no'}"
    tree = unpacked(tmp_path / "a", {"a.yaml": f"apiVersion: example.com/v1\nkind: Thing\nmetadata: {{name: a}}\nspec: {spec}\n"})
    [thing] = await rendered(builder, tree)
    assert thing["spec"] == {
        "i": 1, "f": 1.5, "e": 1000, "yes": "yes", "t": True, "n": None, "d": "2024-01-01T00:00:00Z", "o": "0777", "s": "1",
        "b": "true", "h": "0x1F", "u": "no",
    }  # fmt: skip
    assert build_id(thing) == "Thing.v1.example.com/a"


async def test_texts_survive(builder: Builder, tmp_path: Path) -> None:
    texts = {
        "a": "line\nline\n",
        "b": "  blanks  ",
        "c": "😀 ü",
        "d": "a: b # c",
        "e": "x" * 5000,
        "f": "tab\tand\\",
        "g": "",
        "i": "a\u2028c",
        "h": "\n",
    }
    lines = "".join(f"  {key}: {_quoted(value)}\n" for key, value in texts.items())
    tree = unpacked(tmp_path / "a", {"a.yaml": f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n{lines}"})
    [one] = await rendered(builder, tree)
    assert one["data"] == texts


def _quoted(text: str) -> str:
    return (
        '"'
        + text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\x85", "\\N").replace("\u2028", "\\L")
        + '"'
    )


async def test_folders_beside_and_above_are_reached(builder: Builder, tmp_path: Path) -> None:
    tree = unpacked(
        tmp_path / "a",
        {
            "apps/web/overlay/kustomization.yaml": "resources: [../base]\nconfigMapGenerator: [{name: g, files: [../../../t]}]",
            "apps/web/base/kustomization.yaml": "resources: [a.yaml]\n",
            "apps/web/base/a.yaml": config_map("a"),
            "t": "hello",
        },
    )
    objects = await rendered(builder, tree, "apps/web/overlay")
    assert [one.get("data") for one in objects] == [None, {"t": "hello"}]


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (b"", []),
        (b"---\n", []),
        (b"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A, metadata: {name: x}}\n", ["A.v1.[noGrp]/x"]),
        (
            b"kind: AList\nitems:\n- {kind: List, items: [{apiVersion: b/v1, kind: B, metadata: {name: z}}]}",
            ["B.v1.b/z"],
        ),
        (b"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nmetadata: {name: x}\n", []),
        (b"apiVersion: example.com/v1\nkind: Kustomization\nmetadata: {name: x}\n", ["Kustomization.v1.example.com/x"]),
    ],
)  # fmt: skip
def test_lists_are_replaced_by_their_items(output: bytes, names: list[str]) -> None:
    assert [build_id(one) for one in objects_of(output)] == names


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (b"kind: A\nmetadata: {name: x}\n", "A/x has no apiVersion"),
        (b"apiVersion: v1\nmetadata: {name: x}\n", "object/x has no kind"),
        (b"apiVersion: v1\nkind: A\n", "A/ has no metadata.name"),
        (b"apiVersion: v1\nkind: A\nmetadata: {name: 1}\n", "A/1 has no metadata.name"),
        (b"- a\n", "a document of the result is no object"),
        (b"a: b: c\n", "the result cannot be read: 1:5: mapping values are not allowed in this context"),
        (b"a: \xff\n", "the result cannot be read: "),
    ],
)
def test_what_is_no_object_is_named(output: bytes, message: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        objects_of(output)
    assert str(caught.value).startswith(f"kustomize build failed: {message}")


# --- messages


DECODING = [
    ("a: b: c\n", "MalformedYAMLError: yaml: mapping values are not allowed in this context"),
    ("a: b\nc\nd: e\n", "MalformedYAMLError: yaml: line 2: could not find expected ':'"),
    ("foo: bar\n", "missing Resource metadata"),
    ("- a\n", "missing Resource metadata"),
]


@pytest.mark.parametrize(("text", "cause"), DECODING)
async def test_a_manifest_that_is_none_is_named(builder: Builder, tmp_path: Path, text: str, cause: str) -> None:
    tree = unpacked(tmp_path / "a", {"deploy/sub/x.yaml": text, "deploy/a.yaml": config_map("a")})
    with pytest.raises(BuildFailed) as caught:
        await rendered(builder, tree, "deploy")
    assert str(caught.value) == f"failed to decode Kubernetes YAML from deploy/sub/x.yaml: {cause}"


async def test_a_build_error_names_file_and_line(builder: Builder, tmp_path: Path) -> None:
    files = {"app/kustomization.yaml": "resources: [../base/x.yaml]\n", "base/x.yaml": "a: b\nc\nd: e\n"}
    with pytest.raises(BuildFailed) as caught:
        await rendered(builder, unpacked(tmp_path / "a", files), "app")
    assert "line 2: could not find expected ':' in File: ../base/x.yaml" in str(caught.value)


async def test_paths_in_messages_are_those_of_the_artifact(builder: Builder, tmp_path: Path) -> None:
    files = {"app/kustomization.yaml": "resources: [../base]\n", "base/kustomization.yaml": "resources: [gone.yaml]\n"}
    with pytest.raises(BuildFailed) as caught:
        await rendered(builder, unpacked(tmp_path / "a", files), "app")
    assert "lstat base/gone.yaml: no such file or directory" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


async def test_the_same_failure_has_the_same_message(builder: Builder, tmp_path: Path) -> None:
    tree = unpacked(tmp_path / "a", {"kustomization.yaml": "resources: [gone.yaml]\n"})
    messages = []
    for _ in range(2):
        with pytest.raises(BuildFailed) as caught:
            await rendered(builder, tree)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


async def test_values_of_objects_are_not_in_messages(builder: Builder, tmp_path: Path) -> None:
    secret = 'apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: hunter2, c: "\\x7f"}\n'
    with pytest.raises(BuildFailed) as caught:
        await rendered(builder, unpacked(tmp_path / "a", {"a.yaml": secret}))
    assert str(caught.value) == "kustomize build failed: Secret/a: yaml: control characters are not allowed"


MESSAGES = [
    (1, "Error: oh\n", "kustomize build failed: oh"),
    (1, "# Warning: 'bases' is deprecated. Please\n2026/11/23 00:00:00 well, Run\nError: oh\n", "kustomize build failed: oh"),
    (2, "panic: bad\n\ngoroutine 1 [running]:\nmain.main()\n", "kustomize build failed: panic: bad"),
    (2, "fatal error: runtime: out of memory\n\nruntime stack:\n", "kustomize build failed: fatal error: runtime: out of memory"),
    (-9, "", "kustomize build failed: kustomize was ended by signal 9"),
    (3, "", "kustomize build failed: kustomize ended with status 3"),
    (1, "Error: in '/work/1': /work/1/a/b.yaml", "kustomize build failed: in '.': a/b.yaml"),
    (1, "Error: https://user:pass@example.com/x", "kustomize build failed: https://example.com/x"),
]


@pytest.mark.parametrize(("status", "stderr", "message"), MESSAGES)
def test_messages(status: int, stderr: str, message: str) -> None:
    assert failure(status, stderr, "/work/1", "", None) == message


def test_a_message_fits_into_a_condition() -> None:
    message = failure(1, "Error: begin" + "x" * 100_000 + "end", "/w", "", None)
    assert message.startswith("kustomize build failed: begin")
    assert message.endswith("end")
    assert len(message) < 10_000


# --- paths


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (None, ""),
        ("", ""),
        ("./", ""),
        (".", ""),
        ("/", ""),
        ("./a/b/", "a/b"),
        ("../../a", "a"),
        ("a/../../b", "b"),
        ("/a//b", "a/b"),
    ],
)
def test_paths_are_clamped_to_the_artifact(path: str | None, place: str) -> None:
    assert clamped(path) == place


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    tree = unpacked(tmp_path / "a", {"a/b.yaml": ""})
    (tmp_path / "a" / "empty" / "er").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "outside")
    for path in ("", "a", "a/b.yaml", "empty", "./empty/er", "../../a"):
        assert resolve_path(tree.root, tree.files, path) == clamped(path)
    for path in ("b", "a/b", "../outside", "link", "a/b.yaml/c", "x\0y"):
        with pytest.raises(PathNotFound) as caught:
            resolve_path(tree.root, tree.files, path)
        assert str(caught.value) == f"kustomization path not found: stat {clamped(path)}: no such file or directory"


async def test_an_empty_folder_builds_nothing(builder: Builder, tmp_path: Path) -> None:
    tree = unpacked(tmp_path / "a", {"x": ""})
    (tmp_path / "a" / "empty").mkdir()
    assert await rendered(builder, tree, "empty") == []


# --- workspaces


async def test_only_what_is_reached_is_there(work: Path, tmp_path: Path) -> None:
    builder = pretender(work, tmp_path, "cd .. && find . -type f | sort >&2; exit 1")
    files = A | {f"other/{n}.yaml": "" for n in range(300)}
    tree = unpacked(tmp_path / "a", {f"app/{path}": text for path, text in files.items()})
    with pytest.raises(BuildFailed) as caught:
        await rendered(builder, tree, "app")
    assert str(caught.value) == "kustomize build failed: ./app/a.yaml\n./app/kustomization.yaml"
    builder.close()


async def test_nothing_stays_and_the_artifact_is_untouched(builder: Builder, work: Path, tmp_path: Path) -> None:
    tree = unpacked(tmp_path / "a", A)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in tree.root.rglob("*")}
    await rendered(builder, tree, targetNamespace="x")
    with pytest.raises(BuildFailed):
        await rendered(builder, tree, patches=[{"patch": "no patch"}])
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in tree.root.rglob("*")} == before
    assert remains(work) == []


async def test_files_may_be_changed_in_place_before_the_build(builder: Builder, work: Path, tmp_path: Path) -> None:
    files = {"app/kustomization.yaml": "secretGenerator: [{name: s, files: [../secret.txt]}]\n", "secret.txt": "encrypted"}
    tree = unpacked(tmp_path / "a", files)
    seen: list[str] = []

    async def decrypt(root: Path, path: str) -> None:
        seen.extend((path, (root / path / "kustomization.yaml").read_text()))
        with (root / "secret.txt").open("w") as file:
            file.write("clear")

    [secret] = await builder.render(tree.root, tree.files, spec_of(namePrefix="x-"), "app", prepare=decrypt)
    assert secret["data"] == {"secret.txt": "Y2xlYXI="}
    assert seen[0] == "app"
    assert '"namePrefix":"x-"' in seen[1]
    assert (tree.root / "secret.txt").read_text() == "encrypted"
    assert remains(work) == []


async def test_what_prepare_raises_comes_through(builder: Builder, work: Path, tmp_path: Path) -> None:
    async def fail(root: Path, path: str) -> None:
        raise BuildFailed("cannot get sops data key")

    tree = unpacked(tmp_path / "a", A)
    with pytest.raises(BuildFailed, match=r"^cannot get sops data key$"):
        await builder.render(tree.root, tree.files, spec_of(), "", prepare=fail)
    assert (remains(work), builder.processes) == ([], 0)


async def test_a_build_cancelled_while_it_is_prepared_leaves_nothing(builder: Builder, work: Path, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def wait(root: Path, path: str) -> None:
        begun.set()
        await asyncio.sleep(60)

    tree = unpacked(tmp_path / "a", A)
    task = asyncio.create_task(builder.render(tree.root, tree.files, spec_of(), "", prepare=wait))
    await begun.wait()
    assert len(remains(work)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert remains(work) == []


# --- processes


async def test_one_process_per_build_and_one_look_at_the_version(builder: Builder, tmp_path: Path) -> None:
    tree = unpacked(tmp_path / "a", A)
    for _ in range(3):
        await rendered(builder, tree)
    assert await builder.version() == "v5.8.1"
    assert builder.processes == 4


async def test_no_more_builds_at_once_than_allowed_and_in_order(work: Path, tmp_path: Path) -> None:
    (tmp_path / "now").mkdir()
    (tmp_path / "seen").mkdir()
    # A confined process cannot write files, but folders where nothing is forbidden.
    body = (
        f"cd {tmp_path}; n=$(basename $OLDPWD)\n"
        "mkdir now/$n; mkdir seen/$(ls seen | wc -l)-$n-$(ls now | wc -l); sleep 0.03; rmdir now/$n"
    )
    builder = pretender(work, tmp_path, body, concurrent=1)
    tree = unpacked(tmp_path / "a", {f"{n}/kustomization.yaml": "namePrefix: x" for n in range(6)})
    await asyncio.gather(*(rendered(builder, tree, str(n)) for n in range(6)))
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == [f"{n}-{n}-1" for n in range(6)]
    builder.close()


async def appeared(folder: Path, prefix: str) -> str:
    """The rest of the name of a file in `folder` that begins with `prefix`, once there is one."""
    for _ in range(2000):
        for path in folder.iterdir():
            if path.name.startswith(prefix):
                return path.name.removeprefix(prefix)
        await asyncio.sleep(0.01)
    raise AssertionError(f"no {prefix}")


async def test_a_cancelled_build_ends_its_process(work: Path, tmp_path: Path) -> None:
    builder = pretender(work, tmp_path, f"mkdir {tmp_path}/pid-$$; sleep 60")
    task = asyncio.create_task(rendered(builder, unpacked(tmp_path / "a", A)))
    pid = int(await appeared(tmp_path, "pid-"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert remains(work) == []
    builder.close()


async def test_a_build_that_hangs_is_ended_with_all_it_started(work: Path, tmp_path: Path) -> None:
    builder = pretender(work, tmp_path, f"sleep 60 & mkdir {tmp_path}/pid-$!; wait", allowance=Allowance(seconds=2))
    with pytest.raises(BuildFailed, match="kustomize build failed: kustomize took more than 2 seconds"):
        await rendered(builder, unpacked(tmp_path / "a", A))
    state = Path("/proc") / await appeared(tmp_path, "pid-") / "stat"
    for _ in range(500):
        if not state.exists() or " Z " in state.read_text():
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("what it started still runs")
    builder.close()


async def test_a_program_that_says_nothing_more_and_stays_is_ended(work: Path, tmp_path: Path) -> None:
    builder = pretender(work, tmp_path, "exec >&- 2>&-; sleep 60", allowance=Allowance(seconds=1))
    with pytest.raises(BuildFailed, match="kustomize build failed: kustomize took more than 1 seconds"):
        await rendered(builder, unpacked(tmp_path / "a", A))
    builder.close()


async def test_endless_output_is_cut_off(work: Path, tmp_path: Path) -> None:
    builder = pretender(
        work, tmp_path, "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done", allowance=Allowance(output=9999)
    )
    with pytest.raises(BuildFailed, match="kustomize build failed: kustomize printed more than 9999 bytes"):
        await rendered(builder, unpacked(tmp_path / "a", A))
    builder.close()


async def test_endless_complaints_are_bounded(work: Path, tmp_path: Path) -> None:
    body = "exec >&2; echo begin; i=0; while [ $i -lt 20000 ]; do echo complaint-complaint; i=$((i+1)); done; echo end; exit 1"
    builder = pretender(work, tmp_path, body)
    with pytest.raises(BuildFailed) as caught:
        await rendered(builder, unpacked(tmp_path / "a", A))
    assert str(caught.value).startswith("kustomize build failed: begin")
    assert str(caught.value).endswith("end")
    builder.close()


async def test_a_missing_program_says_what_to_install(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    builder = Builder(work)
    with pytest.raises(MissingProgram, match="'kustomize' is not installed: install kustomize v5 and put it on PATH"):
        await rendered(builder, unpacked(tmp_path / "a", A))
    builder.close()


@pytest.mark.parametrize(("says", "is_"), [("v4.5.7", "v4.5.7"), ("what", "an unknown version")])
async def test_another_major_version_is_refused(work: Path, tmp_path: Path, says: str, is_: str) -> None:
    program = pretended(tmp_path, "")
    program.write_text(f"#!/bin/sh\necho {says}\n")
    builder = Builder(work, program=program, able=NOTHING_FORBIDDEN)
    with pytest.raises(MissingProgram, match=f"is {is_}: install kustomize v5"):
        await builder.version()
    builder.close()


async def test_the_program_on_path_is_found(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(kustomize().parent), prepend=os.pathsep)
    builder = Builder(work)
    assert len(await rendered(builder, unpacked(tmp_path / "a", A))) == 1
    builder.close()


async def test_ten_thousand_files_around_three(builder: Builder, tmp_path: Path) -> None:
    """Only what is read exists at all: a build never looks for the rest."""
    tree = unpacked(tmp_path / "a", {f"app/{path}": text for path, text in A.items()})
    files = digests({f"other/{n}/x.yaml": "" for n in range(10_000)}) | dict(tree.files)
    assert len(await builder.render(tree.root, files, spec_of(), "app")) == 1


async def test_many_manifests(builder: Builder, tmp_path: Path) -> None:
    files = {f"{n % 50}/{n}.yaml": config_map(f"a{n}") for n in range(500)}
    assert len(await rendered(builder, unpacked(tmp_path / "a", files))) == 500
