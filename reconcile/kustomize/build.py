"""From the folder of an artifact to objects: one confined run of kustomize."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from reconcile.api.kustomization import KustomizationSpec
from reconcile.errors import LimitExceeded, MissingProgram, TimedOut
from reconcile.kustomize import boundary, messages
from reconcile.kustomize.confine import Allowance, Cancelled, Program
from reconcile.kustomize.documents import load_all
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.generate import Generated, generate
from reconcile.kustomize.landlock import Kernel, kernel
from reconcile.kustomize.reach import closure
from reconcile.kustomize.tree import Tree, tree_of
from reconcile.kustomize.workspace import Workspace, Workspaces
from reconcile.ports.cluster import Object
from reconcile.runtime.logs import get_logger
from reconcile.runtime.threads import Threads
from reconcile.yamlio import YamlError

T = TypeVar("T")
Prepare = Callable[[Path, str], Awaitable[None]]

MAJOR: Final = 5
"""The version of kustomize whose builds these are."""

_VERSION: Final = re.compile(r"v(\d+)\.\d+\.\d+\S*")
_ARGUMENTS: Final = ("build", "--load-restrictor", "LoadRestrictionsNone", "--reorder", "none", ".")
_KUSTOMIZE_GROUP: Final = "kustomize.config.k8s.io/"
log = get_logger("kustomize")


@dataclass(slots=True)
class _Run:
    """One build: what the threads that work on it share, and how it is stopped."""

    program: Program | None = None
    space: Workspace | None = None
    stopped: bool = False
    guard: threading.Lock = field(default_factory=threading.Lock)

    def stop(self) -> None:
        with self.guard:
            self.stopped = True
            if self.program is not None:
                self.program.kill()

    @property
    def root(self) -> Path:
        """The workspace's folder, once there is one."""
        assert self.space is not None  # noqa: S101 - set up before
        return self.space.root

    def remove(self) -> None:
        """Remove the workspace, if there is one."""
        if self.space is not None:
            self.space.remove()

    def begin(self, program: Program) -> Program:
        with self.guard:
            self.program = program
            if self.stopped:
                program.kill()
        return program


