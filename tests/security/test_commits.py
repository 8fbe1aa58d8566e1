"""Threat: a template that reads what it should not, or a name that forges a part of a commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.lab import automation
from tests.support.neighbours import Street, street

UPDATE = "ImageUpdateAutomation"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made


CALLS = ['env "HOME"', 'expandenv "$HOME"', 'readFile "/etc/passwd"', '.Files.Get "x"', 'getHostByName "localhost"', "now",
         'include "x"', 'tpl "x"', 'lookup "v1"', 'exec "id"', 'genPrivateKey "rsa"', ".Values.__class__",
         ".Changed.__init__.__globals__", "$.Secrets"]  # fmt: skip
BOMBS = ['{{ repeat 1000000000 "x" }}', '{{ printf "%1000000000d" 1 }}', '{{ "x" | indent 999999999 }}',
         "{{ $x := list }}{{ range until 9999 }}{{ $x = concat $x $x (list 1) }}{{ end }}",
         '{{ regexReplaceAll "" (repeat 100000 "x") (repeat 100000 "y") }}']  # fmt: skip


async def _results(world: Street, templates: list[str]) -> list[tuple[str, str, str]]:
    """Ready of an automation for each template, all in one pass."""
    world.withdraw(automation("web", "web"))
    for number, template in enumerate(templates):
        world.declare(automation(f"t{number}", "web", commit={"messageTemplate": template}, push={"branch": f"b{number}"}))
    done = await world.once()
    return [done.ready(UPDATE, f"t{number}") for number in range(len(templates))]


async def test_templates_reach_nothing_but_their_data(world: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of-somebody")
    bare = world.files({})
    for number, (status, reason, message) in enumerate(await _results(world, [f"x{{{{ {call} }}}}" for call in CALLS])):
        if status == "True":  # a field of a map that is not there is nothing
            assert bare.git("log", "-1", "--format=%B", f"b{number}").strip() == "x<no value>"
        else:
            assert (reason, bare.head(f"b{number}")) == ("GitOperationFailed", None)
            assert "of-somebody" not in message
            assert "root:" not in message


async def test_templates_end_and_are_bounded(world: Street) -> None:
    bare = world.files({})
    for number, (status, reason, message) in enumerate(await _results(world, BOMBS)):
        if status == "True":  # a width that Go does not believe in either
            assert len(bare.raw("cat-file", "commit", f"b{number}")) < 5000
        else:
            assert (reason, bare.head(f"b{number}")) == ("GitOperationFailed", None)
            assert len(message) < 5000


EVIL = "Boss <boss@example.com> 0 +0000\nparent " + "1" * 40 + "\ngpgsig x\n\nforged"


@pytest.mark.parametrize(
    "author", [{"name": EVIL, "email": "bot@example.com"}, {"name": "bot", "email": EVIL}, {"name": "a\0b", "email": "x"}]
)
async def test_the_author_forges_no_header(world: Street, author: dict[str, str]) -> None:
    bare = world.files({})
    base = bare.head()
    world.declare(automation("web", "web", commit={"author": author, "messageTemplate": "plain\n\ngpgsig forged\nauthor Boss"}))
    done = await world.once()
    if (UPDATE, "apps/web") not in done.objects or done.ready(UPDATE, "web")[0] == "False":
        assert bare.head() == base
        return
    head, _, body = bare.raw("cat-file", "commit", "main").partition(b"\n\n")
    lines = head.split(b"\n")
    assert [line.split()[0] for line in lines] == [b"tree", b"parent", b"author", b"committer"]
    assert lines[1] == f"parent {base}".encode()
    assert body == b"plain\n\ngpgsig forged\nauthor Boss"
    assert all(line.count(b"<") == line.count(b">") == 1 for line in lines[2:])
    bare.check()


async def test_values_of_templates_are_not_templates(world: Street) -> None:
    """Neither a value of the spec nor the name of a file is run again."""
    bare = world.files({"{{ env }}.yaml": "x: 1\n"})
    text = bare.file("deploy.yaml")
    bare.commit({'{{ fail "x" }}.yaml': text})
    template = "{{ .Values.a }}\n{{ range $f, $_ := .Changed.FileChanges }}{{ $f }}\n{{ end }}"
    world.declare(automation("web", "web", commit={"messageTemplate": template, "messageTemplateValues": {"a": "{{ .Values }}"}}))
    assert (await world.once()).ready(UPDATE, "web")[0] == "True"
    assert bare.git("log", "-1", "--format=%B").split("\n")[:3] == ["{{ .Values }}", "deploy.yaml", '{{ fail "x" }}.yaml']
