"""Feature gates of upstream's flag."""

from __future__ import annotations

import pytest

from reconcile.errors import Invalid
from reconcile.settings import GATES, Settings, parse_gates


def test_no_text_means_the_defaults_of_upstream() -> None:
    assert parse_gates("") == GATES == Settings().gates
    assert [name for name, value in GATES.items() if value] == [
        "GitForcePushBranch",
        "GitShallowClone",
        "GitAllBranchReferences",
        "DisableStatusPollerCache",
        "StrictPostBuildSubstitutions",
    ]


def test_gates_are_set_by_name() -> None:
    found = parse_gates(" ObjectLevelWorkloadIdentity=true, GitShallowClone=False,")
    assert (found["ObjectLevelWorkloadIdentity"], found["GitShallowClone"]) == (True, False)
    assert GATES["GitShallowClone"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Nothing=true", "unrecognized feature gate: Nothing; known are AdditiveCELDependencyCheck, "),
        ("GitShallowClone", "invalid value of GitShallowClone: ''; write GitShallowClone=true or GitShallowClone=false"),
        ("GitShallowClone=1", "invalid value of GitShallowClone: '1'; write"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_gates(text)
    assert str(caught.value).startswith(message)
