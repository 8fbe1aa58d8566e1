"""The words of a check: rules, severities, findings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is; the values are the levels of SARIF."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


_ORDER = {severity: place for place, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for.

    Attributes:
        id: a stable name, by which findings can be ignored.
        severity: of its findings, unless a finding has its own.
        text: what it is about, a sentence.
        mend: what to do about it, a sentence.
    """

    id: str
    severity: Severity
    text: str
    mend: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where.

    Attributes:
        rule: which rule found it.
        path: file as a person names it from where the command runs.
        line: from 1; 0 when it is about the whole file.
        column: from 1, in characters; 0 as above.
        message: what is wrong.
        mend: what to do; that of the rule where the finding knows no better.
        subject: the object it is about, such as `ImagePolicy apps/web`, or empty.
        severity: that of the rule unless this case is worse or lighter.
    """

    rule: Rule
    path: str
    line: int
    column: int
    message: str
    mend: str = ""
    subject: str = ""
    severity: Severity | None = None

    @property
    def level(self) -> Severity:
        """The severity in force."""
        return self.severity or self.rule.severity

    @property
    def advice(self) -> str:
        """What to do about it."""
        return self.mend or self.rule.mend

    @property
    def place(self) -> str:
        """`file:line:column`, as editors and terminals make links of."""
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part)


def _rule(rule_id: str, severity: Severity, text: str, mend: str) -> Rule:
    rule = Rule(rule_id, severity, text, mend)
    RULES[rule_id] = rule
    return rule


RULES: dict[str, Rule] = {}
"""All rules by id, in the order in which they are shown."""

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

UNREADABLE = _rule(
    "unreadable-file", _E, "A file or folder cannot be read, or is too large.", "Mend its rights or size, or move it elsewhere."
)
INVALID_YAML = _rule("invalid-yaml", _E, "A file is not the YAML that can be read.", "Mend the syntax at that place.")
UNKNOWN_KIND = _rule(
    "unknown-kind", _E, "A kind or version that its API group does not have.", "Write a kind and version that are served."
)
UNKNOWN_FIELD = _rule("unknown-field", _E, "A field that the kind does not have.", "Mend the spelling, or remove the field.")
INVALID_VALUE = _rule(
    "invalid-value", _E, "A value that the schema of the kind refuses.", "Write a value that the schema allows."
)
INVALID_MANIFEST = _rule(
    "invalid-manifest", _E, "A document that the service would refuse.", "Change the document as the message says."
)
DUPLICATE = _rule("duplicate-object", _E, "The same object is declared twice.", "Remove one of the two, or rename it.")
INVALID_IMAGE = _rule(
    "invalid-image", _E, "spec.image is no name of an image.", "Write registry/path, without scheme, tag and digest."
)
INVALID_REGEX = _rule(
    "invalid-regex",
    _E,
    "A pattern is no regular expression in the syntax of Go (RE2).",
    "RE2 has no look-around and no back-references.",
)
INVALID_RANGE = _rule(
    "invalid-range", _E, "A range of versions cannot be parsed.", "Write a range such as >=1.0.0 <2.0.0, or 1.x || 2.x."
)
DOUBTFUL_RANGE = _rule(
    "doubtful-range", _W, "A range of versions that hardly means what was intended.", "Put spaces round || and -."
)
INVALID_POLICY = _rule(
    "invalid-policy", _E, "An ImagePolicy without a rule.", "Give one of policy.semver, policy.alphabetical, policy.numerical."
)
SEVERAL_RULES = _rule(
    "several-rules",
    _W,
    "An ImagePolicy with several rules, of which one counts.",
    "Leave one of semver, alphabetical, numerical.",
)
INVALID_EXTRACT = _rule(
    "invalid-extract", _E, "filterTags.extract refers to a group that the pattern does not have.", "Name a group of the pattern."
)
DOUBTFUL_EXTRACT = _rule(
    "doubtful-extract",
    _W,
    "filterTags.extract gives the same text for every tag.",
    "Refer to a group of the pattern, such as ${1}.",
)
INVALID_SELECTOR = _rule(
    "invalid-selector",
    _E,
    "A label selector that cannot be used.",
    "Use In, NotIn (with values), Exists or DoesNotExist (without).",
)
INVALID_TEMPLATE = _rule(
    "invalid-template",
    _E,
    "A commit message template that cannot be used.",
    "Mend the template at the place that the message names.",
)
INVALID_PUSH = _rule(
    "invalid-push",
    _E,
    "An automation that cannot know what to push where.",
    "Give spec.git.push.branch, or a branch to check out.",
)
INVALID_PULL_REQUEST = _rule(
    "invalid-pull-request",
    _E,
    "Pull requests that cannot be made as they are asked for.",
    "Change spec.git.push as the message says.",
)
DOUBTFUL_WAIT = _rule(
    "doubtful-wait", _W, "A wait that does not do what it says.", "Give quietPeriod, and a maxWait that is longer."
)
SEPARATE_COMMITS = _rule(
    "separate-commits",
    _N,
    "Automations of one branch of which some wait for each other, but that cannot share a commit.",
    "Give them the same author, signingKey, messageTemplate, messageTemplateValues and trailers.",
)
MISSING_REFERENCE = _rule(
    "missing-reference", _E, "An object refers to one that is not in the folder.", "Add it, or mend the name and the namespace."
)
MISSING_SECRET = _rule(
    "missing-secret",
    _W,
    "A Secret or ServiceAccount is not in the folder.",
    "Add it, mend the name, or see to it that it is made otherwise; then ignore this rule.",
)
ACCESS_DENIED = _rule(
    "access-denied",
    _E,
    "A policy uses an ImageRepository of another namespace that does not let it.",
    "Allow its namespace in spec.accessFrom of the ImageRepository.",
)
UNUSED_POLICY = _rule(
    "unused-policy",
    _W,
    "Nobody writes what an ImagePolicy chooses.",
    "Mark a value with it, select it in an automation, or remove it.",
)
UNUSED_REPOSITORY = _rule(
    "unused-image-repository", _N, "No ImagePolicy chooses from an ImageRepository.", "Remove it, or add an ImagePolicy."
)
USELESS_HOLD = _rule("useless-hold", _W, "An ImageHold that concerns no ImagePolicy.", "Mend spec.imageRef, or remove the hold.")
EXPIRED_HOLD = _rule("expired-hold", _N, "An ImageHold that has ended.", "Remove it, or give it a later end.")
IDLE_HOLD = _rule(
    "idle-hold", _N, "An ImageHold of a tag that no policy would choose anyhow.", "Mend the tag, or take it out of the hold."
)
OVERLAP = _rule(
    "overlapping-automations",
    _W,
    "Two automations update the same files of the same branch.",
    "Give them paths that do not contain each other, or make them one.",
)
MISSING_PATH = _rule(
    "missing-path",
    _E,
    "spec.update.path is not in the repository.",
    "Mend the path; names are whole, and links are not followed.",
)
INVALID_MARKER = _rule(
    "invalid-marker", _E, "A marker that can never take effect.", 'Write # {"$imagepolicy": "namespace:policy"} behind the value.'
)
DOUBTFUL_MARKER = _rule(
    "doubtful-marker",
    _W,
    "A marker that takes effect in a way that readers may misunderstand.",
    "Change the value as the message says.",
)
UNUSABLE_FILE = _rule(
    "unusable-file",
    _E,
    "A file with markers that is skipped as a whole.",
    "Make it YAML that can be read, or take the markers out.",
)
UNKNOWN_POLICY = _rule(
    "unknown-policy", _E, "A marker names an ImagePolicy that is not there.", "Mend the name, or add the ImagePolicy."
)
FOREIGN_MARKER = _rule(
    "foreign-marker",
    _W,
    "A marker names a namespace that no automation of this repository is in.",
    "Mend the namespace; policies are only taken from the namespace of the automation.",
)
UNCOVERED_MARKER = _rule(
    "uncovered-marker",
    _W,
    "A marker in a file that no automation looks at.",
    "Move the file, or let spec.update.path of an automation contain it.",
)
UNSELECTED_MARKER = _rule(
    "unselected-marker",
    _W,
    "A marker of a policy that the automations of this file do not select.",
    "Label the policy so that spec.policySelector selects it.",
)
NO_DIGEST = _rule(
    "marker-without-digest",
    _W,
    "A marker asks for a digest that the policy does not look up.",
    "Set digestReflectionPolicy of the ImagePolicy to IfNotPresent or Always.",
)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """By file and place, the worse one first where they share it; each only once."""
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda f: (f.path, f.line, f.column, _ORDER[f.level], f.rule.id, f.message))


def count(findings: Sequence[Finding], severity: Severity) -> int:
    """How many findings have this severity."""
    return sum(finding.level is severity for finding in findings)
