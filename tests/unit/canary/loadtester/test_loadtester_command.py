"""`imagebot loadtester`: its flags in both spellings, what it refuses to start with, and a process that serves and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from canary.loadtester import service
from canary.loadtester.command import loadtester
from canary.loadtester.service import Settings


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, Any]]:
    """What the command would have served with."""
    found: list[tuple[Settings, Any]] = []

    async def keep(settings: Settings, releases: Any) -> None:
        found.append((settings, releases))

    monkeypatch.setattr(service, "run_service", keep)
    return found


def test_everything_is_off_by_default(settings: list[tuple[Settings, Any]]) -> None:
    assert CliRunner().invoke(loadtester, []).exit_code == 0
    (found, releases), *_ = settings
    assert (found.address, found.longest, found.state, found.token, releases) == (":9090", 3600.0, None, None, None)
    assert (found.allowed.shell, found.allowed.helm, found.allowed.kubectl, found.allowed.namespaces) == (
        False,
        frozenset(),
        frozenset(),
        None,
    )


def test_arguments_of_flagger_s_load_tester_work(settings: list[tuple[Settings, Any]], tmp_path: Path) -> None:
    arguments = ["-port=8080", "-log-level", "info", "-timeout=30m", "-namespace-regexp", "^prod-", "-zap-encoding=json"]
    arguments += ["--enable-helm", "--helm-commands=test, status", "--enable-kubectl=true", "--enable-shell"]
    arguments += ["--state", str(tmp_path / "gates"), "--kubeconfig", str(tmp_path / "config")]
    result = CliRunner().invoke(loadtester, arguments)
    assert result.exit_code == 0, result.output
    (found, releases), *_ = settings
    assert (found.address, found.longest, found.state) == (":8080", 1800.0, tmp_path / "gates")
    assert found.allowed.namespaces is not None
    assert found.allowed.namespaces.pattern == "^prod-"
    assert (found.allowed.shell, found.allowed.helm, found.allowed.kubectl) == (
        True,
        frozenset({"test", "status"}),
        frozenset({"wait"}),
    )
    assert releases is not None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--namespace-regexp", "("], "--namespace-regexp"),
        (["--port", "99999"], "--port"),
        (["--timeout", "soon"], "--timeout"),
        (["-unknown"], "--unknown"),
        (["--concurrent", "1000"], "--concurrent"),
    ],
)
def test_what_cannot_be_read_is_named(settings: list[tuple[Settings, Any]], arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(loadtester, arguments)
    assert result.exit_code != 0
    assert text in result.output or text in str(result.exception)
    assert settings == []


async def test_a_process_serves_and_ends_at_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "reconcile", "loadtester", "--host=127.0.0.1", "-port=0", f"--state={tmp_path / 'gates'}"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env={**os.environ, "KUBECONFIG": ""})
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while "answers at" not in (line := (await process.stderr.readline()).decode()):
                assert line, "the process ended"
        url = line.split()[-1]
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            opened = await client.post(f"{url}/gate/open", content=b'{"name": "a", "namespace": "b"}')
            assert (opened.status_code, (await client.get(f"{url}/healthz")).text) == (202, "OK")
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.stderr.read(), 30)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert '"b/a"' in (tmp_path / "gates").read_text()
