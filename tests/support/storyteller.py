"""Playing a recorded life story on the service: steps in, what watchers, events and Git showed out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imagebot.demo.gitserver import GitServer
from imagebot.demo.registry import Stored
from reconcile.api.meta import Key
from reconcile.api.resource import dump
from reconcile.errors import Stalled
from reconcile.ports.store import ChangeType
from reconcile.registry.manifest import OCI_INDEX, digest_of
from reconcile.runtime.outcome import Pending, Success
from tests.support.gitrepo import BareRepository, Blob
from tests.support.lab import Lab, Running
from tests.support.registry import TestRegistry
from tests.support.service_facts import each_text, event_texts, is_settled, masked, state_of, told

KINDS = ("ImageRepository", "ImagePolicy", "ImageUpdateAutomation")
STATUS_FIELDS = (
    "latestRef",
    "observedPreviousRef",
    "canonicalImageName",
    "lastHandledReconcileAt",
    "observedExclusionList",
    "observedPolicies",
)
BASIC = "Basic dXNlcjpwYXNz"  # user:pass


def guarded(registry: TestRegistry, request: Request) -> Response | None:
    """`private/` wants user:pass, `broken/` answers 500, `limited/` 429, errors have no detail: as the recorder's registry."""

    def refused(status: int, code: str, message: str, **headers: str) -> Response:
        return JSONResponse({"errors": [{"code": code, "message": message}]}, status, headers)

    name = request.url.path.removeprefix("/v2/")
    if name.startswith("private/") and request.headers.get("authorization") != BASIC:
        return refused(401, "UNAUTHORIZED", "authentication required", **{"WWW-Authenticate": 'Basic realm="lab"'})
    if name.startswith("broken/"):
        return refused(500, "UNKNOWN", "broken on purpose")
    if name.startswith("limited/"):
        return refused(429, "TOOMANYREQUESTS", "slow down", **{"Retry-After": "2"})
    if name.endswith("/tags/list") and name.removesuffix("/tags/list") not in registry.repositories:
        return refused(404, "NAME_UNKNOWN", "repository name not known to registry")
    return None


def _closed(handler: Any) -> bool:
    """Repositories below `private/` want credentials that nobody has."""
    if not handler.path.startswith("/private/"):
        return False
    handler._plain(401, b"", {"WWW-Authenticate": 'Basic realm="git"'})
    return True


