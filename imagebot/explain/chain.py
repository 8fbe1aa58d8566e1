"""The objects that an explanation is about, and the tags of their image: from a folder or a cluster, read only."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from imagebot.api import ImageRepository
from imagebot.scan.access import Access, repository_of
from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.app import DATABASE_NAME
from reconcile.cli.folder import state_path
from reconcile.cli.output import clean
from reconcile.cli.place import Place
from reconcile.cli.target import NOWHERE, open_cluster_of
from reconcile.errors import Invalid, NotFound
from reconcile.local.database import Database
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore
from reconcile.ports.clock import SystemClock
from reconcile.ports.store import Store
from reconcile.registry.helpers import keychain_from_user_docker_config
from reconcile.registry.keychain import Keychain
from reconcile.registry.pool import ClientPool

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects


class Objects(Protocol):
    """Reads typed objects."""

    async def get(self, kind: str, key: Key) -> AnyResource:
        """One object; raises NotFound."""
        ...

    async def all_of(self, kind: str, namespace: str | None = None) -> Sequence[AnyResource]:
        """All objects of a kind, of a namespace or of all that the place has."""
        ...

    async def named(self, info: KindInfo, name: str) -> Sequence[AnyResource]:
        """Those of this name; raises NotFound."""
        ...


class Chain:
    """The objects, and a way to the registry with the credentials that they name."""

    def __init__(self, objects: Objects, access: Access) -> None:
        self._objects = objects
        self._access = access
        self.get = objects.get
        self.all_of = objects.all_of

    async def only(self, info: KindInfo, name: str) -> AnyResource:
        """The one object of this name; raises NotFound, and Invalid when several namespaces have one."""
        found = await self._objects.named(info, name)
        if len(found) > 1:
            spaces = ", ".join(resource.key.namespace for resource in found)
            raise Invalid(f"{info.kind} {name} is in the namespaces {spaces}: say with -n which one is meant")
        return found[0]

    async def tags(self, resource: ImageRepository) -> tuple[str, ...]:
        """All tags that the registry has of an image; raises what keeps us from them."""
        repository = repository_of(resource)
        client = await self._access.client(resource, repository)
        return (await client.list_tags(repository)).tags


@asynccontextmanager
async def open_chain(place: Place, scheme: Scheme) -> AsyncIterator[Chain]:
    """The objects of a place; raises Invalid when there is none."""
    async with AsyncExitStack() as stack:
        keychain: Keychain | None = None
        opened: tuple[Objects, Store]
        if place.directory is not None:
            keychain = keychain_from_user_docker_config()
            opened = await stack.enter_async_context(_folder(scheme, place.directory, place))
        else:
            opened = await stack.enter_async_context(_cluster(scheme, place))
        objects, store = opened
        pool = ClientPool(clock=SystemClock())
        stack.push_async_callback(pool.close)
        yield Chain(objects, Access(store, pool, keychain))


# --- a folder


class _FolderChain:
    def __init__(self, store: LocalStore, place: Place) -> None:
        self._store = store
        self._place = place

    async def get(self, kind: str, key: Key) -> AnyResource:
        return await self._store.get(kind, key)

    async def all_of(self, kind: str, namespace: str | None = None) -> Sequence[AnyResource]:
        return await self._store.list(kind, namespace)

    async def named(self, info: KindInfo, name: str) -> Sequence[AnyResource]:
        found = [r for r in await self._store.list(info.kind, self._place.namespace) if r.key.name == name]
        if not found:
            raise NotFound(f'{info.plural}.{info.group} "{name}" not found in {self._place.directory}')
        return found


@asynccontextmanager
async def _folder(scheme: Scheme, directory: Path, place: Place) -> AsyncIterator[tuple[_FolderChain, Store]]:
    """What the folder says now, with the status that a service has stored: on a copy, so that nothing is written to either."""
    path = state_path(directory, place.state)
    with tempfile.TemporaryDirectory(prefix="imagebot-explain-") as scratch:
        copy = Path(scratch) / DATABASE_NAME
        if path is not None:
            copy_database(path, copy)
        async with LocalStore(Folder(directory, scheme), Database(copy), scheme, SystemClock()) as store:
            for problem in store.problems:
                click.echo(f"✗ {clean(problem)}", err=True)
            yield _FolderChain(store, place), store


def copy_database(path: Path, copy: Path) -> None:
    """Copy a state file, also one in use; raises Invalid when it cannot be read."""
    Database(path, read_only=True).close()  # for its words about a file that is not ours, or not of this version
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.Error as error:
        raise Invalid(f"cannot use the state file {path}: {error}") from error


# --- a cluster


class _ClusterChain:
    def __init__(self, cluster: ClusterObjects, scheme: Scheme) -> None:
        self._cluster = cluster
        self._scheme = scheme

    async def get(self, kind: str, key: Key) -> AnyResource:
        info = self._scheme.kinds[kind]
        return self._scheme.decode(info, await self._cluster.read(info, key), strict=False)

    async def all_of(self, kind: str, namespace: str | None = None) -> Sequence[AnyResource]:
        info = self._scheme.kinds[kind]
        items = await self._cluster.all_of(info, namespace=namespace)
        return [self._scheme.decode(info, item, strict=False) for item in items]

    async def named(self, info: KindInfo, name: str) -> Sequence[AnyResource]:
        return [self._scheme.decode(info, item, strict=False) for item in await self._cluster.find(info, name)]


@asynccontextmanager
async def _cluster(scheme: Scheme, place: Place) -> AsyncIterator[tuple[_ClusterChain, Store]]:
    async with open_cluster_of(place, scheme, NOWHERE) as cluster:
        from reconcile.kube.store import KubeStore

        async with KubeStore(cluster.client, scheme, SystemClock(), kinds=()) as store:  # follows nothing: Secrets only
            yield _ClusterChain(cluster, scheme), store
