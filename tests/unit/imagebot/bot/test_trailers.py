"""Trailers: what is written is read again, by us and by Git; nothing else gets in."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebot.bot.trailers import NAME, read_trailers, with_trailers

DIGEST = "sha256:" + "a" * 64
WEB = {("apps", "web"): "registry.example.com/web:1.2.3"}
TWO = {("apps", "web"): f"registry.example.com:5000/web:1.2.3@{DIGEST}", ("apps", "api"): "ghcr.io/acme/api:7"}

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
REFS = st.dictionaries(st.tuples(NAMES, NAMES), st.from_regex(r"[!-~]{1,40}", fullmatch=True), max_size=6)
LINES = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30) | st.sampled_from(
    [
        "",
        "Signed-off-by: a <a@b>",
        "Reviewed-by: somebody",
        " more",
        f"{NAME}: apps/web old:1",
        "\r",
        "(cherry picked from commit 1)",
    ]
)
MESSAGES = st.lists(LINES, max_size=12).map("\n".join)


def test_they_stand_below_a_blank_line_in_the_order_of_policies() -> None:
    assert with_trailers("Update images", TWO) == (
        "Update images\n\n"
        "Imagebot-Policy: apps/api ghcr.io/acme/api:7\n"
        f"Imagebot-Policy: apps/web registry.example.com:5000/web:1.2.3@{DIGEST}\n"
    )


def test_nothing_brought_nothing_added() -> None:
    assert with_trailers("Update images\n\n", {}) == "Update images\n\n"


@pytest.mark.parametrize(
    "end",
    [
        "Signed-off-by: Bot <bot@example.com>",
        "Ticket: 17\nSigned-off-by: Bot <bot@example.com>",
        "Reviewed-by: a person\n  with a long name",
        "Signed-off-by: Bot <bot@example.com>\nwords\nmore words",
    ],
)
def test_a_block_that_is_there_goes_on(end: str) -> None:
    message = with_trailers(f"Update\n\nText.\n\n{end}\n", WEB)
    assert message == f"Update\n\nText.\n\n{end}\nImagebot-Policy: apps/web registry.example.com/web:1.2.3\n"
    assert read_trailers(message) == WEB


@pytest.mark.parametrize(
    "end", ["feat: a subject", "Update\n\nNote: this\nis prose", "Update\n\nwords", "Update\n\n  indented: no"]
)
def test_what_is_no_block_gets_a_blank_line(end: str) -> None:
    assert with_trailers(end, WEB) == f"{end}\n\nImagebot-Policy: apps/web registry.example.com/web:1.2.3\n"


def test_lines_that_end_as_in_windows() -> None:
    message = with_trailers("Update\r\n\r\nSigned-off-by: Bot <b@example.com>\r\n", WEB)
    assert message.endswith("<b@example.com>\nImagebot-Policy: apps/web registry.example.com/web:1.2.3\n")
    assert read_trailers(message.replace("\n", "\r\n")) == WEB


def test_twice_is_once() -> None:
    once = with_trailers("Update", TWO)
    assert with_trailers(once, TWO) == once


def test_the_last_of_a_policy_counts() -> None:
    forged = f"Update\n\n{NAME}: apps/web {WEB['apps', 'web']}\n{NAME}: apps/web evil.example.com/web:9\n"
    assert read_trailers(with_trailers(forged, WEB)) == WEB


@pytest.mark.parametrize(
    ("policy", "ref"),
    [
        (("apps", "web\nSigned-off-by: me"), "web:1"),
        (("apps\r", "web"), "web:1"),
        (("apps", "web"), "web:1\n\nImagebot-Policy: apps/api evil:1"),
        (("apps", "web"), "web:1\r\nX: y"),
        (("apps", "web"), "web:1\0"),
        (("apps", "web"), "web:1\u2028X: y"),
        (("apps", "web"), "web:1 and: more"),
        (("apps", "web"), ""),
        (("", "web"), "web:1"),
        (("apps", "a/b"), "web:1"),
        (("apps", "web\n"), "web:1"),
    ],
)
def test_nothing_else_gets_in(policy: tuple[str, str], ref: str) -> None:
    with pytest.raises(ValueError, match="not "):
        with_trailers("Update", {policy: ref})


@pytest.mark.parametrize(
    "message",
    [
        "",
        f"{NAME}: apps/web web:1",  # a subject
        f"Update\n\n{NAME}: apps/web web:1\n\nMore words.",  # not at the end
        f"Update\n\nSomebody said {NAME}: apps/web web:1",
        f"Update\n\n{NAME}: apps web:1",
        f"Update\n\n{NAME}: apps/Web web:1",
        f"Update\n\n{NAME}: apps/web web:1 more",
        f"Update\n\n{NAME}: apps/web",
    ],
)
def test_what_is_not_ours_is_passed_over(message: str) -> None:
    assert read_trailers(message) == {}


@given(message=MESSAGES, refs=REFS)
def test_what_is_written_is_read(message: str, refs: dict[tuple[str, str], str]) -> None:
    result = with_trailers(message, refs)
    read = read_trailers(result)
    assert {policy: read[policy] for policy in refs} == refs
    assert with_trailers(result, refs) == result
    assert result.startswith(message.rstrip())


def test_git_reads_the_same() -> None:
    for message in ("Update", "Update\n\nText: of\nprose.\n", "Update\n\nA-b: c\n  d\n\nSigned-off-by: Bot <b@c>\n"):
        shown = subprocess.run(
            ["git", "interpret-trailers", "--parse", "--no-divider"],
            input=with_trailers(message, TWO),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert [line for line in shown if line.startswith(NAME)] == [
            f"{NAME}: {namespace}/{name} {TWO[namespace, name]}" for namespace, name in sorted(TWO)
        ]
