"""The way of an image from its tag to the pods that run it, read from the statuses of the objects on that way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from reconcile.api import kstatus
from reconcile.api.kustomization import KUSTOMIZATION
from reconcile.api.meta import Key
from reconcile.api.scheme import KindInfo, Scheme
from reconcile.api.source import GIT_REPOSITORY
from reconcile.app import load_packages
from reconcile.cli.events import last_seen
from reconcile.cli.output import print_data, print_rows
from reconcile.cli.place import Object, Place
from reconcile.cli.revisions import short
from reconcile.cli.target import open_cluster_of
from reconcile.cli.tree import applied_by
from reconcile.cli.verdict import condition
from reconcile.errors import Invalid, NotFound, ReconcileError
from reconcile.ports.cluster import Reference
from reconcile.runtime.bus import trace_of

if TYPE_CHECKING:
    from reconcile.cli.cluster import ClusterObjects

RUNNING = "running"
WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "Pod"})
"""Kinds whose pods are looked at."""
TEMPLATES = (("spec", "template", "spec"), ("spec", "jobTemplate", "spec", "template", "spec"), ("spec",))
"""Where pods are described."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way.

    Attributes:
        step: `scanned`, `chosen`, `committed`, `fetched`, `applied`, `running`.
        object: `Kind/namespace/name`.
        time: When, RFC 3339; empty when nobody has written it down.
        what: What there is to see.
        done: Whether the image has got that far there.
    """

    step: str
    object: str
    time: str
    what: str
    done: bool = True


async def trace_image(image: str, tag: str, place: Place, output: str) -> int:
    """Print the way of an image; 1 when no pods run it."""
    scheme = load_packages().scheme
    async with open_cluster_of(place, scheme) as cluster:
        steps = [step async for step in _Way(cluster, scheme, image, tag).steps()]
    if not steps:
        click.echo(f"imagebot: no ImageRepository {cluster.where} reads {image}: name its namespace with -n, or say -A", err=True)
        return 1
    if output == "text":
        click.echo(f"{image}:{tag}  trace {trace_of(image, tag)}")
        rows = [[each.time or "-", each.step if each.done else f"not {each.step}", each.object, each.what] for each in steps]
        print_rows(["TIME", "STEP", "OBJECT", "WHAT"], rows)
    else:
        data = {"image": image, "tag": tag, "trace": trace_of(image, tag), "steps": [asdict(each) for each in steps]}
        print_data(data, "json" if output == "json" else "yaml")
    if any(each.step == RUNNING and each.done for each in steps):
        return 0
    click.echo(f"imagebot: nothing is seen to run {image}:{tag}: {_where_it_ends(steps)}", err=True)
    return 1


def _where_it_ends(steps: Sequence[Step]) -> str:
    missing = next((each for each in steps if not each.done), None)
    if missing is not None:
        return f"it is not {missing.step} by {missing.object} ({missing.what})"
    return f"{steps[-1].object} is the last that has it"


class _Way:
    """Walks the way of one image."""

    def __init__(self, cluster: ClusterObjects, scheme: Scheme, image: str, tag: str) -> None:
        self._cluster, self._scheme, self._image, self._tag = cluster, scheme, image, tag

    async def steps(self) -> AsyncIterator[Step]:
        """The steps in their order."""
        repositories = [one for one in await self._all("ImageRepository") if (one.get("spec") or {}).get("image") == self._image]
        for one in repositories:
            yield scanned(one, self._tag)
        keys = {_key(one) for one in repositories}
        policies = [one for one in await self._all("ImagePolicy") if _repository(one) in keys]
        events = await self._cluster.events() if policies else []
        for one in policies:
            yield chosen(one, self._image, self._tag, events)
        automations = [one for one in await self._all("ImageUpdateAutomation") if {_key(each) for each in policies} & _seen(one)]
        for one in automations:
            yield committed(one, self._image, self._tag)
        for key, by in {_source(one): one for one in automations}.items():
            got_here = committed(by, self._image, self._tag).done
            async for step in self._from_source(key, _commit(by)):
                # What a branch holds that the image is not in says nothing about the image; what runs does.
                if got_here or step.step == RUNNING:
                    yield step

    async def _all(self, kind: str) -> list[Object]:
        info: KindInfo | None = self._scheme.kinds.get(kind)
        if info is None:
            raise Invalid(f"this program was installed without {kind}: there is no way of images to show")
        return await self._cluster.all_of(info)

    async def _from_source(self, key: Key, commit: str) -> AsyncIterator[Step]:
        try:
            yield fetched(await self._cluster.read(GIT_REPOSITORY, key), commit)
        except NotFound as error:
            yield Step("fetched", f"{GIT_REPOSITORY.kind}/{key}", "", str(error), done=False)
            return
        for one in await self._cluster.all_of(KUSTOMIZATION):
            if _source(one) == key and one["spec"]["sourceRef"]["kind"] == GIT_REPOSITORY.kind:
                yield applied(one, commit)
                async for step in self._running(one):
                    yield step

    async def _running(self, applier: Object) -> AsyncIterator[Step]:
        if (applier.get("spec") or {}).get("kubeConfig"):
            return  # its objects are in another cluster
        for reference in applied_by(applier):
            if reference.kind not in WORKLOADS:
                continue
            try:
                found = await self._cluster.anything.find(reference)
            except ReconcileError as error:
                yield Step(RUNNING, str(reference), "", str(error), done=False)
                continue
            if found is not None:
                for step in running(reference, found, self._image, self._tag, datetime.now(UTC)):
                    yield step


# --- what each object says


def scanned(found: Object, tag: str) -> Step:
    """Whether a tag was seen; only the newest tags are in a status."""
    result = (found.get("status") or {}).get("lastScanResult") or {}
    latest = result.get("latestTags") or []
    more = f", {tag} among the newest" if tag in latest else ""
    return Step(
        "scanned", _named(found), str(result.get("scanTime") or ""), f"{result.get('tagCount', 0)} tags{more}", bool(result)
    )


def chosen(found: Object, image: str, tag: str, events: Sequence[Object] = ()) -> Step:
    """Whether a policy chose the tag; when, is in its Event for as long as that is kept."""
    status = found.get("status") or {}
    latest = status.get("latestRef") or {}
    done = (latest.get("name"), latest.get("tag")) == (image, tag)
    before = (status.get("observedPreviousRef") or {}).get("tag") == tag
    what = reference_text(latest) if latest else _message(found) or "no image is chosen"
    told = [each for each in events if _is_about(each, found) and f" {tag}" in str(each.get("message"))]
    time = max(map(last_seen, told), default="")
    return Step("chosen", _named(found), time, f"{what}, which replaced {tag}" if before and not done else what, done)


def committed(found: Object, image: str, tag: str) -> Step:
    """Whether an automation has brought the tag to its branch."""
    status = found.get("status") or {}
    refs = (status.get("observedPolicies") or {}).values()
    done = any((ref.get("name"), ref.get("tag")) == (image, tag) for ref in refs if isinstance(ref, dict))
    commit = _commit(found)
    what = f"last push {short(commit)}" if commit else _message(found) or "nothing was pushed"
    return Step("committed", _named(found), str(status.get("lastPushTime") or ""), what, done)


def fetched(found: Object, commit: str) -> Step:
    """Whether a GitRepository holds the commit."""
    artifact = (found.get("status") or {}).get("artifact") or {}
    revision = str(artifact.get("revision") or "")
    return Step("fetched", _named(found), str(artifact.get("lastUpdateTime") or ""), _at(revision, commit), bool(revision))


def applied(found: Object, commit: str) -> Step:
    """Whether a Kustomization has applied it, and when it first had."""
    status = found.get("status") or {}
    revision = str(status.get("lastAppliedRevision") or "")
    history: Sequence[Mapping[str, Any]] = status.get("history") or ()
    first = next((one for one in history if (one.get("metadata") or {}).get("revision") == revision), {})
    time = str(first.get("firstReconciled") or (condition(found, "Ready") or {}).get("lastTransitionTime") or "")
    ready = condition(found, "Ready") or {}
    failed = f"; {ready.get('message')}" if ready.get("status") == "False" else ""
    return Step("applied", _named(found), time, _at(revision, commit) + failed, bool(revision))


def running(reference: Reference, found: Object, image: str, tag: str, now: datetime) -> Iterator[Step]:
    """The containers of an object that have the image, with this tag or another."""
    summary = kstatus.summarize(found, now)
    late = summary.status is not kstatus.Status.CURRENT and summary.message
    health = f"{summary.status}: {summary.message}" if late else str(summary.status)
    for container in containers(found):
        name, has = split_image(str(container.get("image") or ""))
        if name == image:
            done = has == tag
            what = f"container {container.get('name')}" + (f", {health}" if done else f" has {has or 'no tag'}")
            yield Step(RUNNING, str(reference), _moment(found), what, done)


def containers(found: Object) -> list[Mapping[str, Any]]:
    """The containers of the pods that an object describes, those that run first included."""
    for path in TEMPLATES:
        value: Any = found
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, dict) and isinstance(value.get("containers"), list):
            return [*(value.get("initContainers") or ()), *value["containers"]]
    return []


def split_image(text: str) -> tuple[str, str]:
    """Name and tag of an image; the digest is left out."""
    text = text.partition("@")[0]
    folder, slash, last = text.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{folder}{slash}{name}", tag


def reference_text(found: Mapping[str, Any]) -> str:
    """`name:tag` of an image in a status."""
    return f"{found.get('name')}:{found.get('tag')}"


def _moment(found: Object) -> str:
    """When the last rollout moved, where the object says so."""
    progressing = condition(found, "Progressing") or {}
    return str(progressing.get("lastUpdateTime") or "")


def _message(found: Object) -> str:
    return str((condition(found, "Ready") or {}).get("message") or "")


def _at(revision: str, commit: str) -> str:
    if not revision:
        return "nothing yet"
    return short(revision) if not commit or commit in revision else f"{short(revision)}, not the commit of the last push"


def _named(found: Object) -> str:
    meta = found["metadata"]
    return f"{found['kind']}/{meta.get('namespace', '')}/{meta['name']}"


def _key(found: Object) -> Key:
    return Key(str(found["metadata"].get("namespace", "")), found["metadata"]["name"])


def _repository(policy: Object) -> Key:
    reference = (policy.get("spec") or {}).get("imageRepositoryRef") or {}
    return Key(str(reference.get("namespace") or policy["metadata"].get("namespace", "")), str(reference.get("name")))


def _seen(automation: Object) -> set[Key]:
    """The policies that an automation has made use of."""
    namespace = str(automation["metadata"].get("namespace", ""))
    return {Key(namespace, name) for name in (automation.get("status") or {}).get("observedPolicies") or {}}


def _source(found: Object) -> Key:
    reference = (found.get("spec") or {}).get("sourceRef") or {}
    return Key(str(reference.get("namespace") or found["metadata"].get("namespace", "")), str(reference.get("name")))


def _commit(automation: Object) -> str:
    return str((automation.get("status") or {}).get("lastPushCommit") or "")


def _is_about(event: Object, found: Object) -> bool:
    involved = event.get("involvedObject") or {}
    same = (found["kind"], found["metadata"].get("namespace"), found["metadata"]["name"])
    return (involved.get("kind"), involved.get("namespace"), involved.get("name")) == same
