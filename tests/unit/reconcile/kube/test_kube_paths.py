"""Where a request goes: names come from anybody, and none of them may lead to another object."""

from __future__ import annotations

import pytest
from yarl import URL

from reconcile.errors import Invalid
from reconcile.kube.connect import Impersonation
from reconcile.kube.errors import Target

SERVER = "https://api.example.com"


def sent(target: Target) -> str:
    """The path and query as they are sent."""
    return URL(SERVER + target.path).raw_path_qs


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (Target("", "v1", "secrets", "ns", "a"), "/api/v1/namespaces/ns/secrets/a"),
        (Target("apps", "v1", "deployments", "ns", "a", "scale"), "/apis/apps/v1/namespaces/ns/deployments/a/scale"),
        (Target("rbac.authorization.k8s.io", "v1", "clusterroles", name="system:a"),
         "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:a"),
        (Target("", "v1", "secrets", "ns", "a?watch=true"), "/api/v1/namespaces/ns/secrets/a%3Fwatch=true"),
        (Target("", "v1", "secrets", "ns", "a#b"), "/api/v1/namespaces/ns/secrets/a%23b"),
        (Target("", "v1", "secrets", "ns", "a b\r\n"), "/api/v1/namespaces/ns/secrets/a%20b%0D%0A"),
        (Target("", "v1", "secrets", "ns", "\u2025"), "/api/v1/namespaces/ns/secrets/%E2%80%A5"),
        (Target("", "v1", "secrets", "ns", "..."), "/api/v1/namespaces/ns/secrets/..."),
    ],
)  # fmt: skip
def test_a_name_is_one_step(target: Target, path: str) -> None:
    assert sent(target) == path


@pytest.mark.parametrize("name", ["../../other/secrets/a", "a/b", "/", "..", ".", "%2e%2e", "..%2Fa", "a%00", "\ud800"])
@pytest.mark.parametrize("field", ["namespace", "name", "plural", "version", "group"])
def test_a_name_that_leads_elsewhere_is_refused(field: str, name: str) -> None:
    fields = {"group": "g.example.com", "version": "v1", "plural": "things", "namespace": "ns", "name": "a", field: name}
    with pytest.raises(Invalid, match="invalid resource name"):
        _ = Target(**fields).path


def test_the_words_are_those_of_kubernetes() -> None:
    with pytest.raises(Invalid) as error:
        _ = Target("", "v1", "secrets", "ns", "../a%").path
    assert str(error.value) == "invalid resource name \"../a%\": [may not contain '/' may not contain '%']"
    with pytest.raises(Invalid) as error:
        _ = Target("", "v1", "secrets", "ns", "..").path
    assert str(error.value) == "invalid resource name \"..\": [may not be '..']"


@pytest.mark.parametrize("user", ["a\nImpersonate-Group: system:masters", "a\r\n", "a\0", "a\x7f", "a\u2028"])
def test_nobody_is_impersonated_whose_name_is_more_than_a_value(user: str) -> None:
    for whom in (Impersonation(user), Impersonation("a", (user,))):
        with pytest.raises(Invalid, match="nobody has such a name"):
            whom.headers()
