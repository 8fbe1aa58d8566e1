"""What can be wrong with one object on its own: patterns, ranges, templates, selectors. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from imagebot.bot.message import DEFAULT_MESSAGE, MessageError, RemovedField, render_message
from imagebot.check import findings as rules
from imagebot.check.findings import Finding
from imagebot.check.manifests import Manifest
from imagebot.markers.changes import Change, Changed, FileChange, ObjectIdentity
from imagebot.policy.base import InvalidPolicy
from imagebot.policy.rules import policy_of
from reconcile.api.selectors import compile_selector
from reconcile.errors import Invalid
from reconcile.git.types import parse_refspec
from reconcile.regexp import Regexp, RegexpError
from reconcile.registry.names import InvalidImage, parse_repository
from reconcile.versions import InvalidConstraint, parse_constraint

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>\w+)\}|(?P<plain>\w+)|(?P<lone>))")


def check_object(manifest: Manifest) -> Iterator[Finding]:
    """The findings about one object whose schema is in order."""
    match manifest.info.kind:
        case "ImageRepository":
            yield from _image_repository(manifest)
        case "ImagePolicy":
            yield from _image_policy(manifest)
        case "ImageUpdateAutomation":
            yield from _automation(manifest)
        case "GitRepository":
            yield from _range(manifest, "spec.ref.semver", _get(manifest, "ref", "semver"))
        case "OCIRepository":
            yield from _range(manifest, "spec.ref.semver", _get(manifest, "ref", "semver"))
            yield from _regex(manifest, "spec.ref.semverFilter", _get(manifest, "ref", "semver_filter"))


def _get(manifest: Manifest, *names: str) -> Any:
    found: Any = manifest.resource.spec if manifest.resource is not None else None
    for name in names:
        found = getattr(found, name, None)
    return found


def _image_repository(manifest: Manifest) -> Iterator[Finding]:
    try:
        parse_repository(_get(manifest, "image"))
    except InvalidImage as error:
        yield manifest.finding(rules.INVALID_IMAGE, "spec.image", str(error))
    for number, pattern in enumerate(_get(manifest, "exclusion_list") or ()):
        yield from _regex(manifest, f"spec.exclusionList[{number}]", pattern)


def _regex(manifest: Manifest, where: str, pattern: str | None) -> Iterator[Finding]:
    try:
        Regexp(pattern or "")
    except RegexpError as error:
        yield manifest.finding(rules.INVALID_REGEX, where, f"{pattern!r} is no regular expression: {error}")


def _range(manifest: Manifest, where: str, text: str | None) -> Iterator[Finding]:
    if text is None:
        return
    try:
        constraint = parse_constraint(text)
    except InvalidConstraint as error:
        yield manifest.finding(rules.INVALID_RANGE, where, f"{text!r} is no range of versions: {error}")
        return
    for warning in constraint.warnings:
        yield manifest.finding(rules.DOUBTFUL_RANGE, where, warning)


# --- ImagePolicy


def _image_policy(manifest: Manifest) -> Iterator[Finding]:
    policy = _get(manifest, "policy")
    given = [name for name in ("semver", "alphabetical", "numerical") if getattr(policy, name) is not None]
    if len(given) > 1:
        yield manifest.finding(
            rules.SEVERAL_RULES,
            f"spec.policy.{given[1]}",
            f"{given[0]} counts; {' and '.join(given[1:])} {'is' if len(given) == 2 else 'are'} without effect",
            at_key=True,
        )
    if policy.semver is not None:
        yield from _range(manifest, "spec.policy.semver.range", policy.semver.range)
    else:
        try:
            policy_of(_get(manifest))
        except InvalidPolicy as error:
            yield manifest.finding(rules.INVALID_POLICY, "spec.policy", f"nobody can choose by it: {error}", at_key=True)
    if policy.alphabetical is not None:
        yield from _regex(manifest, "spec.policy.alphabetical.filter", policy.alphabetical.filter)
    tags = _get(manifest, "filter_tags")
    if tags is not None:
        bad = list(_regex(manifest, "spec.filterTags.pattern", tags.pattern))
        yield from bad
        if tags.extract and not bad:
            yield from _extract(manifest, tags.extract, Regexp(tags.pattern or ""))


def _extract(manifest: Manifest, template: str, pattern: Regexp) -> Iterator[Finding]:
    """Whether a template in the form of Go's `Regexp.Expand` can tell tags apart; unknown groups expand to nothing there."""
    where, references = "spec.filterTags.extract", 0
    groups = [name or str(number) for number, name in enumerate(pattern.names)]
    for match in _REFERENCE.finditer(template):
        name = match["braced"] or match["plain"]
        if name is None:
            continue
        references += 1
        if name in pattern.names or (name.isascii() and name.isdigit() and name == str(int(name)) and int(name) < len(groups)):
            continue
        meant = max((group for group in groups if match["plain"] and name.startswith(group)), key=len, default="")
        rest = name.removeprefix(meant)
        mend = f"Write ${{{meant}}}{rest}: without braces a name takes all letters, digits and _." if meant else ""
        known = ", ".join(groups[1:]) or "none, only 0 for the whole match"
        yield manifest.finding(
            rules.INVALID_EXTRACT,
            where,
            f"{match[0]} expands to nothing: the pattern has no group {name}; its groups are {known}",
            mend,
        )
    if not references:
        yield manifest.finding(
            rules.DOUBTFUL_EXTRACT, where, f"{template!r} refers to no group: every tag is compared as that text"
        )


# --- ImageUpdateAutomation


def _automation(manifest: Manifest) -> Iterator[Finding]:
    try:
        compile_selector(_get(manifest, "policy_selector"))
    except Invalid as error:
        yield manifest.finding(
            rules.INVALID_SELECTOR, "spec.policySelector", f"policySelector cannot be used: {error}", at_key=True
        )
    git = _get(manifest, "git")
    if git is None:
        yield manifest.finding(
            rules.INVALID_PUSH, "spec", "spec.git is required: nobody can commit without an author", "Add spec.git.", at_key=True
        )
        return
    yield from _range(manifest, "spec.git.checkout.ref.semver", _get(manifest, "git", "checkout", "ref", "semver"))
    if git.push is not None and git.push.refspec:
        try:
            parse_refspec(git.push.refspec)
        except Invalid as error:
            yield manifest.finding(rules.INVALID_PUSH, "spec.git.push.refspec", str(error), "Write source:destination.")
    values = git.commit.message_template_values or {}
    yield from _template(manifest, "spec.git.commit.messageTemplate", git.commit.message_template or DEFAULT_MESSAGE, values)
    asked = git.push.pull_request if git.push is not None else None
    for name in ("title", "body") if asked is not None else ():
        yield from _template(manifest, f"spec.git.push.pullRequest.{name}", getattr(asked, name) or DEFAULT_MESSAGE, values)


def _template(manifest: Manifest, where: str, template: str, values: dict[str, str]) -> Iterator[Finding]:
    change = Change("registry.example.com/app:1.0.0", "registry.example.com/app:1.0.1", f"{manifest.key.namespace}:app")
    identity = ObjectIdentity("apps/v1", "Deployment", "app", manifest.key.namespace)
    sample = Changed({"app.yaml": (FileChange(identity, change, 1),)})
    try:
        render_message(template, values, manifest.key.namespace, manifest.key.name, sample)
    except RemovedField as error:
        yield manifest.finding(rules.INVALID_TEMPLATE, where, str(error))
    except MessageError as error:
        yield manifest.finding(rules.INVALID_TEMPLATE, where, str(error))
