"""Attempts to read what is outside the artifact, to reach the network, to run something, and to take the machine.

There are two fences, and each must hold alone: `boundary` looks at the kustomization files before the build, the kernel forbids
kustomize the rest. Every attempt is made against the first with the second off, and against the second with the first left out.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconcile.errors import LimitExceeded, TimedOut
from reconcile.kustomize.build import Builder
from reconcile.kustomize.confine import Allowance
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.landlock import Kernel, kernel
from tests.support.kustomize_builds import NOTHING_FORBIDDEN, config_map, kustomize, rendered, run_unchecked, unpacked

SECRET = "the-secret-outside"
A = config_map("a")
OUTSIDE = "OUTSIDE"
"""Stands for the absolute path of a folder outside the artifact, which has manifests, texts and kustomizations."""


def kustomization(**fields: object) -> dict[str, str]:
    return {"app/kustomization.yaml": json.dumps(fields), "app/a.yaml": A}


def plugin(field: str, **config: object) -> dict[str, str]:
    """The plugin as a document in the kustomization file."""
    document = {"apiVersion": "builtin", "metadata": {"name": "x"}, **config}
    return kustomization(resources=["a.yaml"], **{field: [json.dumps(document, indent=1)]})


def plugin_file(field: str, **config: object) -> dict[str, str]:
    document = {"apiVersion": "builtin", "metadata": {"name": "x"}, **config}
    return kustomization(resources=["a.yaml"], **{field: ["plugin.yaml"]}) | {"app/plugin.yaml": json.dumps(document)}


PATCH = {"target": {"kind": "ConfigMap", "name": "a"}}
ESCAPES: dict[str, dict[str, str]] = {
    "resource by absolute path": kustomization(resources=[f"{OUTSIDE}/secret.yaml"]),
    "resource by ..": kustomization(resources=["../../outside/secret.yaml"]),
    "base by ..": kustomization(resources=["../../outside"]),
    "base by absolute path": kustomization(resources=[f"{OUTSIDE}"]),
    "legacy bases": kustomization(bases=["../../outside"]),
    "component": kustomization(resources=["a.yaml"], components=["../../outside/component"]),
    "in a base": kustomization(resources=["../base"])
    | {"base/kustomization.yaml": '{"resources": ["../../outside/secret.yaml"]}'},
    "generator file": kustomization(configMapGenerator=[{"name": "x", "files": ["../../outside/secret.txt"]}]),
    "generator file with key": kustomization(configMapGenerator=[{"name": "x", "files": [f"k={OUTSIDE}/secret.txt"]}]),
    "generator envs": kustomization(configMapGenerator=[{"name": "x", "envs": ["../../outside/secret.env"]}]),
    "generator env": kustomization(secretGenerator=[{"name": "x", "env": f"{OUTSIDE}/secret.env"}]),
    "patch file": kustomization(resources=["a.yaml"], patches=[{"path": "../../outside/patch.yaml"}]),
    "json patch file": kustomization(resources=["a.yaml"], patchesJson6902=[{"path": f"{OUTSIDE}/patch.json", **PATCH}]),
    "strategic merge file": kustomization(resources=["a.yaml"], patchesStrategicMerge=["../../outside/patch.yaml"]),
    "replacement file": kustomization(resources=["a.yaml"], replacements=[{"path": "../../outside/replacement.yaml"}]),
    "configuration": kustomization(resources=["a.yaml"], configurations=[f"{OUTSIDE}/secret.yaml"]),
    "crd": kustomization(resources=["a.yaml"], crds=["../../outside/secret.json"]),
    "openapi": kustomization(resources=["a.yaml"], openapi={"path": "../../outside/secret.json"}),
    "generator config outside": kustomization(generators=["../../outside/generator.yaml"]),
    "generator config": plugin_file("generators", kind="ConfigMapGenerator", files=["../../outside/secret.txt"]),
    "generator config within": plugin("generators", kind="ConfigMapGenerator", files=[f"s={OUTSIDE}/secret.txt"]),
    "generator config env": plugin("generators", kind="SecretGenerator", envs=[f"{OUTSIDE}/secret.env"]),
    "transformer config": plugin_file("transformers", kind="PatchTransformer", path="../../outside/patch.yaml", **PATCH),
    "transformer config list": plugin("transformers", kind="PatchStrategicMergeTransformer", paths=[f"{OUTSIDE}/patch.yaml"]),
    "transformer replacement": plugin(
        "transformers", kind="ReplacementTransformer", replacements=[{"path": "../../outside/replacement.yaml"}]
    ),
    "validator outside": kustomization(resources=["a.yaml"], validators=[f"{OUTSIDE}/generator.yaml"]),
}
REMOTE: dict[str, dict[str, str]] = {
    "resource": kustomization(resources=["HOST/x.yaml"]),
    "capital": kustomization(resources=["HTTP://ADDRESS/x.yaml"]),
    "git over http": kustomization(resources=["HOST/org/repo//path?ref=main"]),
    "git::": kustomization(resources=["git::HOST/org/repo.git"]),
    "git over ssh": kustomization(resources=["ssh://git@ADDRESS/org/repo.git"]),
    "component": kustomization(resources=["a.yaml"], components=["HOST/org/repo//c"]),
    "generator file": kustomization(configMapGenerator=[{"name": "x", "files": ["k=HOST/x"]}]),
    "env": kustomization(configMapGenerator=[{"name": "x", "envs": ["HOST/x"]}]),
    "patch": kustomization(resources=["a.yaml"], patches=[{"path": "HOST/x"}]),
    "openapi": kustomization(resources=["a.yaml"], openapi={"path": "HOST/x"}),
    "crd": kustomization(resources=["a.yaml"], crds=["HOST/x"]),
    "configuration": kustomization(resources=["a.yaml"], configurations=["HOST/x"]),
    "replacement": kustomization(resources=["a.yaml"], replacements=[{"path": "HOST/x"}]),
    "generators": kustomization(generators=["HOST/x.yaml"]),
    "generator config": plugin("generators", kind="ConfigMapGenerator", files=["HOST/x.yaml"]),
    "in a base": kustomization(resources=["../base"]) | {"base/kustomization.yaml": '{"resources": ["HOST/x.yaml"]}'},
}
needs_landlock = pytest.mark.skipif(not kernel().landlock, reason="needs a kernel with Landlock")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the artifact with what somebody would like to see."""
    folder = tmp_path / "outside"
    (folder / "component").mkdir(parents=True)
    secret = config_map("secret", k=SECRET)
    generator = {"apiVersion": "builtin", "kind": "ConfigMapGenerator", "metadata": {"name": "x"}, "literals": [f"a={SECRET}"]}
    for name, text in {
        "secret.yaml": secret,
        "secret.txt": SECRET,
        "secret.env": f"K={SECRET}",
        "secret.json": json.dumps({"definitions": SECRET}),
        "patch.yaml": config_map("a", k=SECRET),
        "patch.json": json.dumps([{"op": "add", "path": "/data", "value": {"k": SECRET}}]),
        "replacement.yaml": json.dumps([{"sourceValue": SECRET, "targets": []}]),
        "generator.yaml": json.dumps(generator),
        "kustomization.yaml": '{"resources": ["secret.yaml"]}',
        "component/kustomization.yaml": json.dumps(
            {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "commonLabels": {"s": SECRET}}
        ),
    }.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return tmp_path / "artifact"


