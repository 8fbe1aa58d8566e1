"""Threat: names and texts from outside steer the terminal of whoever looks, or pass for lines of the program's own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.commands import program
from tests.support.gitrepo import Files
from tests.support.lab import automation, image_repository, marked
from tests.support.neighbours import Street, street
from tests.support.registry import BareServer, Exchange

CLEAR, TITLE, EIGHT_BIT = "\x1b[2J\x1b[H", "\x1b]0;pwned\x07", "\x9b31m"
EVIL = f"a{CLEAR}{TITLE}{EIGHT_BIT}\r✔ all is well\nimagebot: forged"
NOT_UTF8 = b"\xff\xfe\x9b.yaml".decode("utf-8", "surrogateescape")
TEMPLATE = "Update\n\n{{ range $f, $_ := .Changed.FileChanges }}{{ $f }}\n{{ end }}"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made


def hostile(world: Street) -> Files:
    """Files to be updated and files that cannot be used, with names that do harm where they are printed."""
    good, bad = marked(world.image("web"), "web", "0.9.0").encode(), b'x: 1 # {"$imagepolicy": "apps:wbe"}\n'
    return {f"{EVIL}.yaml": good, f"bad/{EVIL}.yaml": bad, NOT_UTF8: bad, f"good{NOT_UTF8}": good}


async def on_a_terminal(*arguments: str) -> bytes:
    """What the program writes when stdout and stderr are a terminal."""
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reconcile", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
        )  # fmt: skip
        os.close(theirs)
        read = asyncio.create_task(asyncio.to_thread(_until_closed, ours))
        async with asyncio.timeout(60):
            await process.wait()
            return await read
    finally:
        os.close(ours)


def _until_closed(descriptor: int) -> bytes:
    found = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # as Linux says that the other side is gone
            return found
        if not piece:
            return found
        found += piece


def check(shown: bytes) -> None:
    """Colours are the program's own; nothing of what is hostile may be there as it was."""
    text = shown.decode("utf-8", "replace")
    for harm in (CLEAR, "\x1b[2J", TITLE, "\x1b]", "\x07", "\x9b", "\r✔"):
        assert harm not in text
    assert not any(line.startswith(("imagebot: forged", "✔ all is well")) for line in text.splitlines())


async def test_names_of_files_reach_no_terminal_as_they_are(world: Street) -> None:
    """plan, once with its logs, get, explain and events."""
    world.files({}).commit(hostile(world))
    world.declare(automation("web", "web", commit={"messageTemplate": TEMPLATE}))
    folder, state = ["--dir", str(world.folder)], ["--state", str(world.state)]
    check(await on_a_terminal("plan", str(world.folder), *state))
    pushed = await on_a_terminal("once", str(world.folder), *state, "--log-level", "debug", "--log-encoding", "console")
    check(pushed)
    assert b"all is well" in pushed
    check(await on_a_terminal("events", *folder, *state))
    explained = await on_a_terminal("explain", str(world.folder), "web", *state)
    check(explained)
    assert b"all is well" in explained


async def test_names_that_are_no_text_are_in_the_status(world: Street) -> None:
    """Git keeps any bytes; a status that holds them could not be written, and would say for ever what was true before."""
    bare = world.files({})
    bare.commit(hostile(world))
    done = await world.once()
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True"
    assert bare.file(f"good{NOT_UTF8}").count(b"web:1.0.0") == 1
    skipped = done.objects["ImageUpdateAutomation", "apps/web"].status.skipped
    assert sorted(each.path for each in skipped) == sorted([f"bad/{EVIL}.yaml", "\ufffd\ufffd\ufffd.yaml"])


async def test_data_for_machines_has_no_control_characters(world: Street) -> None:
    world.files({}).commit(hostile(world))
    _, out, _ = await program("plan", str(world.folder), "--state", str(world.state), "-o", "json")
    assert any(
        EVIL in file["path"] for each in json.loads(out)["automations"] for file in each.get("commit", {}).get("files", [])
    )
    for form in ("json", "yaml"):
        _, out, _ = await program("once", str(world.folder), "--state", str(world.state), "-o", form)
        assert "forged" in out
        assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 for c in out)


async def test_what_a_registry_says_reaches_no_terminal_as_it_is(world: Street) -> None:
    async def handler(exchange: Exchange) -> None:
        body = json.dumps({"errors": [{"code": "DENIED", "message": EVIL, "detail": EVIL}]}).encode()
        await exchange.answer("403 Forbidden", body, Content_Type="application/json")

    async with BareServer(handler) as server:
        world.declare(image_repository("bad", f"{server.host}/acme/app"))
        state = ["--state", str(world.state)]
        shown = await on_a_terminal("once", str(world.folder), *state, "--log-level", "debug", "--log-encoding", "console")
        assert b"DENIED" in shown
        check(shown)
        for command in (["get"],):
            check(await on_a_terminal(*command, "--dir", str(world.folder), *state))
