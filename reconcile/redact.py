"""Secrets out of texts: URLs, headers, messages. Pure.

Used wherever text from outside may reach a log, an event, a status or an exception.
"""

from __future__ import annotations

import re

MASK = "*****"

_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@'\"]+@")
_QUERY = re.compile(
    r"(?i)(?P<key>[?&](?:access_?token|token|sig|signature|password|passwd|secret|code|key|x-amz-[a-z-]+|api_?key)=)[^&\s'\"]+"
)
_HEADER = re.compile(
    r"(?i)(?P<key>\b(?:proxy-)?authorization\b['\"]?\s*[:=]\s*['\"]?(?:basic|bearer|token|negotiate)?\s*)[A-Za-z0-9._~+/=-]{6,}"
)
_BEARER = re.compile(r"(?i)(?P<key>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{12,}")


def redact_url(url: str) -> str:
    """`url` without user, password and secret query values; the rest is unchanged."""
    return _QUERY.sub(rf"\g<key>{MASK}", _USERINFO.sub(r"\g<scheme>", url))


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` with URL credentials, authorization values and each of `secrets` (longer than 3 characters) masked."""
    for secret in sorted({s for s in secrets if len(s) > 3}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern in (_HEADER, _BEARER):
        text = pattern.sub(rf"\g<key>{MASK}", text)
    return redact_url(text)
