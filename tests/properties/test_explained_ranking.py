"""What explain says of the tags is what the policy does with them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebot.explain.tags import State, judge
from imagebot.policy.base import Alphabetical, Choice, NoChoice, Numerical, Rule, SemVer, TagFilter
from imagebot.policy.choose import Policy, build_policy
from imagebot.policy.index import TagIndex
from imagebot.scan.tags import Exclusion

PARTS = st.integers(0, 12).map(str)
VERSIONS = st.tuples(st.sampled_from(["", "v"]), PARTS, PARTS, PARTS, st.sampled_from(["", "-rc.1", "-alpha", ".sig"])).map(
    lambda parts: f"{parts[0]}{parts[1]}.{parts[2]}.{parts[3]}{parts[4]}"
)
TAGS = st.lists(st.one_of(VERSIONS, PARTS, st.sampled_from(["latest", "main-1", "main-2", "nan", "inf", "1e3"])), max_size=25)
RULES = st.one_of(
    st.sampled_from([">=0.0.0", ">=1.0.0 <5.0.0", "^3.0.0-0", "1.x || 7.x", "~9.1"]).map(SemVer),
    st.builds(Alphabetical, st.sampled_from(["asc", "desc"]), st.sampled_from(["", "^v", "[0-5]$"])),
    st.builds(Numerical, st.sampled_from(["asc", "desc"])),
)
FILTERS = st.sampled_from([
    TagFilter(), TagFilter("^v"), TagFilter("^v?(?P<v>.*)$", "$v"), TagFilter("^([0-9]+)", "$1"), TagFilter("nothing"),
])  # fmt: skip
EXCLUSIONS = st.sampled_from([(), (r"^.*\.sig$", "^latest$"), ("^v",), ("rc",)])


@given(TAGS, RULES, FILTERS, EXCLUSIONS)
def test_the_explanation_agrees_with_the_policy(
    tags: Sequence[str], rule: Rule, tag_filter: TagFilter, exclusions: tuple[str, ...]
) -> None:
    policy = build_policy(rule, tag_filter)
    judgement = judge(tags, exclusions, policy)
    kept = Exclusion(exclusions).keep(set(tags))
    assert sorted(verdict.tag for verdict in judgement.verdicts) == sorted(set(tags))
    assert {v.tag for v in judgement.verdicts if v.state is State.EXCLUDED} == set(tags) - set(kept)
    ranked = [verdict for verdict in judgement.verdicts if verdict.rank is not None]
    assert [verdict.rank for verdict in ranked] == list(range(1, len(ranked) + 1))
    assert all(verdict.why for verdict in judgement.verdicts if verdict.state is not State.CANDIDATE)
    choice, problem = chosen(policy, kept)
    assert judgement.choice == choice
    assert not kept or judgement.problem == problem
    assert [v.tag for v in judgement.verdicts if v.state is State.CHOSEN] == ([choice.tag] if choice else [])
    assert choice is None or (ranked[0].tag, ranked[0].value) == (choice.tag, choice.value)


def chosen(policy: Policy, kept: Sequence[str]) -> tuple[Choice | None, str | None]:
    try:
        return policy.choose(TagIndex(kept)), None
    except NoChoice as error:
        return None, str(error)


@given(st.sets(st.tuples(PARTS, PARTS, PARTS), min_size=2, max_size=12), RULES)
@pytest.mark.parametrize("shape", ["{}.{}.{}", "v{}.{}.{}"])
def test_the_second_is_chosen_when_the_first_goes(shape: str, numbers: set[tuple[str, str, str]], rule: Rule) -> None:
    tags = [shape.format(*parts) for parts in numbers]
    if isinstance(rule, Numerical):
        tags = [str(number) for number, _ in enumerate(numbers)]
    policy = build_policy(rule)
    ranked = [verdict.tag for verdict in judge(tags, (), policy).verdicts if verdict.rank is not None]
    for place, tag in enumerate(ranked):
        left = [other for other in tags if other not in ranked[:place]]
        assert policy.choose(TagIndex(left)).tag == tag


def test_without_a_policy_the_repository_alone_is_explained() -> None:
    judgement = judge(["a", "a.sig", "b"], (), None)
    assert [(v.tag, v.state) for v in judgement.verdicts] == [("b", State.KEPT), ("a", State.KEPT), ("a.sig", State.EXCLUDED)]
    assert judgement.verdicts[-1].why == r"excluded by ^.*\.sig$"
