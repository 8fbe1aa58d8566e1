"""Log lines: the keys that Flux's controllers write, on stderr, without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from reconcile.errors import Failed
from reconcile.runtime.logs import MAX_TEXT, bound, configure, get_logger
from tests.support.bench import bench


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_has_the_keys_of_the_upstream_controllers(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    with bound(controller="imagerepository", namespace="default", name="a", reconcileID="1"):
        get_logger("controller").info("found 3 tags", count=3)
    (line,) = lines(capsys)
    assert datetime.fromisoformat(line.pop("ts")).tzinfo is not None
    assert line == {
        "level": "info",
        "logger": "controller",
        "msg": "found 3 tags",
        "controller": "imagerepository",
        "namespace": "default",
        "name": "a",
        "reconcileID": "1",
        "count": 3,
    }


async def test_a_failed_pass_logs_its_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    async with bench(tmp_path) as world:
        await world.declare()
        world.reconciler.outcome = Failed("Broken", "it broke")
        await world.step()
    (line,) = lines(capsys)
    assert {k: line[k] for k in ("level", "msg", "controller", "name", "namespace", "reason", "error")} == {
        "level": "error",
        "msg": "reconciliation failed",
        "controller": "imagerepository",
        "name": "a",
        "namespace": "default",
        "reason": "Broken",
        "error": "it broke",
    }
    assert len(line["reconcileID"]) == 36


async def test_an_unchanged_pass_logs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with bench(tmp_path) as world:
        await world.declare()
        await world.step()
        capsys.readouterr()
        configure("info", "json")
        await world.step()
    assert lines(capsys) == []


@pytest.mark.parametrize(("level", "seen"), [("trace", 3), ("debug", 3), ("info", 2), ("error", 1), ("none", 0)])
def test_levels(capsys: pytest.CaptureFixture[str], level: str, seen: int) -> None:
    configure(level, "json")
    log = get_logger("x")
    log.debug("a")
    log.info("b")
    log.error("c")
    assert len(lines(capsys)) == seen


SECRET = "hunter2"


class Odd:
    def __repr__(self) -> str:
        return "Odd(https://u:hunter2@host)"


@pytest.mark.parametrize(
    "value",
    [
        "https://u:hunter2@host",
        "Authorization: Bearer hunter2hunter2",
        {"url": "https://u:hunter2@host", "deep": [{"header": "Bearer hunter2hunter2"}]},
        ["https://u:hunter2@host"],
        ValueError("https://u:hunter2@host"),
        b"https://u:hunter2@host",
        Odd(),
    ],
)
@pytest.mark.parametrize("encoding", ["json", "console"])
def test_secrets_are_masked_wherever_they_stand(capsys: pytest.CaptureFixture[str], value: Any, encoding: Any) -> None:
    configure("info", encoding)
    get_logger("x").info("sent https://u:hunter2@host", value=value)
    text = capsys.readouterr().err
    assert "host" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("encoding", ["json", "console"])
def test_a_traceback_shows_neither_secrets_nor_local_variables(capsys: pytest.CaptureFixture[str], encoding: Any) -> None:
    configure("info", encoding)

    def fails(password: str) -> None:
        raise ValueError("cannot reach https://u:hunter2@host with it")

    try:
        fails("-".join(("local", SECRET)))
    except ValueError:
        get_logger("x").exception("unexpected")
    text = capsys.readouterr().err
    assert "cannot reach https://host with it" in text
    assert "hunter2" not in text
    assert "test_log_lines.py" in text


def test_a_line_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    get_logger("x").info("a", long="y" * 1_000_000, deep=deep)
    (line,) = lines(capsys)
    assert len(line["long"]) == MAX_TEXT + 3


def test_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("slow: %s", "https://u:hunter2@host")
    logging.getLogger("library").error("broken")
    assert [(line["level"], line["logger"], line["msg"]) for line in lines(capsys)] == [
        ("warning", "library", "slow: https://host"),
        ("error", "library", "broken"),
    ]
