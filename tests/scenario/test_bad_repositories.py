"""Bad Git repositories, files, templates and keys: each has its condition or a clear message; the neighbour gets its commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.support.gitrepo import BareRepository, Blob
from tests.support.lab import Pass, automation, git_repository, image_policy, image_repository, marked, secret
from tests.support.neighbours import Street, street
from tests.support.sshserver import SshGitServer

UPDATE = "ImageUpdateAutomation"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made


async def failing(world: Street, bare: BareRepository | None = None) -> tuple[str, str]:
    """Reason and message of the automation after a pass that pushed nothing to `bare`."""
    before = bare.head() if bare is not None else None
    done = await world.once()
    status, reason, message = done.ready(UPDATE, "web")
    assert status == "False"
    if bare is not None:
        assert bare.head() == before
    return reason, message


def skipped(done: Pass) -> list[tuple[str, int | None, str]]:
    """File, line and message of everything the automation could not use."""
    return [(s.path, s.line, s.message) for s in done.objects[UPDATE, "apps/web"].status.skipped or ()]


# --- where to read and write


async def test_an_empty_repository(world: Street) -> None:
    bare = world.repository("empty.git")
    world.declare_git(world.url("empty.git"))
    url = world.url("empty.git")
    assert await failing(world, bare) == (
        "GitOperationFailed",
        f"failed to checkout source: unable to clone '{url}': remote repository is empty",
    )
    bare.commit({"deploy.yaml": marked(world.image("web"), "web", "0.9.0").encode()})
    assert (await world.once()).ready(UPDATE, "web")[0] == "True"
    assert b"web:1.0.0" in bare.file("deploy.yaml")


async def test_a_branch_that_is_not_there(world: Street) -> None:
    bare = world.files({})
    world.declare(git_repository("web", world.url("app.git"), branch="other"))
    url = world.url("app.git")
    assert await failing(world, bare) == (
        "GitOperationFailed",
        f"failed to checkout source: unable to clone '{url}': reference not found",
    )
    assert bare.head("other") is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"tag": "v9"}, 'couldn\'t find remote ref "refs/tags/v9"'),
        ({"semver": ">=9"}, "no match found for semver: >=9"),
        ({"semver": ">>9"}, "semver parse error: improper constraint"),
        ({"commit": "1" * 40}, f"unable to resolve commit object for '{'1' * 40}': object not found"),
    ],
)
async def test_a_reference_that_is_not_there(world: Street, reference: dict[str, str], message: str) -> None:
    bare = world.files({})
    world.declare(automation("web", "web", checkout={"ref": reference}, push={"branch": "main"}))
    reason, text = await failing(world, bare)
    assert reason == "GitOperationFailed"
    assert text.startswith("failed to checkout source: ")
    assert message in text


async def test_a_repository_that_is_not_there(world: Street) -> None:
    world.declare_git(world.url("nowhere.git"))
    reason, text = await failing(world)
    assert reason == "GitOperationFailed"
    assert text.startswith(f"failed to checkout source: unable to clone '{world.url('nowhere.git')}': repository not found: ")


@pytest.mark.parametrize("url", ["file:///etc", "ext::sh -c true", "-u", "http://127.0.0.1:1/x.git", "ftp://example.com/x"])
async def test_an_address_that_is_of_no_use(world: Street, url: str) -> None:
    world.declare_git(url)
    done = await world.once()
    if (UPDATE, "apps/web") in done.objects and ("GitRepository", "apps/web") in done.objects:
        reason = done.ready(UPDATE, "web")[1]
        assert reason in {"SourceManagerFailed", "GitOperationFailed"}
    else:  # refused like by an API server
        assert "spec.url" in done.problems[0].message


async def test_a_password_that_is_wrong(world: Street) -> None:
    def closed(handler: Any) -> bool:
        if "/app.git/" not in handler.path:
            return False
        handler._plain(401, b"", {"WWW-Authenticate": 'Basic realm="git"'})
        return True

    bare = world.files({})
    world.declare(
        git_repository("web", world.url("app.git"), secretRef={"name": "git"}),
        secret("git", {"username": "ann", "password": "hunter2"}),
    )
    world.git.intercept = closed
    reason, text = await failing(world, bare)
    assert reason == "GitOperationFailed"
    assert text.startswith(f"failed to checkout source: unable to clone '{world.url('app.git')}': authentication required: ")
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "failed to get auth secret 'apps/git': secrets \"git\" not found"),
        ({"password": "hunter2"}, "'password' requires 'username' to be set"),
    ],
)
async def test_a_git_secret_that_is_of_no_use(world: Street, values: dict[str, str] | None, message: str) -> None:
    bare = world.files({})
    world.declare(git_repository("web", world.url("app.git"), secretRef={"name": "git"}))
    if values is not None:
        world.declare(secret("git", values))
    reason, text = await failing(world, bare)
    assert reason == "SourceManagerFailed"
    assert text.startswith("failed configuring source manager: ")
    assert message in text
    assert "hunter2" not in text


async def test_an_ssh_key_that_the_server_does_not_know(world: Street) -> None:
    key, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    bare = world.repository("app.git", {"deploy.yaml": marked(world.image("web"), "web", "0.9.0")})
    with SshGitServer(world.root / "git", authorized=[key.export_public_key().decode()]) as server:
        world.declare_git(server.url("app.git"), secretRef={"name": "ssh"})
        known = server.known_hosts().decode()
        world.declare(secret("ssh", {"identity": other.export_private_key().decode(), "known_hosts": known}))
        reason, text = await failing(world, bare)
        assert reason == "GitOperationFailed"
        assert text.startswith("failed to checkout source: unable to clone ")
        world.declare(secret("ssh", {"identity": "no key, hunter2", "known_hosts": known}))
        reason, text = await failing(world, bare)
        assert reason == "GitOperationFailed"
        assert text.startswith("failed to checkout source: ")
        assert "hunter2" not in text


@pytest.mark.parametrize(("kind", "field"), [("gpg", "git.asc"), ("ssh", "identity")])
async def test_a_signing_key_that_is_no_key(world: Street, kind: str, field: str) -> None:
    bare = world.files({})
    world.declare(
        automation("web", "web", commit={"signingKey": {"secretRef": {"name": "key"}, "type": kind}}),
        secret("key", {field: "no key, hunter2"}),
    )
    reason, text = await failing(world, bare)
    assert reason == "SourceManagerFailed"
    assert text.startswith("failed configuring source manager: ")
    assert "hunter2" not in text


async def test_a_missing_git_repository_object(world: Street) -> None:
    bare = world.files({})
    world.withdraw(git_repository("web", ""))
    assert await failing(world, bare) == (
        "SourceManagerFailed",
        (
            "failed configuring source manager: referenced git repository does not exist: "
            'gitrepositories.source.toolkit.fluxcd.io "web" not found'
        ),
    )


# --- pushing


@pytest.mark.parametrize(
    ("hook", "script", "message"),
    [
        ("pre-receive", "exit 1\n", "command error on refs/heads/main: pre-receive hook declined"),
        ("update", "exit 1\n", "command error on refs/heads/main: hook declined"),
        ("pre-receive", "kill -9 $$\n", "command error on refs/heads/main: pre-receive hook declined"),
    ],
)
async def test_a_push_that_is_rejected_is_made_good_later(world: Street, hook: str, script: str, message: str) -> None:
    bare = world.files({})
    bare.hook(hook, script)
    reason, text = await failing(world, bare)
    assert reason == "GitOperationFailed"
    assert text.startswith(f"failed to update source: failed to push to remote: {message}")
    (bare.path / "hooks" / hook).unlink()
    assert (await world.once()).changed
    assert b"web:1.0.0" in bare.file("deploy.yaml")
    assert len(bare.log()) == 2


async def test_a_hook_that_fails_after_the_push_changes_nothing(world: Street) -> None:
    bare = world.files({})
    bare.hook("post-receive", "exit 1\n")
    done = await world.once()
    assert done.ready(UPDATE, "web")[0] == "True"
    assert done.objects[UPDATE, "apps/web"].status.last_push_commit == bare.head()


# --- templates, paths, selectors


@pytest.mark.parametrize(
    ("template", "reason", "message"),
    [
        (
            "{{ .Nope }}",
            "GitOperationFailed",
            "failed to update source: failed to run template from spec: template: commit message:1:3:",
        ),
        (
            "{{ if",
            "GitOperationFailed",
            "failed to update source: unable to create commit message template from spec: template: ",
        ),
        (
            "{{ range until 100000000 }}x{{ end }}",
            "GitOperationFailed",
            "failed to update source: failed to run template from spec: ",
        ),
        ('{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}', "GitOperationFailed", "failed to update source: "),
        (
            "{{ range .Changed.ImageResult.Images }}{{ end }}",
            "RemovedTemplateField",
            "template uses removed '.Changed.ImageResult' field",
        ),
    ],
)
async def test_a_template_that_cannot_be_rendered(world: Street, template: str, reason: str, message: str) -> None:
    bare = world.files({})
    world.declare(automation("web", "web", commit={"messageTemplate": template}))
    found, text = await failing(world, bare)
    assert found == reason
    assert text.startswith(message)


async def test_an_update_path_that_is_missing_or_a_link(world: Street) -> None:
    bare = world.files({})
    bare.commit({"link": Blob(b"apps", "120000"), "apps/a.yaml": b"a: 1\n"})
    for path, message in (
        ("./nowhere", "walking path for files: lstat nowhere: no such file or directory"),
        ("app", "walking path for files: lstat app: no such file or directory"),
        ("link", "'link' is a symbolic link, which is not followed: name the path that it leads to"),
    ):
        world.declare(automation("web", "web", update={"path": path}))
        assert await failing(world, bare) == ("UpdateFailed", f"failed to apply policies: {message}")
    world.declare(automation("web", "web", update={"path": "apps"}))
    assert (await world.once()).ready(UPDATE, "web")[0] == "True"


async def test_a_selector_that_cannot_be_used(world: Street) -> None:
    bare = world.files({})
    world.declare(automation("web", "web", policySelector={"matchExpressions": [{"key": "a", "operator": "Near"}]}))
    assert await failing(world, bare) == (
        "InvalidPolicySelector",
        'failed to parse policy selector: "Near" is not a valid label selector operator',
    )


# --- files


MARK = '{"$imagepolicy": "apps:web"}'


async def test_files_that_cannot_be_used_are_named_and_the_others_updated(world: Street) -> None:
    """What does not parse, what is a bomb, what is binary, what is too large, and a marker for a policy that does not exist."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    files: dict[str, str | bytes] = {
        "bad/broken.yaml": f"a: [1\nimage: x # {MARK}\n",
        "bad/tabs.yaml": f"a:\n\tb: x # {MARK}\n",
        "bad/latin.yaml": b"# \xe9\nimage: x # " + MARK.encode() + b"\n",
        "bad/binary.yaml": bytes(range(256)) + MARK.encode() + bytes(range(256)),
        "bad/large.yaml": f"image: x # {MARK}\n" + "#" * (9 * 1024 * 1024),
        "bad/deep.yaml": "[" * 5000 + f"\nx # {MARK}\n",
        "bomb.yaml": bomb + f"image: {world.image('web')}:0.9.0 # {MARK}\n",
        "typo.yaml": 'one: 1\nimage: x:1 # {"$imagepolicy": "apps:wbe"}\nother: x:1 # {"$imagepolicy": "elsewhere:web"}\n',
        "image.png": b"\x89PNG\r\n" + MARK.encode() + b"\0\xff",
        "notes.txt": f"image: x # {MARK}\n",
    }
    bare = world.files(files)
    before = bare.tree()
    done = await world.once()
    assert done.ready(UPDATE, "web") == ("True", "Succeeded", "repository up-to-date")
    assert done.changed
    after = bare.tree()
    assert {path for path in after if after[path] != before[path]} == {"deploy.yaml", "bomb.yaml"}
    found = skipped(done)
    assert {path for path, _, _ in found} == {path for path in files if path.startswith("bad/")} | {"typo.yaml"}
    lines = {path: (line, text) for path, line, text in found}
    assert lines["bad/tabs.yaml"][0] == 2
    assert lines["bad/large.yaml"] == (None, "larger than 8388608 bytes")
    assert all(message for _, _, message in found)
    assert [(line, text) for path, line, text in found if path == "typo.yaml"] == [
        (2, "no policy apps:wbe; did you mean apps:web?"),
        (3, "policies of namespace elsewhere are out of reach here, only those of apps; did you mean apps:web?"),
    ]


