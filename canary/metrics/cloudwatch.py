"""Amazon CloudWatch as a judge: `GetMetricData` of the Query API (docs.aws.amazon.com, "Amazon CloudWatch API Reference")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import orjson

from canary.metrics.backend import WINDOW, Backend, Refused, deadline, sample, seconds
from canary.metrics.base import NoValues, ProviderConfig, Sample
from reconcile.errors import Invalid, ReconcileError
from reconcile.ports.clock import timestamp
from reconcile.registry.sigv4 import AwsKeys, sign

VERSION: Final = "2010-08-01"
POINTS: Final = 20
"""Points that are asked for at most."""
WAITS: Final = (0.1, 0.2, 0.4)
"""Seconds before each further try."""

_REGION: Final = re.compile(r"[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}")
_DOMAINS: Final = {"cn-": "amazonaws.com.cn", "us-iso-": "c2s.ic.gov", "us-isob-": "sc2s.sgov.gov", "us-isof-": "csp.hci.ic.gov",
                   "eu-isoe-": "cloud.adc-e.uk", "eusc-": "amazonaws.eu"}  # fmt: skip
_FIELDS: Final = {
    name.lower(): name
    for name in (
        "AccountId", "Dimensions", "Expression", "Id", "Label", "Metric", "MetricName", "MetricStat",
        "Name", "Namespace", "Period", "ReturnData", "Stat", "Unit", "Value",
    )
}  # fmt: skip
"""Fields of a MetricDataQuery and what is in it; Go's decoder, on which people rely, does not mind their case."""
_FAILED: Final = frozenset({"Forbidden", "InternalError"})
_BUSY: Final = re.compile("Throttl|RequestLimitExceeded|TooManyRequests|SlowDown")
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


class CloudWatch:
    """CloudWatch in a region, with the identity of this process. A `Provider`.

    The query is the JSON of MetricDataQueries, and the newest value of the first result over the last ten intervals counts. What
    is temporary is tried three times more. Keys go to AWS alone, never to an address of a template.

    Args:
        config: Of the provider.
        endpoint: Where CloudWatch is, instead of the region's own place.

    Raises:
        Invalid: There is no region, or it is none.
    """

    def __init__(self, config: ProviderConfig, endpoint: str = "") -> None:
        if not config.region:
            raise Invalid("region not specified")
        if _REGION.fullmatch(config.region) is None:
            raise Invalid(f"{config.region[:40]!r} is not a region")
        domains = (domain for prefix, domain in _DOMAINS.items() if config.region.startswith(prefix))
        self._domain = next(domains, "amazonaws.com")
        self._endpoint = endpoint or f"https://monitoring.{config.region}.{self._domain}"
        self._backend = Backend(config, self._endpoint)  # fails here when the endpoint is none
        self._config = config

    async def query(self, text: str, interval: str, now: datetime) -> Sample:
        """The newest value of the first result."""
        queries = _queries(text)
        window = timedelta(seconds=WINDOW * seconds(interval))
        try:
            body = await self._ask([*_flat("MetricDataQueries", queries), *_period(now - window, now)])
        except ReconcileError as error:
            raise ReconcileError(f"error requesting cloudwatch: {error}") from error
        first = _first_result(body)
        if first is None:
            raise ReconcileError(f"error unmarshaling result: no GetMetricData response, '{self._backend.shown(body)}'")
        status, values = first
        if status in _FAILED:
            raise ReconcileError(f"error requesting cloudwatch: the status of the first result is {status}")
        if not values:
            raise NoValues
        return sample(values, 0)

    async def online(self) -> None:
        """Raises ReconcileError unless CloudWatch finds fault with an empty request, and only with that."""
        try:
            await self._ask(_period(self._config.clock.now(), self._config.clock.now()))
        except Refused as error:
            if error.status != 400 or _BUSY.search(_code(error.body)):
                raise ReconcileError(f"unexpected status code: {error}") from error
        except ReconcileError as error:
            raise ReconcileError(f"unexpected error: {error}") from error

    async def _ask(self, fields: Sequence[tuple[str, str]]) -> bytes:
        form = urlencode([("Action", "GetMetricData"), ("Version", VERSION), *fields]).encode()
        async with deadline(self._config.timeout, f'Post "{self._endpoint}/"'):
            keys = await self._config.clouds().aws_keys(self._config.region, self._domain)
            for wait in WAITS:
                try:
                    return await self._try(keys, form)
                except Refused as error:
                    if not (error.status >= 500 or error.status == 429 or _BUSY.search(_code(error.body))):
                        raise
                await self._config.clock.sleep(wait)
            return await self._try(keys, form)

    async def _try(self, keys: AwsKeys, form: bytes) -> bytes:
        signed = sign(
            keys, method="POST", url=f"{self._endpoint}/", headers=_FORM, body=form, region=self._config.region,
            service="monitoring", moment=self._config.clock.now(),
        )  # fmt: skip
        hidden = (keys.secret_key, keys.session_token, signed["authorization"])
        return await Backend(self._config, self._endpoint, hidden=hidden).ask("POST", "/", headers=signed, content=form)


def _period(start: datetime, end: datetime) -> list[tuple[str, str]]:
    return [("StartTime", timestamp(start)), ("EndTime", timestamp(end)), ("MaxDatapoints", str(POINTS))]


def _queries(text: str) -> list[Any]:
    """The queries of a template with their fields as AWS spells them; raises Invalid."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"error unmarshaling query: {error}") from None
    if not isinstance(found, list) or not all(isinstance(query, dict) for query in found):
        raise Invalid("error unmarshaling query: not a list of MetricDataQueries")
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Data as fields of a form: `MetricDataQueries.member.1.Id`. Names that AWS does not know are left out, as in Flagger."""
    match value:
        case None:
            return
        case dict():
            for key, inner in value.items():
                if str(key).lower() in _FIELDS:
                    yield from _flat(f"{name}.{_FIELDS[str(key).lower()]}", inner)
        case list():
            for at, inner in enumerate(value, 1):
                yield from _flat(f"{name}.member.{at}", inner)
        case bool():
            yield name, str(value).lower()
        case _:
            yield name, str(value)


def _first_result(body: bytes) -> tuple[str, list[str | None]] | None:
    """Status and values of the first result, empty when there is no result; None when this is no such answer."""
    root = _xml(body)
    if root is None or _local(root) != "GetMetricDataResponse":
        return None
    members = [member for found in root for results in found if _local(results) == "MetricDataResults" for member in results]
    parts = {_local(part): part for part in members[0]} if members else {}
    status = parts["StatusCode"].text if "StatusCode" in parts else ""
    return status or "", [value.text for value in parts.get("Values", ())]


def _code(body: bytes) -> str:
    """The code of an error answer."""
    root = _xml(body)
    return next((each.text or "" for each in root.iter() if _local(each) == "Code"), "") if root is not None else ""


def _xml(body: bytes) -> ET.Element | None:
    """A document without a DTD, so that nothing in it can grow; None when it is none."""
    text = body.decode(errors="replace")
    if "<!" in text:
        return None
    try:
        return ET.fromstring(text)  # noqa: S314 - see above
    except ET.ParseError:
        return None


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
