"""Bad manifests, policies and registries: each has its condition or a clear message, and the neighbour gets its commit.

Bad repositories, files and keys stand in `test_bad_repositories.py`.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs

from tests.support.lab import IMAGE, image_policy, image_repository, secret
from tests.support.neighbours import Street, street
from tests.support.registry import BareServer, Exchange


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Street]:
    async with street(tmp_path) as made:
        yield made


# --- manifests


def written(world: Street, name: str, text: str | bytes) -> None:
    path = world.folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
HEAD = f"apiVersion: {IMAGE}\nkind: ImagePolicy\nmetadata: {{name: bad, namespace: apps}}\nspec:\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (HEAD.replace("ImagePolicy", "ImagePolice"), 1, 'no kind "ImagePolice" in group "image.toolkit.fluxcd.io"'),
        (HEAD.replace("/v1\n", "/v9\n"), 1, 'no version "v9" of ImagePolicy'),
        (HEAD + "  imageRepositoryRef: {name: x}\n  polcy: {}\n", 1, "spec.polcy"),
        (HEAD + "  imageRepositoryRef: {name: x}\n  policy: {semver: {range: 7}}\n", 1, "spec.policy.semver.range"),
        ("---\n---\n" + HEAD + "  imageRepositoryRef: {}\n", 3, "spec.imageRepositoryRef.name"),
        (HEAD + "  policy: {semver: [\n", 6, "while parsing a flow node"),
        (HEAD + "\tpolicy: x\n", 5, ""),
        (HEAD + "  a: *nowhere\n", 5, "nowhere"),
        (BOMB, 7, "more than 1000000 values, counting what aliases stand for"),
        (HEAD.encode() + b"  x: \xff\xfe\n", None, "is not UTF-8 text"),
        ("[" * 100_000, 1, "more than 100 nested collections"),
    ],
)
async def test_a_manifest_that_cannot_be_used_is_named_with_its_line(
    world: Street, text: str | bytes, line: int | None, message: str
) -> None:
    written(world, "bad.yaml", text)
    done = await world.once()
    (problem,) = done.problems
    assert problem.path == "bad.yaml"
    assert message in problem.message
    assert problem.message
    assert len(problem.message) < 1000
    if line is not None:
        assert problem.line == line


async def test_the_last_good_version_of_a_broken_manifest_stays_in_force(world: Street) -> None:
    bare = world.files({})
    world.declare(image_policy("web", semver="1.0.x"))
    async with world.start() as running:
        await running.until_ready("ImageUpdateAutomation", "web")
        path = world.folder / "ImagePolicy.apps.web.yaml"
        good = path.read_text()
        path.write_text(good.replace("policy:", "policy: {"))
        await running.service.store.sync()
        (problem,) = running.service.store.problems
        assert problem.path == path.name
        assert problem.line
        assert (await running.until_ready("ImagePolicy", "web")).spec.policy.semver.range == "1.0.x"
        path.write_text(good)
        await running.service.store.sync()
        assert running.service.store.problems == ()
    assert b"web:1.0.0" in bare.file("deploy.yaml")


async def test_manifests_of_others_and_a_link_out_of_the_folder(world: Street, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(HEAD)
    (world.folder / "link.yaml").symlink_to(outside)
    written(world, "other.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n")
    done = await world.once()
    assert [(p.path, p.message) for p in done.problems] == [("link.yaml", "is a link that leads out of the folder: not followed")]


# --- policies


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"semver": ">=1.0 <"}, "InvalidPolicy", 'invalid policy: improper constraint: ">=1.0 <"'),
        ({"semver": "9999999999999999999999"}, "InvalidPolicy", "invalid policy: constraint parser error"),
        ({"semver": ""}, "InvalidPolicy", "invalid policy: improper constraint"),
        ({"policy": {}}, "InvalidPolicy", "invalid policy: given ImagePolicyChoice object is invalid"),
        (
            {"filterTags": {"pattern": "(?<=a)b"}},
            "InvalidPolicy",
            "failed to filter tags: invalid regular expression pattern '(?<=a)b': error parsing regexp: ",
        ),
        (
            {"filterTags": {"pattern": "(a{1000}){1000}"}},
            "InvalidPolicy",
            "failed to filter tags: invalid regular expression pattern '(a{1000}){1000}': error parsing regexp: ",
        ),
        ({"semver": "9.x"}, "Failure", "unable to determine latest version from provided list"),
        ({"filterTags": {"pattern": "^rel-"}}, "Failure", "version list argument cannot be empty"),
        ({"policy": {"numerical": {"order": "asc"}}}, "Failure", "failed to parse invalid numeric value '1.0.0'"),
        (
            {"repository": "nobody"},
            "DependencyNotReady",
            "failed to get the referred ImageRepository: referenced ImageRepository",
        ),
        ({"digestReflectionPolicy": "Always"}, "IntervalNotConfigured", ""),
    ],
)
async def test_a_policy_that_cannot_choose_says_why(world: Street, spec: dict[str, Any], reason: str, message: str) -> None:
    bare = world.files({})
    world.declare(image_policy("web", **spec))
    done = await world.once()
    if ("ImagePolicy", "apps/web") not in done.objects:  # refused like by an API server, with the file named
        assert reason == "IntervalNotConfigured"
        assert "interval" in done.problems[0].message
    else:
        status, found, text = done.ready("ImagePolicy", "web")
        assert (status, found) == ("False", reason)
        assert text.startswith(message)
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True"
    assert len(bare.log()) == 1


async def test_a_doubtful_range_works_as_in_flux_and_is_logged(world: Street) -> None:
    world.files({})
    world.declare(image_policy("web", semver="1.1||2.0 - 3.0"))
    world.registry.push_image("web", "9.0.0")
    with capture_logs() as logged:
        done = await world.once()
    assert done.ready("ImagePolicy", "web")[2].endswith("resolved to 9.0.0")
    problems = [entry["problem"] for entry in logged if entry["event"] == "doubtful semver range"]
    assert problems
    assert all("write ' || ' to separate alternatives" in problem for problem in problems)


async def test_a_bad_exclusion_list(world: Street) -> None:
    world.declare(image_repository("web", world.image("web"), exclusionList=["("]))
    done = await world.once()
    status, reason, message = done.ready("ImageRepository", "web")
    assert (status, reason) == ("False", "ReadOperationFailed")
    assert message.startswith("scan failed: failed to compile regex (: error parsing regexp: missing closing )")


# --- registries


def answering(body: bytes, status: str = "200 OK", **headers: str) -> Callable[[Exchange], Any]:
    """Lets the ping pass and answers everything else with `body`."""

    async def handler(exchange: Exchange) -> None:
        if exchange.target == "/v2/":
            await exchange.answer()
        else:
            await exchange.answer(status, body, **headers)

    return handler


async def endless(exchange: Exchange) -> None:
    """A body of 100 MB of which nobody knows the length before."""
    if exchange.target == "/v2/":
        await exchange.answer()
        return
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        await exchange.send(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")


def error(code: str, message: str) -> bytes:
    return orjson.dumps({"errors": [{"code": code, "message": message}]})


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (answering(error("UNAUTHORIZED", "who are you"), "401 Unauthorized"), "UNAUTHORIZED: who are you"),
        (answering(error("DENIED", "not you"), "403 Forbidden"), "DENIED: not you"),
        (answering(error("NAME_UNKNOWN", "no such name"), "404 Not Found"), "NAME_UNKNOWN: no such name"),
        (
            answering(error("TOOMANYREQUESTS", "slow down"), "429 Too Many Requests", Retry_After="3600"),
            "TOOMANYREQUESTS: slow down",
        ),
        (
            answering(b"<html><body>Sign in</body></html>", Content_Type="text/html"),
            "the tag list is not JSON but text/html: Sign in",
        ),
        (answering(b'{"tags": {"a": 1}}'), "the answer is not a tag list"),
        (answering(b" " * 100_000_000), "larger than the limit"),
        (endless, "larger than the limit"),
    ],
    ids=["401", "403", "404", "429", "html", "shape", "100MB", "100MB-chunked"],
)
async def test_a_registry_that_answers_badly(world: Street, handler: Callable[[Exchange], Any], message: str) -> None:
    async with BareServer(handler) as server:
        world.declare(image_repository("bad", f"{server.host}/acme/app"), image_policy("bad"))
        done = await world.once()
        status, reason, text = done.ready("ImageRepository", "bad")
        assert (status, reason) == ("False", "ReadOperationFailed")
        assert text.startswith("scan failed: ")
        assert message in text
        assert len(text) < 2000
        assert done.ready("ImagePolicy", "bad")[:2] == ("False", "DependencyNotReady")


async def test_a_registry_that_nobody_reaches(world: Street) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        world.declare(image_repository("bad", f"127.0.0.1:{closed.getsockname()[1]}/acme/app"))
        done = await world.once()
    status, reason, text = done.ready("ImageRepository", "bad")
    assert (status, reason) == ("False", "ReadOperationFailed")
    assert text.startswith("scan failed: ")
    assert "connection refused" in text


async def test_a_registry_that_never_answers_meets_the_timeout(world: Street) -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.send(b"")

    async with BareServer(silent) as server:
        world.declare(image_repository("bad", f"{server.host}/acme/app", timeout="1s"))
        done = await world.once()
    status, reason, text = done.ready("ImageRepository", "bad")
    assert (status, reason) == ("False", "ReadOperationFailed")
    assert text.startswith("scan failed: ")


async def test_a_failing_registry_leaves_what_was_known(world: Street) -> None:
    bare = world.files({})
    await world.once()
    world.registry.answers(Response("broken", 500), path="/v2/web/tags/list")
    done = await world.once()
    assert done.ready("ImageRepository", "web")[:2] == ("False", "ReadOperationFailed")
    policy = done.objects["ImagePolicy", "apps/web"]
    assert policy.status.latest_ref.tag == "1.0.0"
    assert done.ready("ImageUpdateAutomation", "web")[0] == "True"
    assert b"web:1.0.0" in bare.file("deploy.yaml")


@pytest.mark.slow
async def test_a_million_tags(world: Street) -> None:
    body = orjson.dumps({"name": "acme/app", "tags": [f"1.{number}.0" for number in range(1_000_000)]})
    async with BareServer(answering(body)) as server:
        world.declare(image_repository("big", f"{server.host}/acme/app"), image_policy("big"))
        done = await world.once()
    assert done.ready("ImageRepository", "big")[2].startswith("successful scan: found 1000000 tags with checksum ")
    assert done.ready("ImagePolicy", "big")[2].endswith("resolved to 1.999999.0")
    assert len(orjson.dumps(done.objects["ImageRepository", "apps/big"].status.model_dump(mode="json"))) < 4000


async def test_credentials_do_not_follow_a_redirect_to_another_host(world: Street) -> None:
    login = "Basic dXNlcjpwYXNz"  # user:pass
    async with BareServer(answering(b'{"tags":["1.0.0"]}')) as stranger:

        async def handler(exchange: Exchange) -> None:
            if exchange.headers.get("authorization") != login:
                await exchange.answer("401 Unauthorized", WWW_Authenticate='Basic realm="x"')
            else:
                await exchange.answer("307 Temporary Redirect", Location=f"http://{stranger.host}{exchange.target}")

        async with BareServer(handler) as server:
            auths = {"auths": {server.host: {"username": "user", "password": "pass"}}}
            pull = {".dockerconfigjson": orjson.dumps(auths).decode()}
            world.declare(
                image_repository("moved", f"{server.host}/acme/app", secretRef={"name": "pull"}),
                secret("pull", pull, "kubernetes.io/dockerconfigjson"),
            )
            await world.once()
            assert any(exchange.headers.get("authorization") == login for exchange in server.exchanges)
    assert stranger.exchanges
    assert all("authorization" not in exchange.headers for exchange in stranger.exchanges)


async def test_a_manifest_with_the_wrong_digest_is_not_taken(world: Street) -> None:
    def lying(request: Request) -> Response | None:
        if "/web/manifests/" not in request.url.path:
            return None
        headers = {"Docker-Content-Digest": "sha256:" + "0" * 64}
        return Response(status_code=405) if request.method == "HEAD" else Response('{"schemaVersion":2}', headers=headers)

    bare = world.files({})
    world.registry.faults.append(lying)
    world.declare(image_policy("web", digestReflectionPolicy="IfNotPresent"))
    done = await world.once()
    status, reason, text = done.ready("ImagePolicy", "web")
    assert (status, reason) == ("False", "Failed")
    assert text.startswith(f"failed fetching digest of {world.image('web')}:1.0.0: ")
    assert "sha256:" + "0" * 64 in text
    assert done.objects["ImagePolicy", "apps/web"].status.latest_ref is None
    assert len(bare.log()) == 1


async def test_a_pull_secret_that_is_no_docker_config(world: Street) -> None:
    world.declare(
        image_repository("web", world.image("web"), secretRef={"name": "pull"}),
        secret("pull", {".dockerconfigjson": "{not json, hunter2"}, "kubernetes.io/dockerconfigjson"),
    )
    done = await world.once()
    status, reason, text = done.ready("ImageRepository", "web")
    assert (status, reason) == ("False", "AuthenticationFailed")
    assert text.startswith("failed to configure authentication options: ")
    assert "hunter2" not in text
