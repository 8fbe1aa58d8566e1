"""Titles, bodies and comments of pull requests, and the marks by which commits and requests are known again."""

from __future__ import annotations

import html
import re

import pytest

from imagebot.api import ImagePolicySpec, ImageRef
from imagebot.bot.requests.body import MAX_BODY, MAX_TITLE, Told, body_of, changes_in, code, comment, rule_of, title_of
from imagebot.bot.requests.ownership import Commit, is_ours, parse_commit, same_content, with_trailer
from imagebot.bot.requests.scene import Say
from imagebot.markers.changes import Change, Changed, FileChange, ObjectIdentity
from reconcile.errors import Failed

DIGEST = "sha256:" + "a" * 64
CHANGES = "sha256:" + "c" * 64
HOSTILE = "](http://evil) <script> | @alice #1 `x` ![i](j) **b**\n# h <!-- -->"


def told(*changes: tuple[str, str, str], count: int = 1) -> Told:
    files = {
        path if count == 1 else f"{path}{n}": (
            FileChange(ObjectIdentity(), Change(old, "registry/web:1.5.0", f"apps:{policy}"), 1),
        )
        for path, policy, old in changes
        for n in range(count)
    }
    refs = {
        "web": ImageRef(name="registry/web", tag="1.5.0", digest=DIGEST),
        "api": ImageRef(name="registry/api", tag="2.0.0"),
    }
    return Told("apps", "fleet", Changed(files), refs, {"web": "semver >=1.0.0"}, {"team": "core"}, CHANGES)


WEB = told(("web.yaml", "web", "registry/web:1.4.0"))


def test_titles_name_the_image_or_count_them() -> None:
    assert title_of(None, WEB) == "Update web to 1.5.0"
    assert title_of(None, told(("a", "web", "x"), ("b", "api", "y"))) == "Update 2 images"
    assert title_of("{{ .AutomationObject }} for {{ .Values.team }}", WEB) == "apps/fleet for core"


def test_titles_are_one_bounded_line() -> None:
    assert title_of("a\n\tb\x1b[1m", WEB) == "a b [1m"
    assert title_of("{{/* nothing */}}", WEB) == "Update web to 1.5.0"
    assert len(title_of("x" * 5000, WEB)) == MAX_TITLE


@pytest.mark.parametrize("field", ["title", "body"])
def test_a_template_that_cannot_be_used_is_named(field: str) -> None:
    make = title_of if field == "title" else body_of
    with pytest.raises(Failed, match=rf"spec\.git\.push\.pullRequest\.{field} cannot be used") as caught:
        make("{{ .Nothing }}", WEB)
    assert caught.value.reason == "PullRequestFailed"


def test_the_body_says_what_changes_and_why() -> None:
    text = body_of("Hello {{ .Values.team }}", WEB)
    assert text.startswith("Hello core\n\n| policy | file | old → new | digest | why |\n|---|")
    row = next(line for line in text.splitlines() if line.startswith("| <code>web"))
    cells = [html.unescape(re.sub("<.*?>", "", cell)).strip() for cell in row.strip("|").split("|")]
    assert cells == ["web", "web.yaml", "1.4.0 → 1.5.0", DIGEST, "semver >=1.0.0"]
    assert "<code>apps/fleet</code>" in text


