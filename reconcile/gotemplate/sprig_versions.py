"""Sprig's semver and semverCompare."""

from __future__ import annotations

from typing import Final

from reconcile.errors import Invalid
from reconcile.gotemplate.failures import CallError
from reconcile.gotemplate.functions import Family
from reconcile.gotemplate.values import STRING, UINT64, Field, Struct, Type, Uint64
from reconcile.versions.constraint import parse_constraint
from reconcile.versions.version import Version, parse_version

VERSIONS: Final = Family()

_PARTS: Final = ("major", "minor", "patch", "pre", "metadata", "original")


def _version(value: Struct) -> Version:
    return parse_version(str(value.values[5]))


def _shown(value: Struct) -> str:
    major, minor, patch, prerelease, metadata, _ = value.values
    return f"{major}.{minor}.{patch}{f'-{prerelease}' if prerelease else ''}{f'+{metadata}' if metadata else ''}"


_SEMVER: Final = Type(
    "*semver.Version",
    "ptr",
    fields=tuple(Field(name, UINT64 if name in _PARTS[:3] else STRING) for name in _PARTS),
    methods={
        "Major": lambda value: value.values[0],
        "Minor": lambda value: value.values[1],
        "Patch": lambda value: value.values[2],
        "Prerelease": lambda value: value.values[3],
        "Metadata": lambda value: value.values[4],
        "Original": lambda value: value.values[5],
        "String": _shown,
    },
)


def _parsed(text: str) -> Version:
    try:
        return parse_version(text)
    except Invalid:
        raise CallError("invalid semantic version") from None


@VERSIONS.add("semver")
def _semver(text: str) -> Struct:
    found = _parsed(text)
    numbers = (Uint64(found.major), Uint64(found.minor), Uint64(found.patch))
    return Struct(_SEMVER, (*numbers, found.prerelease, found.metadata, text))


@VERSIONS.add("semverCompare")
def _semver_compare(constraint: str, version: str) -> bool:
    try:
        wanted = parse_constraint(constraint)
    except Invalid as error:
        raise CallError(str(error)) from None
    return wanted.check(_parsed(version))