async def test_names_in_unicode(world: Street) -> None:
    names = [
        "приложение/развёртывание.yaml",
        "应用/部署 1.yaml",
        "e\u0301/\u00e9.yaml",
        "🚀/\"quoted\" 'n' \\ $HOME.yaml",
        "-rf/--help.yaml",
    ]
    bare = world.files({name: marked(world.image("web"), "web", "0.9.0") for name in names})
    template = "{{ range $f, $_ := .Changed.FileChanges }}{{ $f }}\n{{ end }}"
    world.declare(
        automation("web", "web", commit={"messageTemplate": template, "author": {"name": "Бот", "email": "bot@example.com"}})
    )
    assert (await world.once()).changed
    assert all(b"web:1.0.0" in bare.file(name) for name in names)
    assert bare.git("log", "-1", "--format=%B").split("\n")[:-1] == sorted([*names, "deploy.yaml"], key=str.encode)
    assert bare.git("log", "-1", "--format=%an") == "Бот"
    bare.check()


async def test_a_path_in_unicode(world: Street) -> None:
    bare = world.files({"应用/a.yaml": marked(world.image("web"), "web", "0.9.0")})
    world.declare(automation("web", "web", update={"path": "应用"}))
    assert (await world.once()).changed
    assert b"web:1.0.0" in bare.file("应用/a.yaml")
    assert b"web:0.9.0" in bare.file("deploy.yaml")


