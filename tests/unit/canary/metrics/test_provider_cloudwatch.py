"""CloudWatch: signed requests, which value counts, what is tried again, and what is said when it fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest

from canary.api import MetricProvider
from canary.metrics.base import NoValues, Provider, Sample
from canary.metrics.cloudwatch import CloudWatch
from canary.metrics.logins import Logins
from canary.metrics.providers import Providers
from reconcile.errors import Invalid, ReconcileError
from reconcile.net.client import make_client
from reconcile.net.proxy import ProxyEnvironment
from reconcile.registry.cloud_aws import Aws
from reconcile.registry.sigv4 import AwsKeys, sign
from tests.support.metric_backends import FAULTS, SECRET, FakeBackend, Raw, Request, Rule, short

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEYS = AwsKeys("AKIDEXAMPLE", SECRET, f"session-{SECRET}")
IDENTITY = {"AWS_ACCESS_KEY_ID": KEYS.access_key, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": KEYS.session_token}
CONTAINER = "/credentials"
"""Where a container finds its keys."""
FORM = "application/x-www-form-urlencoded; charset=utf-8"
QUERY = json.dumps(
    [
        {"Id": "e1", "Expression": "m1 / m2", "Label": "Error Rate"},
        {
            "id": "m1",
            "metricStat": {
                "metric": {
                    "namespace": "App",
                    "metricName": "E",
                    "dimensions": [{"name": "a", "value": "b&c"}, {"Name": "d", "Value": "e"}],
                },
                "Period": 60,
                "Stat": "Sum",
                "Unit": None,
                "Nonsense": 1,
            },
            "ReturnData": False,
        },
    ]
)
FIELDS = [
    ("Action", "GetMetricData"), ("Version", "2010-08-01"),
    ("MetricDataQueries.member.1.Id", "e1"), ("MetricDataQueries.member.1.Expression", "m1 / m2"),
    ("MetricDataQueries.member.1.Label", "Error Rate"), ("MetricDataQueries.member.2.Id", "m1"),
    ("MetricDataQueries.member.2.MetricStat.Metric.Namespace", "App"),
    ("MetricDataQueries.member.2.MetricStat.Metric.MetricName", "E"),
    ("MetricDataQueries.member.2.MetricStat.Metric.Dimensions.member.1.Name", "a"),
    ("MetricDataQueries.member.2.MetricStat.Metric.Dimensions.member.1.Value", "b&c"),
    ("MetricDataQueries.member.2.MetricStat.Metric.Dimensions.member.2.Name", "d"),
    ("MetricDataQueries.member.2.MetricStat.Metric.Dimensions.member.2.Value", "e"),
    ("MetricDataQueries.member.2.MetricStat.Period", "60"), ("MetricDataQueries.member.2.MetricStat.Stat", "Sum"),
    ("MetricDataQueries.member.2.ReturnData", "false"),
    ("StartTime", "2026-01-01T11:50:00Z"), ("EndTime", "2026-01-01T12:00:00Z"), ("MaxDatapoints", "20"),
]  # fmt: skip


class Clock:
    """Notes its sleeps, and does not sleep."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return NOW + timedelta(seconds=sum(self.slept))

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def signed(request: Request) -> str:
    """What is wrong with a signature."""
    wanted = sign(
        KEYS, method="POST", url=f"http://{request.headers['host']}/", headers={"Content-Type": FORM}, body=request.body,
        region="eu-west-1", service="monitoring",
        moment=datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
    )  # fmt: skip
    same = request.headers.get("authorization") == wanted["authorization"]
    return "" if same and request.headers.get("x-amz-security-token") == KEYS.session_token else "signature"


@contextlib.asynccontextmanager
async def cloudwatch(
    reply: Any = None, *, timeout: float = 5.0, identity: Any = IDENTITY, region: str = "eu-west-1"
) -> AsyncIterator[tuple[FakeBackend, Provider, Clock]]:
    clock = Clock()
    client = make_client(environment=ProxyEnvironment())
    variables = dict(identity)
    logins = Logins(client, clock, aws=Aws(environment=variables, clock=clock))
    providers = Providers(clock=clock, environment=ProxyEnvironment(), logins=logins)
    rules = Rule("POST", "/", headers={"Content-Type": FORM}, body=signed), Rule("GET", CONTAINER)
    async with FakeBackend(*rules) as server, client, contextlib.aclosing(providers):
        if reply is not None:
            server.replies["/"] = reply
        if not identity:
            variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = server.url + CONTAINER
            found = {"AccessKeyId": KEYS.access_key, "SecretAccessKey": KEYS.secret_key, "Token": KEYS.session_token}
            server.replies[CONTAINER] = Raw(body=json.dumps(found))
        config = providers.config(MetricProvider(type="cloudwatch", region=region), timeout=timeout)
        yield server, CloudWatch(config, server.url), clock