def test_nothing_in_a_value_means_anything_to_markdown() -> None:
    text = body_of(None, told((HOSTILE, "web", HOSTILE)))
    row = next(line for line in text.splitlines() if line.startswith("| <code>web"))
    assert row.count("|") == 6
    inside = "".join(re.findall(r"<code>(.*?)</code>", row))
    assert set(re.sub(r"&#\d+;", "", inside)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ./-")
    assert set(re.sub(r"<code>.*?</code>", "", row)) <= set("| →,")


def test_values_in_the_users_text_are_harmless_too() -> None:
    template = "{{ range .Changed.Changes }}{{ .OldValue }} {{ .NewValue }}{{ end }}"
    text = body_of(template, told(("web.yaml", "web", "<img src=x> @all")))
    assert text.startswith("<code>&#60;img src&#61;x&#62; &#64;all</code> registry/web:1.5.0\n")


def test_characters_that_do_not_print_are_replaced() -> None:
    assert code("a\u202eb\x00c\nd") == "<code>a&#65533;b&#65533;c d</code>"
    assert len(html.unescape(code("x" * 500))) < 180


def test_bodies_are_bounded_and_say_what_is_left_out() -> None:
    text = body_of("x" * 50_000, told(("deploy-" + "y" * 100, "web", "registry/web:1.4.0"), count=900))
    assert len(text) <= MAX_BODY
    shown = text.count("| <code>web</code>")
    assert f"and {900 - shown} more" in text
    assert changes_in(text, "apps/fleet") == CHANGES


def test_a_request_is_known_by_its_body() -> None:
    assert changes_in(body_of(None, WEB), "apps/fleet") == CHANGES
    assert changes_in(body_of(None, WEB), "apps/other") == ""
    assert changes_in("by hand", "apps/fleet") == ""
    crlf = body_of(None, WEB).replace("\n", "\r\n")
    assert changes_in(crlf, "apps/fleet") == CHANGES


def test_a_declined_request_is_pointed_to() -> None:
    assert "#7 was closed without being merged" in body_of(None, WEB.after("#7"))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"semver": {"range": ">=1.0"}}, "semver >=1.0, filter ^v"),
        ({"numerical": {"order": "desc"}}, "numerical desc, filter ^v"),
        ({"alphabetical": {}}, "alphabetical asc, filter ^v"),
    ],
)
def test_rules_in_a_few_words(policy: dict[str, object], words: str) -> None:
    spec = {"imageRepositoryRef": {"name": "web"}, "policy": policy, "filterTags": {"pattern": "^v"}}
    assert rule_of(ImagePolicySpec.model_validate(spec)) == words


def test_comments_name_the_automation_and_the_successors() -> None:
    assert all("<code>apps/fleet</code>" in comment(say, "apps/fleet", []) for say in Say)
    many = comment(Say.SUPERSEDED, "apps/fleet", [f"http://forge/{n}" for n in range(9)])
    assert many.startswith("Superseded by http://forge/0, ")
    assert many.count("http") == 5


# --- commits


def raw(message: str, author: str = "bot@example.com", committer: str = "bot@example.com") -> bytes:
    return (
        f"tree {'1' * 40}\nparent {'2' * 40}\nauthor A <{author}> 1 +0000\ncommitter C <{committer}> 1 +0000\n"
        f"gpgsig -----BEGIN\n committer X <forged@example.com> 1 +0000\n\n{message}"
    ).encode()


def ours(commit: bytes, **options: bool) -> bool:
    return is_ours(parse_commit(commit), "apps/fleet", "Bot@example.com", **{"through_api": False, **options})


def test_the_parts_of_a_commit() -> None:
    found = parse_commit(raw("subject\n\nbody\n"))
    assert found == Commit("1" * 40, ("2" * 40,), "bot@example.com", "bot@example.com", "subject\n\nbody\n")
    assert parse_commit(b"") == Commit("", (), "", "", "")


def test_a_commit_of_ours_is_known() -> None:
    message = with_trailer("Update\n", "apps/fleet")
    assert message == "Update\n\nImagebot-Request: apps/fleet\n"
    assert ours(raw(message))
    assert not ours(raw(message, committer="alice@example.com")), "amended, rebased, or picked by a person"
    assert not ours(raw(message, author="alice@example.com"))
    assert not ours(raw(with_trailer("Update", "apps/other")))
    assert not ours(raw("Update")), "pushed by an automation to a branch where people work, too"
    assert not ours(raw(f"{message}\nand more\n"))
    assert not is_ours(parse_commit(raw(message, "", "")), "apps/fleet", "", through_api=False)


def test_commits_that_github_makes_are_known_where_they_are_asked_for() -> None:
    made = raw(with_trailer("Update", "apps/fleet"), author="1+app[bot]@users.noreply.github.com", committer="noreply@github.com")
    assert ours(made, through_api=True)
    assert not ours(made)
    assert not ours(raw("Update web.yaml", "a@b", "noreply@github.com"), through_api=True), "made by a person on the web"


def test_the_trailer_joins_trailers() -> None:
    assert with_trailer("Update\n\nSigned-off-by: A <a@b>", "a/b").endswith("Signed-off-by: A <a@b>\nImagebot-Request: a/b\n")
    assert with_trailer("fix: all", "a/b") == "fix: all\n\nImagebot-Request: a/b\n"


def test_what_nobody_would_see_is_not_pushed() -> None:
    one, other = parse_commit(raw("m\n")), parse_commit(raw("m", committer="x@y"))
    assert same_content(one, other, through_api=False)
    assert not same_content(one, parse_commit(raw("n")), through_api=False)
    assert same_content(one, parse_commit(raw("n")), through_api=True)
    assert not same_content(one, Commit(one.tree, ("3" * 40,), "", "", "m"), through_api=False)
