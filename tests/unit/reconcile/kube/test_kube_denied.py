"""What a refused request says is missing."""

from __future__ import annotations

import pytest

from reconcile.kube.errors import Denied, Target, from_status

TARGET = Target("apps", "v1", "deployments", "web", "a")


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (
            (
                'deployments.apps "a" is forbidden: User "u" cannot patch resource "deployments" in API group "apps" in the '
                'namespace "web"'
            ),
            ': missing RBAC rule {apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"]}',
        ),
        (
            'users "x" is forbidden: User "u" cannot impersonate resource "users" in API group "" at the cluster scope',
            ': missing RBAC rule {apiGroups: [""], resources: ["users"], verbs: ["impersonate"]}',
        ),
        ("exceeded quota: compute", ""),
    ],
)
def test_the_missing_rule_is_named(message: str, rule: str) -> None:
    error = from_status({"code": 403, "reason": "Forbidden", "message": message}, "patch", TARGET)
    assert isinstance(error, Denied)
    assert str(error).endswith(message + rule)
