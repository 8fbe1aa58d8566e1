"""Builds a folder of this machine as the service builds an artifact, for `imagebot build` and `imagebot diff`."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import Scheme
from reconcile.apply.owner import Owner
from reconcile.apply.prepare import prepared
from reconcile.artifact.fetch import Opened
from reconcile.artifact.ignore import FILE, Ignore, tree_ignore
from reconcile.cli.masking import without_ciphers
from reconcile.errors import Invalid, NotFound
from reconcile.kustomize.rendering import Renderer
from reconcile.kustomize.tree import clamped
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.store import Secret
from reconcile.yamlio import load_documents

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

MAX_FILES = 200_000
"""Files of one folder."""
MAX_BYTES = 4 * 1024 * 1024
"""Bytes of a file with a Kustomization, or with patterns."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built.

    Attributes:
        name: Name of the Kustomization.
        path: Folder of this machine in the place of `spec.path`.
        file: File with the Kustomization, in the place of the one in the cluster.
        dry_run: Ask no cluster; variables from ConfigMaps and Secrets are left out.
        strict: A variable that is not set is an error.
        ignore: Patterns of files that are left out, as in `.sourceignore`.
    """

    name: str
    path: Path
    file: Path | None = None
    dry_run: bool = False
    strict: bool = False
    ignore: Sequence[str] = ()


# --- the Kustomization


def from_file(scheme: Scheme, file: Path, name: str, namespace: str | None, default: str) -> AnyResource:
    """The Kustomization of this name in a file.

    Args:
        scheme: Our kinds.
        file: The file: YAML, one document or several.
        name: Its name.
        namespace: Its namespace; None: whatever it says.
        default: Its namespace if it does not say one.

    Raises:
        Invalid: There is no such file, no such Kustomization in it, or something is wrong in that.
    """
    try:
        raw = file.read_bytes()[: MAX_BYTES + 1]
        text = raw.decode()
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid(f"{file} is not UTF-8 text") from None
    if len(raw) > MAX_BYTES:
        raise Invalid(f"{file} is larger than {MAX_BYTES} bytes: it should hold the Kustomization alone")
    for body, line in load_documents(text, str(file)):
        if not isinstance(body, dict) or not _is_kustomization(body):
            continue
        meta = body.get("metadata") or {}
        if meta.get("name") != name or (namespace and meta.get("namespace") not in {None, namespace}):
            continue
        if not meta.get("namespace"):
            body = {**body, "metadata": {**meta, "namespace": namespace or default}}
        try:
            return scheme.decode(KUSTOMIZATION, body)
        except Invalid as error:
            raise Invalid(f"{file}:{line}: {error}") from None
    where = f" in namespace {namespace}" if namespace else ""
    raise Invalid(f"{file} has no Kustomization {name}{where}: name the file that defines it with --kustomization-file")


def _is_kustomization(body: Object) -> bool:
    group, _, version = str(body.get("apiVersion")).rpartition("/")
    return body.get("kind") == KUSTOMIZATION.kind and group == KUSTOMIZATION.group and version in KUSTOMIZATION.versions


async def from_cluster(cluster: ClusterObjects, scheme: Scheme, key: Key) -> AnyResource:
    """The Kustomization in the cluster; raises NotFound."""
    return scheme.decode(KUSTOMIZATION, await cluster.read(KUSTOMIZATION, key), strict=False)


# --- the folder


def root_of(path: Path, spec_path: str | None) -> tuple[Path, str]:
    """The folder that stands for the root of the source, and where `path` is in it.

    That root is the Git work tree around `path`, or else the folder from which `spec.path` leads there, or else `path` itself.

    Raises:
        Invalid: It is no folder.
    """
    here = path.resolve()
    if not here.is_dir():
        raise Invalid(f"{path} is not a folder: give the folder with your manifests, the one that spec.path names, with --path")
    for above in (here, *here.parents):
        if (above / ".git").exists():
            return above, "" if above == here else here.relative_to(above).as_posix()
    inner = clamped(spec_path)
    parts = inner.split("/") if inner else []
    if parts and list(here.parts[-len(parts) :]) == parts:
        return here.parents[len(parts) - 1], inner
    return here, ""


def opened(root: Path, patterns: Sequence[str]) -> Opened:
    """The files of a folder as they would be in an artifact: without links, `.git` and what is ignored. Blocks.

    Raises:
        Invalid: There are too many.
    """
    found = list(_files(root))
    texts = {path: (root / path).read_bytes()[:MAX_BYTES].decode("utf-8", "replace") for path in found if _named(path, FILE)}
    ignore: Ignore = tree_ignore(texts, "\n".join(patterns) or None)
    return Opened(root, {path: "" for path in found if not ignore.ignored(path)})


def _named(path: str, name: str) -> bool:
    return path.rpartition("/")[2] == name


def _files(root: Path) -> Iterator[str]:
    number = 0
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if name != ".git")
        below = os.path.relpath(folder, root)
        for name in sorted(names):
            if not stat.S_ISREG((Path(folder) / name).lstat().st_mode):
                continue
            number += 1
            if number > MAX_FILES:
                raise Invalid(f"{root} has more than {MAX_FILES} files: give a folder that holds the manifests alone with --path")
            yield name if below == "." else f"{below}/{name}"


# --- the build


class _Unread:
    """What variables are read from when no cluster is asked."""

    async def secret(self, key: Key) -> Secret:
        """Nothing."""
        raise NotFound(f'secrets "{key.name}" not found')

    async def read(self, which: Reference) -> Object:
        """Nothing."""
        raise NotFound(f'{which.kind.lower()}s "{which.name}" not found')


async def built(resource: AnyResource, plan: Plan, cluster: ClusterObjects | None) -> list[Object]:
    """The objects as they would be applied, in the order in which they are built; what sops has encrypted is masked.

    Args:
        resource: The Kustomization.
        plan: What is to be built.
        cluster: Where variables come from; None: from nowhere.

    Raises:
        BuildFailed: As in the service.
        Invalid: The folder cannot be used.
    """
    root, inner = root_of(plan.path, resource.spec.path)
    files = await asyncio.to_thread(opened, root, plan.ignore)
    changed: dict[str, Any] = {"path": f"./{inner}"}
    if cluster is None and resource.spec.post_build is not None:
        changed["post_build"] = resource.spec.post_build.model_copy(update={"substitute_from": None})
    local = replace(resource, spec=resource.spec.model_copy(update=changed))
    with tempfile.TemporaryDirectory(prefix="imagebot-build-") as folder:
        secrets, bodies = (_Unread(), _Unread()) if cluster is None else cluster.readers()
        async with Renderer.opened(secrets, bodies, Path(folder), strict=plan.strict) as renderer:
            objects = await renderer.render(local, files, None, instead=without_ciphers)
    metadata = resource.spec.common_metadata
    return prepared(
        objects,
        Owner(resource.key.name, resource.key.namespace),
        labels=metadata.labels if metadata else None,
        annotations=metadata.annotations if metadata else None,
    )
