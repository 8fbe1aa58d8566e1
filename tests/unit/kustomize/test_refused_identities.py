"""Keys of a cloud asked for in a ServiceAccount's name: refused in so many words, never asked for in another's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from reconcile.errors import Stalled
from reconcile.kustomize.controller import KustomizationReconciler
from reconcile.runtime.bus import Bus
from reconcile.settings import GATES
from tests.support.kustomizations import kustomization


@pytest.mark.parametrize(
    ("gate", "reason", "text", "observed"),
    [
        (False, "FeatureGateDisabled", "please enable the ObjectLevelWorkloadIdentity feature gate", False),
        (True, "BuildFailed", "spec.decryption.serviceAccountName is not supported", True),
    ],
    ids=["gate off", "gate on"],
)
async def test_a_service_account_for_decryption(gate: bool, reason: str, text: str, observed: bool) -> None:
    resource = kustomization("app", decryption={"provider": "sops", "serviceAccountName": "kms-reader"})
    gates = {**GATES, "ObjectLevelWorkloadIdentity": gate}
    reconciler = KustomizationReconciler(cast(Any, None), cast(Any, None), Bus(), gates)
    with pytest.raises(Stalled, match=text) as caught:
        await reconciler.reconcile(cast(Any, SimpleNamespace(resource=resource)))
    assert (caught.value.reason, caught.value.observed) == (reason, observed)
