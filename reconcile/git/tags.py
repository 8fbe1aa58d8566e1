"""The best of many tags: which versions are in a range, and which of them is the highest. Pure."""

from __future__ import annotations

from reconcile.errors import Invalid
from reconcile.git.types import SemverChooser
from reconcile.versions import InvalidConstraint, InvalidVersion, Version, parse_constraint, parse_version


def choose_version(constraint: str) -> SemverChooser | None:
    """A function that picks the highest of some tags within a SemVer range (several when their versions are equal).

    None without a constraint. The function raises Invalid for a bad range.
    """
    if not constraint:
        return None

    def choose(tags: list[str]) -> list[str]:
        try:
            accepted = parse_constraint(constraint)
        except InvalidConstraint as error:
            raise Invalid(f"semver parse error: {error}") from error
        found: list[tuple[Version, str]] = []
        for tag in tags:
            try:
                version = parse_version(tag)
            except InvalidVersion:
                continue
            if accepted.check(version):
                found.append((version, tag))
        best = max((version for version, _ in found), default=None)
        return [tag for version, tag in found if version == best]

    return choose
