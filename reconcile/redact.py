"""Secrets out of texts: URLs, headers, messages. Pure.

Used wherever text from outside may reach a log, an event, a status or an exception.
"""

from __future__ import annotations

import re

MASK = "*****"

# Every repetition is bounded or cannot start anywhere twice: messages may be long, and each log line passes through here.
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)[^/\s\"?#]*@")
_QUERY = re.compile(
    r"(?i)(?P<key>[?&;](?:[a-z0-9_.-]{0,40}(?:token|secret|password|passwd|signature|credential|api_?key)"
    r"|sig|code|key|x-(?:amz|goog)-[a-z-]{1,40})=)[^&\s'\"]+"
)
_HEADER = re.compile(
    r"(?i)(?P<key>\b(?:proxy-)?authorization\b['\"]?\s{0,9}[:=]\s{0,9}['\"]?(?:basic|bearer|token|negotiate)?\s{0,9})"
    r"(?!(?:basic|bearer|token|negotiate)\b(?![._~+/=-]))[A-Za-z0-9._~+/=-]{6,}"
)
# Credentials mix cases or have digits behind the first letter; «Basic authentication» does not.
_BEARER = re.compile(
    r"(?P<key>\b(?i:bearer|basic)\s{1,9})(?=[A-Za-z0-9._~+/=-][a-z._~/-]{0,200}[A-Z0-9+=])[A-Za-z0-9._~+/=-]{12,}"
)
_TOKENS = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<what>[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=what)-----|\Z)", re.DOTALL
)


def redact_url(url: str) -> str:
    """`url` without user, password and secret query values; the rest is unchanged."""
    return _QUERY.sub(rf"\g<key>{MASK}", _USERINFO.sub(r"\g<scheme>", url))


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without credentials in URLs, authorization values, well-known tokens, private keys and `secrets` (longer than 3)."""
    for secret in sorted({s for s in secrets if len(s) > 3}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern in (_HEADER, _BEARER):
        text = pattern.sub(rf"\g<key>{MASK}", text)
    for pattern in (_TOKENS, _PRIVATE_KEY):
        text = pattern.sub(MASK, text)
    return redact_url(text)
