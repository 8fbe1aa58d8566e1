"""`imagebot delete` on a folder: what the service made goes, what a file declares stays, and a running service notices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.app import DATABASE_NAME, load_packages
from reconcile.cli.main import main
from reconcile.errors import NotFound
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.ports.clock import SystemClock

Run = Callable[..., tuple[int, str]]
SCHEME = load_packages().scheme


def body(name: str, namespace: str = "apps") -> dict[str, Any]:
    return {
        "apiVersion": "imagebot.dev/v1alpha1",
        "kind": "ImageHold",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"imageRef": {"policy": "web"}, "mode": "Reject", "tags": ["1.0.0"]},
    }


def hold(name: str, namespace: str = "apps") -> AnyResource:
    return SCHEME.decode(SCHEME.kinds["ImageHold"], body(name, namespace))


@pytest.fixture
def delete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["delete", *arguments, "--dir", str(tmp_path / "manifests"), "--state", str(tmp_path / "state")])
        structlog.reset_defaults()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "mine.yaml").write_text(yaml.safe_dump(body("declared")))
    made = LocalStore(Folder(folder, SCHEME), Database(tmp_path / "state" / DATABASE_NAME), SCHEME, SystemClock())
    async with made:
        for key in (("made", "apps"), ("twice", "apps"), ("twice", "other")):
            await made.create(hold(*key))
        yield made


def test_what_the_service_made_is_deleted(delete: Run, store: LocalStore) -> None:
    code, said = delete("imagehold", "made", "-n", "apps")
    assert (code, said) == (0, "✔ ImageHold apps/made deleted\n")
    code, said = delete("imagehold/made", "-n", "apps")
    assert code == 1
    assert '"made" not found' in said


async def test_a_running_service_notices_and_tells_those_who_watch(store: LocalStore, tmp_path: Path) -> None:
    watch = store.watch(["ImageHold"])
    assert [(await anext(watch)).new.key.name for _ in range(4)] == ["declared", "made", "twice", "twice"]
    other = Database(tmp_path / "state" / DATABASE_NAME)
    other.delete("ImageHold", Key("apps", "made"))
    other.close()
    await store.sync()
    assert (await anext(watch)).new.key.name == "made"
    with pytest.raises(NotFound):
        await store.get("ImageHold", Key("apps", "made"))
    await watch.aclose()  # type: ignore[attr-defined]


def test_what_a_file_declares_is_refused_with_the_file(delete: Run, store: LocalStore, tmp_path: Path) -> None:
    code, said = delete("imagehold", "declared")
    assert code == 1
    assert f"ImageHold apps/declared is declared in {tmp_path / 'manifests' / 'mine.yaml'}: remove it there" in said


def test_a_name_in_two_namespaces_must_be_told_apart(delete: Run, store: LocalStore) -> None:
    code, said = delete("imagehold", "twice")
    assert code == 1
    assert "say with -n which one is meant" in said


def test_without_state_there_is_nothing_of_the_service_to_delete(tmp_path: Path, delete: Run) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "mine.yaml").write_text(yaml.safe_dump(body("declared")))
    code, said = delete("imagehold", "declared")
    assert code == 1
    assert "remove it there" in said


def test_one_object_must_be_named(delete: Run, store: LocalStore) -> None:
    assert delete("imagehold")[0] == 64
