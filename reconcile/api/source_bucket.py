"""Bucket: files of an object store. Data only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from reconcile.api.crd import ServedKind, validations
from reconcile.api.duration import Duration, GoDuration, ShortDuration
from reconcile.api.meta import ApiModel, CommonSpec, LocalReference
from reconcile.api.scheme import PrinterColumn
from reconcile.api.source_common import AGE, CATEGORIES, CONTROLLER, GROUP, MESSAGE, READY, AccessFrom, LinkedStatus

STS_WITHOUT_USE = "STS configuration is only supported for the 'aws' and 'generic' Bucket providers"
STS_NOT_OF_AWS = "'aws' is the only supported STS provider for the 'aws' Bucket provider"
STS_NOT_LDAP = "'ldap' is the only supported STS provider for the 'generic' Bucket provider"
STS_SECRET = "spec.sts.secretRef is not required for the 'aws' STS provider"  # noqa: S105
STS_CERTIFICATE = "spec.sts.certSecretRef is not required for the 'aws' STS provider"
ACCOUNT_WITHOUT_CLOUD = "ServiceAccountName is not supported for the 'generic' Bucket provider"
TWO_LOGINS = "cannot set both .spec.secretRef and .spec.serviceAccountName"

_RULES = (
    ("self.provider == 'aws' || self.provider == 'generic' || !has(self.sts)", STS_WITHOUT_USE),
    ("self.provider != 'aws' || !has(self.sts) || self.sts.provider == 'aws'", STS_NOT_OF_AWS),
    ("self.provider != 'generic' || !has(self.sts) || self.sts.provider == 'ldap'", STS_NOT_LDAP),
    ("!has(self.sts) || self.sts.provider != 'aws' || !has(self.sts.secretRef)", STS_SECRET),
    ("!has(self.sts) || self.sts.provider != 'aws' || !has(self.sts.certSecretRef)", STS_CERTIFICATE),
    ("self.provider != 'generic' || !has(self.serviceAccountName)", ACCOUNT_WITHOUT_CLOUD),
    ("!has(self.secretRef) || !has(self.serviceAccountName)", TWO_LOGINS),
)


class BucketSTS(ApiModel):
    """A service that hands out credentials for a limited time."""

    provider: Literal["aws", "ldap"]
    """Kind of the service."""
    endpoint: Annotated[str, Field(pattern=r"^(http|https)://.*$")]
    """Address of the service."""
    secret_ref: LocalReference | None = None
    """Secret with username and password (ldap)."""
    cert_secret_ref: LocalReference | None = None
    """Secret with a certificate authority, or a client certificate (ldap)."""


class BucketSpec(CommonSpec):
    """Spec of a Bucket."""

    model_config = ConfigDict(json_schema_extra=validations(*_RULES))

    provider: Literal["generic", "aws", "gcp", "azure"] = "generic"
    """Whose interface the store has; generic is any that speaks S3."""
    bucket_name: str
    """Name of the bucket, or of the container."""
    endpoint: str
    """Host of the store; for azure the address of the account."""
    sts: BucketSTS | None = None
    """Where credentials for a limited time come from."""
    insecure: bool | None = None
    """Plain HTTP."""
    region: str | None = None
    """Region of the bucket."""
    prefix: str | None = None
    """Only objects whose key starts with this."""
    secret_ref: LocalReference | None = None
    """Secret with the credentials."""
    service_account_name: str | None = None
    """ServiceAccount whose identity at the cloud is used."""
    cert_secret_ref: LocalReference | None = None
    """Secret with a certificate authority, or a client certificate (generic)."""
    proxy_secret_ref: LocalReference | None = None
    """Secret with the proxy."""
    interval: Duration
    """How often the bucket is looked at."""
    timeout: ShortDuration = GoDuration("60s")
    """Limit of listing the bucket, and of fetching from it."""
    ignore: str | None = None
    """Patterns of keys to leave out, in the syntax of .gitignore."""
    access_from: AccessFrom | None = None
    """Accepted from old manifests, without effect."""

    @model_validator(mode="after")
    def _logins_fit(self) -> Self:
        sts, provider = self.sts, self.provider
        held = (
            sts is None or provider in {"aws", "generic"},
            sts is None or provider != "aws" or sts.provider == "aws",
            sts is None or provider != "generic" or sts.provider == "ldap",
            sts is None or sts.provider != "aws" or sts.secret_ref is None,
            sts is None or sts.provider != "aws" or sts.cert_secret_ref is None,
            provider != "generic" or self.service_account_name is None,
            self.secret_ref is None or self.service_account_name is None,
        )
        broken = [message for (_, message), holds in zip(_RULES, held, strict=True) if not holds]
        if broken:
            raise ValueError("; ".join(broken))
        return self


class BucketStatus(LinkedStatus):
    """Status of a Bucket."""

    observed_ignore: str | None = None
    """Patterns of keys that were left out of the artifact."""


_ENDPOINT = PrinterColumn("Endpoint", ".spec.endpoint")

BUCKET = ServedKind(
    group=GROUP,
    kind="Bucket",
    plural="buckets",
    versions=("v1", "v1beta2", "v1beta1"),
    spec=BucketSpec,
    status=BucketStatus,
    categories=CATEGORIES,
    columns=(_ENDPOINT, AGE, READY, MESSAGE),
    older_columns=(("v1beta1", (_ENDPOINT, READY, MESSAGE, AGE)),),
    description="A Bucket is a bucket of an object store and the objects in it that are meant.",
    controller=CONTROLLER,
)
