"""Versions, constraints, regular expressions, templates and numbers against the Go libraries of Flux: random input, seeded."""

# ruff: noqa: SIM905  # pools of oddities read best as words

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagebot.policy.by_number import parse_number
from reconcile.regexp import Regexp, RegexpError
from reconcile.versions import InvalidConstraint, InvalidVersion, Version, parse_constraint, parse_version

pytestmark = [pytest.mark.needs("go"), pytest.mark.slow]

SOURCES = Path(__file__).parent / "go" / "policy"
Oracle = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    folder = tmp_path_factory.mktemp("oracle")
    for name in ("go.mod", "go.sum", "main.go"):
        shutil.copy(SOURCES / name, folder / name)
    go = {**os.environ, "GOFLAGS": "-buildvcs=false -mod=readonly"}
    subprocess.run(["go", "build", "-o", "oracle", "."], cwd=folder, env=go, check=True, timeout=240)

    def ask(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        lines = "\n".join(map(json.dumps, questions))
        done = subprocess.run([folder / "oracle"], input=lines, capture_output=True, text=True, check=True, timeout=120)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return ask


# --- versions and constraints

NUMBERS = "0 1 2 3 0 1 2 10 11 007 01 18446744073709551615 18446744073709551616 2024".split()
IDENTIFIERS = "0 1 2 alpha rc rc-1 - 01 99999999999999999999 x 9 10 a B 18446744073709551615 -1".split()
OPERATORS = ["", "", "=", "!=", ">", "<", ">=", "=>", "<=", "=<", "~", "~>", "^"]
ODD_PARTS = [*NUMBERS, "1x", "|", "1|2", "||", "1||2", "xx"]


class Versions:
    """Random versions and ranges, mostly well formed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def prerelease(self) -> str:
        return ".".join(self.random.choice(IDENTIFIERS) for _ in range(self.random.choice([1, 1, 1, 2, 3])))

    def version(self) -> str:
        pick, chance = self.random.choice, self.random.random
        pool = NUMBERS[:8] if chance() < 0.9 else NUMBERS
        text = pick(["", "", "v", "V" if chance() < 0.1 else ""])
        text += ".".join(pick(pool) for _ in range(pick([1, 2, 3, 3, 3, 3, 3, 4])))
        text += f"-{self.prerelease()}" if chance() < 0.35 else ""
        text += f"+{self.prerelease()}" if chance() < 0.1 else ""
        return text + (pick(["\n", " ", "é", ".", "-", "+", "+" + "1" * 250]) if chance() < 0.03 else "")

    def operand(self) -> str:
        pick, chance = self.random.choice, self.random.random
        parts = [pick([*NUMBERS[:8], "x", "*", "X"]) if chance() < 0.95 else pick(ODD_PARTS) for _ in range(pick([1, 2, 3, 3]))]
        text = pick(["", "", "", "v"]) + ".".join(parts)
        text += f"-{self.prerelease()}" if chance() < 0.25 else ""
        return text + (f"+{self.prerelease()}" if chance() < 0.05 else "")

    def segment(self) -> str:
        pick = self.random.choice
        if self.random.random() < 0.15:
            return self.operand() + pick([" - ", "  - ", " -  ", "\t- "]) + self.operand()
        terms = [pick(OPERATORS) + pick(["", "", " ", "  "]) + self.operand() for _ in range(pick([1, 1, 2, 2, 3]))]
        return pick([" ", ", ", ",", " , ", "  ", " ,  "]).join(terms)

    def range(self) -> str:
        pick, chance = self.random.choice, self.random.random
        text = pick(["||", " || ", "|| ", " ||"]).join(self.segment() for _ in range(pick([1, 1, 1, 2, 3])))
        if chance() < 0.2:
            chars = list(text)
            for _ in range(pick([1, 1, 2, 3])):
                place = self.random.randrange(len(chars) + 1)
                if chance() < 0.4 and place < len(chars):
                    del chars[place]
                else:
                    chars.insert(place, pick(list(' ,|-.=<>~^!vVx*0123ab+\t\n"\\é\u200b')))
            text = "".join(chars)
        if chance() < 0.01:
            text += " " * pick([300, 520]) + text
        return " || ".join([pick("12")] * pick([31, 32, 33])) if chance() < 0.01 else text


def our_versions(question: dict[str, Any]) -> dict[str, Any]:
    error, constraint = "", None
    try:
        constraint = parse_constraint(question["Range"])
    except InvalidConstraint as caught:
        error = str(caught)
    valid, takes, order = [], [], []
    last: Version | None = None
    for text in question["Texts"]:
        try:
            version = parse_version(text)
        except InvalidVersion:
            version = None
        valid.append(version is not None)
        takes.append(version is not None and constraint is not None and constraint.check(version))
        order.append(0 if version is None or last is None else (last > version) - (last < version))
        last = version or last
    return {"error": error, "valid": valid, "takes": takes, "order": order}


def test_versions_and_constraints(oracle: Oracle) -> None:
    made = Versions(seed=35)
    questions = [{"Range": made.range(), "Texts": [made.version() for _ in range(20)]} for _ in range(20_000)]
    answers = oracle(questions)
    differing = [(q, a) for q, a in zip(questions, answers, strict=True) if our_versions(q) != a]
    assert differing[:3] == []
    assert sum(bool(a["error"]) for a in answers) > 2000
    assert sum(any(a["takes"]) for a in answers) > 5000


# --- regular expressions and templates

ATOMS = r"a b v 1 main - _ . \. \d \w \s \D \W \b \B ^ $ \z \A [a-z] [^0-9] [0-9a-f] [-a] [a-] []a] [^]a] [[:alpha:]]".split()
ODD_ATOMS = [
    *r"[[:^digit:]_] [[:nope:]] [z-a] [\d.] [\w-] [a-\d] \pL \p{Lu} \PN \p{Greek} \p{^L} \pQ \p{Letter} \p{Any}".split(),
    *r"\p{ASCII} \p{Cn} \P{LC} [\pL] [^\p{Assigned}] [\p{}] \p \p{L \x41 \x{42} \x{110000} \xg \x \x{ \x{} \x4".split(),
    *r"\0 \012 \18 \1 \7 \77 \8 \Q.a\E \Qab \E \Z \C \G \q \_ \- \/ \a \n \t é \é [ [a [^ [[:a [[:alpha: [\ ]".split(),
    *r"[\q] { } {1 {,2} {a} ) ( | [^\x00-\x{10FFFF}] \v \e [\b] [a\Qb\E] [\x{61}-c] [^\n] [\x{61}-\x{60}]".split(),
    *r"[a-\pL] \p{lower-case_letter}".split(),
    "\\", "\t", " ", r"\p{gr eek}",  # Go forgets scripts of two words; we do not
]  # fmt: skip
REPEATS = "* + ? *? +? ?? {2} {0}".split()
ODD_REPEATS = (
    "{1,} {0,2} {2,3}? {2,1} {1001} {1000} {100} {02} {1000000000} {1,1000000000} {0,} {,3} ** ++ *+ ??* {2}{3} {20,30}".split()
)
OPENERS = "( (?: (?P<n> (?<n> (?P<m> (?<1a> (?P<_> (?i) (?i:".split()
ODD_OPENERS = [
    *"(?s) (?U) (?m) (?-i) (?i-s: (?im-sU: (?) (?-) (?-: (?i--s: (?x) (?= (?! (?<= (?<! (?> (?# (?P=n) (?P> (?P (?P< (?<".split(),
    *r"(?P<n (?P<> (?<é> (? (?i (?i- (?-i (?R) (?:(?: (?\ (?é".split(), "(?P<n m>",
]  # fmt: skip
TEMPLATES = [
    *r"$0 $1 ${1} $n ${n}x $nx $m-$1 $$ $ ${ ${1 $1x $01 $10 a$ $_ ${_} \1 $é ${1a} $1a ${} $- $100000000 $00 x$$$1".split(),
    "${0}$1$2$3", "$9", "$1é",
]  # fmt: skip
TEXTS = ["main-0a1b2c-123", "v1.2.3", "1.2.3-rc.1", "latest", "A_b", "abab", "", "aaaa", "-", "1111", "n.n", "Vv", "b1-a",
         "a.b|c", "0", "x_y-z", "main", "release-1", "aA1", "AB\n", "éa"]  # fmt: skip


class Patterns:
    """Random patterns, about half of them wrong."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pattern(self, depth: int = 0) -> str:
        pick, chance = self.random.choice, self.random.random
        pieces = []
        for _ in range(pick([1, 1, 2, 3])):
            kind = chance()
            if kind < 0.55 or depth > 3:
                piece = pick(ATOMS if chance() < 0.8 else ODD_ATOMS)
            elif kind < 0.8:
                piece = (
                    pick(OPENERS if chance() < 0.93 else ODD_OPENERS) + self.pattern(depth + 1) + (")" if chance() < 0.95 else "")
                )
            else:
                piece = f"{self.pattern(depth + 1)}|{self.pattern(depth + 1)}"
            if chance() < 0.3:
                piece += pick(REPEATS if chance() < 0.6 else ODD_REPEATS)
            pieces.append(piece)
        text = "".join(pieces)
        if depth == 0 and chance() < 0.1:
            place = self.random.randrange(len(text) + 1)
            text = text[:place] + pick(list("()[]{}|*+?\\^$-.,:<>P10ai")) + text[place:]
        return text

    def question(self) -> dict[str, Any]:
        template = "".join(self.random.choice(TEMPLATES) for _ in range(self.random.choice([1, 1, 2])))
        return {"Pattern": self.pattern(), "Template": template, "Texts": self.random.sample(TEXTS, 6)}


def our_matches(question: dict[str, Any]) -> dict[str, Any]:
    try:
        expand = Regexp(question["Pattern"]).expander(question["Template"])
    except RegexpError as caught:
        return {"error": str(caught)}
    return {"error": "", "found": [expand(text) for text in question["Texts"]]}


# The engine counts the inner count of `(x{1000}){0}` inside another count; Go does not.
ENGINE_LIMIT = "expression too large"


def test_regular_expressions_and_templates(oracle: Oracle) -> None:
    made = Patterns(seed=2)
    questions = [made.question() for _ in range(20_000)]
    answers = oracle(questions)
    ours = [our_matches(q) for q in questions]
    differing = [(q, a, b) for q, a, b in zip(questions, answers, ours, strict=True) if a != b]
    assert [d for d in differing if ENGINE_LIMIT not in d[2]["error"]][:3] == []
    assert len(differing) <= 2
    assert sum(bool(a["error"]) for a in answers) > 4000
    assert sum(any(a.get("found", [])) for a in answers) > 2500


def test_matching_agrees_with_bool_of_expansion() -> None:
    made = Patterns(seed=3)
    compared = 0
    for question in (made.question() for _ in range(2000)):
        try:
            pattern = Regexp(question["Pattern"])
        except RegexpError:
            continue
        expand = pattern.expander("x")
        for text in question["Texts"]:
            assert pattern.matches(text) == (expand(text) is not None)
            compared += 1
    assert compared > 3000


# --- numbers


def random_number(random_: random.Random) -> str:
    pick = random_.choice
    if random_.random() < 0.5:
        odd = [
            "_",
            ".",
            "e",
            "p",
            "0x",
            "0b",
            "0o",
            "+",
            "-",
            "a",
            "F",
            "inf",
            "Infinity",
            "nan",
            "1e308",
            "e400",
            "p1",
            " ",
            "7",
        ]
        return "".join(pick(odd) for _ in range(pick([1, 2, 2, 3, 3, 4, 5])))
    digits = "".join(pick("0123456789_" if random_.random() < 0.1 else "0123456789") for _ in range(pick([1, 2, 8, 17, 21])))
    whole = pick(["", "", "+", "-"]) + pick(["", "", "0x", "0X", "0x_", "00"]) + digits
    return (
        whole
        + pick(["", "", ".", ".5", ".007"])
        + pick(["", "", "e3", "E-3", "e+0_1", "e308", "e309", "e-330", "p1", "P-2", "p2000"])
    )


def test_numbers(oracle: Oracle) -> None:
    pick = random.Random(7)
    texts = ["", *sorted({random_number(pick) for _ in range(40_000)})]
    (answer,) = oracle([{"Texts": texts}])
    wrong = []
    for text, valid, shortest in zip(texts, answer["valid"], answer["found"], strict=True):
        ours = parse_number(text)
        if (ours is not None) != valid or (ours is not None and not _same(float(ours), float(shortest))):
            wrong.append((text, ours, valid, shortest))
    assert wrong[:5] == []
    assert sum(answer["valid"]) > 2000


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
