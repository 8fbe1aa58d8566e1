"""Which dependencies count as met, in upstream's words for those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.api.meta import Key
from reconcile.kustomize.dependencies import unmet
from tests.support.kustomizations import condition, kustomization, ready

NOW = "main@sha1:2"
KEY = Key("apps", "base")

CASES: list[tuple[str, Any, str | None]] = [
    ("ready with the same revision", kustomization("base", status=ready(NOW)), None),
    (
        "ready with an older revision",
        kustomization("base", status=ready("main@sha1:1")),
        "dependency 'apps/base' revision is not up to date",
    ),
    ("of another source", kustomization("base", source="other", status=ready("main@sha1:1")), None),
    ("a generation behind", kustomization("base", generation=2, status=ready(NOW)), "dependency 'apps/base' is not ready"),
    ("never looked at", kustomization("base"), "dependency 'apps/base' is not ready"),
    (
        "failed",
        kustomization("base", status={**ready(NOW), "conditions": [condition("Ready", "False", "BuildFailed")]}),
        "dependency 'apps/base' is not ready",
    ),
    ("not there", None, "dependency 'apps/base' not found: kustomizations.kustomize.toolkit.fluxcd.io \"base\" not found"),
]


@pytest.mark.parametrize(("what", "found", "said"), CASES, ids=[case[0] for case in CASES])
def test_the_usual_rule(what: str, found: Any, said: str | None) -> None:
    assert unmet(kustomization("app"), KEY, found, revision=NOW) == said


def test_an_expression_takes_the_place_of_the_usual_rule() -> None:
    found = kustomization("base")
    asked = []

    def holds(resource: Any, dependency: Any) -> bool:
        asked.append((resource.key.name, dependency.key.name))
        return True

    assert unmet(kustomization("app"), KEY, found, revision=NOW, expression=holds) is None
    assert asked == [("app", "base")]


def test_an_expression_that_does_not_hold_is_named() -> None:
    said = unmet(kustomization("app"), KEY, kustomization("base", status=ready(NOW)), revision=NOW, expression=lambda *_: False)
    assert said == "dependency 'apps/base' is not ready according to readyExpr eval"


def test_with_the_gate_both_must_hold() -> None:
    found = kustomization("base")
    said = unmet(kustomization("app"), KEY, found, revision=NOW, expression=lambda *_: True, additive=True)
    assert said == "dependency 'apps/base' is not ready"
