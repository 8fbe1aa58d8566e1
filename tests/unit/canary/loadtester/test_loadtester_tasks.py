"""Tasks over a real socket: what is allowed by default, what runs once, how each ends, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from canary.loadtester.kinds import Allowed
from canary.loadtester.payload import Refused
from canary.loadtester.processes import MAX_OUTPUT, environment
from canary.loadtester.server import MAX_TEXT
from reconcile.regexp import Regexp
from tests.support.loadtesting import FakeReleases, processes, running, until
from tests.support.webhooks import Receiver, Reply

SHELL = Allowed(shell=True)
DONE = 'imagebot_loadtester_tasks_total{{result="{}",type="{}"}}'


def done(result: str, kind: str = "cmd") -> str:
    return DONE.format(result, kind)


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    async with Receiver() as server:
        yield server


@pytest.fixture
def mark() -> str:
    """A word that no other process has in its command line."""
    return f"mark{uuid.uuid4().hex}"


# --- load in the background


async def test_a_load_is_started_and_answered_at_once(target: Receiver) -> None:
    async with running() as tester:
        assert await tester.task(cmd=f"hey -n 12 -c 3 {target.url}/") == (202, "")
        metrics = await tester.counted(done("done"), 1)
        assert target.paths == ["/"] * 12
        assert metrics['imagebot_loadtester_requests_total{canary="production/my-app",code="200"}'] == 12
        assert metrics['imagebot_loadtester_request_duration_seconds_count{canary="production/my-app"}'] == 12
        assert metrics["imagebot_loadtester_tasks_running"] == 0


async def test_any_other_path_starts_a_task_too(target: Receiver) -> None:
    async with running() as tester:
        assert (await tester.post("/some/path", metadata={"cmd": f"hey -n 1 {target.url}/"}))[0] == 202
        await target.received(1)


async def test_an_identical_command_runs_once_at_a_time(target: Receiver) -> None:
    target.default = Reply(hang=True)
    command = f"hey -n 1 {target.url}/"
    async with running() as tester:
        for _ in range(4):
            assert (await tester.task(cmd=command))[0] == 202
        await target.received(1)
        assert (await tester.post("/", namespace="other", metadata={"cmd": command}))[0] == 202
        assert (await tester.task(cmd=f"{command}?other"))[0] == 202
        await target.received(3)
        metrics = await tester.metrics()
        assert metrics[done("duplicate")] == 3
        assert metrics["imagebot_loadtester_tasks_running"] == 3
    assert target.open == 0
    assert len(target.requests) == 3


async def test_a_command_that_is_done_may_run_again(target: Receiver) -> None:
    async with running() as tester:
        for count in (1, 2):
            assert (await tester.task(cmd=f"hey -n 1 {target.url}/"))[0] == 202
            await tester.counted(done("done"), count)
    assert len(target.requests) == 2


async def test_tasks_beyond_the_limit_wait_and_then_are_refused(target: Receiver) -> None:
    target.default = Reply(hang=True)
    async with running(concurrent=1, waiting=2) as tester:
        for number in range(3):
            assert (await tester.task(cmd=f"hey -n 1 {target.url}/{number}"))[0] == 202
        status, text = await tester.task(cmd=f"hey -n 1 {target.url}/3")
        assert (status, text) == (429, "3 tasks run or wait already: try again later")
        assert (await tester.task(cmd=f"hey -n 1 {target.url}/0"))[0] == 202  # runs already
        await target.received(1)
        metrics = await tester.metrics()
        assert metrics["imagebot_loadtester_tasks_running"] == 1
        assert metrics["imagebot_loadtester_tasks_waiting"] == 2
        assert metrics[done("refused")] == 1
        assert (await tester.post("/gate/open"))[0] == 202
    assert target.paths == ["/0"]


async def test_a_load_ends_with_the_time_of_a_task(target: Receiver) -> None:
    target.default = Reply(hang=True)
    async with running(longest=0.3) as tester:
        await tester.task(cmd=f"hey -z 1h -c 2 {target.url}/")
        metrics = await tester.counted(done("ended"), 1)
        assert metrics["imagebot_loadtester_tasks_running"] == 0


# --- loads that are waited for


async def test_a_smoke_test_by_curl_gives_its_verdict_and_the_answer(target: Receiver) -> None:
    target.script("/", Reply(body=b"hello"), Reply(body=b"hello"), Reply(500, body=b"broken"), Reply(500, body=b"broken"))
    async with running() as tester:
        assert await tester.task(type="bash", cmd=f"curl -s {target.url}/") == (200, "")
        assert await tester.task(type="bash", cmd=f"curl -s {target.url}/", returnCmdOutput="true") == (200, "hello")
        assert (await tester.task(type="bash", cmd=f"curl -s {target.url}/"))[0] == 200
        status, text = await tester.task(type="bash", cmd=f"curl -sf {target.url}/", returnCmdOutput="true")
        assert (status, text.splitlines()[-1]) == (500, "broken")
        assert text.startswith("1 of 1 requests failed")
        assert (await tester.task(type="bash", cmd="curl -s http://127.0.0.1:9/"))[0] == 500


async def test_a_load_of_our_own_waits_when_told_to(target: Receiver) -> None:
    target.script("/", *[Reply(503)] * 2)
    metadata = {"type": "http", "url": f"{target.url}/", "requests": "10", "rate": "1000", "wait": "true"}
    async with running() as tester:
        status, text = await tester.task(**metadata, errorBudget="10%")
        assert status == 500
        assert text.startswith("2 of 10 requests failed: {")
        assert text.count("statuses") == 1
        status, text = await tester.task(**metadata, errorBudget="10%")
        summary = orjson.loads(text)
        assert (status, summary["requests"], summary["errors"], summary["statuses"]) == (200, 10, 0, {"200": 10})
        assert set(summary["latencyMilliseconds"]) == {"mean", "p50", "p90", "p95", "p99", "max"}
        assert await tester.task(**metadata | {"wait": "false"}) == (202, "")
        await tester.counted(done("done", "http"), 2)


async def test_a_caller_who_hangs_up_ends_the_task(target: Receiver) -> None:
    target.default = Reply(hang=True)
    body = orjson.dumps({"name": "a", "namespace": "b", "metadata": {"type": "bash", "cmd": f"curl {target.url}/"}})
    async with running() as tester:
        with pytest.raises(httpx.ReadTimeout):
            await tester.client.post(tester.url, content=body, timeout=0.3)
        await tester.counted(done("ended", "bash"), 1)
        await until(lambda: target.open == 0)


# --- what is refused


@pytest.mark.parametrize(
    ("metadata", "status", "text"),
    [
        (None, 400, "metadata not found in payload"),
        ({}, 400, "metadata not found in payload"),
        ({"cmd": ""}, 400, "cmd not found in metadata"),
        ({"type": "cmd"}, 400, "cmd not found in metadata"),
        ({"type": "bash"}, 400, "cmd not found in metadata"),
        ({"cmd": "rm -rf /"}, 400, "--enable-shell"),
        ({"type": "bash", "cmd": "true"}, 400, "--enable-shell"),
        ({"cmd": "hey http://a/ | sh"}, 400, "--enable-shell"),
        ({"cmd": "hey -z 1s -c 500 http://a/"}, 400, "above the limit of 200"),
        ({"cmd": "hey\0"}, 400, "NUL"),
        ({"cmd": "x" * 70_000}, 400, "longer than"),
        ({"type": "helm", "cmd": "test my-app"}, 403, "helm is not allowed: start the load tester with --enable-helm"),
        ({"type": "helmv3", "cmd": "test my-app"}, 403, "--enable-helm"),
        ({"type": "kubectl", "cmd": "get pods"}, 403, "--enable-kubectl"),
        ({"type": "helmrelease", "name": "my-app", "namespace": "production"}, 501, "no way to a cluster"),
        ({"type": "concord", "server": "http://a"}, 501, "tasks of type concord are not built into"),
        ({"type": "ngrinder", "server": "http://a"}, 501, "tasks of type ngrinder are not built into"),
        ({"type": "ruby", "cmd": "x"}, 400, "unknown type of task 'ruby'"),
        ({"type": "http"}, 400, "url not found in metadata"),
        ({"type": "http", "url": "file:///etc/passwd"}, 400, "is not a URL"),
    ],
)
async def test_what_is_not_allowed_by_default(metadata: dict[str, str] | None, status: int, text: str) -> None:
    async with running() as tester:
        answer = await tester.post("/", metadata=metadata)
        assert answer[0] == status
        assert text in answer[1]
        assert (await tester.metrics())["imagebot_loadtester_tasks_running"] == 0


# --- shells


async def test_a_shell_runs_what_it_is_told_in_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_POD", "tulip")
    async with running(allowed=SHELL) as tester:
        script = 'echo "$0 $SECRET_OF_THE_POD" | tr a-z A-Z; [[ -w $HOME ]] && pwd; cat; echo error >&2'
        status, text = await tester.task(type="bash", cmd=script, returnCmdOutput="true")
        shell, home, error = text.splitlines()
        assert (status, shell, error) == (200, "BASH ", "error")
        assert not Path(home).exists()
        assert await tester.task(type="bash", cmd="echo hidden") == (200, "")


async def test_a_shell_that_fails_is_an_error() -> None:
    async with running(allowed=SHELL) as tester:
        assert await tester.task(type="bash", cmd="echo why; exit 3") == (500, "bash failed: exit status 3")
        shown = await tester.task(type="bash", cmd="echo why; exit 3", returnCmdOutput="true")
        assert shown == (500, "bash failed: exit status 3\nwhy\n")
        assert await tester.task(type="bash", cmd="kill -9 $$") == (500, "bash failed: signal 9")
        assert (await tester.metrics())[done("failed", "bash")] == 3


async def test_output_is_bounded() -> None:
    async with running(allowed=SHELL) as tester:
        status, text = await tester.task(type="bash", cmd="head -c 10000000 /dev/zero | tr '\\0' x", returnCmdOutput="true")
        assert (status, len(text)) == (200, min(MAX_OUTPUT, MAX_TEXT))


async def test_a_shell_in_the_background_writes_what_it_was_told(tmp_path: Path) -> None:
    async with running(allowed=SHELL) as tester:
        assert await tester.task(cmd=f"echo $0 | cat > {tmp_path}/out") == (202, "")
        await tester.counted(done("done"), 1)
        assert (tmp_path / "out").read_text() == "sh\n"


async def test_what_runs_too_long_is_killed_with_all_it_started(mark: str) -> None:
    script = f"sleep 600 {mark} & sh -c 'trap : TERM INT; while :; do sleep 60; done' {mark} & wait"
    async with running(allowed=SHELL, longest=0.5) as tester:
        status, text = await tester.task(type="bash", cmd=script)
        assert (status, text) == (500, "the task was ended after 500ms")
        assert processes(mark) == []
        await tester.task(cmd=script)
        await tester.counted(done("ended"), 1)
        assert processes(mark) == []


async def test_what_a_script_leaves_running_ends_with_it(mark: str) -> None:
    async with running(allowed=SHELL) as tester:
        script = f"exec -a {mark} sleep 600 & echo started"
        assert await tester.task(type="bash", cmd=script, returnCmdOutput="true") == (200, "started\n")
        assert processes(mark) == []


async def test_the_end_of_the_load_tester_is_the_end_of_its_tasks(mark: str) -> None:
    async with running(allowed=SHELL) as tester:
        for number in range(3):
            assert (await tester.task(cmd=f"sleep 600; : {mark} {number}"))[0] == 202
        await until(lambda: len(processes(mark)) >= 3)
    assert processes(mark) == []


async def test_a_caller_who_hangs_up_ends_the_program(mark: str) -> None:
    body = orjson.dumps({"metadata": {"type": "bash", "cmd": f"exec -a {mark} sleep 600"}})
    async with running(allowed=SHELL) as tester:
        with pytest.raises(httpx.ReadTimeout):
            await tester.client.post(tester.url, content=body, timeout=0.5)
        await until(lambda: processes(mark) == [])
        await tester.counted(done("ended", "bash"), 1)


async def test_no_descriptor_is_left() -> None:
    async with running(allowed=SHELL) as tester:
        await tester.task(type="bash", cmd="true")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            await tester.task(type="bash", cmd="true")
        assert len(os.listdir("/proc/self/fd")) == before


def test_programs_see_no_secret_of_ours() -> None:
    ours = {"PATH": "/bin", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "AWS_SECRET_ACCESS_KEY": "x", "HTTPS_PROXY": "http://u:p@x"}
    assert environment("/home/task", ours) == {
        "PATH": "/bin",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "HOME": "/home/task",
        "TMPDIR": "/home/task",
        "LANG": "C.UTF-8",
    }


# --- helm and kubectl


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helm and a kubectl that print their arguments, one a line."""
    for name in ("helm", "kubectl"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


TOOLS = Allowed(helm=frozenset({"test"}), kubectl=frozenset({"wait", "get"}), namespaces=Regexp("^production$"))


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize("kind", ["helm", "helmv3"])
async def test_helm_gets_its_arguments_split_at_spaces(kind: str) -> None:
    async with running(allowed=TOOLS) as tester:
        command = "test my-app  --logs -n production 'a b' $HOME"
        status, text = await tester.task(type=kind, cmd=command, returnCmdOutput="true")
        assert (status, text.splitlines()) == (200, ["test", "my-app", "--logs", "-n", "production", "'a", "b'", "$HOME"])
        assert await tester.task(type=kind, cmd=command) == (200, "")


@pytest.mark.usefixtures("tools")
async def test_kubectl_gets_its_arguments() -> None:
    async with running(allowed=TOOLS) as tester:
        command = "wait --for=condition=Ready pod/x -oyaml --namespace=production -nproduction"
        status, text = await tester.task(type="kubectl", cmd=command, returnCmdOutput="true")
        assert (status, text.splitlines()) == (200, command.split())


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("helm", "upgrade my-app ."),
        ("helm", "-n production test my-app"),
        ("helm", "test my-app --kube-apiserver https://evil"),
        ("helm", "test my-app --kube-token=x"),
        ("helm", "test my-app --kubeconfig=/tmp/x"),
        ("helm", "test my-app --registry-config /x"),
        ("helm", "test my-app --post-renderer ./x"),
        ("helm", "test my-app -n kube-system"),
        ("helm", "test my-app --namespace kube-system"),
        ("helm", "test my-app --namespace=kube-system"),
        ("helm", "test my-app -n"),
        ("helm", "test my-app -- x"),
        ("kubectl", "delete pods --all"),
        ("kubectl", "get secrets --server https://evil"),
        ("kubectl", "get secrets -s https://evil"),
        ("kubectl", "get secrets -shttps://evil"),
        ("kubectl", "get secrets -wshttps://evil"),
        ("kubectl", "get secrets --token x"),
        ("kubectl", "get secrets --as=admin"),
        ("kubectl", "get secrets --context other"),
        ("kubectl", "get secrets -A"),
        ("kubectl", "get secrets -wA"),
        ("kubectl", "get secrets --all-namespaces=true"),
        ("kubectl", "get secrets -nkube-system"),
        ("kubectl", "get secrets -wn=kube-system"),
        ("kubectl", "get secrets -Rn kube-system"),
    ],
)
async def test_tools_do_no_more_than_is_allowed(kind: str, command: str) -> None:
    async with running(allowed=TOOLS) as tester:
        status, _ = await tester.task(type=kind, cmd=command, returnCmdOutput="true")
        assert status == 403
        assert (await tester.metrics())[done("done", kind)] == 0


