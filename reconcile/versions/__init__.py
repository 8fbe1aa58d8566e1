"""Versions and version constraints as Masterminds/semver v3.5 reads them. Pure."""

from reconcile.versions.constraint import MAX_ALTERNATIVES, MAX_CONSTRAINT_BYTES, Constraint, InvalidConstraint, parse_constraint
from reconcile.versions.version import MAX_VERSION_BYTES, InvalidVersion, Version, is_prerelease, parse_version, version_key

__all__ = [
    "MAX_ALTERNATIVES",
    "MAX_CONSTRAINT_BYTES",
    "MAX_VERSION_BYTES",
    "Constraint",
    "InvalidConstraint",
    "InvalidVersion",
    "Version",
    "is_prerelease",
    "parse_constraint",
    "parse_version",
    "version_key",
]
