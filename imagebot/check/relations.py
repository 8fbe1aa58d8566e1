"""What can be wrong between objects: references into the void, policies nobody uses, automations in each other's way. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from imagebot.check import findings as rules
from imagebot.check.findings import Finding, Severity
from imagebot.check.manifests import Manifest, Manifests
from imagebot.markers.files import under, update_root
from imagebot.policy.controller import access_denied
from reconcile.api.meta import Key
from reconcile.api.selectors import compile_selector
from reconcile.errors import Invalid


@dataclass(frozen=True, slots=True)
class Automation:
    """What an ImageUpdateAutomation updates.

    Attributes:
        manifest: where it stands.
        repository: the GitRepository it names.
        root: the folder or file in it, empty for all of it.
        branch: what it pushes to, empty when that cannot be told.
        policies: names of the policies in its namespace that it selects.
    """

    manifest: Manifest
    repository: Key
    root: str
    branch: str
    policies: frozenset[str]

    def covers(self, path: str) -> bool:
        """Whether it looks at a file of the repository."""
        return under(path, self.root) is not None


def automations_of(manifests: Manifests) -> list[Automation]:
    """The automations whose schema is in order."""
    found = []
    for manifest in manifests.of("ImageUpdateAutomation"):
        if manifest.resource is None:
            continue
        spec, key = manifest.resource.spec, manifest.key
        repository = Key(spec.source_ref.namespace or key.namespace, spec.source_ref.name)
        try:
            matches = compile_selector(spec.policy_selector)
        except Invalid:
            continue
        policies = frozenset(
            p.key.name for p in manifests.of("ImagePolicy") if p.key.namespace == key.namespace and matches(_labels(p))
        )
        branch = _push_branch(manifest, manifests.get("GitRepository", repository))
        found.append(Automation(manifest, repository, update_root(spec.update.path), branch, policies))
    return found


def _labels(manifest: Manifest) -> Mapping[str, str]:
    labels = manifest.body["metadata"].get("labels")
    return {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}


def _push_branch(automation: Manifest, repository: Manifest | None) -> str:
    """The branch that is pushed to, by the rules of Flux; empty when it cannot be told. Requests have one for each automation."""
    git = automation.resource.spec.git if automation.resource is not None else None
    if git is not None and git.push is not None and git.push.branch:
        return str(git.push.branch)
    if git is not None and git.push is not None and git.push.pull_request is not None:
        return f"imagebot/{automation.key.namespace}/{automation.key.name}"
    return checked_out(automation, repository)


def checked_out(automation: Manifest, repository: Manifest | None) -> str:
    """The branch that an automation starts from; empty when it is none, or cannot be told."""
    git = automation.resource.spec.git if automation.resource is not None else None
    declared = git.checkout.ref if git is not None and git.checkout is not None else _reference(repository)
    if declared is None:
        return ""
    if declared.name:
        return str(declared.name).removeprefix("refs/heads/") if declared.name.startswith("refs/heads/") else ""
    return "" if declared.commit or declared.semver or declared.tag else str(declared.branch or "")


def _reference(repository: Manifest | None) -> Any:
    return repository.resource.spec.ref if repository is not None and repository.resource is not None else None


def check_relations(manifests: Manifests, automations: list[Automation]) -> Iterator[Finding]:
    """The findings about what objects are to each other."""
    for manifest in manifests.found:
        yield from _secrets(manifests, manifest)
    for policy in manifests.of("ImagePolicy"):
        yield from _chosen_from(manifests, policy)
        if not any(policy.key.name in a.policies for a in automations if a.manifest.key.namespace == policy.key.namespace):
            others = any(a.key.namespace == policy.key.namespace for a in manifests.of("ImageUpdateAutomation"))
            why = "that selects it" if others else "at all"
            text = f"namespace {policy.key.namespace} has no ImageUpdateAutomation {why}"
            yield policy.finding(rules.UNUSED_POLICY, "metadata.name", text)
    used = {_referred(policy) for policy in manifests.of("ImagePolicy")}
    for repository in manifests.of("ImageRepository"):
        if repository.key not in used:
            yield repository.finding(
                rules.UNUSED_REPOSITORY, "metadata.name", "no ImagePolicy of the folder chooses from its tags"
            )
    for automation in automations:
        yield from _source(manifests, automation)
    for one, other in combinations(automations, 2):
        yield from _overlap(one, other, manifests)


# --- references


def _referred(policy: Manifest) -> Key | None:
    reference = (policy.body.get("spec") or {}).get("imageRepositoryRef")
    if not isinstance(reference, dict) or not isinstance(reference.get("name"), str):
        return None
    return Key(str(reference.get("namespace") or policy.key.namespace), reference["name"])


def _chosen_from(manifests: Manifests, policy: Manifest) -> Iterator[Finding]:
    key = _referred(policy)
    if key is None:
        return
    where = "spec.imageRepositoryRef.name"
    repository = manifests.get("ImageRepository", key)
    if repository is None:
        elsewhere = [m.key for m in manifests.of("ImageRepository") if m.key.name == key.name]
        hint = f"; there is one in namespace {elsewhere[0].namespace}" if elsewhere else ""
        yield policy.finding(rules.MISSING_REFERENCE, where, f"there is no ImageRepository {key} in the folder{hint}")
        return
    if key.namespace == policy.key.namespace or repository.resource is None:
        return
    described = manifests.namespaces.get(policy.key.namespace)
    selectors = repository.resource.spec.access_from.namespace_selectors if repository.resource.spec.access_from else None
    own = {"kubernetes.io/metadata.name": policy.key.namespace}
    if described is None and selectors and any((s.match_labels or {}).keys() - own.keys() for s in selectors):
        return  # the labels of the namespace are not in the folder: it cannot be told
    denied = access_denied(repository.resource, policy.key.namespace, {**own, **(described or {})})
    if denied:
        yield policy.finding(rules.ACCESS_DENIED, where, denied)


def _source(manifests: Manifests, automation: Automation) -> Iterator[Finding]:
    manifest, key = automation.manifest, automation.repository
    repository = manifests.get("GitRepository", key)
    if repository is None:
        elsewhere = [m.key for m in manifests.of("GitRepository") if m.key.name == key.name]
        hint = f"; there is one in namespace {elsewhere[0].namespace}" if elsewhere else ""
        yield manifest.finding(
            rules.MISSING_REFERENCE, "spec.sourceRef.name", f"there is no GitRepository {key} in the folder{hint}"
        )
    elif repository.resource is not None and not automation.branch and manifest.body["spec"].get("git"):
        text = "there is no branch to push to: what is checked out is none, and spec.git.push.branch is not given"
        yield manifest.finding(rules.INVALID_PUSH, "spec.git", text, at_key=True)


def _secrets(manifests: Manifests, manifest: Manifest) -> Iterator[Finding]:
    spec = manifest.body.get("spec")
    for where, kind, name in _named(spec, "spec") if isinstance(spec, dict) else ():
        there = manifests.secrets if kind == "Secret" else manifests.accounts
        if Key(manifest.key.namespace, name) not in there:
            text = f"there is no {kind} {manifest.key.namespace}/{name} in the folder"
            yield manifest.finding(rules.MISSING_SECRET, where, text)


def _named(value: Any, where: str) -> Iterator[tuple[str, str, str]]:
    """The Secrets and ServiceAccounts that a spec names: path, kind, name."""
    if isinstance(value, dict):
        for key, inside in value.items():
            if str(key).lower().endswith("secretref") and isinstance(inside, dict) and isinstance(inside.get("name"), str):
                yield f"{where}.{key}.name", "Secret", inside["name"]
            elif key == "serviceAccountName" and isinstance(inside, str) and inside:
                yield f"{where}.{key}", "ServiceAccount", inside
            else:
                yield from _named(inside, f"{where}.{key}")
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from _named(inside, f"{where}[{number}]")


# --- automations in each other's way


def _overlap(one: Automation, other: Automation, manifests: Manifests) -> Iterator[Finding]:
    if not one.branch or one.branch != other.branch or url_of(one, manifests) != url_of(other, manifests):
        return
    if not one.covers(other.root) and not other.covers(one.root):
        return
    shared = one.policies & other.policies if one.manifest.key.namespace == other.manifest.key.namespace else frozenset()
    below = " and ".join(dict.fromkeys(a.root or "the whole repository" for a in (one, other)))
    text = f"{one.manifest.subject} ({one.manifest.place}) updates branch {one.branch} too: {below}"
    if shared:
        text += f", both with {', '.join(sorted(shared)[:3])}" + (f" and {len(shared) - 3} more" if len(shared) > 3 else "")
        yield other.manifest.finding(rules.OVERLAP, "spec.update.path", text, at_key=True)
    else:
        text += "; they share no policy, so each writes its own markers"
        yield other.manifest.finding(rules.OVERLAP, "spec.update.path", text, severity=Severity.NOTE, at_key=True)


def url_of(automation: Automation, manifests: Manifests) -> object:
    """The address of the repository that is written to; its key where the folder does not have it."""
    repository = manifests.get("GitRepository", automation.repository)
    return repository.resource.spec.url if repository is not None and repository.resource is not None else automation.repository
