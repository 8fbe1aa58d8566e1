"""Where a bucket with an S3 interface is: endpoint, region, path style or virtual-hosted style. Pure.

Amazon's hosts and those of Alibaba's OSS are asked in virtual-hosted style (`bucket.host`), everybody else, such as MinIO, in
path style (`host/bucket`): that is how MinIO's client chooses, and with it Flux's source-controller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote

import httpx

from reconcile.errors import Invalid

DEFAULT_REGION = "us-east-1"
GLOBAL_HOST = "s3.amazonaws.com"

_AMAZON = re.compile(
    r"(?:s3|s3-fips|s3-external-1|s3-accelerate|bucket\.vpce-[0-9a-z-]+\.s3)"
    r"(?:[.-](?:dualstack\.)?(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d))?(?:\.dualstack)?(?:\.vpce)?\.(?P<domain>amazonaws\.com(?:\.cn)?)"
)
_ALIBABA = re.compile(r"oss-[a-z0-9-]+\.aliyuncs\.com")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_LABELS = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket's place.

    Attributes:
        scheme: http or https.
        host: host of the service, with a port that is not the scheme's own.
        bucket: name of the bucket.
        region: region that signatures name.
        domain: domain of the partition, for Amazon's other services.
        virtual: whether the bucket is part of the host name.
    """

    scheme: str
    host: str
    bucket: str
    region: str
    domain: str
    virtual: bool

    @property
    def url(self) -> str:
        """The bucket's address, without a slash at the end."""
        if self.virtual:
            return f"{self.scheme}://{self.bucket}.{self._regional()}"
        return f"{self.scheme}://{self._regional()}/{quote(self.bucket, safe='')}"

    def moved(self, region: str) -> Place:
        """The same bucket in another region; raises Invalid when that is no name of a region."""
        if not _REGION.fullmatch(region):
            raise Invalid(f"'{region[:100]}' is not the name of a region")
        return replace(self, region=region)

    def _regional(self) -> str:
        if self.host == GLOBAL_HOST and self.region != DEFAULT_REGION:
            return f"s3.{self.region}.amazonaws.com"  # the global host leads buckets of other regions astray
        return self.host


def place_of(endpoint: str, bucket: str, *, region: str | None, insecure: bool) -> Place:
    """Where `bucket` is.

    Args:
        endpoint: host with an optional port; a URL of nothing more is taken too.
        bucket: name of the bucket.
        region: region, None or empty for that of the host, else `us-east-1` until the service says another.
        insecure: plain HTTP.

    Raises:
        Invalid: endpoint, bucket or region cannot be used.
    """
    scheme = "http" if insecure else "https"
    text = endpoint if "://" in endpoint else f"{scheme}://{endpoint}"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise Invalid(f"endpoint '{endpoint}' is not a host with an optional port") from None
    plain = url.copy_with(path="/", query=None, fragment=None, userinfo=None)
    if not url.host or str(url).rstrip("/") != str(plain).rstrip("/"):
        raise Invalid("the endpoint must be a host with an optional port, and nothing more")
    if url.scheme != scheme:
        raise Invalid(f"endpoint '{endpoint}' does not go together with 'insecure: {str(insecure).lower()}'")
    check_bucket(bucket)
    host = url.netloc.decode("ascii")  # as httpx writes it into requests: without a port that is the scheme's own
    amazon = _AMAZON.fullmatch(host)
    found = region or (amazon["region"] if amazon else None) or DEFAULT_REGION
    virtual = bool(amazon or _ALIBABA.fullmatch(host)) and _LABELS.fullmatch(bucket) is not None
    if virtual and "." in bucket and not insecure:
        virtual = False  # no certificate is for two labels below the host
    domain = amazon["domain"] if amazon else "amazonaws.com"
    return Place(scheme, host, bucket, DEFAULT_REGION, domain, virtual).moved(found)


def check_bucket(bucket: str) -> None:
    """Raises Invalid when `bucket` cannot be the name of one, which would otherwise become a part of URLs."""
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise Invalid(f"bucket name '{bucket[:100]}' is not valid")
