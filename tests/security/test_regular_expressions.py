"""Threat: a pattern or a text that makes a regular expression run for ever (ReDoS).

With an engine that backtracks, each of these would outlast the test's own time limit by years.
"""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import re
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from tests.support.lab import automation, image_policy, image_repository
from tests.support.neighbours import Street, street
from tests.support.registry import BareServer, Exchange, Handler

EVIL = ["(a+)+$", "(a|aa)+$", "(a|a?)+$", "(.*a){25}$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(?:a*)*b", "((a{0,100}){0,10})$"]
LONG = "a" * 120
"""As a tag may be, at most 128 characters."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made


@pytest.mark.parametrize("pattern", EVIL)
async def test_patterns_that_explode_are_matched_in_linear_time(world: Street, pattern: str) -> None:
    """filterTags, exclusionList and templates, on tags that are as bad as tags can be."""
    for number in range(20):
        world.registry.push_image("web", f"{LONG[:-3]}{number}!"[:128].replace("!", "_"))
    world.files({})
    template = f'{{{{ regexMatch "{pattern}" "{LONG}!" }}}} {{{{ regexReplaceAll "{pattern}" "{LONG}!" "x" }}}}'
    world.declare(
        image_repository("web", world.image("web"), exclusionList=[pattern]),
        image_policy("filtered", repository="web", policy={"alphabetical": {}}, filterTags={"pattern": pattern, "extract": "$0"}),
        automation("web", "web", commit={"messageTemplate": template}),
    )
    done = await world.once()
    assert done.ready("ImageRepository", "web")[0] == "True"
    assert done.ready("ImagePolicy", "filtered")[0] in {"True", "False"}
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True"


@pytest.mark.parametrize(
    "pattern", ["(a{1000}){1000}", "((((a{30}){30}){30}){30})", "(" * 2000 + "a" + ")" * 2000, "(?P<n>a)" * 40_000]
)
async def test_patterns_that_are_too_large_are_refused_with_words(world: Street, pattern: str) -> None:
    world.files({})
    world.declare(image_policy("web", filterTags={"pattern": pattern}))
    done = await world.once()
    if ("ImagePolicy", "apps/web") in done.objects:
        status, _, message = done.ready("ImagePolicy", "web")
        assert (status, len(message) < 20_000) == ("False", True)
    else:
        assert done.problems[0].message


RANGES = [
    ">=" + "1" * 5000,
    "1.0.0 " + "|| " * 20_000,
    ">" * 50_000,
    " " * 50_000 + "!",
    "1.0.0-" + "a." * 20_000,
    "~" * 9 + "v" * 50_000,
    # As long as a range may be:
    ">" * 512,
    " " * 511 + "!",
    "1.0.0-" + "a." * 250,
    "1.x " * 128,
    "1||" * 170,
]


async def test_ranges_of_versions_that_are_long(world: Street) -> None:
    world.files({})
    for number, text in enumerate(RANGES):
        world.declare(image_policy(f"r{number}", repository="web", semver=text))
    done = await world.once()
    for number in range(len(RANGES)):
        status, _, message = done.ready("ImagePolicy", f"r{number}")
        assert status == "False" or len(RANGES[number]) <= 512
        assert len(message) < 20_000


HEADERS = [
    ("WWW_Authenticate", 'Bearer realm="x"' + " " * 90_000 + "!"),
    ("WWW_Authenticate", "Basic " + "\t" * 60_000 + "="),
    ("WWW_Authenticate", "Bearer " + 'a="' * 20_000),
    ("Link", "<" * 60_000),
    ("Link", '</v2/x>; a="' + '",' * 30_000),
    ("Link", "</v2/x>" + " ;" * 30_000 + "!"),
    ("Retry_After", "9" * 60_000),
    ("Content_Type", "application/" + " ;" * 30_000),
]


def _showing(name: str, value: str) -> Handler:
    status = {"WWW_Authenticate": "401 Unauthorized", "Retry_After": "429 Too Many Requests"}.get(name, "200 OK")

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(status, orjson.dumps({"tags": ["1.0.0"]}), **{name: value})

    return handler


async def test_headers_of_a_registry_that_are_long(world: Street) -> None:
    """They come before any login, from whoever answers at the address."""
    async with AsyncExitStack() as stack:
        for number, (name, value) in enumerate(HEADERS):
            server = await stack.enter_async_context(BareServer(_showing(name, value)))
            world.declare(image_repository(f"bad{number}", f"{server.host}/acme/app"))
        done = await world.once()
    for number in range(len(HEADERS)):
        status, _, message = done.ready("ImageRepository", f"bad{number}")
        assert status in {"True", "False"}
        assert len(message) < 20_000


# --- the service's own patterns

RUN = 60_000
CPU_SECONDS = 18
"""Of processor time, which a busy machine does not shorten; time that grows with the square takes many times as much."""


def _own() -> Iterator[re.Pattern[str]]:
    for package in ("reconcile", "imagebot"):
        top = importlib.import_module(package)
        for info in pkgutil.walk_packages(top.__path__, f"{package}."):
            if not info.name.endswith("__main__"):
                yield from (v for v in vars(importlib.import_module(info.name)).values() if isinstance(v, re.Pattern))


def _match_all() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    patterns = dict.fromkeys(_own())
    runs = [start + piece * (RUN // len(piece)) + end for piece in (" ", "a", "0", "-", "a.", '"', "\\", "a=", ":a", "/")
            for start in ("", 'a="x"', "<") for end in ("!", "\n")]  # fmt: skip
    for pattern in patterns:
        for run in runs:
            pattern.match(run if isinstance(pattern.pattern, str) else run.encode())  # type: ignore[arg-type]
    raise SystemExit(0 if len(patterns) > 80 else 3)


@pytest.mark.slow
def test_no_pattern_of_our_own_takes_the_square_of_its_text() -> None:
    process = multiprocessing.get_context("spawn").Process(target=_match_all)
    process.start()
    process.join()
    assert process.exitcode == 0
