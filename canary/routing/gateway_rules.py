"""Parts of an HTTPRoute (gateway.networking.k8s.io) from what `spec.service` and `spec.analysis` say in Istio's words. Pure.

The mapping is Flagger's, and more of it where the Gateway API has words for it: prefixes and suffixes of headers and query
parameters become regular expressions. What of an A/B test cannot be said is refused: a rule without it would be for everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from canary.api import CanaryService, CorsPolicy, HeaderOperations, plain
from canary.errors import Problem
from canary.plan import seconds
from canary.routing.cookies import HEADER, quoted

Part = dict[str, Any]

EVERYTHING: Part = {"path": {"type": "PathPrefix", "value": "/"}}
"""The match that an API server fills in where there is none."""

_PATHS = {"exact": "Exact", "prefix": "PathPrefix", "regex": "RegularExpression"}
_DEFAULTS_OF_CORS = {"maxAge": 5}
_DEFAULTS_OF_BACKEND = {"group": "", "kind": "Service", "weight": 1}
_DEFAULTS_OF_PARENT = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}


# --- matches


def matched(match: Mapping[str, Any], where: str) -> Part:
    """A match of Istio as an HTTPRouteMatch; keys that Flagger leaves out (scheme, port, ..) are left out here.

    Args:
        match: Plain data of an HTTPMatchRequest.
        where: How messages name it.

    Raises:
        Problem: The Gateway API cannot say it; `Invalid request matching selectors: ..`, as Flagger begins it.
    """
    found: Part = {}
    if uri := match.get("uri"):
        how, value = _only(uri, _PATHS, f"{where}.uri")
        found["path"] = {"type": _PATHS[how], "value": value}
    if method := match.get("method"):
        found["method"] = _only(method, ("exact",), f"{where}.method")[1]
    for name in ("headers", "queryParams"):
        if values := match.get(name):
            found[name] = [_value(key, how, f"{where}.{name}.{key}") for key, how in sorted(values.items())]
    return found


def audience_matched(match: Mapping[str, Any], where: str) -> Part:
    """A match of an A/B test; raises Problem for source labels too, which are not in a request."""
    if match.get("sourceLabels"):
        raise _invalid(f"{where}.sourceLabels: the Gateway API cannot match labels of the client")
    return matched(match, where)


def with_cookie(matches: Sequence[Part], pattern: str) -> list[Part]:
    """The matches, for requests whose `Cookie` header matches; other conditions on that header give way to it."""
    has = {"name": "Cookie", "type": "RegularExpression", "value": pattern}

    def headers(match: Part) -> list[Part]:
        return [each for each in match.get("headers") or () if each["name"].lower() != "cookie"]

    return [{**match, "headers": [has, *headers(match)]} for match in matches or ({},)]


def _value(name: str, how: Mapping[str, str], where: str) -> Part:
    key, value = _only(how, ("exact", "regex", "prefix", "suffix"), where)
    if key == "exact":
        return {"name": name, "type": "Exact", "value": value}
    regex = {"regex": value, "prefix": f"^{quoted(value)}.*$", "suffix": f"^.*{quoted(value)}$"}[key]
    return {"name": name, "type": "RegularExpression", "value": regex}


def _only(how: Mapping[str, str], known: Mapping[str, str] | Sequence[str], where: str) -> tuple[str, str]:
    """The one way in which a text is matched, and what it is matched with."""
    if len(how) != 1 or next(iter(how)) not in known:
        raise _invalid(f"{where}: the Gateway API matches it by {', '.join(known)} only")
    return next(iter(how.items()))


def _invalid(why: str) -> Problem:
    return Problem(f"Invalid request matching selectors: {why}")


# --- filters


def filters(service: CanaryService, *, cors: bool) -> list[Part]:
    """What is done to requests and responses, in Flagger's order.

    Args:
        service: Says it.
        cors: Whether the version of the API knows CORS.
    """
    headers = service.headers
    found = [
        _headers("request", headers.request if headers is not None else None),
        _headers("response", headers.response if headers is not None else None),
        _rewrite(service),
        *(mirror(plain(each.backend_ref)) for each in service.mirror or ()),
        _cors(service.cors_policy) if cors and service.cors_policy is not None else None,
    ]
    return [each for each in found if each is not None]


def mirror(backend: Part) -> Part:
    """The filter that sends copies of requests to a backend."""
    return {"type": "RequestMirror", "requestMirror": {"backendRef": backend}}


def setting_cookie(header: str) -> Part:
    """The filter that adds a `Set-Cookie` header to responses."""
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": HEADER, "value": header}]}}


def with_set_cookie(present: Sequence[Part], header: str) -> list[Part]:
    """Filters of a rule that add a `Set-Cookie` header too: by the one filter for response headers that a rule may have."""
    wanted = setting_cookie(header)
    modifier: Part = next((each["responseHeaderModifier"] for each in present if each["type"] == wanted["type"]), {})
    others = [each for each in modifier.get("add") or () if each["name"].lower() != HEADER.lower()]
    wanted["responseHeaderModifier"] = {**modifier, "add": [*others, *wanted["responseHeaderModifier"]["add"]]}
    return [*(each for each in present if each["type"] != wanted["type"]), wanted]


def set_cookie(part: Mapping[str, Any]) -> str:
    """The `Set-Cookie` header that a rule or a backend adds to responses; empty when it adds none."""
    for each in part.get("filters") or ():
        for header in (each.get("responseHeaderModifier") or {}).get("add") or ():
            if header.get("name", "").lower() == HEADER.lower():
                return str(header.get("value", ""))
    return ""


def _headers(direction: str, changes: HeaderOperations | None) -> Part | None:
    if changes is None:
        return None
    said: Part = {}
    for name, values in (("add", changes.add), ("set", changes.set)):
        if values:
            said[name] = [{"name": key, "value": value} for key, value in sorted(values.items())]
    if changes.remove:
        said["remove"] = list(changes.remove)
    kind = f"{direction.capitalize()}HeaderModifier"
    return {"type": kind, f"{direction}HeaderModifier": said} if said else None


def _rewrite(service: CanaryService) -> Part | None:
    wanted = service.rewrite
    if wanted is None or not (wanted.uri or wanted.authority):
        return None
    said: Part = {"hostname": wanted.authority} if wanted.authority else {}
    if wanted.uri:
        prefix = wanted.type == "ReplacePrefixMatch"
        kind, key = ("ReplacePrefixMatch", "replacePrefixMatch") if prefix else ("ReplaceFullPath", "replaceFullPath")
        said["path"] = {"type": kind, key: wanted.uri}
    return {"type": "URLRewrite", "urlRewrite": said}


def _cors(policy: CorsPolicy) -> Part:
    exact = [each.exact for each in policy.allow_origins or () if each.exact]
    lists = {
        "allowOrigins": [*(policy.allow_origin or ()), *exact],
        "allowMethods": policy.allow_methods,
        "allowHeaders": policy.allow_headers,
        "exposeHeaders": policy.expose_headers,
    }
    said: Part = {name: list(values) for name, values in lists.items() if values}
    if policy.allow_credentials:
        said["allowCredentials"] = True
    age = seconds(policy.max_age)
    if age is not None:
        said["maxAge"] = int(age)
    return {"type": "CORS", "cors": said}


# --- defaults of the API


def defaulted(fields: Mapping[str, Any]) -> Part:
    """Fields of an HTTPRoute's spec with the defaults of the Gateway API's schema filled in, whoever wrote them."""
    found = dict(fields)
    if found.get("parentRefs"):
        found["parentRefs"] = [{**_DEFAULTS_OF_PARENT, **each} for each in found["parentRefs"]]
    if found.get("rules"):
        found["rules"] = [_rule(each) for each in found["rules"]]
    return found


def _rule(rule: Part) -> Part:
    found = {**rule, "matches": [_match(each) for each in rule.get("matches") or [EVERYTHING]]}
    return _each(_each(found, "filters", _filter), "backendRefs", _backend)


def _match(match: Part) -> Part:
    found = {**match, "path": {**EVERYTHING["path"], **(match.get("path") or {})}}
    for name in ("headers", "queryParams"):
        found = _each(found, name, lambda each: {"type": "Exact", **each})
    return found


def _filter(found: Part) -> Part:
    if "cors" in found:
        return {**found, "cors": {**_DEFAULTS_OF_CORS, **(found["cors"] or {})}}
    if "requestMirror" in found:
        mirrored = found["requestMirror"]
        backend = {"group": "", "kind": "Service", **(mirrored.get("backendRef") or {})}
        return {**found, "requestMirror": {**mirrored, "backendRef": backend}}
    return found


def _backend(found: Part) -> Part:
    return _each({**_DEFAULTS_OF_BACKEND, **found}, "filters", _filter)


def _each(part: Part, name: str, change: Callable[[Part], Part]) -> Part:
    return {**part, name: [change(each) for each in part[name]]} if part.get(name) else part
