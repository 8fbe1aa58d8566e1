"""To whom this process shows an identity of its own. Pure.

Whoever may write a Bucket chooses its endpoint. A token of the service's own identity would be good for more than that bucket, so
only the cloud that made it gets to see it; other hosts are asked as anybody would ask them.
"""

from __future__ import annotations

import httpx

from reconcile.errors import Stalled
from reconcile.net.proxy import is_loopback

AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
GOOGLE = (".googleapis.com",)
AZURE = (".core.windows.net", ".core.chinacloudapi.cn", ".core.usgovcloudapi.net", ".storage.azure.net")


def belongs_to(url: str, domains: tuple[str, ...]) -> bool:
    """Whether `url` is https at one of these domains; loopback, where emulators are, belongs to everybody."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    host = parsed.host.lower().rstrip(".")
    return is_loopback(host) or (parsed.scheme == "https" and host.endswith(domains))


def check_token_service(endpoint: str) -> str:
    """`endpoint` if it may see the proof of who this process is at Amazon; raises Stalled with InvalidSTSConfiguration."""
    if not belongs_to(endpoint, AMAZON):
        raise Stalled(
            "InvalidSTSConfiguration",
            f"STS endpoint '{endpoint}' is no https address of Amazon's, and would be shown the identity of this service",
        )
    return endpoint