def placed(files: dict[str, str], outside: Path) -> dict[str, str]:
    return {path: text.replace(OUTSIDE, str(outside)) for path, text in files.items()}


@pytest.mark.parametrize("name", ESCAPES)
async def test_the_files_are_refused_before_a_build(outside: Path, artifact: Path, tmp_path: Path, name: str) -> None:
    tree = unpacked(artifact, placed(ESCAPES[name], outside))
    builder = Builder(tmp_path / "work", program=kustomize(), able=NOTHING_FORBIDDEN)
    with pytest.raises(BuildFailed, match="is not in or below the root of the source") as caught:
        await rendered(builder, tree, "app")
    assert SECRET not in str(caught.value)
    assert builder.processes == 0
    builder.close()


@needs_landlock
@pytest.mark.parametrize("name", ESCAPES)
def test_the_kernel_refuses_to_read(outside: Path, artifact: Path, name: str) -> None:
    unpacked(artifact, placed(ESCAPES[name], outside))
    done = run_unchecked(artifact, inside="app")
    assert done.status != 0
    assert any(words in done.stderr for words in ("permission denied", "cannot be absolute", "unable to find one of"))
    assert SECRET not in done.stderr + done.stdout.decode()


@pytest.mark.parametrize(
    "name", sorted(set(ESCAPES) - {"openapi", "crd", "configuration", "base by absolute path", "replacement file"})
)
def test_the_attempts_are_real(outside: Path, artifact: Path, name: str) -> None:
    """Without any fence the build gets in. (What is left out is read too, and then found unfit.)"""
    unpacked(artifact, placed(ESCAPES[name], outside))
    done = run_unchecked(artifact, NOTHING_FORBIDDEN, "app")
    assert "permission denied" not in done.stderr
    if name not in ("transformer replacement", "validator outside"):
        assert (
            SECRET.encode() in done.stdout
            or "c2VjcmV0" in done.stdout.decode()
            or "dGhlLXNlY3JldC1vdXRzaWRl" in done.stdout.decode()
        )


