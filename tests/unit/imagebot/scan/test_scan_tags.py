from __future__ import annotations

import json
import zlib

import pytest

from imagebot.scan.tags import DEFAULT_EXCLUSION, Exclusion, InvalidExclusion, latest, revision


def test_revision_is_the_one_that_flux_shows() -> None:
    assert revision(["v1.2.0", "v1.1.0", "v1.0.0"]) == "1503462921"
    assert revision([]) == str(zlib.adler32(b"[]"))


def test_revision_escapes_as_go_does() -> None:
    tags = ['"', "\\", "<a>&", "\u2028\u2029", "\x00\b\f\n\r\t\x1f\x7f", "é😀", "\ud800"]
    written = r'["\"","\\","\u003ca\u003e\u0026","\u2028\u2029","\u0000\b\f\n\r\t\u001f' + "\x7f" + '","é😀",' + r'"\ufffd"]'
    assert json.loads(written)[:-1] == tags[:-1]
    assert revision(tags) == str(zlib.adler32(written.encode()))


def test_order_of_bytes_and_duplicates() -> None:
    assert Exclusion([]).keep(["a", "B", "é", "b", "a", "😀", "10", "9"]) == ["😀", "é", "b", "a", "a", "B", "9", "10"]


def test_latest_ten() -> None:
    assert latest([str(i) for i in range(30)]) == [str(i) for i in range(10)]
    assert latest(["a"]) == ["a"]


@pytest.mark.parametrize("patterns", [[], list(DEFAULT_EXCLUSION)])
def test_default_exclusion(patterns: list[str]) -> None:
    exclusion = Exclusion(patterns)
    assert exclusion.patterns == DEFAULT_EXCLUSION
    assert exclusion.keep(["1.0.0.sig", ".sig", "xsig", "a.sig.b", "a.SIG", "a\n.sig"]) == ["xsig", "a.sig.b", "a.SIG", "a\n.sig"]


def test_own_list_replaces_the_default() -> None:
    exclusion = Exclusion(["-rc", "^v0"])
    assert exclusion.keep(["1.sig", "1-rc1", "v0.1", "xv0"]) == ["xv0", "1.sig"]
    assert Exclusion(["-rc", *DEFAULT_EXCLUSION]).keep(["1.sig", "1-rc1", "a"]) == ["a"]


def test_bad_pattern() -> None:
    with pytest.raises(InvalidExclusion) as caught:
        Exclusion(["ok", "(?=x)"])
    assert str(caught.value) == "failed to compile regex (?=x): error parsing regexp: invalid or unsupported Perl syntax: `(?=`"
