"""The tree of what Kustomizations have applied."""

from __future__ import annotations

from typing import Any

import pytest

from reconcile.api.meta import Key
from reconcile.cli.tree import as_data, grown, lines
from reconcile.errors import NotFound

Object = dict[str, Any]
KS = "kustomize.toolkit.fluxcd.io_Kustomization"


class Cluster:
    """Kustomizations by name, and which of them were read."""

    def __init__(self, **inventories: list[str]) -> None:
        self.found = inventories
        self.remote: set[str] = set()
        self.read: list[str] = []

    async def __call__(self, key: Key) -> Object:
        self.read.append(key.name)
        if key.name not in self.found:
            raise NotFound(f'kustomizations.kustomize.toolkit.fluxcd.io "{key.name}" not found')
        entries = [{"id": entry, "v": "v1"} for entry in self.found[key.name]]
        spec = {"kubeConfig": {"secretRef": {"name": "k"}}} if key.name in self.remote else {}
        return {"spec": spec, "status": {"inventory": {"entries": entries}}}


async def test_kustomizations_are_followed_once() -> None:
    cluster = Cluster(
        root=["_apps__Namespace", f"flux_apps_{KS}", f"flux_gone_{KS}", "not an id"],
        apps=["apps_web_apps_Deployment", f"flux_root_{KS}", f"flux_more_{KS}"],
        more=["apps_system__leader_rbac.authorization.k8s.io_Role"],
    )
    tree = await grown(cluster, Key("flux", "root"))
    assert list(lines(tree)) == [
        "Kustomization/flux/root",
        "├── Namespace/apps",
        "├── Kustomization/flux/apps",
        "│   ├── Deployment/apps/web",
        "│   ├── Kustomization/flux/root",
        "│   └── Kustomization/flux/more",
        "│       └── Role/apps/system:leader",
        "└── Kustomization/flux/gone (not found)",
    ]
    assert sorted(cluster.read) == ["apps", "gone", "more", "root"]


async def test_another_cluster_is_not_followed() -> None:
    cluster = Cluster(root=[f"flux_apps_{KS}"], apps=["apps_web_apps_Deployment"])
    cluster.remote.add("root")
    assert list(lines(await grown(cluster, Key("flux", "root"))))[1:] == ["└── Kustomization/flux/apps (in another cluster)"]
    assert cluster.read == ["root"]


async def test_data_are_as_those_of_flux() -> None:
    cluster = Cluster(root=["apps_web_apps_Deployment", f"flux_apps_{KS}"], apps=[])
    group = {"Group": "kustomize.toolkit.fluxcd.io", "Kind": "Kustomization"}
    assert as_data(await grown(cluster, Key("flux", "root"), compact=True)) == {
        "resource": {"Namespace": "flux", "Name": "root", "GroupKind": group},
        "resources": [{"resource": {"Namespace": "flux", "Name": "apps", "GroupKind": group}}],
    }


async def test_a_kustomization_that_is_not_there() -> None:
    with pytest.raises(NotFound):
        await grown(Cluster(), Key("flux", "root"))
