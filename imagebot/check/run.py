"""A whole check: the folder, then the checkouts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from imagebot.check.checkouts import declared_checkout, marked_files, own_checkout
from imagebot.check.commits import check_commits
from imagebot.check.findings import Finding, ordered
from imagebot.check.holds import check_holds
from imagebot.check.manifests import read_manifests
from imagebot.check.marks import MarkerCheck, check_paths, unmarked
from imagebot.check.objects import check_object
from imagebot.check.relations import automations_of, check_relations
from reconcile.api.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Report:
    """What a check came to: its findings in order, and how much it looked at."""

    findings: tuple[Finding, ...]
    files: int
    objects: int
    checkouts: tuple[str, ...]
    markers: int


def check_folder(
    directory: Path,
    scheme: Scheme,
    repositories: Sequence[str] = (),
    ignored: Collection[str] = (),
    now: datetime | None = None,
) -> Report:
    """Check the manifests of a folder and the markers of checkouts; blocks on the disk and uses no network.

    Args:
        directory: the folder with the manifests.
        scheme: the kinds that are ours.
        repositories: checkouts, each as `[NAMESPACE/]NAME=PATH`.
        ignored: ids of rules whose findings are left out.
        now: the moment at which holds must not have ended; the present one when None.

    Raises:
        Invalid: The folder is none, or a repository cannot be understood.
    """
    manifests = read_manifests(directory, scheme)
    found = list(manifests.findings)
    for manifest in manifests.found:
        if manifest.resource is not None:
            found += check_object(manifest)
    automations = automations_of(manifests)
    found += check_relations(manifests, automations)
    found += check_commits(manifests, automations)
    found += check_holds(manifests, now or datetime.now(UTC))
    checkouts = [declared_checkout(text, manifests) for text in repositories]
    if not checkouts:
        own = own_checkout(directory, manifests, [a.repository for a in automations])
        checkouts = [own] if own is not None else []
    checks = [MarkerCheck(checkout, manifests, automations) for checkout in checkouts]
    for check in checks:
        found += check.check(marked_files(check.checkout.root))
        found += check_paths(check.checkout, automations)
    found += unmarked(manifests, automations, checks)
    kept = ordered(finding for finding in found if finding.rule.id not in ignored)
    places = tuple(str(check.checkout.root) for check in checks)
    return Report(tuple(kept), manifests.files, len(manifests.objects), places, sum(check.count for check in checks))