class Storyteller:
    """One story in its own world."""

    def __init__(self, world: Lab, registry: TestRegistry, git: GitServer, case: Mapping[str, Any]) -> None:
        self.case = case
        self.space = str(case["id"])
        self.outside = world.root / f"{self.space}-outside.yaml"
        self.steps: list[Any] = []
        self._world = world
        self._registry = registry
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._repositories: dict[str, BareRepository] = {}
        self._seen: dict[str, list[list[str]]] = {}
        self._last: dict[str, list[str]] = {}
        registry.faults.append(partial(guarded, registry))
        git.intercept = _closed

    async def play(self) -> dict[str, Any]:
        """The outcome in the form of the record."""
        async with self._world.start() as running:
            watch = asyncio.create_task(self._watch(running))
            for step in each_text(self.case["steps"], self._fill):
                await self._step(running, step)
            final = await self._final(running)
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        events = event_texts(self._world, [row for row in told(self._world.state) if row.kind in KINDS])
        outcome: dict[str, Any] = {"steps": self.steps, "final": final, "events": sorted(events), "branches": self._branches()}
        if self.outside.exists():
            outcome["outside"] = self.outside.read_text()
        return each_text(outcome, self._mask)

    def _fill(self, text: str) -> str:
        for name, value in (
            ("NS", self.space),
            ("REGISTRY", self._registry.host),
            ("GITSERVER", self._world.git.url("").rstrip("/")),
            ("OUTSIDE", str(self.outside)),
        ):
            text = text.replace(name, value)
        return text

    def _mask(self, text: str) -> str:
        return masked(self._world, text).replace(self.space, "NS")

    # --- steps

    async def _step(self, running: Running, step: dict[str, Any]) -> None:
        match step["do"]:
            case "apply":
                self._declare(*step["objects"])
            case "patch":
                identity = step["kind"], step["name"]
                self._declare(merged(self._objects[identity], step["patch"]))
            case "delete":
                self._file(self._objects.pop((step["kind"], step["name"]))).unlink()
            case "namespace":
                labels = {"name": step["name"], "labels": step["labels"]}
                self._declare({"apiVersion": "v1", "kind": "Namespace", "metadata": labels})
            case "tags":
                self._tag(step["image"], step["tags"])
            case "untag":
                self._registry.repositories.pop(step["image"], None)
            case "repo":
                self._make(step["name"], step["files"], step["hook"])
            case "commit":
                files = {path: text.encode() for path, text in step["files"].items()}
                self._repositories[step["name"]].commit(files)
            case "outside":
                self.outside.write_text(step["text"])
            case "settle":
                await self._settle(running)
                seen = {name: {"seen": states, "last": self._last.get(name, [])} for name, states in sorted(self._seen.items())}
                self.steps.append(seen)
                self._seen = {}
            case other:
                raise AssertionError(f"nobody knows how to {other}")
        if step["do"] in {"apply", "patch", "delete", "namespace"}:
            await running.service.store.sync()
            assert running.service.store.problems == ()

    def _declare(self, *objects: dict[str, Any]) -> None:
        for body in objects:
            self._objects[body["kind"], body["metadata"]["name"]] = body
            self._file(body).write_text(json.dumps(body))

    def _file(self, body: dict[str, Any]) -> Path:
        return self._world.folder / f"{body['kind']}.{body['metadata']['name']}.json"

    def _tag(self, image: str, tags: list[str]) -> None:
        """The list of the recorder's registry, and its manifests to the byte, so that digests are those of the record."""
        stored = self._registry.repositories[image] = Stored()
        for tag in tags:
            manifest = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": {"tag": f"{image}:{tag}"}}
            content = json.dumps(manifest).encode()
            stored.manifests[digest_of(content)] = OCI_INDEX, content
            stored.tags[tag] = digest_of(content)

    def _make(self, name: str, files: dict[str, Any] | None, hook: str | None) -> None:
        bare = self._repositories[name] = BareRepository.create(self._world.root / "git" / name)
        if files is not None:
            contents = {p: Blob(c["link"].encode(), "120000") if isinstance(c, dict) else c.encode() for p, c in files.items()}
            bare.commit(contents, message="seed")
        if hook:
            bare.hook("pre-receive", hook)

    # --- what can be seen

    async def _watch(self, running: Running) -> None:
        async for change in running.service.store.watch(KINDS):
            name = f"{change.new.kind}/{change.new.key.name}"
            deleted = change.type is ChangeType.DELETED
            state = ["deleted"] if deleted else [self._mask(text) for text in state_of(change.new)]
            if state and state not in self._seen.setdefault(name, []):
                self._seen[name].append(state)
            if deleted or not state or is_settled(change.new):
                self._last[name] = state

    async def _settle(self, running: Running) -> None:
        """Until nothing is to be done, and everything that fails has been tried twice more without news."""
        while True:
            await running.service.manager.drained()
            before = json.dumps(self._seen)
            tries = {place: passes(running, place) for place in restless(running)}
            while any(passes(running, place) < count + 2 for place, count in tries.items() if place in restless(running)):
                await asyncio.sleep(0.01)
            await running.service.manager.drained()
            if json.dumps(self._seen) == before:
                return

    async def _final(self, running: Running) -> dict[str, Any]:
        final = {}
        for kind in KINDS:
            for resource in await running.service.store.list(kind):
                status = dump(resource.status)
                scanned = status.get("lastScanResult", {})
                final[f"{kind}/{resource.key.name}"] = {
                    **{name: status[name] for name in STATUS_FIELDS if name in status},
                    "observedCurrent": status.get("observedGeneration") == resource.meta.generation,
                    "observedSourceRevision": bool(status.get("observedSourceRevision")),
                    "lastPushCommit": bool(status.get("lastPushCommit")),
                    "latestTags": scanned.get("latestTags"),
                    "tagCount": scanned.get("tagCount"),
                }
        return final

    def _branches(self) -> dict[str, dict[str, list[str]]]:
        found = {}
        for name, bare in self._repositories.items():
            refs = bare.git("for-each-ref", "--format=%(refname)").split()
            found[name] = {ref: bare.git("log", "--format=%s", ref).splitlines() for ref in refs}
        return found


Place = tuple[str, Key]


LONG = 600.0
"""Seconds to the next pass of something that waits for people."""


def restless(running: Running) -> set[Place]:
    """Objects whose last pass did not end well and that are tried again soon by time."""
    return {
        (controller.kind, key)
        for controller in running.service.controllers
        for key, outcome in controller.outcomes.items()
        if isinstance(outcome, Pending) or not isinstance(outcome, Success | Stalled)
        if (getattr(outcome, "after", None) or 0.0) < LONG
    }


def passes(running: Running, place: Place) -> float:
    """Passes over an object so far."""
    kind, key = place
    labels = {"kind": kind, "name": key.name, "namespace": key.namespace}
    value = running.service.metrics.registry.get_sample_value("gotk_reconcile_duration_seconds_count", labels)
    return value or 0.0


def merged(body: Any, patch: Any) -> Any:
    """A JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    result = dict(body) if isinstance(body, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
