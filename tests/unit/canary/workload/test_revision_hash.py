"""The canonical hash: equal for what is equal in meaning, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.workload.revision import ALPHABET, canonical, is_ours, pair_checksum, revision_of

NAMES = st.text("abcdefgh", min_size=1, max_size=4)
LEAVES = st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=5)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAMES, inner, min_size=1, max_size=4),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, TREES, min_size=1, max_size=4)


def shuffled(data: Any, draw: Any) -> Any:
    """The same data with names in another order, and with values that say nothing put in."""
    if isinstance(data, dict):
        items = [(name, shuffled(value, draw)) for name, value in data.items()]
        noise = draw(st.lists(st.sampled_from([None, {}, [], {"x": None}, {"y": {"z": []}}]), max_size=2))
        items += [(f"_noise{index}", value) for index, value in enumerate(noise)]
        return dict(draw(st.permutations(items)))
    if isinstance(data, list):
        return [shuffled(item, draw) for item in data]
    return data


@given(OBJECTS, st.data())
def test_order_nulls_and_empty_containers_do_not_count(tree: dict[str, Any], data: st.DataObject) -> None:
    assert revision_of(shuffled(tree, data.draw)) == revision_of(tree)


@given(OBJECTS, OBJECTS)
def test_equal_hashes_mean_equal_data(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (revision_of(one) == revision_of(other)) == (repr(sorted_deep(one)) == repr(sorted_deep(other)))


def sorted_deep(data: Any) -> Any:
    """For comparing: `repr` of this tells False from 0, as JSON does."""
    if isinstance(data, dict):
        return sorted((name, sorted_deep(value)) for name, value in data.items())
    return [sorted_deep(item) for item in data] if isinstance(data, list) else data


@given(OBJECTS)
def test_it_is_told_apart_from_hashes_of_flagger(tree: dict[str, Any]) -> None:
    text = revision_of(tree)
    assert is_ours(text)
    assert set(text) <= set(ALPHABET)
    assert not is_ours(text[:10])


def test_hashes_never_change() -> None:
    """Were these to change, an upgrade would start a run for every Canary there is."""
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "example.org/web:1", "resources": {}, "command": ["ä", "\u2028"]}]},
    }
    assert revision_of(template) == "75f568654868"
    assert revision_of("web-00001") == "c89478d4bd5b"
    assert pair_checksum({"configmap/settings": "21f76dfbfe6dfe21"}, "bdf456789bcd") == "87766fdbc488"


@pytest.mark.parametrize(("before", "after"), [
    ({"env": [{"name": "A"}, {"name": "B"}]}, {"env": [{"name": "B"}, {"name": "A"}]}),
    ({"on": True}, {"on": 1}),
    ({"value": ""}, {}),
    ({"replicas": 0}, {}),
    ({"items": [{}]}, {"items": [{}, {}]}),
    ({"term": {"namespaceSelector": {}}}, {"term": {}}),
    ({"spread": [{"labelSelector": {}}]}, {"spread": [{}]}),
])  # fmt: skip
def test_a_real_change_is_one(before: Any, after: Any) -> None:
    assert revision_of(before) != revision_of(after)


def test_whole_numbers_are_equal_however_they_are_written() -> None:
    assert revision_of({"a": 1.0}) == revision_of({"a": 1})
    assert revision_of({"a": 1.5}) != revision_of({"a": 1})


def test_canonical_leaves_its_argument_alone() -> None:
    data = {"a": {"b": None}, "c": [{"d": {}}]}
    assert canonical(data) == {"c": [{}]}
    assert data == {"a": {"b": None}, "c": [{"d": {}}]}


@pytest.mark.parametrize("text", ["", "85d557f47b", "85d557f47b5", "85d557f47b5a", "85d557f47b5f4", "000000000000"])
def test_other_texts_are_not_ours(text: str) -> None:
    assert not is_ours(text)


def test_the_checksum_of_hooks_moves_with_either_part() -> None:
    base = pair_checksum({"configmap/a": "1"}, "b")
    assert pair_checksum({"configmap/a": "1"}, "b") == base
    assert (
        len({base, pair_checksum({"configmap/a": "2"}, "b"), pair_checksum({"configmap/a": "1"}, "c"), pair_checksum({}, "b")})
        == 4
    )
    assert pair_checksum(None, "b") == pair_checksum({}, "b")


def test_a_hash_that_is_remembered_is_that_of_equal_data_only() -> None:
    first = revision_of({"a": 1, "b": [True]})
    assert revision_of({"a": 1, "b": [True]}) == first
    assert revision_of({"b": [True], "a": 1}) == first
    assert len({first, revision_of({"a": True, "b": [True]}), revision_of({"a": 1, "b": [1]}), revision_of({"a": "1"})}) == 4
