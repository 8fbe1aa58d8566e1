"""Command lines of hey, wrk and curl as loads, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.loadtester.commandline import translate
from canary.loadtester.load import MAX_CONCURRENCY, MAX_RATE, MAX_REQUESTS, Budget, Load, http_load
from canary.loadtester.payload import Refused

URL = "http://my-app.company.com/"
HEY = {"concurrency": 50, "requests": 200, "rate": 0.0, "seconds": 0.0, "timeout": 20.0, "method": "GET", "check_tls": False}
WRK = {"concurrency": 10, "requests": 0, "rate": 0.0, "seconds": 10.0, "timeout": 2.0, "method": "GET", "check_tls": False}
CURL = {"concurrency": 1, "requests": 1, "rate": 0.0, "seconds": 0.0, "timeout": 0.0, "method": "GET", "check_tls": True}


def shown(load: Load) -> dict[str, Any]:
    return {name: getattr(load, name) for name in (*HEY, "url")}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "hey -z 1m -q 10 -c 2 http://my-app.company.com/",
            HEY | {"seconds": 60.0, "rate": 20.0, "concurrency": 2, "requests": 0},
        ),
        ("hey http://my-app.company.com/", HEY),
        ("/usr/local/bin/hey http://my-app.company.com/", HEY),
        ("hey -n 100 -c 5 http://my-app.company.com/", HEY | {"requests": 100, "concurrency": 5}),
        ("hey -n 3 http://my-app.company.com/", HEY | {"requests": 3, "concurrency": 3}),
        ("hey -n=100 --c=5 http://my-app.company.com/", HEY | {"requests": 100, "concurrency": 5}),
        ("hey -z 1m30s -n 5 http://my-app.company.com/", HEY | {"seconds": 90.0, "requests": 0}),
        ("hey -q 0.5 -c 4 http://my-app.company.com/", HEY | {"rate": 2.0, "concurrency": 4}),
        ("hey -m POST -t 0 http://my-app.company.com/", HEY | {"method": "POST", "timeout": 0.0}),
        ("hey -m put -t 3 -h2 -cpus 2 http://my-app.company.com/", HEY | {"method": "PUT", "timeout": 3.0}),
        ("hey -disable-redirects -disable-compression=true -- http://my-app.company.com/", HEY),
        ("hey -n 5 -c 1 'http://my-app.company.com/' -n 7", HEY | {"requests": 5, "concurrency": 1}),
        ("  hey -n 5 \\\n    -c 1 \\\n    http://my-app.company.com/\n", HEY | {"requests": 5, "concurrency": 1}),
        ("wrk http://my-app.company.com/", WRK),
        ("wrk -t2 -c100 -d30s http://my-app.company.com/", WRK | {"concurrency": 100, "seconds": 30.0}),
        ("wrk -t 2 -c 20 -d 2m --latency http://my-app.company.com/", WRK | {"concurrency": 20, "seconds": 120.0}),
        (
            "wrk http://my-app.company.com/ --connections=3 --duration 1h -T5s",
            WRK | {"concurrency": 3, "seconds": 3600.0, "timeout": 5.0},
        ),
        ("wrk -d 45 -R 300 -L http://my-app.company.com/", WRK | {"seconds": 45.0, "rate": 300.0}),
        ("curl http://my-app.company.com/", CURL),
        ("curl -sfk -m 5 http://my-app.company.com/", CURL | {"timeout": 5.0, "check_tls": False}),
        ("curl -s -o /dev/null -XDELETE http://my-app.company.com/", CURL | {"method": "DELETE"}),
        ("curl -I http://my-app.company.com/", CURL | {"method": "HEAD"}),
        ("curl -d a=b http://my-app.company.com/", CURL | {"method": "POST"}),
        ("curl --silent --fail --max-time 2.5 http://my-app.company.com/", CURL | {"timeout": 2.5}),
    ],
)
def test_what_people_write_is_understood(command: str, expected: dict[str, Any]) -> None:
    assert shown(translate(command)) == {**expected, "url": URL}


@pytest.mark.parametrize(
    ("command", "headers", "body"),
    [
        ("hey URL", [("Content-Type", "text/html")], b""),
        (
            "hey -H 'Cookie: canary=always' -H \"X-A: 1; 2\" -d '{\"a\": 1}' -T application/json -A text/plain -host x.test URL",
            [
                ("Cookie", "canary=always"),
                ("X-A", "1; 2"),
                ("Content-Type", "application/json"),
                ("Accept", "text/plain"),
                ("Host", "x.test"),
            ],
            b'{"a": 1}',
        ),
        ("hey -H content-type:text/xml -U bot URL", [("content-type", "text/xml"), ("User-Agent", "bot")], b""),
        ("hey -a user:word URL", [("Content-Type", "text/html"), ("Authorization", "Basic dXNlcjp3b3Jk")], b""),
        ("hey -disable-compression URL", [("Content-Type", "text/html"), ("Accept-Encoding", "identity")], b""),
        ("wrk -H 'Host: x.test' --header 'A: b' URL", [("Host", "x.test"), ("A", "b"), ("Accept-Encoding", "identity")], b""),
        (
            "curl -d a=1 --data-raw @b -b x=y -e http://from/ -A me -u u:p URL",
            [
                ("User-Agent", "me"),
                ("Referer", "http://from/"),
                ("Accept-Encoding", "identity"),
                ("Cookie", "x=y"),
                ("Authorization", "Basic dTpw"),
                ("Content-Type", "application/x-www-form-urlencoded"),
            ],
            b"a=1&@b",
        ),
    ],
)
def test_headers_and_bodies(command: str, headers: list[tuple[str, str]], body: bytes) -> None:
    load = translate(command.replace("URL", URL))
    assert (list(load.headers), load.body) == (headers, body)


def test_connections_bodies_and_verdicts_are_those_of_the_program() -> None:
    assert translate(f"hey -disable-keepalive {URL}").keep_alive is False
    assert translate(f"hey {URL}").budget == Budget(share=1.0)
    assert translate(f"wrk {URL}").budget == Budget(share=1.0)
    curl, fails = translate(f"curl {URL}"), translate(f"curl -f {URL}")
    assert (curl.budget, curl.expect, curl.shows_body) == (Budget(), "...", True)
    assert (fails.budget, fails.expect) == (Budget(), "[123]..")
    assert translate(f"curl -o /dev/null {URL}").shows_body is False
    assert translate("curl my-app:8080/x").url == "http://my-app:8080/x"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("ls -l", "'ls' is none of the load generators"),
        ("ghz -z 1m --insecure my-app:9898", "'ghz' is none of"),
        ("sh -c 'hey http://a/'", "'sh' is none of"),
        ("hey http://a/ | grep 200", "a pipe"),
        ("hey http://a/ && hey http://b/", "another command behind it"),
        ("hey http://a/?x=1&y=2", "another command behind it"),
        ("hey http://a/; reboot", "another command behind it"),
        ("hey http://a/\nreboot", "another command behind it"),
        ("hey http://a/ > /tmp/x", "redirected output"),
        ("hey -d @x http://a/ < /etc/passwd", "redirected input"),
        ("hey $URL", "a variable"),
        ('hey "http://$(hostname)/"', "a variable"),
        ("hey `hostname`", "the output of another command"),
        ("(hey http://a/)", "a sub-shell"),
        ("hey 'http://a/", "no closing quotation"),
        ("hey -D /etc/passwd http://a/", "hey: the built-in load generator does not know -D"),
        ("hey -x proxy:80 http://a/", "does not know -x"),
        ("hey -o csv http://a/", "does not know -o"),
        ("hey -z", "hey: -z needs a value"),
        ("hey -z 1m", "hey: there is no URL"),
        ("hey -c 0 http://a/", "hey -c: '0' is not a whole number from 1"),
        ("hey -c -1 http://a/", "hey -c"),
        ("hey -q x http://a/", "hey -q: 'x' is not a number"),
        ("hey -z 1x http://a/", "hey -z"),
        ("hey -z -1m http://a/", "hey -z: -1m0s is not above 0"),
        ("hey -H nothing http://a/", "is not a header"),
        ("hey -a nobody http://a/", "give user:password"),
        ("wrk -s x.lua http://a/", "does not know -s"),
        ("wrk -d 10x http://a/", "is not a time such as"),
        ("wrk http://a/ http://b/", "one URL at a time"),
        ("curl -o /tmp/x http://a/", "no file to write to"),
        ("curl -d @/etc/passwd http://a/", "no file to send"),
        ("curl -b /etc/passwd http://a/", "no file to read cookies from"),
        ("curl -L http://a/", "does not know -L"),
        ("curl -K /etc/x http://a/", "does not know -K"),
        ("curl --proxy=x http://a/", "does not know --proxy"),
        ("curl file:///etc/passwd http://a/", "one URL at a time"),
    ],
)
def test_what_only_a_shell_could_do_is_refused_with_the_way_out(command: str, text: str) -> None:
    with pytest.raises(Refused) as caught:
        translate(command)
    assert text in str(caught.value)
    assert "--enable-shell" in str(caught.value)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "command",
    [
        "hey 'http://a/?x=1&y=2'",
        'hey "http://a/?x=1&y=2"',
        r"hey http://a/?x=1\&y=2",
        "hey -d 'a | b > c; $HOME `x` (y)\nz' http://a/",
        'hey -d "a | b > c; (y)" http://a/',
        "hey http://a/#part",
    ],
)
def test_what_quotes_protect_is_no_matter_of_a_shell(command: str) -> None:
    assert translate(command).url.startswith("http://a/")


@given(st.text(max_size=80))
def test_no_command_does_anything_but_load_or_be_refused(text: str) -> None:
    try:
        load = translate(f"hey {text}")
    except Refused:
        return
    assert load.concurrency >= 1


# --- type http


def test_the_metadata_of_a_load_of_our_own() -> None:
    load = http_load(
        {
            "type": "http",
            "url": URL,
            "rate": "12.5",
            "concurrency": "4",
            "duration": "30s",
            "method": "post",
            "header.X-Test": "a",
            "body": "text",
            "timeout": "2s",
            "expect": "20[01]",
            "errorBudget": "1.5%",
        }
    )
    assert (load.url, load.rate, load.concurrency, load.seconds, load.method) == (URL, 12.5, 4, 30.0, "POST")
    assert (load.headers, load.body, load.timeout, load.expect) == ((("X-Test", "a"),), b"text", 2.0, "20[01]")
    assert load.budget == Budget(share=0.015)
    plain = http_load({"url": URL})
    assert (plain.rate, plain.concurrency, plain.seconds, plain.requests, plain.budget) == (10.0, 1, 60.0, 0, Budget())
    assert (http_load({"url": URL, "requests": "7"}).requests, http_load({"url": URL, "requests": "7"}).seconds) == (7, 0.0)
    assert http_load({"url": URL, "errorBudget": "3"}).budget == Budget(count=3)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"url": ""},
        *(
            {"url": URL, key: value}
            for key, value in [
                ("rate", "fast"),
                ("rate", "-1"),
                ("rate", "nan"),
                ("rate", "1e9"),
                ("concurrency", "0"),
                ("concurrency", "²"),
                ("duration", "0s"),
                ("duration", "1"),
                ("requests", "-1"),
                ("timeout", "x"),
                ("errorBudget", "x%"),
                ("errorBudget", "many"),
            ]
        ),
    ],
)
def test_wrong_values_are_named(metadata: dict[str, str]) -> None:
    with pytest.raises(Refused) as caught:
        http_load(metadata)
    assert list(metadata)[-1:] == [] or list(metadata)[-1] in str(caught.value)


@pytest.mark.parametrize(
    ("load", "text"),
    [
        (Load(URL, concurrency=MAX_CONCURRENCY + 1), "at a time are above the limit of 200"),
        (Load(URL, rate=MAX_RATE + 1), "a second in total are above the limit of 5000"),
        (Load(URL, requests=MAX_REQUESTS + 1), "above the limit"),
        (Load("ftp://a/"), "is not a URL"),
        (Load("http://"), "is not a URL"),
        (Load("http://a:0/"), "is not a URL"),
        (Load("http://a:99999/"), "is not a URL"),
        (Load("my-app"), "is not a URL"),
        (Load("http://user:word@"), "is not a URL"),
        (Load(URL, method="GET /"), "is not an HTTP method"),
        (Load(URL, method=""), "is not an HTTP method"),
        (Load(URL, headers=(("A", "b\r\nC: d"),)), "cannot be sent"),
        (Load(URL, headers=(("A b", "c"),)), "cannot be sent"),
        (Load(URL, headers=(("Content-Length", "1"),)), "not yours to set"),
        (Load(URL, headers=(("transfer-encoding", "chunked"),)), "not yours to set"),
        (Load(URL, headers=tuple((f"A{n}", "") for n in range(65))), "more than 64 headers"),
        (Load(URL, headers=(("A", "x" * 20_000),)), "more than 64 headers"),
        (Load(URL, expect="("), "expect: "),
    ],
)
def test_limits_of_a_load(load: Load, text: str) -> None:
    with pytest.raises(Refused) as caught:
        load.within(3600)
    assert text in str(caught.value)
    assert "word" not in str(caught.value)


def test_a_load_ends_with_its_task() -> None:
    assert Load(URL, seconds=7200.0).within(3600).seconds == 3600
    assert Load(URL, seconds=60.0, timeout=0).within(3600).timeout == 3600
    assert Load(URL, requests=5).within(3600).seconds == 3600


@pytest.mark.parametrize(
    ("budget", "errors", "requests", "allowed"),
    [
        (Budget(), 0, 10, True),
        (Budget(), 1, 10, False),
        (Budget(count=2), 2, 10, True),
        (Budget(count=2), 3, 1000, False),
        (Budget(share=0.01), 1, 100, True),
        (Budget(share=0.01), 1, 99, False),
        (Budget(share=1.0), 100, 100, True),
    ],
)
def test_budgets(budget: Budget, errors: int, requests: int, allowed: bool) -> None:
    assert budget.allows(errors, requests) is allowed
