"""From an opened artifact to the objects of a Kustomization: build, decrypt, substitute."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from reconcile.api.meta import Key
from reconcile.api.resource import AnyResource
from reconcile.artifact.fetch import Opened
from reconcile.errors import MissingProgram, NotFound, ReconcileError
from reconcile.kustomize.build import Builder
from reconcile.kustomize.decrypt import Decryption, refuse_encrypted
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.reach import Reach, reach
from reconcile.kustomize.tree import resolve_path
from reconcile.kustomize.variables import PostBuild, VariableSource
from reconcile.ports.cluster import Object, Reference
from reconcile.ports.store import Secret
from reconcile.runtime.threads import Threads

MAX_REACHES = 20_000
"""Digests of what builds can read that are remembered, by artifact, path and components: about 300 bytes each."""

_Where = tuple[str, str, tuple[str, ...]]


class Secrets(Protocol):
    """What keys and variables are read from; a Store is one."""

    async def secret(self, key: Key) -> Secret:
        """A Secret; raises NotFound."""
        ...


class Bodies(Protocol):
    """What variables are read from; Objects are one."""

    async def read(self, which: Reference) -> Object:
        """An object as it is now; raises NotFound."""
        ...


class Renderer:
    """Renders Kustomizations with what their specs refer to."""

    def __init__(self, store: Secrets, objects: Bodies, builder: Builder, decryption: Decryption, *, strict: bool) -> None:
        self._store, self._objects, self._builder, self._decryption, self._strict = store, objects, builder, decryption, strict
        self._threads = Threads("render", 2)
        self._reaches: OrderedDict[_Where, str] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def opened(cls, store: Secrets, objects: Bodies, folder: Path, *, strict: bool) -> AsyncIterator[Renderer]:
        """A renderer that works below `folder`, which is ours alone; what it started is ended with the block."""
        await asyncio.to_thread(lambda: folder.mkdir(mode=0o700, parents=True, exist_ok=True))
        builder = Builder(folder / "kustomize")
        decryption = Decryption(folder / "keys")
        renderer = cls(store, objects, builder, decryption, strict=strict)
        try:
            yield renderer
        finally:
            renderer._threads.close()
            decryption.close()
            builder.close()

    async def version(self) -> str:
        """The version of the build tool; empty when there is none."""
        try:
            return await self._builder.version()
        except MissingProgram:
            return ""

    # --- what a build can read

    def known_reach(self, artifact: str, spec: Any) -> str | None:
        """The digest of what a build of an artifact can read, if it was asked for before; `artifact` is its digest."""
        where = _where(artifact, spec)
        found = self._reaches.get(where)
        if found is not None:
            self._reaches.move_to_end(where)
        return found

    async def reach(self, opened: Opened, artifact: str, spec: Any) -> str:
        """The same, found out now. Raises PathNotFound."""

        def look() -> Reach:
            path = resolve_path(opened.root, opened.files, spec.path)
            return reach(opened.root, opened.files, path, components=spec.components or ())

        found = await self._threads.run(look)
        self._reaches[_where(artifact, spec)] = found.digest
        while len(self._reaches) > MAX_REACHES:
            self._reaches.popitem(last=False)
        return found.digest

    async def path(self, opened: Opened, spec: Any) -> str:
        """The folder that a spec names; raises PathNotFound."""
        return await self._threads.run(lambda: resolve_path(opened.root, opened.files, spec.path))

    # --- objects

    async def render(
        self,
        resource: AnyResource,
        opened: Opened,
        age_secret: Reference | None,
        *,
        instead: Callable[[Object], Object] | None = None,
    ) -> list[Object]:
        """The objects, ready for their owner's labels.

        Args:
            resource: The Kustomization.
            opened: What its source holds.
            age_secret: The Secret with age identities for everybody.
            instead: Takes the place of decryption: what becomes of each object, for those who are not to see what is secret.

        Raises:
            PathNotFound: There is no such folder.
            BuildFailed: In the words of Flux's kustomize-controller.
        """
        spec = resource.spec
        path = await self.path(opened, spec)
        try:
            if instead is not None:
                objects = [instead(one) for one in await self._builder.render(opened.root, opened.files, spec, path)]
            elif spec.decryption is None:
                objects = await self._builder.render(opened.root, opened.files, spec, path)
            else:
                keys, only_age = await self._keys(resource, age_secret)
                async with self._decryption.opened(keys, only_age=only_age) as decryptor:
                    objects = await self._builder.render(opened.root, opened.files, spec, path, prepare=decryptor.files)
                    objects = [await decryptor.object(one) for one in objects]
        except MissingProgram as error:
            raise BuildFailed(str(error)) from error
        if spec.post_build is None:
            refuse_encrypted(objects)
            return objects
        variables = PostBuild(
            await self._sources(resource),
            spec.post_build.substitute or {},
            strategy=spec.post_build.substitute_strategy,
            strict=self._strict,
        )
        objects = await self._threads.run(lambda: [variables.object(one) for one in objects])
        refuse_encrypted(objects)
        return objects

    async def _keys(self, resource: AnyResource, age_secret: Reference | None) -> tuple[Mapping[str, bytes], bool]:
        """What the Secret of the Kustomization holds, or else that of everybody, of which only the age identities count."""
        reference = resource.spec.decryption.secret_ref
        if reference is not None:
            return await self._secret(Key(resource.key.namespace, reference.name)), False
        if age_secret is not None:
            return await self._secret(Key(age_secret.namespace, age_secret.name)), True
        return {}, False

    async def _secret(self, key: Key) -> Mapping[str, bytes]:
        try:
            return (await self._store.secret(key)).data
        except NotFound:
            raise BuildFailed(f'secrets "{key.name}" not found') from None
        except ReconcileError as error:
            raise BuildFailed(str(error)) from error

    async def _sources(self, resource: AnyResource) -> Sequence[VariableSource]:
        found = []
        for one in resource.spec.post_build.substitute_from or ():
            data: dict[str, Any] | None = None
            error = ""
            try:
                data = await self._data(one.kind, Key(resource.key.namespace, one.name))
            except NotFound:
                pass
            except ReconcileError as why:
                error = str(why)
            found.append(VariableSource(one.kind, one.name, data, bool(one.optional), error))
        return found

    async def _data(self, kind: str, key: Key) -> dict[str, Any]:
        if kind == "Secret":
            return dict((await self._store.secret(key)).data)
        body = await self._objects.read(Reference("v1", "ConfigMap", key.namespace, key.name))
        return dict(body.get("data") or {})


def _where(artifact: str, spec: Any) -> _Where:
    return artifact, spec.path or "", tuple(spec.components or ())
