"""What a pull request says: title, body, comments. Pure.

Titles and the text above the table come from the user's Go templates, with the data of the commit message. Everything that comes
from elsewhere (values in files, paths, rules of policies) stands in `<code>` with each character that could mean anything to
Markdown or HTML as a character reference (CommonMark, «Entity and numeric character references»: such a reference never is
markup), so that no tag, file or value becomes a link, a mention, a heading or another cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from imagebot.api import ImagePolicySpec, ImageRef
from imagebot.bot.message import MessageError, RemovedField, render_message
from imagebot.bot.requests.scene import Say
from imagebot.markers.changes import Changed, FileChange
from reconcile.errors import Failed

MAX_TITLE = 250
MAX_BODY = 60_000
MAX_INTRODUCTION = 20_000
MAX_CELL = 160
MAX_OLD = 3
"""Different old values that one row shows."""
MAX_URLS = 5
_SAFE = re.compile(r"[A-Za-z0-9 ./-]")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_MARKER = re.compile(r"<!-- imagebot: (?P<automation>[^ \n]{1,520}) (?P<changes>sha256:[0-9a-f]{64}) -->")


@dataclass(frozen=True, slots=True)
class Told:
    """What the text of a request is made of.

    Attributes:
        namespace: of the automation.
        name: of the automation.
        changed: what the request changes.
        refs: the choices of the policies, by name.
        rules: the rules of the policies, by name, for people.
        values: `spec.git.commit.messageTemplateValues`.
        changes: checksum of what is changed.
        declined: number and mark (`#`, `!`) of the request that was declined before.
    """

    namespace: str
    name: str
    changed: Changed
    refs: Mapping[str, ImageRef]
    rules: Mapping[str, str]
    values: Mapping[str, str]
    changes: str
    declined: str = ""

    def after(self, declined: str) -> Told:
        """The same for a request that follows a declined one."""
        return replace(self, declined=declined)


def code(text: str, limit: int = MAX_CELL) -> str:
    """`text` for Markdown and HTML, exactly as it is: on one line, at most `limit` of its characters, without any meaning."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"<code>{''.join(map(_reference, cut))}</code>"


def _reference(character: str) -> str:
    if _SAFE.fullmatch(character):
        return character
    if not character.isprintable():
        return "&#65533;" if character not in "\n\r\t" else " "
    return f"&#{ord(character)};"


def policies_of(namespace: str, changed: Changed) -> list[str]:
    """Names of the policies that changed something, in order."""
    setters = {change.setter for change in changed.changes()}
    return sorted({s.split(":")[1] for s in setters if s.startswith(f"{namespace}:")})


def title_of(template: str | None, told: Told) -> str:
    """The title, one line; raises Failed `PullRequestFailed` for a template that cannot be used."""
    if template:
        text = _render("title", template, told, told.changed)
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if line:
            return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1] + "…"
    names = policies_of(told.namespace, told.changed)
    if len(names) == 1 and names[0] in told.refs:
        return f"Update {names[0]} to {told.refs[names[0]].tag}"[:MAX_TITLE]
    return f"Update {len(names)} images"


def body_of(template: str | None, told: Told) -> str:
    """The body in Markdown, at most `MAX_BODY` characters; raises Failed `PullRequestFailed`."""
    parts = []
    if template:
        text = _render("body", template, told, _harmless(told.changed)).strip()
        parts.append(text if len(text) <= MAX_INTRODUCTION else text[: MAX_INTRODUCTION - 1] + "…")
    name = f"{told.namespace}/{told.name}"
    origin = (
        f"Kept up to date by imagebot for ImageUpdateAutomation {code(name)}. Close it to decline these changes; commits that "
        "others push to its branch are never overwritten."
    )
    foot = [origin, marker(name, told.changes)]
    if told.declined:
        foot.insert(0, f"{told.declined} was closed without being merged; this request has other changes.")
    end = "\n\n".join(foot)
    head = ["| policy | file | old → new | digest | why |", "|---|---|---|---|---|"]
    room = MAX_BODY - sum(len(part) + 2 for part in (*parts, *head, end)) - 100
    rows = _rows(told)
    shown: list[str] = []
    for row in rows:
        room -= len(row) + 1
        if room < 0:
            break
        shown.append(row)
    left = len(rows) - len(shown)
    table = "\n".join([*head, *shown])
    more = [f"and {left} more"] if left else []
    return "\n\n".join([*parts, table, *more, end]) + "\n"