async def test_a_tool_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with running(allowed=TOOLS) as tester:
        status, text = await tester.task(type="helm", cmd="test my-app")
        assert (status, text.partition(":")[0]) == (500, "'helm' is not installed")


# --- releases of Flux


async def test_a_release_that_is_ready_lets_the_canary_go_on() -> None:
    releases = FakeReleases(["Helm upgrade succeeded", "Applied revision: main"])
    async with running(releases=releases) as tester:
        answer = await tester.task(type="helmrelease", name="my-app", namespace="production")
        assert answer == (200, "Helm upgrade succeeded")
        answer = await tester.task(type="kustomization", name="apps")
        assert answer == (200, "Applied revision: main")
    assert releases.asked == [("HelmRelease", "production", "my-app"), ("Kustomization", "production", "apps")]


async def test_a_release_that_is_not_ready_says_why() -> None:
    releases = FakeReleases([Refused(424, "HelmRelease production/my-app is not ready: install retries exhausted")])
    async with running(releases=releases) as tester:
        answer = await tester.task(type="helmrelease", name="my-app", namespace="production")
        assert answer == (424, "HelmRelease production/my-app is not ready: install retries exhausted")
        answer = await tester.task(type="helmrelease", name="my-app", namespace="production", timeout="10ms")
        assert answer == (424, "never ready")