def result(*values: str, status: str = "Complete") -> str:
    times = "".join("<member>2026-01-01T11:59:00Z</member>" for _ in values)
    found = "".join(f"<member>{value}</member>" for value in values)
    return (
        f"<member><Timestamps>{times}</Timestamps><Values>{found}</Values><Label>Error Rate</Label>"
        f"<Id>e1</Id><StatusCode>{status}</StatusCode></member>"
    )


def answer(*results: str) -> Raw:
    return Raw(
        headers={"Content-Type": "text/xml"},
        body='<GetMetricDataResponse xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/">\n  <GetMetricDataResult>'
        f"<Messages/><MetricDataResults>{''.join(results)}</MetricDataResults></GetMetricDataResult>"
        "<ResponseMetadata><RequestId>x</RequestId></ResponseMetadata></GetMetricDataResponse>",
    )


def error(status: int, code: str, text: str = "no") -> Raw:
    return Raw(
        status,
        f'<ErrorResponse xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>{text}</Message></Error></ErrorResponse>",
    )


async def test_what_is_asked() -> None:
    async with cloudwatch(answer(result("1.5"))) as (server, provider, clock):
        assert await provider.query(QUERY, "1m", NOW) == Sample(1.5, 1)
        assert parse_qsl(server.last.body.decode()) == FIELDS
        assert server.problems == []
        assert clock.slept == []


@pytest.mark.parametrize(
    ("region", "place"),
    [
        ("us-east-1", "https://monitoring.us-east-1.amazonaws.com"),
        ("us-gov-west-1", "https://monitoring.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "https://monitoring.cn-north-1.amazonaws.com.cn"),
        ("us-isob-east-1", "https://monitoring.us-isob-east-1.sc2s.sgov.gov"),
    ],
)
def test_where_cloudwatch_is(region: str, place: str) -> None:
    config = Providers(environment=ProxyEnvironment()).config(
        MetricProvider(type="cloudwatch", region=region, address="https://evil.example")
    )
    assert CloudWatch(config)._endpoint == place


@pytest.mark.parametrize("region", ["", "eu-west-1.evil.example/", "eu-west-1@evil", "EU-WEST-1", "eu", "eu-west-1\n"])
def test_regions_that_are_none(region: str) -> None:
    config = Providers(environment=ProxyEnvironment()).config(MetricProvider(type="cloudwatch", region=region))
    with pytest.raises(Invalid, match=r"region not specified|is not a region"):
        CloudWatch(config)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer(result("3", "2", "1")), Sample(3.0, 3)),  # the newest comes first
        (answer(result("3"), result("9")), Sample(3.0, 1)),  # of the first result
        (answer(result("NaN", "2")), Sample(2.0, 1)),
        (answer(result("1.0E-4", status="PartialData")), Sample(0.0001, 1)),
    ],
)
async def test_which_value_counts(reply: Raw, expected: Sample) -> None:
    async with cloudwatch(reply) as (_, provider, _):
        assert await provider.query(QUERY, "1m", NOW) == expected


