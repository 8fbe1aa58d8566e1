"""Threat: a branch, a tag, a URL, a path or a name that a program takes for an option, a command or a refspec."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.support.lab import automation, git_repository, secret
from tests.support.neighbours import Street, street

UPDATE = "ImageUpdateAutomation"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made
        assert not list(tmp_path.rglob("pwned"))


async def refused(world: Street) -> str:
    """The message with which the automation, or the manifest, is refused in a pass in which the neighbour is served."""
    done = await world.once()
    if (UPDATE, "apps/web") in done.objects and not done.problems:
        status, reason, message = done.ready(UPDATE, "web")
        assert (status, reason in {"SourceManagerFailed", "GitOperationFailed", "UpdateFailed"}) == ("False", True)
        return message
    return done.problems[0].message


@pytest.mark.parametrize(
    "push",
    [
        {"branch": "--upload-pack=touch pwned"},
        {"branch": "main:refs/heads/other"},
        {"branch": "refs/../../x"},
        {"branch": "a\nb"},
        {"branch": "*"},
        {"refspec": ":refs/heads/main"},
        {"refspec": "--delete"},
        {"refspec": "refs/heads/main:--exec=touch pwned"},
        {"refspec": "refs/heads/*:refs/heads/*"},
        {"branch": "x", "options": {"ci.skip\n--receive-pack=touch pwned": "1"}},
    ],
)
async def test_where_to_push(world: Street, push: dict[str, Any]) -> None:
    """No reference is made, moved or deleted."""
    bare = world.files({})
    before = bare.git("for-each-ref")
    world.declare(automation("web", "web", push=push))
    assert await refused(world)
    assert bare.git("for-each-ref") == before


@pytest.mark.parametrize("branch", ["--receive-pack=touch${IFS}pwned", "-d", "+main"])
async def test_branches_that_look_like_options_are_branches(world: Street, branch: str) -> None:
    """Git allows such names; git is always given the full one."""
    bare = world.files({})
    head = bare.head()
    world.declare(automation("web", "web", push={"branch": branch}))
    assert (await world.once()).ready(UPDATE, "web")[0] == "True"
    assert set(bare.git("for-each-ref", "--format=%(refname)").split()) == {"refs/heads/main", f"refs/heads/{branch}"}
    assert bare.head() == head


async def test_push_options_are_one_option_each(world: Street) -> None:
    bare = world.files({})
    bare.hook("pre-receive", 'env | grep "^GIT_PUSH_OPTION_" | sort > options\n')
    options = {"--receive-pack": "touch pwned", "-o": "x", "$(touch pwned)": "`touch pwned`; touch pwned"}
    world.declare(automation("web", "web", push={"options": options}))
    assert (await world.once()).ready(UPDATE, "web")[0] == "True"
    lines = (bare.path / "options").read_text().splitlines()
    assert lines == ["GIT_PUSH_OPTION_0=" + "$(touch pwned)=`touch pwned`; touch pwned",
                     "GIT_PUSH_OPTION_1=--receive-pack=touch pwned",
                     "GIT_PUSH_OPTION_2=-o=x", "GIT_PUSH_OPTION_COUNT=3"]  # fmt: skip


@pytest.mark.parametrize("field", ["branch", "tag", "name", "commit", "semver"])
async def test_what_to_check_out(world: Street, field: str) -> None:
    value = "--upload-pack=touch${IFS}pwned"
    bare = world.files({})
    world.declare(automation("web", "web", checkout={"ref": {field: value}}, push={"branch": "x"}))
    assert await refused(world)
    assert len(bare.log()) == 1


URLS = [
    "--upload-pack=touch pwned",
    "ext::sh -c touch% pwned",
    "file:///{root}/git/app.git",
    "/{root}/git/app.git",
    "fd::17",
    "git://127.0.0.1/app.git",
    "ssh://-oProxyCommand=touch${IFS}pwned/app.git",
    "ssh://-oProxyCommand=touch${IFS}pwned@127.0.0.1/app.git",
    "ssh://%2doProxyCommand=touch@127.0.0.1/app.git",
    "ssh://127.0.0.1:-1/app.git",
    "git@127.0.0.1:app.git",
    "http://127.0.0.1:1/app.git\nx",
    "http::http://127.0.0.1/app.git",
    "HTTP+ext://127.0.0.1/app.git",
]


async def test_addresses_of_repositories(world: Street) -> None:
    """Each is refused, by its condition or with the file named as an API server would refuse it."""
    bare = world.files({})
    world.withdraw(automation("web", "web"))
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    world.declare(secret("ssh", {"identity": key, "known_hosts": "127.0.0.1 ssh-ed25519 AAAA"}))
    for number, url in enumerate(URLS):
        login = {"secretRef": {"name": "ssh"}} if "ssh" in url else {}
        world.declare(git_repository(f"r{number}", url.replace("{root}", str(world.root)), **login))
        world.declare(automation(f"r{number}", f"r{number}"))
    done = await world.once()
    for number, url in enumerate(URLS):
        status, reason, message = done.ready(UPDATE, f"r{number}")
        assert (status, reason in {"SourceManagerFailed", "GitOperationFailed"}, bool(message)) == ("False", True, True), url
    assert len(bare.log()) == 1


@pytest.mark.parametrize(
    "target", ["ext::sh -c touch% pwned", "file://{root}/git/app.git", "ssh://-oProxyCommand=touch/x", "ftp://x/y"]
)
async def test_a_redirect_to_another_transport_is_not_followed(world: Street, target: str) -> None:
    bare = world.files({})

    def elsewhere(handler: Any) -> bool:
        if "/app.git/" not in handler.path:
            return False
        suffix = handler.path.partition("/app.git")[2]
        handler._plain(302, b"", {"Location": target.replace("{root}", str(world.root)) + suffix})
        return True

    world.git.intercept = elsewhere
    assert await refused(world)
    assert len(bare.log()) == 1


@pytest.mark.parametrize(
    "path",
    ["--help", "-O/tmp/x", ":(exclude)deploy.yaml", ":/", "../..", "/etc", "*", "a\nb", "$(touch pwned)", "deploy.yaml\\0"],
)
async def test_update_paths_are_names_and_nothing_else(world: Street, path: str) -> None:
    """A path with a meaning for git, the shell or the file system finds nothing; those that lead out end at the top."""
    bare = world.files({})
    before = bare.tree()
    world.declare(automation("web", "web", update={"path": path}))
    done = await world.once()
    if (UPDATE, "apps/web") in done.objects and done.ready(UPDATE, "web")[0] == "True":
        assert set(bare.tree()) == set(before)
    else:
        assert bare.tree() == before