@needs_landlock
def test_a_link_out_of_the_tree_is_not_followed(outside: Path, artifact: Path) -> None:
    unpacked(artifact, kustomization(resources=["link.yaml"]))
    (artifact / "app" / "link.yaml").symlink_to(outside / "secret.yaml")
    done = run_unchecked(artifact, inside="app")
    assert (done.status, done.stdout) == (1, b"")
    assert "permission denied" in done.stderr


async def test_a_link_in_the_artifact_is_not_there_for_a_build(outside: Path, artifact: Path, tmp_path: Path) -> None:
    tree = unpacked(artifact, kustomization(resources=["link.yaml", "folder"]))
    (artifact / "app" / "link.yaml").symlink_to(outside / "secret.yaml")
    (artifact / "app" / "folder").symlink_to(outside)
    builder = Builder(tmp_path / "work", program=kustomize(), able=NOTHING_FORBIDDEN)
    with pytest.raises(BuildFailed, match="no such file or directory"):
        await rendered(builder, tree, "app")
    builder.close()


async def test_a_link_in_place_of_a_file_is_not_read(outside: Path, artifact: Path, tmp_path: Path) -> None:
    """Even if somebody could put links where the index has files."""
    tree = unpacked(artifact, kustomization(resources=["a.yaml"]))
    builder = Builder(tmp_path / "work", program=kustomize(), able=NOTHING_FORBIDDEN)
    for name, message in (("a.yaml", "app/a.yaml is no regular file"), ("kustomization.yaml", "no regular file of at most")):
        (artifact / "app" / name).unlink()
        (artifact / "app" / name).symlink_to(outside / "secret.yaml")
        with pytest.raises(BuildFailed, match=message):
            await rendered(builder, tree, "app")
    assert builder.processes == 0
    builder.close()


# --- the network


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port that counts who connects."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                came.append(peer)
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def addressed(files: dict[str, str], port: int) -> dict[str, str]:
    address = f"127.0.0.1:{port}"
    return {path: text.replace("HOST", f"http://{address}").replace("ADDRESS", address) for path, text in files.items()}


@pytest.mark.parametrize("name", REMOTE)
async def test_what_is_remote_is_refused_before_a_build(
    listener: tuple[int, list[object]], artifact: Path, tmp_path: Path, name: str
) -> None:
    port, came = listener
    tree = unpacked(artifact, addressed(REMOTE[name], port))
    builder = Builder(tmp_path / "work", program=kustomize(), able=NOTHING_FORBIDDEN)
    with pytest.raises(BuildFailed, match="is remote: builds have no network"):
        await rendered(builder, tree, "app")
    assert (builder.processes, came) == (0, [])
    builder.close()


FENCES = [Kernel(0, seccomp=True), Kernel(kernel().landlock, seccomp=False), kernel()]


@pytest.mark.skipif(kernel().landlock < 4 or not kernel().seccomp, reason="needs a kernel with Landlock for TCP and seccomp")
@pytest.mark.parametrize("able", FENCES, ids=["seccomp", "landlock", "both"])
@pytest.mark.parametrize("name", ["resource", "capital", "generator file", "patch", "openapi", "crd", "generators", "in a base"])
def test_the_kernel_refuses_to_connect(listener: tuple[int, list[object]], artifact: Path, able: Kernel, name: str) -> None:
    port, came = listener
    unpacked(artifact, addressed(REMOTE[name], port))
    done = run_unchecked(artifact, able, inside="app")
    assert done.status != 0
    assert came == []


def test_without_fences_it_would_connect(listener: tuple[int, list[object]], artifact: Path) -> None:
    port, came = listener
    unpacked(artifact, addressed(REMOTE["resource"], port))
    run_unchecked(artifact, NOTHING_FORBIDDEN, inside="app")
    assert came


# --- programs


