"""Plays one story: steps that change Git or the cluster, waits, and looks at what has become of it.

Each step is an object with one of these words (a reference is `Kind/name` or `Kind/namespace/name`):

  commit    files of a repository, with `branch`, `start`, `message`, `tag` and `sign` (a key of GnuPG's)
  apply     objects, by server-side apply; GITURL stands for the Git server
  patch     a merge patch, `with`
  reconcile ask for a pass of these now
  delete    ask for the end of these;  gone  wait for it
  settle    wait until these have a final verdict on what is asked of them, and have been quiet for a second
  until     wait for a condition (`type`, else Ready) with a `status`, `reason` or text in the `message`
  sleep     give what ought not to happen time to do so
  observe   look, under a name; each story ends with `end`
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.gitrepo import ENV, BareRepository, Blob
from tests.support.kubeapi import MERGE_PATCH, ApiError, Object
from tests.support.reconcile_facts.masks import Mask
from tests.support.reconcile_facts.observed import OWN, distinct, foreign, object_of, posted_event, status_of, stored_event

if TYPE_CHECKING:
    from tests.support.reconcile_facts.compare import Expected
    from tests.support.reconcile_facts.world import World

SOURCE, KUSTOMIZE = "source.toolkit.fluxcd.io/v1", "kustomize.toolkit.fluxcd.io/v1"
RBAC = "rbac.authorization.k8s.io/v1"
VERSIONS = {
    "Kustomization": KUSTOMIZE,
    "GitRepository": SOURCE,
    **dict.fromkeys(("ConfigMap", "Secret", "Service", "ServiceAccount", "Namespace"), "v1"),
    **dict.fromkeys(("Role", "RoleBinding", "ClusterRole"), RBAC),
    "Deployment": "apps/v1",
    "Job": "batch/v1",
}
WATCHED = ("GitRepository", "Kustomization")
SEEN = ("ConfigMap", "Secret", "Service", "ServiceAccount", "Deployment", "Job", "Role", "RoleBinding")
WIDE = ("Namespace", "ClusterRole")
"""Kinds without a namespace: such objects keep their names in every run."""
NOT_OURS = ("kube-root-ca.crt", "default")
REQUESTED = "reconcile.fluxcd.io/requestedAt"
FIRST = 1_700_000_000
"""The time of the first commit, in seconds since 1970."""
PATIENCE = 120.0
"""Seconds that a wait may take on a busy machine; nearly all take one or two."""
QUIET = 1.0
LATE = 15.0
"""Seconds that what is expected may come later: events are written in the background, and a busy machine is late."""


class Play:
    """One story that is being played in a namespace of its own, whose name is that of the story and the suffix of the run."""

    def __init__(self, world: World, story: Object, label: str, expected: Expected) -> None:
        self.world, self.story, self.api = world, story, world.api
        self.name = story["name"]
        self.ns = self.name + world.suffix
        self.namespaces = [self.ns]
        self.mask = Mask(world.suffix)
        self.requests = 0
        self.seen: dict[str, Any] = {}
        self.told: Object = {}
        self._label, self._expected = label, expected
        self._repositories: dict[str, BareRepository] = {}
        self._gpg_home: Path | None = None

    def run(self) -> Object:
        """Play to the end; what was seen."""
        for reference in self._wide():
            self.do_delete([reference])
            self.do_gone([reference])
        self.world.add_namespace(self.ns)
        for step in self.story["steps"]:
            verb = next(word for word in step if hasattr(self, f"do_{word}"))
            getattr(self, f"do_{verb}")(**{key.replace("with", "change"): value for key, value in step.items()})
        self.do_observe("end")
        self._patiently(self._told)
        for reference in self._wide():
            self.do_delete([reference])
        return {"observations": self.seen, **self.told}

    def _patiently(self, look: Callable[[], bool]) -> None:
        """Look until it is as expected, or for some seconds: a busy machine is late, and it is no difference."""
        end = time.monotonic() + LATE
        while not look() and time.monotonic() < end:
            self._pause(0.2)

    def _told(self) -> bool:
        self.told = {"events": self._events(), "posted": self._posted()}
        return self._expected.told(self.told)

    def _wide(self) -> list[str]:
        return [reference for reference in self.story.get("look") or () if reference.split("/")[0] in WIDE]

    # --- words of a story

    def _placed(self, value: Any, key: str = "") -> Any:
        """What a step says, with the namespaces and the Git server of this run."""
        if isinstance(value, dict):
            made = {name: self._placed(each, name) for name, each in value.items()}
            if made.get("kind") == "Namespace" and self._is_own(made["metadata"]["name"]):
                made["metadata"]["name"] += self.world.suffix
            return made
        if isinstance(value, list):
            return [self._placed(each, key) for each in value]
        if isinstance(value, str):
            own = key in ("namespace", "targetNamespace") and self._is_own(value)
            return value + self.world.suffix if own else value.replace("GITURL", self.world.git_url)
        return value

    def _is_own(self, namespace: str) -> bool:
        return namespace == self.name or namespace.startswith(f"{self.name}-")

    def _reference(self, text: str) -> tuple[str, str, str, str]:
        """Version, kind, name and namespace."""
        parts = text.split("/")
        namespace = self._placed(parts[1], "namespace") if len(parts) == 3 else self.ns
        return VERSIONS[parts[0]], parts[0], parts[-1], namespace

    def _is_gone(self, text: str) -> bool:
        return self._find(text) is None

    def _find(self, text: str) -> Object | None:
        return self.api.find(*self._reference(text))

    # --- steps

    def do_commit(self, commit: str, files: Object, branch: str = "main", start: str = "", message: str = "change",
                  tag: Any = None, sign: Object | None = None) -> None:  # fmt: skip
        """Commit files; None takes a file away."""
        repository = self._repositories.get(commit)
        if repository is None:
            repository = self._repositories[commit] = BareRepository.create(self.world.git_root / f"{self.name}-{commit}")
        count = int(repository.git("rev-list", "--all", "--count"))
        made = repository.commit(
            {path: _content(self._placed(text)) for path, text in files.items()},
            branch=branch,
            message=message,
            when=FIRST + 60 * (count + 1),
            start=repository.head(start) if start else None,
        )
        if sign:
            made = self._sign(repository, made, sign, branch, tag)
        elif tag:
            plain = isinstance(tag, str)
            repository.tag(tag if plain else tag["name"], made, annotated=not plain)
        self.mask.name_commit(commit, made)

    def _sign(self, repository: BareRepository, commit: str, sign: Object, branch: str, tag: str | None) -> str:
        self._gpg_home = self._gpg_home or self.world.gpg_home(self.name)
        env = {**ENV, "GNUPGHOME": str(self._gpg_home), "GIT_DIR": str(repository.path)}
        subprocess.run(["gpg", "--batch", "-q", "--import"], input=sign["key"].encode(), env=env, check=True, capture_output=True)

        def git(*words: str) -> str:
            return subprocess.run(["git", *words], env=env, check=True, capture_output=True).stdout.decode().strip()

        if sign.get("commit"):
            parents = [word for parent in git("rev-list", "--parents", "-n1", commit).split()[1:] for word in ("-p", parent)]
            commit = git("commit-tree", f"-S{sign['id']}", "-m", "signed", *parents, f"{commit}^{{tree}}")
            git("update-ref", f"refs/heads/{branch}", commit)
        if tag:
            git("tag", "-f", "-u", sign["id"], "-m", "signed tag", tag, commit) if sign.get("tag") else git("tag", tag, commit)
        return commit

    def do_apply(self, apply: list[Object]) -> None:
        """Apply objects; those of ours are labelled for the service that plays this story."""
        for body in self._placed(apply):
            meta = body["metadata"]
            if body["kind"] == "Namespace":
                self.namespaces.append(meta["name"])
                self.world.add_namespace(meta["name"])
                continue
            meta.setdefault("namespace", self.ns)
            manager = meta.pop("rig-manager", OWN)
            if body["kind"] in WATCHED:
                meta["labels"] = {**meta.get("labels", {}), self.world.label: self._label}
            self.api.apply(body, manager=manager)

    def do_patch(self, patch: str, change: Object) -> None:
        """Merge into an object."""
        version, kind, name, namespace = self._reference(patch)
        path = self.api.path(version, kind, namespace, name)
        self.api.request("PATCH", path, self._placed(change), content_type=MERGE_PATCH, fieldManager=OWN)

    def do_reconcile(self, reconcile: list[str]) -> None:
        """Ask by annotation."""
        self.requests += 1
        for reference in reconcile:
            self.do_patch(reference, {"metadata": {"annotations": {REQUESTED: f"request-{self.requests}"}}})

    def do_delete(self, delete: list[str]) -> None:
        """Ask for the end of objects."""
        for reference in delete:
            self.api.delete(*self._reference(reference), missing_ok=True)

    def do_gone(self, gone: list[str]) -> None:
        """Wait for the end of objects."""
        for reference in gone:
            self._wait(functools.partial(self._is_gone, reference), "its end", reference)

    def do_sleep(self, sleep: float) -> None:
        """Wait."""
        self._pause(sleep)

    def do_until(self, until: str, **wanted: str) -> None:
        """Wait for a condition."""
        kind, message = wanted.get("type", "Ready"), self._placed(wanted.get("message", ""))
        exact = {key: value for key, value in wanted.items() if key in ("status", "reason")}

        def there() -> bool:
            found = _condition(self._find(until), kind)
            return bool(found) and exact.items() <= found.items() and message in found["message"]

        self._wait(there, f"{kind} {wanted}", until)

    def do_settle(self, settle: list[str]) -> None:
        """Wait for verdicts, and for quiet."""
        for reference in settle:
            last: tuple[str, float] | None = None

            def quiet(reference: str = reference) -> bool:
                nonlocal last
                found = self._find(reference)
                if found is None or not self._settled(found):
                    last = None
                    return False
                mark = json.dumps(found.get("status"), sort_keys=True)
                if last is None or last[0] != mark:
                    last = mark, time.monotonic()
                return time.monotonic() - last[1] > QUIET

            self._wait(quiet, "a verdict", reference)

    def _settled(self, found: Object) -> bool:
        meta, status, ready = found["metadata"], found.get("status") or {}, _condition(found, "Ready")
        token = (meta.get("annotations") or {}).get(REQUESTED)
        if not ready or ready["status"] == "Unknown" or ready.get("observedGeneration") != meta["generation"]:
            return False
        if token and status.get("lastHandledReconcileAt") != token:
            return False
        if ready["status"] != "True":
            return _condition(found, "Reconciling").get("reason") in (None, "ProgressingWithRetry")
        if _condition(found, "Reconciling") or status.get("observedGeneration") != meta["generation"]:
            return False
        if found["kind"] != "Kustomization" or found["spec"].get("suspend"):
            return True
        reference = found["spec"]["sourceRef"]
        source = self.api.find(SOURCE, reference["kind"], reference["name"], reference.get("namespace", meta["namespace"]))
        revision = (((source or {}).get("status") or {}).get("artifact") or {}).get("revision")
        return revision in (None, status.get("lastAppliedRevision"))

    def _wait(self, holds: Callable[[], bool], what: str, reference: str) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                status = json.dumps((self._find(reference) or {}).get("status"))
                raise AssertionError(f"{self.name}: waited {PATIENCE:g} s for {reference}: {what}; its status: {status}")
            self._pause(0.1)

    def _pause(self, seconds: float) -> None:
        if self.world.closing.wait(seconds):
            raise InterruptedError(f"{self.name} is given up")

    # --- looking

    def do_observe(self, observe: str) -> None:
        """Look at everything in the namespaces of the story, and at what it names."""

        def as_expected() -> bool:
            self.seen[observe] = self._look()
            return self._expected.seen(observe, self.seen[observe])

        self._patiently(as_expected)

    def _look(self) -> Object:
        found: dict[str, Any] = {}
        for namespace in self.namespaces:
            for kind in WATCHED:
                for body in self.api.list(VERSIONS[kind], kind, namespace):
                    found[f"{kind}/{namespace}/{body['metadata']['name']}"] = status_of(body)
            for kind in SEEN:
                for body in self.api.list(VERSIONS[kind], kind, namespace):
                    body["kind"] = kind
                    if body["metadata"]["name"] not in NOT_OURS and not foreign(body):
                        found[f"{kind}/{namespace}/{body['metadata']['name']}"] = object_of(body)
        for reference in self.story.get("look") or ():
            body_or_none = None
            with contextlib.suppress(ApiError):
                body_or_none = self._find(reference)
            found[reference] = object_of(body_or_none) if body_or_none else None
        return dict(self.mask.masked(found))

    def _events(self) -> list[Any]:
        rows = [stored_event(event) for namespace in self.namespaces for event in self.api.list("v1", "Event", namespace)]
        return distinct(self.mask.masked([row for row in rows if row is not None]))

    def _posted(self) -> list[Any]:
        return distinct(self.mask.masked(posted_event(event)) for event in self.world.posted(self.namespaces))


def _content(text: Any) -> bytes | Blob | None:
    if text is None:
        return None
    return Blob(text["text"].encode(), text["mode"]) if isinstance(text, dict) else text.encode()


def _condition(found: Object | None, kind: str) -> Object:
    conditions = ((found or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})
