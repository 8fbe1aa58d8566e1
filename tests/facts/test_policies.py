"""What Flux's image-reflector-controller chose and said on recorded lists of tags; here the pure engine decides."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from imagebot.policy.base import (
    Alphabetical,
    InvalidFilter,
    InvalidPolicy,
    NoChoice,
    Numerical,
    Rule,
    SemVer,
    TagFilter,
)
from imagebot.policy.choose import build_policy
from imagebot.policy.index import TagIndex
from imagebot.scan.tags import Exclusion

HERE = Path(__file__).parent
FACTS: dict[str, Any] = json.loads((HERE / "policies.json").read_text())
ACCEPTED: dict[str, str] = json.loads((HERE / "policies_accept.json").read_text())
ORDERS = {"asc", "desc"}
CASES = {case["id"]: case for case in FACTS["cases"]}
REJECTED = sorted(id_ for id_, case in CASES.items() if case["outcome"].get("rejected"))


def rule_of(policy: dict[str, Any]) -> Rule | None:
    """The member that counts when several are present."""
    if "semver" in policy:
        return SemVer(policy["semver"]["range"])
    if "alphabetical" in policy:
        return Alphabetical(policy["alphabetical"].get("order", "asc"))
    return Numerical(policy["numerical"].get("order", "asc")) if "numerical" in policy else None


def outcome_of(case: dict[str, Any]) -> dict[str, Any]:
    name, tags = case["list"], FACTS["lists"][case["list"]]

    def failed(reason: str, message: str, *, stalled: bool = False) -> dict[str, Any]:
        return {"status": "False", "reason": reason, "stalled": stalled, "message": message}

    try:
        policy = build_policy(rule_of(case["policy"]), TagFilter(**case.get("filterTags", {})))
        if not tags:
            return failed("DependencyNotReady", "retrying in <duration> error: no tags in database")
        tag = policy.choose(TagIndex(Exclusion([]).keep(tags))).tag
    except InvalidPolicy as error:
        return failed("InvalidPolicy", f"invalid policy: {error}", stalled=True)
    except InvalidFilter as error:
        return failed("InvalidPolicy", f"failed to filter tags: {error}", stalled=True)
    except NoChoice as error:
        return failed("Failure", str(error))
    return {"tag": tag, "message": f"Latest image tag for REGISTRY/oracle/{name} resolved to {tag}"}


@pytest.mark.parametrize("case_id", sorted(set(CASES) - set(REJECTED) - set(ACCEPTED)))
def test_outcome_is_the_recorded_one(case_id: str) -> None:
    assert outcome_of(CASES[case_id]) == CASES[case_id]["outcome"]


def test_accepted_differences_are_still_some() -> None:
    agreeing = [id_ for id_ in ACCEPTED if outcome_of(CASES[id_]) == CASES[id_]["outcome"]]
    assert agreeing == [], "take these off the list"


@pytest.mark.parametrize("case_id", REJECTED)
def test_what_the_schema_rejects_has_no_rule(case_id: str) -> None:
    # The API server refuses these before a policy exists: a missing range, or an order in another spelling.
    policy = CASES[case_id]["policy"]
    missing_range = "semver" in policy and "range" not in policy["semver"]
    bad_order = any(member.get("order", "asc") not in ORDERS for member in policy.values())
    assert missing_range or bad_order


def test_nothing_is_left_out() -> None:
    tally = Counter("rejected" if id_ in REJECTED else "accepted" if id_ in ACCEPTED else "same" for id_ in CASES)
    assert tally.total() == len(FACTS["cases"]) == 441
    assert tally["rejected"] == len(REJECTED) <= 6