@pytest.mark.parametrize(
    "reply", [answer(), answer(result()), answer(result("NaN")), answer("<member/>"), answer(result(), result("1"))]
)
async def test_nothing_is_no_value(reply: Raw) -> None:
    async with cloudwatch(reply) as (_, provider, _):
        with pytest.raises(NoValues):
            await provider.query(QUERY, "1m", NOW)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (answer(result(status="Forbidden")), "the status of the first result is Forbidden"),
        (answer(result("much")), "'much' is not a number"),
        (Raw(body="{}"), "no GetMetricData response, '{}'"),
        (Raw(body="<a"), "no GetMetricData response"),
        (Raw(body="<Other/>"), "no GetMetricData response"),
        (
            Raw(body='<!DOCTYPE a [<!ENTITY b "c">]><GetMetricDataResponse>&b;</GetMetricDataResponse>'),
            "no GetMetricData response",
        ),
    ],
)
async def test_answers_that_make_no_sense(reply: Raw, text: str) -> None:
    async with cloudwatch(reply) as (_, provider, _):
        with pytest.raises(ReconcileError, match=text) as caught:
            await provider.query(QUERY, "1m", NOW)
        assert not isinstance(caught.value, NoValues)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[{", '"x"'])
async def test_queries_that_are_none(text: str) -> None:
    async with cloudwatch() as (server, provider, _):
        with pytest.raises(Invalid, match="error unmarshaling query"):
            await provider.query(text, "1m", NOW)
        with pytest.raises(Invalid, match="error parsing metric interval"):
            await provider.query(QUERY, "", NOW)
        assert server.requests == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    reply, text = FAULTS[fault]
    async with cloudwatch(reply, timeout=short(fault)) as (server, provider, _clock):
        with pytest.raises(ReconcileError, match=f"error requesting cloudwatch: ({text}|Post .*deadline exceeded)") as caught:
            await provider.query(QUERY, "1m", NOW)
        assert SECRET not in repr(caught.value)
        assert not isinstance(caught.value, NoValues)
        assert len(server.requests) == (4 if fault in {"broken", "too many"} else 1)
        assert server.problems == []


@pytest.mark.parametrize("busy", [error(400, "Throttling"), error(500, "InternalFailure"), error(503, "ServiceUnavailable")])
async def test_what_is_temporary_is_tried_three_times_more(busy: Raw) -> None:
    async with cloudwatch([busy, busy, busy, answer(result("1"))]) as (server, provider, clock):
        assert await provider.query(QUERY, "1m", NOW) == Sample(1.0, 1)
        assert len(server.requests) == 4
        assert clock.slept == [0.1, 0.2, 0.4]
        assert server.problems == []  # each try has a signature of its own


async def test_what_is_wrong_is_not_tried_again() -> None:
    async with cloudwatch(error(400, "ValidationError", "bad period")) as (server, provider, _clock):
        with pytest.raises(ReconcileError, match=r"error requesting cloudwatch: error response: Status 400 .*bad period"):
            await provider.query(QUERY, "1m", NOW)
        assert len(server.requests) == 1


async def test_an_empty_request_that_is_refused_for_that_means_online() -> None:
    async with cloudwatch(error(400, "MissingParameter")) as (server, provider, _):
        await provider.online()
        assert [name for name, _ in parse_qsl(server.last.body.decode())] == [
            "Action", "Version", "StartTime", "EndTime", "MaxDatapoints",
        ]  # fmt: skip
    async with cloudwatch(answer()) as (_, provider, _):
        await provider.online()


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (error(403, "AccessDenied", "not you"), "unexpected status code: error response: Status 403 .*not you"),
        (error(400, "Throttling"), "unexpected status code: .*Throttling"),
        ("hang-up", "unexpected error: request failed"),
    ],
)
async def test_offline(reply: Any, text: str) -> None:
    async with cloudwatch(reply) as (_, provider, _):
        with pytest.raises(ReconcileError, match=text):
            await provider.online()


async def test_without_an_identity_nothing_is_asked() -> None:
    async with cloudwatch(identity={"AWS_EC2_METADATA_DISABLED": "true"}) as (server, provider, _):
        with pytest.raises(ReconcileError, match="error requesting cloudwatch: aws: no credentials in the environment"):
            await provider.query(QUERY, "1m", NOW)
        with pytest.raises(ReconcileError, match="unexpected error: aws: no credentials"):
            await provider.online()
        assert server.requests == []


async def test_keys_of_a_container_are_kept_for_a_while() -> None:
    async with cloudwatch(answer(result("1")), identity={}) as (server, provider, clock):
        for _ in range(3):
            assert await provider.query(QUERY, "1m", NOW) == Sample(1.0, 1)
        assert [request.path for request in server.requests] == [CONTAINER, "/", "/", "/"]
        await clock.sleep(239)
        await provider.query(QUERY, "1m", NOW)
        assert len(server.requests) == 5
        await clock.sleep(1)
        await provider.query(QUERY, "1m", NOW)
        assert [request.path for request in server.requests[5:]] == [CONTAINER, "/"]
        assert server.problems == []