def marker(automation: str, changes: str) -> str:
    """The comment in the body by which a request is understood when the status was lost."""
    return f"<!-- imagebot: {automation} {changes} -->"


def changes_in(body: str, automation: str) -> str:
    """The checksum of the changes in the body of a request of an automation; empty: it is none of its requests."""
    found = [match for match in _MARKER.finditer(body) if match["automation"] == automation]
    return found[-1]["changes"] if found else ""


def rule_of(spec: ImagePolicySpec) -> str:
    """How a policy chooses, in a few words: `semver >=1.0.0`."""
    choice, filter_ = spec.policy, spec.filter_tags
    if choice.semver is not None:
        text = f"semver {choice.semver.range}"
    elif choice.alphabetical is not None:
        text = f"alphabetical {choice.alphabetical.order}"
    else:
        text = f"numerical {choice.numerical.order if choice.numerical is not None else 'asc'}"
    return text + (f", filter {filter_.pattern}" if filter_ is not None and filter_.pattern else "")


def comment(say: Say, automation: str, urls: Sequence[str]) -> str:
    """The text of a comment; `urls` are those of the requests that take over."""
    name = code(automation)
    if say is Say.FOREIGN:
        return (
            f"This branch has commits that imagebot did not make, so ImageUpdateAutomation {name} leaves it to you: nothing is "
            "pushed over them. Merge the request, or remove the commits or delete the branch, and it goes on."
        )
    if say is Say.OFF:
        return f"ImageUpdateAutomation {name} does not propose changes by requests any more, so this one is closed."
    if say is Say.SUPERSEDED:
        instead = f" by {', '.join(urls[:MAX_URLS])}" if urls else ""
        return f"Superseded{instead}: the settings of ImageUpdateAutomation {name} have changed."
    return f"Nothing is left to change for ImageUpdateAutomation {name}, so this request is closed."


def _render(field: str, template: str, told: Told, changed: Changed) -> str:
    full = {f"{told.namespace}:{name}": str(ref) for name, ref in told.refs.items()}
    try:
        return render_message(template, told.values, told.namespace, told.name, changed, refs=full)
    except (MessageError, RemovedField) as error:
        raise Failed("PullRequestFailed", f"spec.git.push.pullRequest.{field} cannot be used: {error}") from error


def _harmless(changed: Changed) -> Changed:
    """The changes with values that are no image references as text without any meaning."""

    def value(text: str) -> str:
        return text if _PLAIN_VALUE.fullmatch(text) else code(text)

    def entry(found: FileChange) -> FileChange:
        change = found.change
        return replace(found, change=replace(change, old_value=value(change.old_value), new_value=value(change.new_value)))

    return Changed({path: tuple(map(entry, found)) for path, found in changed.files.items()})


def _rows(told: Told) -> list[str]:
    """One row for each policy and file, in order."""
    rows: dict[tuple[str, str], list[str]] = {}
    for path in sorted(told.changed.files):
        for entry in told.changed.files[path]:
            parts = entry.change.setter.split(":")
            if len(parts) > 1:
                rows.setdefault((parts[1], path), []).append(entry.change.old_value)
    return [_row(policy, path, list(dict.fromkeys(olds)), told) for (policy, path), olds in sorted(rows.items())]


def _row(policy: str, path: str, olds: Sequence[str], told: Told) -> str:
    ref = told.refs.get(policy)
    if ref is None:
        return f"| {code(policy)} | {code(path)} | | | |"
    shown = [code(_short(old, ref.name)) for old in olds[:MAX_OLD]] + (["…"] if len(olds) > MAX_OLD else [])
    new = code(ref.tag)
    digest = code(ref.digest) if ref.digest else ""
    return f"| {code(policy)} | {code(path)} | {', '.join(shown)} → {new} | {digest} | {code(told.rules.get(policy, ''))} |"


def _short(value: str, name: str) -> str:
    """The tag alone where the rest is the image that the policy is about."""
    return value.removeprefix(f"{name}:")
