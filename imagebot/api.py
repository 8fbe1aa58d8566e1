"""The kinds of `image.toolkit.fluxcd.io`: ImageRepository, ImagePolicy, ImageUpdateAutomation. Data only.

One schema per kind that is a superset of every version served (v1, v1beta2, v1beta1). Fields marked `Extension:` are ours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from imagebot.hints.spec import HintSpec
from imagebot.pullrequests import ForgeReference, PullRequestSpec, PullRequestStatus
from reconcile.api.crd import ServedKind, validations, without_default
from reconcile.api.duration import Duration, ShortDuration
from reconcile.api.meta import ApiModel, CommonSpec, CommonStatus, LabelSelector, LocalReference
from reconcile.api.resource import Resource
from reconcile.api.scheme import PrinterColumn
from reconcile.api.source import GitReference

GROUP = "image.toolkit.fluxcd.io"
VERSIONS = ("v1", "v1beta2", "v1beta1")
REFLECTOR = "image-reflector-controller"
AUTOMATION = "image-automation-controller"

DEFAULT_EXCLUSIONS = [r"^.*\.sig$"]
DEFAULT_MESSAGE = "Update from image update automation"


class NamespaceSelector(ApiModel):
    """Selects namespaces by their labels; without labels it selects all."""

    match_labels: dict[str, str] | None = None
    """Labels that the namespace must have."""


class AccessFrom(ApiModel):
    """Which other namespaces may refer to the object."""

    namespace_selectors: list[NamespaceSelector]
    """A namespace may refer to the object if any of these matches it."""


class ImageRepositorySpec(CommonSpec):
    """Spec of an ImageRepository."""

    image: str
    """Name of the image, without scheme, tag or digest."""
    interval: Duration
    """Least time between two scans."""
    timeout: ShortDuration | None = None
    """Limit of one scan; the interval when unset."""
    secret_ref: LocalReference | None = None
    """Pull secret (kubernetes.io/dockerconfigjson)."""
    proxy_secret_ref: LocalReference | None = None
    """Secret with the proxy: address, username, password."""
    cert_secret_ref: LocalReference | None = None
    """Secret with ca.crt, tls.crt and tls.key."""
    service_account_name: Annotated[str, Field(max_length=253)] | None = None
    """ServiceAccount whose image pull secrets or cloud identity are used."""
    access_from: AccessFrom | None = None
    """Which namespaces may refer to the repository; none when unset."""
    exclusion_list: Annotated[list[str], Field(max_length=25)] = DEFAULT_EXCLUSIONS
    """Tags that match any of these regular expressions are dropped."""
    provider: Literal["generic", "aws", "azure", "gcp"] = "generic"
    """Where credentials come from."""
    insecure: bool | None = None
    """Allow plain HTTP."""
    hint: HintSpec | None = None
    """Extension: a registry that tells of pushes by webhook, whereupon the image is scanned at once."""

    @property
    def exclusions(self) -> list[str]:
        """The list in force: an empty one means the default."""
        return self.exclusion_list or DEFAULT_EXCLUSIONS


class ScanResult(ApiModel):
    """What the last scan found."""

    revision: str | None = None
    """Stable checksum of the kept tags."""
    tag_count: int
    """Number of tags kept."""
    scan_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """End of the last scan."""
    latest_tags: list[str] | None = None
    """The first ten tags in descending order."""


class ImageRepositoryStatus(CommonStatus):
    """Status of an ImageRepository."""

    canonical_image_name: str | None = None
    """Name of the image with registry and full path."""
    last_scan_result: ScanResult | None = None
    """Result of the last scan."""
    observed_exclusion_list: list[str] | None = None
    """Exclusion list in force at the last scan."""
    hint_path: str | None = None
    """Extension: path at which hints are taken; treat it like a password where the sender cannot sign."""
    hint_problem: str | None = None
    """Extension: why no hints are taken although spec.hint asks for it."""


class ImageRepositoryReference(ApiModel):
    """Names an ImageRepository, perhaps in another namespace."""

    name: str
    """Name of the ImageRepository."""
    namespace: str | None = None
    """Its namespace; the policy's own when unset."""


class SemVerPolicy(ApiModel):
    """Highest version within a range."""

    range: str
    """SemVer range."""