async def test_ten_thousand_files(world: Street) -> None:
    """One file changes: one blob and the trees on the way to it."""
    plain = {f"d{n // 100:03d}/f{n:05d}.yaml": f"kind: ConfigMap\nname: c{n}\n" for n in range(10_000)}
    bare = world.files({**plain, "d042/marked.yaml": marked(world.image("web"), "web", "0.9.0")})
    world.declare(automation("web", "web", update={"path": "d042"}))
    before = bare.tree()
    assert (await world.once()).changed
    after = bare.tree()
    assert [path for path in after if after[path] != before[path]] == ["d042/marked.yaml"]
    assert len(after) == len(before) == 10_002
    added = bare.git("rev-list", "--objects", "main", "^main~1", "--no-object-names").split()
    assert len(added) == 4  # commit, two trees, one blob


async def test_two_automations_of_which_one_is_in_trouble_share_a_repository(world: Street) -> None:
    bare = world.files({"a/x.yaml": "a: 1\n"})
    world.declare(
        image_repository("web", world.image("web")),
        image_policy("web"),
        automation("lost", "web", update={"path": "nowhere"}),
    )
    done = await world.once()
    assert done.ready(UPDATE, "lost")[1] == "UpdateFailed"
    assert done.ready(UPDATE, "web")[0] == "True"
    assert b"web:1.0.0" in bare.file("deploy.yaml")
