"""The documentation says what the program does: commands, flags, help texts, examples, links."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from canary.phases import diagram
from imagebot.bot.message import validate_template
from imagebot.markers.find import find_markers, read_marker
from reconcile.app import load_packages
from reconcile.cli.main import cli
from reconcile.cli.service import run
from reconcile.local.files import Folder

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("README.md"))]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
HELP = re.compile(r"(?<=^```text\n)\$ imagebot(?P<command>[a-z -]*) --help\n(?P<text>.*?)(?=^```$)", re.DOTALL | re.MULTILINE)
MERMAID = re.compile(r"(?<=^```mermaid\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
UPDATE = os.environ.get("IMAGEBOT_UPDATE_DOCS") == "1"
COMMANDS = [page for page in PAGES if HELP.search(page.read_text())]
"""The pages that have the help text of each command between them."""
WIDTH = 100


def every(pages: list[Path]) -> list[object]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages]


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for indent, language, text in BLOCK.findall(page.read_text()):
        if language in languages:
            yield "\n".join(line.removeprefix(indent) for line in text.splitlines())


def program() -> click.Group:
    registry = load_packages()
    run.packaged = tuple(registry.run_options)
    group = click.Group("imagebot", commands=dict(cli.commands), params=cli.params, context_settings=cli.context_settings)
    for command in registry.commands:
        group.add_command(command)
    return group


def leaves(group: click.Group, path: str = "") -> dict[str, click.Command]:
    """The commands by their words (`canary list`), groups themselves left out."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        words = f"{path} {name}".strip()
        found |= leaves(command, words) if isinstance(command, click.Group) else {words: command}
    return found


def context(command: click.Command, *, parent: click.Context | None = None) -> click.Context:
    names = {"help_option_names": ["-h", "--help"]} if parent is None else {}
    return click.Context(command, parent=parent, info_name=command.name, terminal_width=WIDTH, max_content_width=WIDTH, **names)


def follow(words: list[str]) -> tuple[str, click.Command, click.Context, list[str]]:
    """The command that words begin with: its own words, itself, the context around it, and the words that are left."""
    command: click.Command = program()
    around = context(command)
    path: list[str] = []
    while isinstance(command, click.Group) and len(path) < len(words) and words[len(path)] in command.commands:
        around = around if not path else context(command, parent=around)
        command = command.commands[words[len(path)]]
        path.append(words[len(path)])
    return " ".join(path), command, around, words[len(path) :]


def help_text(words: list[str]) -> str:
    _, command, around, rest = follow(words)
    assert not rest, words
    return command.get_help(context(command, parent=around) if words else around)