class AlphabeticalPolicy(ApiModel):
    """Last or first in alphabetical order."""

    order: Literal["asc", "desc"] = "asc"
    """asc takes the last, desc the first."""
    filter: str | None = None
    """Extension: only tags that match this regular expression take part."""


class NumericalPolicy(ApiModel):
    """Highest or lowest number."""

    order: Literal["asc", "desc"] = "asc"
    """asc takes the highest, desc the lowest."""


class PolicyChoice(ApiModel):
    """How tags are ordered; the first that is present counts."""

    semver: SemVerPolicy | None = None
    """Order by semantic version."""
    alphabetical: AlphabeticalPolicy | None = None
    """Order by bytes."""
    numerical: NumericalPolicy | None = None
    """Order by number."""


class FilterTags(ApiModel):
    """Which tags take part, and which part of them is compared."""

    pattern: str | None = None
    """Regular expression (RE2) that a tag must match."""
    extract: str | None = None
    """What is compared, made of the groups of the pattern; the whole tag when empty."""


INTERVAL_WITHOUT_ALWAYS = "spec.interval is only accepted when spec.digestReflectionPolicy is set to 'Always'"
ALWAYS_WITHOUT_INTERVAL = "spec.interval must be set when spec.digestReflectionPolicy is set to 'Always'"
_ONLY_ALWAYS = "!has(self.interval) || (has(self.digestReflectionPolicy) && self.digestReflectionPolicy == 'Always')"
_NOT_WITHOUT = "has(self.interval) || !has(self.digestReflectionPolicy) || self.digestReflectionPolicy != 'Always'"


class ImagePolicySpec(CommonSpec):
    """Spec of an ImagePolicy."""

    model_config = ConfigDict(
        json_schema_extra=validations((_ONLY_ALWAYS, INTERVAL_WITHOUT_ALWAYS), (_NOT_WITHOUT, ALWAYS_WITHOUT_INTERVAL))
    )

    image_repository_ref: ImageRepositoryReference
    """The repository whose tags are chosen from."""
    policy: PolicyChoice
    """How the tag is chosen."""
    filter_tags: FilterTags | None = None
    """Which tags take part."""
    digest_reflection_policy: Literal["Always", "IfNotPresent", "Never"] = "Never"
    """Whether the digest of the chosen tag is looked up: never, when the tag changes, or at each interval."""
    interval: Duration | None = None
    """How often the digest is looked up; only with Always."""
    downgrade: Annotated[Literal["Hold", "Allow"], Field(json_schema_extra=without_default)] = "Hold"
    """Extension: whether a tag that ranks behind the last choice is chosen when the last choice is not in the list any more; Hold
    when unset."""
    minimum_age: Duration | None = None
    """Extension: for how long we must have known a digest before its tag is chosen."""
    on_mutation: Annotated[Literal["Follow", "Hold", "Alarm"], Field(json_schema_extra=without_default)] = "Follow"
    """Extension: what a new digest under the chosen tag means: nothing special, the old digest stays, or a warning; Follow when
    unset."""

    @model_validator(mode="after")
    def _interval_fits(self) -> Self:
        if self.interval is not None and self.digest_reflection_policy != "Always":
            raise ValueError(INTERVAL_WITHOUT_ALWAYS)
        if self.interval is None and self.digest_reflection_policy == "Always":
            raise ValueError(ALWAYS_WITHOUT_INTERVAL)
        return self


class ImageRef(ApiModel):
    """An image by name, tag and perhaps digest; prints as `name:tag[@digest]`."""

    name: str
    """Name of the image as the repository's spec has it."""
    tag: str
    """Tag."""
    digest: str | None = None
    """Digest, such as sha256:…, if it was looked up."""

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