@pytest.mark.parametrize("able", [NOTHING_FORBIDDEN, kernel()], ids=["nothing forbidden", "confined"])
async def test_plugins_that_are_programs_do_not_run(artifact: Path, tmp_path: Path, able: Kernel) -> None:
    mark = tmp_path / "mark"
    script = tmp_path / "program"
    script.write_text(f"#!/bin/sh\necho ran >> {mark}\n")
    script.chmod(0o755)
    function = {"config.kubernetes.io/function": f"exec:\n  path: {script}\n"}
    document = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "annotations": function}}
    for field in ("generators", "transformers", "validators"):
        tree = unpacked(artifact / field, plugin_file(field, **document))
        builder = Builder(tmp_path / "work", program=kustomize(), able=able)
        with pytest.raises(BuildFailed):
            await rendered(builder, tree, "app")
        builder.close()
    assert not mark.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"helmCharts": [{"name": "x", "repo": "https://example.com", "version": "1"}]},
        {"helmChartInflationGenerator": [{"chartName": "x", "chartRepoUrl": "https://example.com"}]},
    ],
)
async def test_charts_are_not_inflated(artifact: Path, tmp_path: Path, fields: dict[str, object]) -> None:
    tree = unpacked(artifact, kustomization(**fields))
    builder = Builder(tmp_path / "work", program=kustomize(), able=NOTHING_FORBIDDEN)
    with pytest.raises(BuildFailed, match="must specify --enable-helm"):
        await rendered(builder, tree, "app")
    builder.close()


# --- the machine


def test_too_much_output(artifact: Path) -> None:
    unpacked(artifact, {"kustomization.yaml": '{"resources": ["a.yaml"]}', "a.yaml": config_map("a", k="x" * 300_000)})
    with pytest.raises(LimitExceeded, match="kustomize printed more than 100000 bytes"):
        run_unchecked(artifact, output=100_000)


def bomb(levels: int) -> str:
    lines = ["apiVersion: v1", "kind: ConfigMap", "metadata: {name: a}", f"a0: &a0 [{', '.join(['lol'] * 9)}]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(lines)


async def test_a_bomb_of_aliases_ends_within_the_allowance(artifact: Path, tmp_path: Path) -> None:
    tree = unpacked(artifact, {"a.yaml": bomb(9)})
    allowance = Allowance(seconds=20, memory=256 * 1024**2, output=16 * 1024**2)
    builder = Builder(tmp_path / "work", program=kustomize(), allowance=allowance)
    with pytest.raises(BuildFailed) as caught:
        await rendered(builder, tree)
    assert len(str(caught.value)) < 10_000
    builder.close()


@pytest.mark.parametrize("where", ["app/kustomization.yaml", "base/kustomization.yaml"])
async def test_a_bomb_in_a_kustomization_file_is_refused(artifact: Path, tmp_path: Path, where: str) -> None:
    files = {"app/kustomization.yaml": "resources: [../base]", "base/kustomization.yaml": "", where: bomb(9)}
    tree = unpacked(artifact, files)
    builder = Builder(tmp_path / "work", program=kustomize())
    with pytest.raises(BuildFailed, match="more than 5000000 values, counting what aliases stand for in File"):
        await rendered(builder, tree, "app")
    assert builder.processes == 0
    builder.close()


@pytest.mark.parametrize("where", ["app/kustomization.yaml", "app/a.yaml"])
async def test_deep_nesting_ends_in_an_error(artifact: Path, tmp_path: Path, where: str) -> None:
    deep = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nx: " + "[" * 3000 + "]" * 3000
    tree = unpacked(artifact, kustomization(resources=["a.yaml"]) | {where: deep})
    builder = Builder(tmp_path / "work", program=kustomize())
    with pytest.raises(BuildFailed):
        await rendered(builder, tree, "app")
    builder.close()


async def test_a_chain_of_a_thousand_bases_ends(artifact: Path, tmp_path: Path) -> None:
    files = {f"b{n}/kustomization.yaml": f"resources: [../b{n + 1}]" for n in range(1000)}
    tree = unpacked(artifact, files | {"b1000/kustomization.yaml": "resources: [../b0]"})
    builder = Builder(tmp_path / "work", program=kustomize(), allowance=Allowance(seconds=60))
    with pytest.raises(BuildFailed):
        await rendered(builder, tree, "b0")
    builder.close()


def test_a_build_that_takes_too_long_is_ended(artifact: Path) -> None:
    unpacked(
        artifact,
        {"kustomization.yaml": '{"resources": ["a.yaml"]}', "a.yaml": "---\n".join(config_map(f"a{n}") for n in range(9))},
    )
    with pytest.raises(TimedOut):
        run_unchecked(artifact, seconds=0.001)


@needs_landlock
def test_nothing_can_be_written(artifact: Path) -> None:
    """Not even in the work folder: kustomize needs no file of its own."""
    unpacked(artifact, kustomization(resources=["https://github.com/a/b"]))
    before = sorted(artifact.rglob("*"))
    run_unchecked(artifact, inside="app")
    assert sorted(artifact.rglob("*")) == before
