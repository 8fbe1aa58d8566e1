"""Kind Kustomization of `kustomize.toolkit.fluxcd.io`: manifests of a source, built, applied and kept so. Data only."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from reconcile.api.appliers import CustomHealthCheck, IgnoreRule, Image, Inventory, KubeConfigReference, Patch, Selector
from reconcile.api.crd import ServedKind
from reconcile.api.duration import Duration, GoDuration
from reconcile.api.meta import ApiModel, CommonSpec, CommonStatus, LocalReference
from reconcile.api.resource import Resource
from reconcile.api.source_common import AGE, MESSAGE, READY

GROUP = "kustomize.toolkit.fluxcd.io"
CONTROLLER = "kustomize-controller"

NamePart = Annotated[str, Field(min_length=1, max_length=200)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class CommonMetadata(ApiModel):
    """Labels and annotations that every object gets."""

    annotations: dict[str, str] | None = None
    """Annotations; they win over those of an object."""
    labels: dict[str, str] | None = None
    """Labels; they win over those of an object."""


class Decryption(ApiModel):
    """How encrypted files and Secrets are read."""

    provider: Literal["sops"]
    """What they were encrypted with."""
    service_account_name: str | None = None
    """ServiceAccount whose identity the key service of a cloud is asked with."""
    secret_ref: LocalReference | None = None
    """Secret with the private keys, or with the credentials of key services."""


class Dependency(ApiModel):
    """A Kustomization that must be ready first."""

    name: str
    """Name of it."""
    namespace: str | None = None
    """Namespace of it; the own one when unset."""
    ready_expr: str | None = None
    """CEL expression over self and dep, which holds when dep is ready; takes the place of the usual check."""


class HealthCheck(ApiModel):
    """An object that is waited for."""

    api_version: str | None = None
    """Group and version of its kind; apps/v1 when unset."""
    kind: str
    """Kind of it."""
    name: str
    """Name of it."""
    namespace: str | None = None
    """Namespace of it."""


class SubstituteReference(ApiModel):
    """An object whose data are variables."""

    kind: Literal["Secret", "ConfigMap"]
    """Kind of it."""
    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of it, in the own namespace."""
    optional: bool = False
    """Whether it may be missing."""


class PostBuild(ApiModel):
    """What happens to the objects after they were built."""

    substitute: dict[str, str] | None = None
    """Variables; they win over substituteFrom."""
    substitute_from: list[SubstituteReference] | None = None
    """Objects whose data are variables; a later one wins."""
    substitute_strategy: Literal["WithVariables", "Always"] | None = None
    """WithVariables substitutes only when there is a variable, Always also without; WithVariables when unset."""


class SourceReference(ApiModel):
    """The source of the manifests."""

    api_version: str | None = None
    """Group and version of its kind; for information."""
    kind: Literal["OCIRepository", "GitRepository", "Bucket", "ExternalArtifact"]
    """Kind of it."""
    name: str
    """Name of it."""
    namespace: str | None = None
    """Namespace of it; the own one when unset."""


class JsonOperation(ApiModel):
    """One operation of a JSON 6902 patch."""

    op: Literal["test", "remove", "add", "replace", "move", "copy"]
    """What is done."""
    path: str
    """JSON pointer of where."""
    from_: Annotated[str | None, Field(alias="from")] = None
    """JSON pointer of where it comes from (move, copy)."""
    value: Any = None
    """The value (test, add, replace)."""


class JsonPatch(ApiModel):
    """A JSON 6902 patch as the older versions write it."""

    patch: list[JsonOperation]
    """The operations, in order."""
    target: Selector
    """Which objects."""


