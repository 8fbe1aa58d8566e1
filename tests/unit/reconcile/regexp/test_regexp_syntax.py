from __future__ import annotations

import pytest

from reconcile.regexp import Regexp, RegexpError

ERRORS = {
    "(?!a)": "invalid or unsupported Perl syntax: `(?!`",
    "(?=a)": "invalid or unsupported Perl syntax: `(?=`",
    "(?>a)": "invalid or unsupported Perl syntax: `(?>`",
    "(?#a)": "invalid or unsupported Perl syntax: `(?#`",
    "(?ix)": "invalid or unsupported Perl syntax: `(?ix`",
    "(?P<n>a)(?P=n)": "invalid or unsupported Perl syntax: `(?P`",
    "a(?": "invalid or unsupported Perl syntax: `(?`",
    "(?<=a)b>c": "invalid named capture: `(?<=a)b>`",
    "x(?<!a)": "invalid named capture: `(?<!a)`",
    "(?P<n m>a)": "invalid named capture: `(?P<n m>`",
    "(?P<>a)": "invalid named capture: `(?P<>`",
    "(?P<é>a)": "invalid named capture: `(?P<é>`",
    "b(?P<n": "invalid named capture: `(?P<n`",
    r"a\Z": r"invalid escape sequence: `\Z`",
    r"(a)\1": r"invalid escape sequence: `\1`",
    r"\C": r"invalid escape sequence: `\C`",
    r"[\b]": r"invalid escape sequence: `\b`",
    r"\x{110000}b": r"invalid escape sequence: `\x{110000`",
    r"\xg1": r"invalid escape sequence: `\xg1`",
    r"\d++": "invalid nested repetition operator: `++`",
    "a**": "invalid nested repetition operator: `**`",
    "a{2}{3}": "invalid nested repetition operator: `{2}{3}`",
    "a??+?": "invalid nested repetition operator: `??+?`",
    "a{1001}": "invalid repeat count: `{1001}`",
    "a{2,1}": "invalid repeat count: `{2,1}`",
    "(a{100}){11}": "invalid repeat count: `{11}`",
    "a{1,99999999999}?": "invalid repeat count: `{1,99999999999}`",
    "*a": "missing argument to repetition operator: `*`",
    "(|+?)": "missing argument to repetition operator: `+?`",
    "((a)": "missing closing ): `((a)`",
    "(?i": "missing closing ): `(?i`",
    "ab[a-": "missing closing ]: `[a-`",
    "[]": "missing closing ]: `[]`",
    "a)b": "unexpected ): `a)b`",
    "[z-a]": "invalid character class range: `z-a`",
    "[[:nope:]]": "invalid character class range: `[:nope:]`",
    r"\pQ": r"invalid character class range: `\pQ`",
    r"\p{Nope": r"invalid character class range: `\p{Nope`",
    "a\\": "trailing backslash at end of expression: ``",
    "(" * 1001 + ")" * 1001: f"expression nests too deeply: `{'(' * 1001 + ')' * 1001}`",
    "|".join(["(x{1000})"] * 3400): f"expression too large: `{'|'.join(['(x{1000})'] * 3400)}`",
}


@pytest.mark.parametrize("pattern", ERRORS, ids=lambda pattern: pattern[:20])
def test_errors_have_the_words_of_go(pattern: str) -> None:
    with pytest.raises(RegexpError) as caught:
        Regexp(pattern)
    assert str(caught.value) == f"error parsing regexp: {ERRORS[pattern]}"


MATCHES = [
    ("a{,2}", "a{,2}", True),
    ("a{02}", "aa", False),
    ("x{", "x{", True),
    (r"^\Qa.b\E+$", "a.bb", True),
    (r"\Qa|b", "a|b", True),
    ("(?i)MAIN", "main-1", True),
    ("(?)a", "a", True),
    ("a(?i)b", "aB", True),
    ("a(?i)b", "AB", False),
    (r"^[^\p{ASCII}]$", "é", True),
    (r"^\p{Letter}+$", "abc", True),
    (r"^\p{uppercase-letter}$", "A", True),
    (r"^\P{^Lu}$", "A", True),
    (r"^[\pL\d]+$", "a1", True),
    (r"^\p{Old_Italic}$", "a", False),
    (r"^\p{Cn}$", "a", False),
    (r"^[[:word:]]+$", "a_1", True),
    (r"\x41\x{42}\103", "ABC", True),
    ("a.b", "a\nb", False),
    ("(?s)a.b", "a\nb", True),
    (r"^é$", "é", True),
    ("a$", "a\n", False),
    ("", "", True),
    (r"\d", "٣", False),
    ("[^\\x00-\\x{10FFFF}]", "a", False),
    ("(a{100}){10}", "a" * 1000, True),
]


@pytest.mark.parametrize(("pattern", "text", "expected"), MATCHES)
def test_meaning(pattern: str, text: str, expected: bool) -> None:
    assert Regexp(pattern).matches(text) is expected


EXPANSIONS = [
    (r"^build-(?P<n>\d+)", "$n", "build-12-x", "12"),
    (r"^build-(\d+)", "$1x", "build-12", ""),
    (r"^build-(\d+)", "${1}x", "build-12", "12x"),
    (r"^build-(\d+)", "$0|$1|$9|$01|$$|$", "build-12", "build-12|12|||$|$"),
    (r"^build-(\d+)", "${1|${}|${-}|\\1", "build-12", "${1|${}|${-}|\\1"),
    ("(?P<n>a)|(?P<n>b)", "[$n]", "b", "[b]"),
    ("(?P<n>a)?(?P<n>b)?", "$n", "ab", "a"),
    ("(?P<1a>x)", "${1a}", "x", "x"),
    ("(?<n>x)(y)?", "$n$2", "x", "x"),
    ("(é+)", "<$1>", "aéé", "<éé>"),
    ("a", "literal", "ba", "literal"),
    ("a", "$é$_$100000000", "a", ""),
    ("(?U)-(.+)-", "$1", "-a-b-", "a"),
]


@pytest.mark.parametrize(("pattern", "template", "text", "expected"), EXPANSIONS)
def test_expansion(pattern: str, template: str, text: str, expected: str) -> None:
    assert Regexp(pattern).expander(template)(text) == expected


def test_no_match_expands_to_none() -> None:
    assert Regexp("(a)").expander("$1")("b") is None
    assert Regexp("(a)").expander("x$1")("b") is None


def test_linear_time() -> None:
    assert not Regexp("^(a+)+$").matches("a" * 5000 + "b")