class FirstSight(ApiModel):
    """When a digest was first seen under a tag."""

    tag: str
    """Tag."""
    digest: str
    """Digest that it had."""
    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it was first seen."""


class ImagePolicyStatus(CommonStatus):
    """Status of an ImagePolicy."""

    latest_ref: ImageRef | None = None
    """The chosen image."""
    observed_previous_ref: ImageRef | None = None
    """The image that latestRef replaced."""
    observed_rule: str | None = None
    """Extension: checksum of the rule that chose latestRef."""
    observed_digest: str | None = None
    """Extension: digest that the tag of latestRef had when it was last accepted; with onMutation Hold or Alarm."""
    allowed_downgrade: str | None = None
    """Extension: the last value of the annotation imagebot.dev/allow-downgrade that was made use of."""
    first_seen: list[FirstSight] | None = None
    """Extension: digests that are not old enough yet to be chosen, at most 51."""


class SourceReference(ApiModel):
    """Names the GitRepository to update."""

    # An API server fills in the default before it looks at what is required, so both can be said.
    model_config = ConfigDict(json_schema_extra={"required": ["kind", "name"]})

    api_version: str | None = None
    """Ignored."""
    kind: Literal["GitRepository"] = "GitRepository"
    """Kind of the source."""
    name: str
    """Name of the source."""
    namespace: str | None = None
    """Its namespace; the automation's own when unset."""


class GitCheckout(ApiModel):
    """Which commit the update starts from."""

    ref: GitReference
    """Replaces the reference of the GitRepository."""


class CommitUser(ApiModel):
    """Author and committer of the commits."""

    name: str | None = None
    """Name."""
    email: str
    """Address."""


class SigningKey(ApiModel):
    """The key that signs commits."""

    secret_ref: LocalReference
    """Secret with git.asc and passphrase, or identity and password."""
    type: Annotated[Literal["gpg", "ssh"], Field(json_schema_extra=without_default)] = "gpg"
    """Kind of key; gpg when unset."""


class CommitSpec(ApiModel):
    """How commits are made."""

    author: CommitUser
    """Author and committer."""
    signing_key: SigningKey | None = None
    """Key to sign with."""
    message_template: str | None = None
    """Go template of the message."""
    message_template_values: dict[str, str] | None = None
    """Values for the template, as .Values."""
    trailers: bool | None = None
    """Extension: whether the message ends with trailers that name policies and images, by which history is understood when the
    status is lost; no when unset."""
    quiet_period: Duration | None = None
    """Extension: for how long nothing more must have become due before what is due is committed, as one commit for all
    automations of the repository and branch; at once when unset."""
    max_wait: Duration | None = None
    """Extension: most time that the quiet period may hold back a change; ten times the quiet period when unset."""


class PushSpec(ApiModel):
    """Where commits are pushed to."""

    branch: str | None = None
    """Branch; that of the checkout when unset. Made when it does not exist."""
    refspec: str | None = None
    """A further refspec that is pushed together with the branch."""
    options: dict[str, str] | None = None
    """Push options."""
    pull_request: PullRequestSpec | None = None
    """Extension: have changes merged by pull requests instead of pushing them."""


class GitSpec(ApiModel):
    """Git settings of an automation."""

    checkout: GitCheckout | None = None
    """What to start from; the reference of the GitRepository when unset."""
    commit: CommitSpec
    """How to commit."""
    push: PushSpec | None = None
    """Where to push; the checkout branch when unset."""


class UpdateStrategy(ApiModel):
    """How files are updated."""

    strategy: Literal["Setters"] = "Setters"
    """Setters: values marked with $imagepolicy comments."""
    path: str | None = None
    """Folder or file below which markers count; the whole repository when unset."""
    on_revert: Literal["Hold", "Overwrite"] | None = None
    """Extension: what a value means that somebody set back in Git after we had written it: the image is held, or the value is
    written again; Hold when unset."""


class ImageUpdateAutomationSpec(CommonSpec):
    """Spec of an ImageUpdateAutomation."""

    source_ref: SourceReference
    """The GitRepository."""
    git: GitSpec | None = None
    """Git settings."""
    interval: Duration
    """Least time between two runs without a cause."""
    policy_selector: LabelSelector | None = None
    """Which policies of the namespace count; all when unset."""
    update: UpdateStrategy = UpdateStrategy()
    """How files are updated."""
    policy: Any = None
    """Extension: accepted from manifests that have it, without effect; policySelector says which policies count."""


class SkippedMarker(ApiModel):
    """A marker or a file that the last run could not use."""

    path: str
    """File, relative to the update path."""
    line: int | None = None
    """Line in the file, from 1."""
    marker: str | None = None
    """Text of the marker, if there is one."""
    message: str
    """Why, and what to do."""