# --- commands


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every `imagebot …` line of the shell examples, as words, up to a pipe or another command."""
    for text in blocks(page, "shell"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.strip(), comments=True)
            if words[:1] == ["imagebot"]:
                end = next((n for n, word in enumerate(words) if word in {"|", "||", "&&", ";", ">"}), len(words))
                yield words[1:end]


@pytest.mark.parametrize("page", every(PAGES))
def test_every_command_parses(page: Path) -> None:
    for words in command_lines(page):
        path, command, around, rest = follow(words)
        assert path, words
        assert not isinstance(command, click.Group), words
        with command.make_context(command.name, list(rest), parent=around):
            pass


def test_commands_are_shown() -> None:
    shown = {follow(words)[0] for page in PAGES for words in command_lines(page)}
    assert shown == set(leaves(program()))


@pytest.mark.parametrize("page", every([page for page in PAGES if page.name != "CONTRIBUTING.md"]))
def test_every_flag_in_the_text_is_one(page: Path) -> None:
    options = [option for command in leaves(program()).values() for option in command.get_params(context(command))]
    ours = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    prose = BLOCK.sub("", page.read_text())
    flags = {flag for code in re.findall(r"`([^`\n]+)`", prose) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)}
    assert flags - ours - {"--help"} == set()


@pytest.mark.parametrize("page", every(PAGES))
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    named = {target for code in re.findall(r"`[^`\n]*`", text) for target in re.findall(r"\bmake ([a-z][a-z-]*)", code)}
    named |= {target for block in blocks(page, "shell") for target in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE)}
    assert named - targets == set()


def test_the_first_two_commands_of_the_readme_are_demo_and_test() -> None:
    lines = [line for block in blocks(ROOT / "README.md", "shell") for line in block.splitlines()]
    assert lines[:2] == ["make demo", "make test"]


# --- help texts


@pytest.mark.parametrize("page", every(COMMANDS))
def test_help_texts_are_those_of_the_program(page: Path) -> None:
    text = page.read_text()
    now = HELP.sub(lambda m: f"$ imagebot{m['command']} --help\n{help_text(m['command'].split())}\n", text)
    if UPDATE:
        page.write_text(now)
    assert text == now, "run the test once with IMAGEBOT_UPDATE_DOCS=1"


def test_every_command_has_its_help_text_in_a_page() -> None:
    found = [match["command"].strip() for page in COMMANDS for match in HELP.finditer(page.read_text())]
    assert sorted(found) == sorted(leaves(program()))


def test_the_diagram_is_that_of_the_machine() -> None:
    page = ROOT / "docs/canary.md"
    text = page.read_text()
    now = MERMAID.sub(lambda _: diagram(), text)
    if UPDATE:
        page.write_text(now)
    assert diagram() in now
    assert text == now, "run the test once with IMAGEBOT_UPDATE_DOCS=1"


# --- links


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", every(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and f"({page.name})" not in index]
    assert missing == []


@pytest.mark.parametrize("page", every([page for page in PAGES if page.parent != ROOT / "docs/decisions"]))
def test_files_and_folders_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:docs|examples|reconcile|imagebot|canary|tests|bench|\.ci)/[\w./-]*)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


# --- alerts


def test_every_alert_of_the_chart_is_in_the_page_with_what_to_do() -> None:
    alerts = [
        name
        for path in sorted((ROOT / "helm/templates").glob("*.yaml"))
        for name in re.findall(r"^ *- alert: (\w+)$", path.read_text(), re.MULTILINE)
    ]
    rows = re.findall(
        r"^\| `(Imagebot\w+)` \| [^|]{10,} \| [^|]{10,} \|$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE
    )
    assert len(alerts) >= 18
    assert sorted(rows) == sorted(alerts)


# --- examples


def manifests(page: Path) -> list[dict[str, object]]:
    return [document for text in blocks(page, "yaml") for document in yaml.safe_load_all(text) if isinstance(document, dict)]


@pytest.mark.parametrize("page", every([page for page in PAGES if any(blocks(page, "yaml"))]))
def test_manifests_of_the_pages_are_accepted(page: Path, tmp_path: Path) -> None:
    whole = [document for document in manifests(page) if "kind" in document]
    for number, document in enumerate(whole):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "manifest.yaml").write_text(yaml.safe_dump(document))
        snapshot = Folder(folder, load_packages().scheme).scan()
        assert snapshot is not None
        assert [str(problem) for problem in snapshot.problems] == []
        assert len(snapshot.objects) + len(snapshot.secrets) == 1


@pytest.mark.parametrize("page", every(PAGES))
def test_markers_and_templates_of_the_pages_are_good(page: Path) -> None:
    for text in blocks(page, "yaml"):
        found = find_markers(text.encode())
        assert (len(found.markers), found.problems) == (text.count("$imagepolicy"), ())
        for template in _templates(text):
            assert validate_template(template) is None
    for marker in re.findall(r'`(\{"\$imagepolicy[^`]*)`', page.read_text()):
        assert read_marker(f"# {marker}") is not None


def _templates(text: str) -> Iterator[str]:
    for document in yaml.safe_load_all(text):
        if isinstance(document, dict) and isinstance(document.get("messageTemplate"), str):
            yield document["messageTemplate"]


def test_the_example_is_accepted_and_its_markers_are_those_of_its_policy() -> None:
    snapshot = Folder(ROOT / "examples/commit-bot/manifests", load_packages().scheme).scan()
    assert snapshot is not None
    assert (snapshot.problems, snapshot.ignored) == ((), 0)
    kinds = sorted(kind for kind, _ in snapshot.objects)
    assert kinds == ["GitRepository", "ImagePolicy", "ImageRepository", "ImageUpdateAutomation"]
    policies = {f"{key.namespace}:{key.name}" for kind, key in snapshot.objects if kind == "ImagePolicy"}
    files = sorted((ROOT / "examples/commit-bot/repository").rglob("*.yaml"))
    setters = [marker.setter for path in files for marker in find_markers(path.read_bytes()).markers]
    assert setters == ["flux-system:web"]
    assert set(setters) <= policies


def test_secrets_that_the_example_names_are_there() -> None:
    folder = ROOT / "examples/commit-bot/manifests"
    documents = [d for path in folder.glob("*.yaml") for d in yaml.safe_load_all(path.read_text())]
    there = {document["metadata"]["name"] for document in documents if document["kind"] == "Secret"}
    named = {name for document in documents for name in _secret_names(document)}
    assert named == there == {"git-login", "signing-key"}


def _secret_names(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inside in value.items():
            if key.lower().endswith("secretref"):
                yield inside["name"]
            yield from _secret_names(inside)


# --- what must not be in a repository


@pytest.mark.parametrize("page", every([*PAGES, ROOT / "Dockerfile", *sorted((ROOT / "examples").rglob("*.yaml"))]))
def test_no_path_of_a_machine_is_named(page: Path) -> None:
    assert re.findall(r"(?:/work|/home/\w+|/tmp/\w+|/Users)\b\S*", page.read_text()) == []
