"""Label selectors as texts: the flag of shards."""

from __future__ import annotations

import pytest

from reconcile.api.selectors import compile_selector, parse_selector
from reconcile.errors import Invalid


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {"a": "b"}, False),
        ("a!=b", {}, True),
        ("sharding.fluxcd.io/key=shard1", {"sharding.fluxcd.io/key": "shard1"}, True),
        ("!sharding.fluxcd.io/key", {"sharding.fluxcd.io/key": "shard1"}, False),
        ("!sharding.fluxcd.io/key", {}, True),
        ("a", {"a": ""}, True),
        ("a in (b, c)", {"a": "c"}, True),
        ("a notin (b,c)", {"a": "c"}, False),
        ("a notin (b,c)", {}, True),
        ("a=b, !c ,d in (e)", {"a": "b", "d": "e"}, True),
        ("a=b,!c,d in (e)", {"a": "b", "c": "", "d": "e"}, False),
    ],
)
def test_a_selector_matches_as_kubectl_says(text: str, labels: dict[str, str], expected: bool) -> None:
    assert compile_selector(parse_selector(text))(labels) is expected


@pytest.mark.parametrize("text", ["a=b=c", "a in b", "!a=b", "a b", "=b", "a,,b", "a in (b"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is not a label selector"):
        parse_selector(text)