@pytest.mark.parametrize(
    ("metadata", "status"),
    [
        ({"name": ""}, 400),
        ({"name": "my-app/../x"}, 400),
        ({"name": "my-app", "namespace": "flux-system/x"}, 400),
        ({"name": "my-app", "namespace": "kube-system"}, 403),
        ({"name": "my-app", "namespace": "production", "timeout": "soon"}, 400),
    ],
)
async def test_releases_elsewhere_are_nobody_s_business(metadata: dict[str, str], status: int) -> None:
    releases = FakeReleases()
    async with running(allowed=Allowed(namespaces=Regexp("^production$")), releases=releases) as tester:
        assert (await tester.task(type="helmrelease", **metadata))[0] == status
    assert releases.asked == []


async def test_nobody_waits_for_a_release_when_the_caller_has_gone() -> None:
    releases = FakeReleases()
    body = orjson.dumps({"metadata": {"type": "helmrelease", "name": "a", "namespace": "b"}})
    async with running(releases=releases) as tester:
        with pytest.raises(httpx.ReadTimeout):
            await tester.client.post(tester.url, content=body, timeout=0.3)
        await until(lambda: releases.ended == 1)


# --- callers


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary.loadtester.server.BODY_SECONDS", 0.1)
    async with running() as tester:
        host, _, port = tester.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /gate/check HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert (await tester.post("/gate/check"))[0] == 403


async def test_credentials_of_a_command_are_in_no_log(target: Receiver, capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as tester:
        await tester.task(cmd=f"hey -n 1 -a user:tulip-7 -H 'X-Key: tulip-7' {target.url}/?token=tulip-7")
        await tester.counted(done("done"), 1)
    out = capsys.readouterr()
    assert "task done" in out.out + out.err
    assert "tulip-7" not in out.out + out.err