class ImageUpdateAutomationStatus(CommonStatus):
    """Status of an ImageUpdateAutomation."""

    last_automation_run_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Start of the last run."""
    last_push_commit: str | None = None
    """Hash of the last commit pushed."""
    last_push_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Time of the last push."""
    observed_policies: dict[str, ImageRef] | None = None
    """Policies and their images at the last completed run."""
    observed_source_revision: str | None = None
    """Revision of the source at the last completed run."""
    skipped: list[SkippedMarker] | None = None
    """Extension: markers and files that the last run could not use, at most 50."""
    pending_since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Extension: when the first of the changes became due that wait for the quiet period."""
    pending_until: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Extension: when they are committed, unless more become due."""
    pull_requests: list[PullRequestStatus] | None = None
    """Extension: the pull requests that the automation keeps up to date, and those last ended, at most 50."""
    observed_forge: ForgeReference | None = None
    """Extension: the forge that has the pull requests which are open."""
    push_refused_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Extension: when a push was refused because the branch is protected, which is why changes are proposed for a day."""


ImageRepository = Resource[ImageRepositorySpec, ImageRepositoryStatus]
ImagePolicy = Resource[ImagePolicySpec, ImagePolicyStatus]
ImageUpdateAutomation = Resource[ImageUpdateAutomationSpec, ImageUpdateAutomationStatus]

_READY = PrinterColumn("Ready", '.status.conditions[?(@.type=="Ready")].status')
_MESSAGE = PrinterColumn("Status", '.status.conditions[?(@.type=="Ready")].message')
_AGE = PrinterColumn("Age", ".metadata.creationTimestamp", "date")
_TAGS = PrinterColumn("Tags", ".status.lastScanResult.tagCount")
_LAST_SCAN = PrinterColumn("Last scan", ".status.lastScanResult.scanTime", priority=1)
_LAST_RUN = PrinterColumn("Last run", ".status.lastAutomationRunTime", priority=1)
_CATEGORIES = ("all", "fluxcd", "fluxcd-images")

IMAGE_REPOSITORY = ServedKind(
    group=GROUP,
    kind="ImageRepository",
    plural="imagerepositories",
    versions=VERSIONS,
    spec=ImageRepositorySpec,
    status=ImageRepositoryStatus,
    short_names=("imgrepo", "imagerepo"),
    categories=_CATEGORIES,
    columns=(
        PrinterColumn("Image", ".spec.image"),
        _TAGS,
        _READY,
        _MESSAGE,
        _LAST_SCAN,
        _AGE,
    ),
    older_columns=(("v1beta1", (replace(_LAST_SCAN, priority=0), _TAGS)),),
    description="An ImageRepository names an image whose tags are listed at an interval.",
    controller=REFLECTOR,
)
IMAGE_POLICY = ServedKind(
    group=GROUP,
    kind="ImagePolicy",
    plural="imagepolicies",
    versions=VERSIONS,
    spec=ImagePolicySpec,
    status=ImagePolicyStatus,
    short_names=("imgpol", "imagepol"),
    categories=_CATEGORIES,
    columns=(
        PrinterColumn("Image", ".status.latestRef.name"),
        PrinterColumn("Tag", ".status.latestRef.tag"),
        _READY,
        _MESSAGE,
        _AGE,
    ),
    # The text that v1beta1 showed is no longer kept; its tag is what people looked for.
    older_columns=(("v1beta1", (PrinterColumn("LatestImage", ".status.latestRef.tag"),)),),
    description="An ImagePolicy chooses one of the tags that an ImageRepository found.",
    controller=REFLECTOR,
)
IMAGE_UPDATE_AUTOMATION = ServedKind(
    group=GROUP,
    kind="ImageUpdateAutomation",
    plural="imageupdateautomations",
    versions=VERSIONS,
    spec=ImageUpdateAutomationSpec,
    status=ImageUpdateAutomationStatus,
    short_names=("iua", "imgupd", "imgauto"),
    categories=_CATEGORIES,
    columns=(_READY, _MESSAGE, _LAST_RUN, _AGE),
    older_columns=(("v1beta1", (replace(_LAST_RUN, priority=0),)),),
    description="An ImageUpdateAutomation writes the images that ImagePolicies chose into files of a Git repository.",
    controller=AUTOMATION,
)