class Builder:
    """Builds Kustomizations: a bounded number at once, first come, first served.

    Attributes:
        processes: how many processes have been started.
    """

    def __init__(
        self,
        folder: Path,
        *,
        concurrent: int | None = None,
        allowance: Allowance | None = None,
        program: Path | None = None,
        able: Kernel | None = None,
    ) -> None:
        """
        Args:
            folder: where workspaces are made; best on the file system of the artifacts.
            concurrent: builds at once; the number of processors by default.
            allowance: what one build may take.
            program: kustomize; the one on PATH by default.
            able: what the kernel is asked to forbid kustomize; all it can by default.
        """
        self.processes = 0
        self._concurrent = concurrent or os.cpu_count() or 1
        self._turn = asyncio.Semaphore(self._concurrent)
        self._threads = Threads("kustomize", self._concurrent + 1)
        self._workspaces = Workspaces(folder)
        self._allowance = allowance or Allowance()
        self._given = program
        self._able = able or kernel()
        self._checked: tuple[Path, float, str] | None = None
        self._check_guard = threading.Lock()

    async def render(
        self,
        opened_root: Path,
        files: Mapping[str, str],
        spec: KustomizationSpec,
        path: str,
        *,
        prepare: Prepare | None = None,
    ) -> list[Object]:
        """The objects of the folder `path` (a result of `resolve_path`), in the order kustomize prints them.

        Args:
            opened_root: folder of the unpacked artifact, which is only read.
            files: its index: digests by path.
            spec: what the build adds.
            path: folder relative to the root.
            prepare: called with the private copy of the artifact's root and `path` before the build, to decrypt files in place.

        Raises:
            BuildFailed: kustomize or its input; in the words of Flux's kustomize-controller. Paths are relative to the artifact.
            MissingProgram: there is no kustomize, or it has another major version.
        """
        async with self._turn:
            run = _Run()
            if prepare is None:
                return await self._thread(lambda: self._whole(run, tree_of(opened_root, files), spec, path), run.stop)
            try:
                generated = await self._thread(
                    lambda: self._set_up(run, tree_of(opened_root, files), spec, path, copy=True), run.stop
                )
                await prepare(run.root, path)
                return await self._thread(lambda: self._built(run, generated, path), run.stop)
            finally:
                await self._thread(run.remove)

    async def version(self) -> str:
        """The version of kustomize, such as `v5.8.1`; asked once for as long as the program stays the same.

        Raises:
            MissingProgram: there is none, or it has another major version.
        """
        return await self._thread(lambda: self._program()[1])

    def close(self) -> None:
        """Remove all workspaces. Call it when no build runs."""
        self._threads.close()
        self._workspaces.close()

    async def _thread(self, call: Callable[[], T], stop: Callable[[], None] | None = None) -> T:
        """Run `call` in a thread. When the awaiting task is cancelled, `stop` is called and the thread's end awaited."""
        future = asyncio.ensure_future(self._threads.run(call))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if stop is not None:
                stop()
            with contextlib.suppress(Exception):
                await future
            raise

    def _whole(self, run: _Run, tree: Tree, spec: KustomizationSpec, path: str) -> list[Object]:
        try:
            return self._built(run, self._set_up(run, tree, spec, path, copy=False), path)
        finally:
            run.remove()

    def _set_up(self, run: _Run, tree: Tree, spec: KustomizationSpec, path: str, *, copy: bool) -> Generated:
        """Make the workspace, with all that the build reads."""
        generated = generate(tree, path, spec)
        components = spec.components or ()
        found = closure(tree, path, components)
        boundary.check(tree, found, path, components)
        run.space = space = self._workspaces.make()
        paths = tree.files if found.whole else found.files
        space.folder(path)
        space.fill(tree.root, (one for one in paths if one != generated.path), copy=copy)
        space.write(generated.path, generated.content)
        return generated

    def _built(self, run: _Run, generated: Generated, path: str) -> list[Object]:
        program, _ = self._program()
        argv = (str(program), *_ARGUMENTS)
        process = run.begin(Program(argv, run.root / path, run.root, self._allowance, self._able))
        self.processes += 1
        try:
            done = process.run()
        except Cancelled:
            raise
        except (TimedOut, LimitExceeded) as error:
            raise BuildFailed(f"{messages.PREFIX}{error}") from None
        except OSError as error:
            raise BuildFailed(f"{messages.PREFIX}kustomize cannot be started: {error.strerror}") from None
        if done.status != 0:
            raise BuildFailed(messages.failure(done.status, done.stderr, str(run.root), path, generated.manifests))
        return objects_of(done.stdout)

    def _program(self) -> tuple[Path, str]:
        """The program and its version. Blocks."""
        found = self._given or shutil.which("kustomize")
        if found is None:
            raise MissingProgram(f"'kustomize' is not installed: install kustomize v{MAJOR} and put it on PATH")
        program = Path(found).resolve()
        with self._check_guard:
            changed = program.stat().st_mtime
            if self._checked is None or self._checked[:2] != (program, changed):
                self._checked = program, changed, self._asked(program)
                log.info("kustomize found", version=self._checked[2], confinement=str(self._able))
            return program, self._checked[2]

    def _asked(self, program: Path) -> str:
        space = self._workspaces.make()
        try:
            self.processes += 1
            done = Program((str(program), "version"), space.root, space.root, self._allowance, self._able).run()
        except OSError as error:
            raise MissingProgram(f"'{program}' cannot be started: {error.strerror}") from None
        finally:
            space.remove()
        version = _VERSION.search(done.stdout.decode("utf-8", "replace"))
        if done.status != 0 or version is None or int(version[1]) != MAJOR:
            what = version[0] if version else "an unknown version"
            raise MissingProgram(f"'{program}' is {what}: install kustomize v{MAJOR}")
        return version[0]


def objects_of(output: bytes) -> list[Object]:
    """The objects that kustomize printed. A list is replaced by its items; kustomization files are left out, as Flux does.

    Raises:
        BuildFailed: no YAML, or an object without apiVersion, kind or name.
    """
    try:
        documents = load_all(output.decode())
    except (UnicodeDecodeError, YamlError) as error:
        raise BuildFailed(f"{messages.PREFIX}the result cannot be read: {error}") from None
    return [one for document in documents if document is not None for one in _items(document) if not _is_kustomization(one)]


def _items(document: Any) -> Sequence[Object]:
    if isinstance(document, dict):
        items = document.get("items")
        if isinstance(items, list) and str(document.get("kind", "")).endswith("List"):
            return [inner for item in items for inner in _items(item)]
        metadata = document.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        needed = {"apiVersion": document.get("apiVersion"), "kind": document.get("kind"), "metadata.name": name}
        for where, value in needed.items():
            if not (isinstance(value, str) and value):
                raise BuildFailed(f"{messages.PREFIX}{document.get('kind') or 'object'}/{name or ''} has no {where}")
        return [document]
    raise BuildFailed(f"{messages.PREFIX}a document of the result is no object")


def _is_kustomization(obj: Object) -> bool:
    return obj["kind"] in ("Kustomization", "Component") and str(obj["apiVersion"]).startswith(_KUSTOMIZE_GROUP)


def build_id(obj: Object) -> str:
    """How messages about built objects name one: `<Kind>.<version>.<group or [noGrp]>/<name>`."""
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    return f"{obj['kind']}.{version}.{group or '[noGrp]'}/{obj['metadata']['name']}"