class KustomizationSpec(CommonSpec):
    """Spec of a Kustomization."""

    source_ref: SourceReference
    """Where the manifests come from."""
    path: str | None = None
    """Folder of the source; its root when unset."""
    interval: Duration = GoDuration("10m")
    """How often the cluster is compared with the source. Extension: 10m when left out."""
    retry_interval: Duration | None = None
    """How soon a run that failed is done again; the interval when unset."""
    timeout: Duration | None = None
    """Limit of health checks and of waiting for deletion; the interval less 30s when unset, and 30s at least."""
    prune: bool = False
    """Delete objects that left the source. Extension: may be left out, and then nothing is deleted."""
    deletion_policy: Literal["MirrorPrune", "Delete", "WaitForTermination", "Orphan"] | None = None
    """What becomes of the objects when this one is deleted; MirrorPrune, which does as prune says, when unset."""
    depends_on: list[Dependency] | None = None
    """Kustomizations that must be ready first."""
    service_account_name: str | None = None
    """ServiceAccount in the own namespace with whose rights objects are applied."""
    kube_config: KubeConfigReference | None = None
    """Another cluster to apply to."""
    target_namespace: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Namespace that all objects get."""
    name_prefix: NamePart | None = None
    """Put before the name of every object."""
    name_suffix: NamePart | None = None
    """Put behind the name of every object."""
    common_metadata: CommonMetadata | None = None
    """Labels and annotations that every object gets."""
    components: list[str] | None = None
    """Folders with kustomize components, relative to path."""
    ignore_missing_components: bool | None = None
    """Leave out components whose folder is not there."""
    patches: list[Patch] | None = None
    """Changes of built objects."""
    images: list[Image] | None = None
    """What takes the place of images."""
    build_metadata: list[Literal["originAnnotations", "transformerAnnotations"]] | None = None
    """What built objects say of where they come from."""
    decryption: Decryption | None = None
    """How encrypted files and Secrets are read."""
    post_build: PostBuild | None = None
    """What happens to the objects after they were built."""
    force: bool = False
    """Delete an object and create it anew when a field cannot be changed."""
    ignore: list[IgnoreRule] | None = None
    """Fields that are left as they are in the cluster."""
    wait: bool | None = None
    """Wait until all objects are healthy."""
    health_checks: list[HealthCheck] | None = None
    """Objects to wait for; without effect together with wait."""
    health_check_exprs: list[CustomHealthCheck] | None = None
    """What health means for kinds of others, as CEL expressions."""
    patches_strategic_merge: list[Any] | None = None
    """Accepted from old manifests: strategic merge patches. Use patches."""
    patches_json6902: Annotated[list[JsonPatch] | None, Field(alias="patchesJson6902")] = None
    """Accepted from old manifests: JSON 6902 patches. Use patches."""
    validation: Literal["none", "client", "server"] | None = None
    """Accepted from old manifests, without effect: the API server always validates."""

    def all_patches(self) -> list[Patch]:
        """Every patch in the form of `patches`, in the order that kustomize applies the three lists in."""
        merges = [Patch(patch=json.dumps(merge, ensure_ascii=False)) for merge in self.patches_strategic_merge or ()]
        operations = [
            Patch(patch=json.dumps([_operation(one) for one in entry.patch], ensure_ascii=False), target=entry.target)
            for entry in self.patches_json6902 or ()
        ]
        return [*merges, *(self.patches or ()), *operations]


def _operation(one: JsonOperation) -> dict[str, Any]:
    """An operation as plain data; a null that was written is a value."""
    return one.model_dump(by_alias=True, exclude_unset=True)


class Snapshot(ApiModel):
    """What came of one built set of objects."""

    digest: str
    """Digest of the objects."""
    first_reconciled: Time
    """When they were first applied with this outcome."""
    last_reconciled: Time
    """When they were last applied with this outcome."""
    last_reconciled_duration: str
    """How long the last run took, as a Go duration."""
    last_reconciled_status: str
    """The outcome: a reason of Ready."""
    total_reconciliations: Annotated[int, Field(json_schema_extra={"format": "int64"})]
    """How many runs there were."""
    metadata: dict[str, str] | None = None
    """Further facts, such as the revision."""


class KustomizationStatus(CommonStatus):
    """Status of a Kustomization."""

    last_applied_revision: str | None = None
    """The last revision that was applied to the end."""
    last_applied_origin_revision: str | None = None
    """Where that revision was made from, if the source says so."""
    last_attempted_revision: str | None = None
    """The last revision that was tried."""
    inventory: Inventory | None = None
    """The objects that were applied."""
    history: list[Snapshot] | None = None
    """What came of the last built sets of objects, newest first, at most five."""
    applied_inputs: str | None = None
    """Extension: digest of everything that the last successful run was made from."""
    applied_state: str | None = None
    """Extension: digest of the live objects as the last successful run left them."""


Kustomization = Resource[KustomizationSpec, KustomizationStatus]

KUSTOMIZATION = ServedKind(
    group=GROUP,
    kind="Kustomization",
    plural="kustomizations",
    versions=("v1", "v1beta2"),
    spec=KustomizationSpec,
    status=KustomizationStatus,
    short_names=("ks",),
    categories=("all", "fluxcd", "fluxcd-appliers"),
    columns=(AGE, READY, MESSAGE),
    description="A Kustomization is a folder of manifests that is built, applied to a cluster and kept so.",
    controller=CONTROLLER,
    # Not the name that objects are applied with: what one Kustomization applies may be another.
    field_manager=f"gotk-{CONTROLLER}",
)
