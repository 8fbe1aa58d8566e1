"""The judge finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.judge import Commit, Facts, Ran, judge, parse_log, rank

WEB = ("deploy.yaml", "web")


def commit(tag: str | None, author: str = "bot", oid: str = "0123456789") -> Commit:
    return Commit(oid, author, {WEB: tag} if tag is not None else {})


FINE = Facts(
    orders={"web": "semver"},
    ever={"web": frozenset({"1.0.0", "1.1.0", "2.0.0", "other"})},
    present={"web": frozenset({"1.0.0", "1.1.0", "other"})},
    branch=(commit("1.0.0"), commit(None, "Human"), commit("1.1.0")),
    markers={WEB: "0.0.1"},
    tokens={"main": frozenset({"human-1"})},
    found={"main": frozenset({"human-1"})},
    ran=(Ran("once", "", -9, ""), Ran("once", "", 0, "")),
)


def test_nothing_is_wrong_with_a_good_world() -> None:
    judgement = judge(FINE)
    assert judgement.findings == ()
    assert (judgement.due, judgement.commits) == (2, 2)


def test_a_choice_whose_tag_is_gone_stays() -> None:
    assert judge(replace(FINE, branch=(commit("2.0.0"),))).findings == ()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"branch": (commit("1.0.0"),)}, "lost"),
        ({"branch": ()}, "lost"),
        ({"branch": (commit("1.1.0"), commit("1.1.0"))}, "doubled"),
        ({"branch": (commit("1.1.0"), commit(None))}, "doubled"),
        ({"branch": (commit("2.0.0"), commit("1.1.0"))}, "downgrade"),
        ({"branch": (commit("1.1.0"), commit("2.0.0"), commit("1.1.0"))}, "doubled"),
        ({"branch": (commit("1.1.0"), commit("1.0.0", "Human"))}, "human"),
        ({"branch": (commit("1.1.0"), commit("3.0.0"))}, "crash"),
        ({"branch": (commit("1.1.0"), commit("other"))}, "crash"),
        ({"others": (commit("1.1.0"),)}, "crash"),
        ({"found": {}}, "human"),
        ({"damage": "missing blob"}, "damage"),
        ({"leftovers": ["tmp/key"]}, "leftover"),
        ({"leaks": ["state.db"]}, "leak"),
        ({"stuck": ["start 1"]}, "unsettled"),
        ({"settled": False}, "unsettled"),
        ({"ran": (Ran("once", "", 1, "Traceback (most recent call last):\n"),)}, "crash"),
        ({"ran": (Ran("once", "", -11, ""),)}, "crash"),
    ],
)
def test_what_is_wrong_is_found(change: dict[str, Any], kind: str) -> None:
    assert kind in {finding.kind for finding in judge(replace(FINE, **change)).findings}


def test_tags_are_ranked_as_the_policies_do() -> None:
    assert rank("semver", "1.10.0") > rank("semver", "1.9.9")  # type: ignore[operator]
    assert rank("numerical", "10") > rank("numerical", "9")  # type: ignore[operator]
    assert rank("semver", "other-1") is None
    assert rank("numerical", "1.0.0") is None


def test_a_log_is_read() -> None:
    marker = '# {"$imagepolicy": "apps:web"}'
    lines = [
        "\x01aa\x02bot\x02",
        "diff --git a/x b/x",
        "--- a/x",
        "+++ b/x",
        "@@ -1 +1 @@",
        f"-  image: h:1/web:1.0.0 {marker}",
        f"+  image: h:1/web:1.1.0 {marker}",
        "\x01bb\x02Human\x02",
        "+++ b/x",
        "+# human-1",
        "",
    ]
    assert parse_log("\n".join(lines)) == [Commit("aa", "bot", {("x", "web"): "1.1.0"}), Commit("bb", "Human", {})]
