"""Which automation would write a marker, or why none would."""

from __future__ import annotations

import pytest

from imagebot.explain.marked import MarkerRow, Writer, marker_rows, markers_section
from imagebot.markers.find import Unusable, find_markers
from reconcile.api.meta import Key

POLICY = Key("apps", "web")
VALUES = {"apps:web": "r/web:2", "apps:web:tag": "2", "apps:web:name": "r/web", "apps:web:digest": None}
FILE = b'a: "1" # {"$imagepolicy": "apps:web:tag"}\n'


def writer(
    name: str = "fleet", root: str = "", *, namespace: str = "apps", selects: bool = True, suspended: bool = False
) -> Writer:
    return Writer(Key(namespace, name), root, selects, suspended)


def rows(data: bytes, *writers: Writer, path: str = "deploy/a.yaml", values: dict[str, str | None] = VALUES) -> list[MarkerRow]:
    return list(marker_rows("apps/fleet", path, data, find_markers(data), POLICY, values, writers))


@pytest.mark.parametrize(
    ("writers", "verdict", "why"),
    [
        ([writer()], "would change", "by fleet"),
        ([writer(root="deploy"), writer("b", "other")], "would change", "by fleet"),
        ([writer(root="deploy/a.yaml")], "would change", "by fleet"),
        ([writer(root="dep")], "skipped", "automations look only below dep"),
        ([writer(selects=False)], "skipped", "policySelector of fleet does not select the policy"),
        ([writer(suspended=True)], "skipped", "fleet is suspended"),
        ([writer(suspended=True), writer("b")], "would change", "by b"),
        ([writer(namespace="team")], "skipped", "the automations of this repository are in team and take no policies of apps"),
    ],
)
def test_who_would_write(writers: list[Writer], verdict: str, why: str) -> None:
    (row,) = rows(FILE, *writers)
    assert (row.verdict, row.why, row.old, row.new, row.line) == (verdict, why, "1", "2", 1)


def test_a_value_that_is_right_already_needs_nobody_awake() -> None:
    (row,) = rows(FILE.replace(b'"1"', b'"2"'), writer(suspended=True))
    assert (row.verdict, row.why) == ("unchanged", "has the value already")


def test_markers_of_others_are_not_shown() -> None:
    assert rows(b'a: 1 # {"$imagepolicy": "apps:webber"}\nb: 1 # {"$imagepolicy": "team:web"}\n', writer()) == []


def test_markers_that_cannot_take_effect() -> None:
    found = rows(b'a: {b: 1} # {"$imagepolicy": "apps:web"}\nc: 1 # {"$imagepolicy": "apps:web:digest"}\n', writer())
    assert [(row.line, row.verdict) for row in found] == [(1, "skipped"), (2, "skipped")]
    assert [row.why for row in found] == [
        "it belongs to the whole list or mapping: put the value on a line of its own",
        "the policy has no value for this marker; the old value stays",
    ]


def test_a_policy_that_has_chosen_nothing() -> None:
    (row,) = rows(FILE, writer(), values={})
    assert (row.verdict, row.why) == ("skipped", "the policy has chosen nothing yet")


def test_a_file_that_is_not_read_counts_when_it_names_the_policy() -> None:
    for data, count in ((FILE, 1), (FILE.replace(b"apps:web", b"apps:api"), 0)):
        found = list(marker_rows("r", "a.yaml", data, Unusable(3, "tabs"), POLICY, VALUES, [writer()]))
        assert [(row.line, row.why) for row in found] == [(3, "the file is not read: tabs")] * count


def test_a_section_without_rows_says_why() -> None:
    assert markers_section([], [], ["x"]).notes == ("No marker names the policy there.",)
    assert markers_section([], [], []).notes == ("There is no ImageUpdateAutomation, so nobody looks for markers.",)
    assert markers_section([], ["gone"], []).notes == ("gone.",)
