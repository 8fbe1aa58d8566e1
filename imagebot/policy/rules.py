"""From the spec of an ImagePolicy to the policy that chooses. Pure."""

from __future__ import annotations

from imagebot.api import ImagePolicySpec
from imagebot.policy.base import Alphabetical, Numerical, Rule, SemVer, TagFilter
from imagebot.policy.choose import Policy, build_policy


def policy_of(spec: ImagePolicySpec) -> Policy:
    """The policy that a spec describes; raises InvalidPolicy."""
    rule: Rule | None = None
    if spec.policy.semver is not None:
        rule = SemVer(spec.policy.semver.range)
    elif spec.policy.alphabetical is not None:
        rule = Alphabetical(spec.policy.alphabetical.order, spec.policy.alphabetical.filter or "")
    elif spec.policy.numerical is not None:
        rule = Numerical(spec.policy.numerical.order)
    tags = spec.filter_tags
    return build_policy(rule, TagFilter(tags.pattern or "", tags.extract or "") if tags is not None else None)
