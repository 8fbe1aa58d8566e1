"""The objects of a folder, for commands: what a service on it has stored, or what the folder declares when none has run."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from reconcile.api.meta import LabelRequirement, LabelSelector
from reconcile.api.resource import AnyResource
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.api.selectors import Matcher, compile_selector
from reconcile.app import DATABASE_NAME, state_folder
from reconcile.cli.place import Object
from reconcile.errors import Invalid, NotFound
from reconcile.local.database import Database, EventRow
from reconcile.local.files import Folder
from reconcile.local.store import LocalStore, decode_row
from reconcile.ports.clock import SystemClock

_SET = re.compile(r"(?P<key>[^\s,!=()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUAL = re.compile(r"(?P<key>[^\s,!=()]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s,!=()]*)")
_EXISTS = re.compile(r"(?P<no>!?)\s*(?P<key>[^\s,!=()]+)")


class FolderObjects:
    """See `Objects`."""

    def __init__(self, scheme: Scheme, directory: Path, found: list[AnyResource], events: list[EventRow], namespace: str | None):
        self.namespaced = namespace is not None
        self.where = f"in {directory}" + (f', namespace "{namespace}"' if namespace else "")
        self._scheme = scheme
        self._events = [row for row in events if namespace in (None, row.key.namespace)]
        self._found = [resource for resource in found if namespace in (None, resource.key.namespace)]

    async def all_of(self, info: KindInfo, selector: str = "") -> list[Object]:
        """See `Objects`."""
        matches = parse_selector(selector)
        chosen = [r for r in self._found if r.kind == info.kind and matches(r.meta.labels)]
        return [resource.to_dict() for resource in sorted(chosen, key=lambda r: r.key)]

    async def find(self, info: KindInfo, name: str) -> list[Object]:
        """See `Objects`."""
        found = [item for item in await self.all_of(info) if item["metadata"]["name"] == name]
        if not found:
            raise NotFound(f'{info.plural}.{info.group} "{name}" not found {self.where}')
        return found

    async def events(self) -> list[Object]:
        """See `Objects`."""
        return [self._event(row) for row in self._events]

    def _event(self, row: EventRow) -> Object:
        info = self._scheme.kinds.get(row.kind)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": row.key.namespace, "creationTimestamp": row.time},
            "involvedObject": {
                "apiVersion": info.api_version if info else "",
                "kind": row.kind,
                "namespace": row.key.namespace,
                "name": row.key.name,
            },
            "type": row.type,
            "reason": row.reason,
            "message": row.message,
            "firstTimestamp": row.time,
            "lastTimestamp": row.time,
            "count": 1,
        }


@asynccontextmanager
async def open_folder(scheme: Scheme, directory: Path, state: Path | None, namespace: str | None) -> AsyncIterator[FolderObjects]:
    """The objects of a folder; raises Invalid when there is no such folder or its state cannot be read."""
    path = state_path(directory, state)
    if path is not None:
        found, events = _stored(scheme, path)
    else:
        found, events = await _declared(scheme, directory), []
    yield FolderObjects(scheme, directory, found, events, namespace)


def state_path(directory: Path, state: Path | None) -> Path | None:
    """The state file of a folder, None when no service has run there; raises Invalid when it is no folder."""
    if not directory.is_dir():
        raise Invalid(f"{directory} is not a folder: give the folder with your manifests with --dir")
    path = state_folder(directory, state) / DATABASE_NAME
    return path if path.exists() else None


def _stored(scheme: Scheme, path: Path) -> tuple[list[AnyResource], list[EventRow]]:
    database = Database(path, read_only=True)
    try:
        return [decode_row(scheme, row) for row in database.objects() if row.kind in scheme.kinds], database.events()
    finally:
        database.close()


async def _declared(scheme: Scheme, directory: Path) -> list[AnyResource]:
    with tempfile.TemporaryDirectory(prefix="imagebot-get-") as scratch:
        async with LocalStore(Folder(directory, scheme), Database(Path(scratch) / DATABASE_NAME), scheme, SystemClock()) as store:
            return [r for info in scheme for r in await store.list(info.kind)]


def parse_selector(text: str) -> Matcher:
    """A label selector as kubectl takes it: `a=b,c!=d,e in (x,y),f notin (z),g,!h`; raises Invalid."""
    found, position = [], 0
    while text[position:].strip():
        rest = text[position:].lstrip()
        position = len(text) - len(rest)
        requirement, length = _requirement(rest, text)
        found.append(requirement)
        tail = rest[length:].lstrip()
        if tail and not tail.startswith(","):
            raise Invalid(f'"{text[:80]}" is not a label selector: write it like app=web,tier in (a,b),!old')
        position = len(text) - len(tail) + (1 if tail else 0)
    return compile_selector(LabelSelector(match_expressions=found))


def _requirement(rest: str, whole: str) -> tuple[LabelRequirement, int]:
    if found := _SET.match(rest):
        values = [value.strip() for value in found["values"].split(",")]
        operator = "In" if found["operator"] == "in" else "NotIn"
        return LabelRequirement(key=found["key"], operator=operator, values=values), found.end()
    if found := _EQUAL.match(rest):
        operator = "NotIn" if found["operator"] == "!=" else "In"
        return LabelRequirement(key=found["key"], operator=operator, values=[found["value"]]), found.end()
    if found := _EXISTS.match(rest):
        return LabelRequirement(key=found["key"], operator="DoesNotExist" if found["no"] else "Exists"), found.end()
    raise Invalid(f'"{whole[:80]}" is not a label selector: write it like app=web,tier in (a,b),!old')
