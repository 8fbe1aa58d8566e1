"""InfluxDB: which record counts, what is asked, and what is said when it fails."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from canary.metrics.base import NoValues, Sample
from reconcile.errors import Invalid, ReconcileError
from tests.support.metric_backends import FAULTS, SECRET, FakeBackend, Raw, Request, Rule, provider_of, short

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEYS = {"token": f"{SECRET}\n", "org": "acme & co"}
PATH = "/api/v2/query"
QUERY = 'from(bucket: "default")\n  |> range(start: -2h)\n  |> filter(fn: (r) => r._field == "x")'


def body(request: Request) -> str:
    found = json.loads(request.body)
    if set(found) != {"query", "type", "dialect"} or found["type"] != "flux":
        return f"body {sorted(found)}"
    return "" if "datatype" in found["dialect"]["annotations"] else "no annotations"


def backend(auth: Any = None, params: Any = None) -> FakeBackend:
    return FakeBackend(
        Rule(
            "POST",
            PATH,
            {"org": "acme & co"} if params is None else params,
            auth={"Authorization": f"Token {SECRET}"} if auth is None else auth,
            headers={"Content-Type": "application/json", "Accept": "application/csv"},
            body=body,
        )
    )


def table(*rows: str, type_: str = "double", default: str = "") -> str:
    head = [
        f"#datatype,string,long,dateTime:RFC3339,{type_},string",
        f"#default,_result,,,{default},",
        ",result,table,_time,_value,_field",
    ]
    return "".join(f"{line}\r\n" for line in (*head, *rows)) + "\r\n"


def row(value: str, at: int = 0) -> str:
    return f",,{at},2026-01-01T00:00:00Z,{value},x"


def answer(*tables: str) -> Raw:
    return Raw(body="".join(tables), headers={"Content-Type": "text/csv; charset=utf-8"})


async def ask(reply: Any, *, timeout: float = 5.0) -> Sample:
    async with backend() as server, provider_of("influxdb", server.url, KEYS, timeout=timeout) as provider:
        server.replies[PATH] = reply
        try:
            return await provider.query(QUERY, "", NOW)
        finally:
            assert not server.problems
            assert len(server.requests) == 1


async def test_what_is_asked() -> None:
    async with backend() as server, provider_of("influxdb", f"{server.url}/", KEYS) as provider:
        server.replies[PATH] = answer(table(row("1.5")))
        assert await provider.query(QUERY, "", NOW) == Sample(1.5, 1)
        assert json.loads(server.last.body)["query"] == QUERY
        await provider.online()
        assert json.loads(server.last.body)["query"] == "buckets() |> limit(n: 1)"
        assert server.problems == []


async def test_without_a_secret_there_is_neither_token_nor_organisation() -> None:
    async with backend({}, {}) as server, provider_of("influxdb", server.url, None) as provider:
        server.replies[PATH] = answer(table(row("2")))
        assert await provider.query(QUERY, "", NOW) == Sample(2.0, 1)
        assert "authorization" not in server.last.headers
        assert server.problems == []


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer(table(row("1.5"), row("2.5"))), Sample(1.5, 1)),  # the first record
        (answer(table(row("1.5")), table(row("2.5", 1))), Sample(1.5, 1)),  # of the first table
        (answer(table(row(""), default="7")), Sample(7.0, 1)),
        (answer(table(row("-1e-3"))), Sample(-0.001, 1)),
        (answer(table(row("+Inf"))), Sample(float("inf"), 1)),
        (answer(table(',,0,2026-01-01T00:00:00Z,3,"a ""quoted""\nname"')), Sample(3.0, 1)),
        (answer(table()), Sample(0.0, 0)),  # no rows are the value 0
        (answer(), Sample(0.0, 0)),
        (answer("\r\n"), Sample(0.0, 0)),
        (answer(table(), table(row("4", 1))), Sample(4.0, 1)),
    ],
)
async def test_which_value_counts(reply: Raw, expected: Sample) -> None:
    assert await ask(reply) == expected


@pytest.mark.parametrize("reply", [answer(table(row(""))), answer(table(row("NaN"), row("1.0")))])
async def test_null_and_nan_are_no_value(reply: Raw) -> None:
    with pytest.raises(NoValues):
        await ask(reply)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (answer(table(row("5"), type_="long")), r"the value is a long, not a double: use toFloat\(\)"),
        (answer(table(row("x"), type_="string")), "the value is a string, not a double"),
        (answer(table(row("x"))), "'x' is not a number"),
        (answer(",result,table,_value\r\n,,0,1\r\n"), "value of unknown type"),
        (answer("hello\r\n"), "not annotated CSV"),
        (answer('{"code":"x"}'), "not annotated CSV"),
        (answer("#datatype,string,double\r\n,result,usage\r\n,,1.0\r\n"), "has no column _value"),
        (answer(table(",,0")), "has no column _value"),
        (
            answer('#datatype,string,long\r\n,error,reference\r\n,no bucket "b",897\r\n'),
            "invalid response|query error: no bucket",
        ),
        (answer("error,reference\r\nno such thing,1\r\n"), "query error: no such thing 1"),
        (answer(table('"open')), "invalid response"),
        (Raw(body=b"\xff\xfe"), "not UTF-8"),
    ],
)
async def test_answers_that_cannot_be_used(reply: Raw, text: str) -> None:
    with pytest.raises(ReconcileError, match=f"error accessing influxdb query api: .*({text})") as caught:
        await ask(reply)
    assert not isinstance(caught.value, NoValues)


@pytest.mark.parametrize("fault", FAULTS)
async def test_faults(fault: str) -> None:
    reply, text = FAULTS[fault]
    with pytest.raises(ReconcileError, match=f"error accessing influxdb query api: {text}") as caught:
        await ask(reply, timeout=short(fault))
    assert SECRET not in repr(caught.value)
    assert not isinstance(caught.value, NoValues)


async def test_offline() -> None:
    async with backend() as server, provider_of("influxdb", server.url, {**KEYS, "token": "no"}) as provider:
        with pytest.raises(ReconcileError, match="influxdb query api: error response: Status 401 Unauthorized"):
            await provider.online()
        assert server.problems == ["missing or wrong Authorization"]
    async with backend() as server, provider_of("influxdb", server.url, KEYS) as provider:
        server.replies[PATH] = answer("error,reference\r\nunauthorized access,1\r\n")
        with pytest.raises(ReconcileError, match="query error: unauthorized access"):
            await provider.online()


@pytest.mark.parametrize(
    ("address", "secret", "text"),
    [
        ("", None, "influxdb address  is not a valid URL"),
        ("http://h", {"org": "x"}, "influxdb credentials does not contain an authentication token"),
        ("http://h", {"token": "x"}, "influxdb credentials does not contain an organisation"),
    ],
)
async def test_what_cannot_be_used(address: str, secret: Any, text: str) -> None:
    with pytest.raises(Invalid, match=text):
        async with provider_of("influxdb", address, secret):
            pass
