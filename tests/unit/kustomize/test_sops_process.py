"""The wrapper round sops, with programs that take its place: hang, print too much, or say what must not be shown."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from reconcile.errors import LimitExceeded, MissingProgram, TimedOut
from reconcile.kustomize import sops as module
from reconcile.kustomize.child import run_child
from reconcile.kustomize.decrypt import Decryption
from reconcile.kustomize.failure import BuildFailed
from reconcile.kustomize.sops import Format, Sops, SopsFailed, detected, format_for, is_encrypted, readable

IDENTITY = "AGE-SECRET-KEY-1WJPPZZCHMLDLVS6Q2R9M8XPL632RWXJFAWSJE9SCCSJ8S3J2V9ZQZH4GG3"
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}, "sops": {"mac": "ENC[x]"}}


@pytest.fixture
def fake(tmp_path):
    def make(script):
        program = tmp_path / "sops"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    return make


def wrapper(tmp_path, program, **more):
    home = tmp_path / "home"
    home.mkdir(0o700)
    return Sops(home, {"PATH": os.environ["PATH"]}, [IDENTITY, "hvs.token"], program=program, **more)


async def test_arguments_environment_and_the_document(tmp_path, fake):
    sops = wrapper(tmp_path, fake('printf "%s\\n" "$@"; env | sort; cat "$7"'))
    said = (await sops.decrypt(b"cipher", Format.YAML, Format.JSON)).decode()
    arguments = ["--decrypt", "--ignore-mac", "--input-type", "yaml", "--output-type", "json"]
    assert said.splitlines()[:6] == arguments
    assert said.endswith("cipher")
    assert "HOME=" not in said
    assert list((tmp_path / "home").iterdir()) == []


async def test_a_process_that_hangs_is_ended_with_its_children(tmp_path, fake):
    mark = tmp_path / "alive"
    sops = wrapper(tmp_path, fake(f'sleep 1000 & echo $! > "{mark}"; wait'), seconds=0.5)
    with pytest.raises(TimedOut, match=r"sops took more than 0.5 seconds"):
        await sops.decrypt(b"", Format.YAML, Format.YAML)
    await ended(mark)


async def ended(mark):
    child = int(mark.read_text())
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the child is still there")


async def test_a_caller_that_goes_away_takes_the_process_with_it(tmp_path, fake):
    mark = tmp_path / "alive"
    sops = wrapper(tmp_path, fake(f'sleep 1000 & echo $! > "{mark}.part"; mv "{mark}.part" "{mark}"; wait'))
    task = asyncio.create_task(sops.decrypt(b"", Format.YAML, Format.YAML))
    while not mark.exists():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(mark)


async def test_too_much_output(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(module, "MOST_OUTPUT", 100_000)
    sops = wrapper(tmp_path, fake("head -c 10000000 /dev/zero"))
    with pytest.raises(LimitExceeded, match="sops printed more than 100000 bytes"):
        await sops.decrypt(b"", Format.YAML, Format.YAML)


async def test_keys_and_paths_are_taken_out_of_what_it_says(tmp_path, fake):
    sops = wrapper(tmp_path, fake(f'echo "cannot use {IDENTITY} or hvs.token for $7" >&2; exit 5'))
    with pytest.raises(SopsFailed) as raised:
        await sops.decrypt(b"", Format.YAML, Format.YAML)
    assert str(raised.value) == "cannot use ***** or ***** for document"


async def test_silence_and_floods(tmp_path, fake):
    sops = wrapper(tmp_path, fake("exit 3"))
    with pytest.raises(SopsFailed, match=r"^sops ended with status 3$"):
        await sops.decrypt(b"", Format.YAML, Format.YAML)
    fake("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 3")
    with pytest.raises(SopsFailed) as raised:
        await sops.decrypt(b"", Format.YAML, Format.YAML)
    assert len(str(raised.value)) < 5000


async def test_a_program_that_cannot_be_started(tmp_path, fake):
    program = fake("")
    program.chmod(0o600)
    with pytest.raises(MissingProgram, match="'sops' cannot be started: Permission denied"):
        await wrapper(tmp_path, program).decrypt(b"", Format.YAML, Format.YAML)


async def test_what_a_child_is_fed(tmp_path):
    data = b"x" * 3_000_000
    ended = await run_child(
        ["/usr/bin/env", "cat"], {"PATH": os.environ["PATH"]}, tmp_path, stdin=data, seconds=60, most_bytes=len(data)
    )
    assert (ended.status, ended.stdout == data) == (0, True)
    ended = await run_child(
        ["/usr/bin/env", "true"], {"PATH": os.environ["PATH"]}, tmp_path, stdin=data, seconds=60, most_bytes=10
    )
    assert ended.status == 0


async def test_an_answer_that_is_no_object(tmp_path, fake):
    decryption = Decryption(tmp_path / "homes", sops=fake("echo '[1, 2]'"))
    async with decryption.opened({}) as decryptor:
        with pytest.raises(BuildFailed, match="it is no object"):
            await decryptor.object(SECRET)
        fake("echo 'plain secret text'")
        with pytest.raises(BuildFailed, match=r"Secret data: it is no JSON$"):
            await decryptor.object(SECRET)
    decryption.close()


async def test_credentials_are_private_files_and_go_with_the_decryptor(tmp_path, fake):
    script = (
        'cat "$GOOGLE_APPLICATION_CREDENTIALS" >&2; stat -c %a "$GOOGLE_APPLICATION_CREDENTIALS" "$HOME" "$GNUPGHOME" >&2; exit 1'
    )
    decryption = Decryption(tmp_path / "homes", sops=fake(script))
    account = b'{"type": "service_account", "private_key": "very secret"}'
    async with decryption.opened({"sops.gcp-kms": account}) as decryptor:
        with pytest.raises(BuildFailed) as raised:
            await decryptor.object(SECRET)
        home = decryptor._home.root
    assert "very secret" not in str(raised.value)
    assert str(raised.value).endswith("600\n700\n700")
    assert not home.exists()
    decryption.close()


async def test_what_a_killed_process_left_goes_when_the_next_one_begins(tmp_path, fake):
    folder = tmp_path / "homes"
    first = Decryption(folder, sops=fake("echo '{}'"))
    await first.home()
    session = first._workspaces._session
    os.close(first._workspaces._lock)  # as the kernel does
    first._workspaces._session = None
    second = Decryption(folder, sops=fake("echo '{}'"))
    await second.home()
    assert not session.exists()
    second.close()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a.json", "json"), ("a.yaml", "yaml"), ("b.yml", "yaml"), (".env", "dotenv"), ("a.ini", "ini"), ("a.txt", "binary"),
        ("yaml", "binary"), (".dockerconfigjson", "json"), ("x.dockerconfigjson", "json"), ("a.JSON", "binary"),
    ],
)  # fmt: skip
def test_formats_by_suffix(name, wanted):
    assert format_for(name).value == wanted


def test_marks():
    assert detected(b'{"sops": {"mac": "ENC[AES"}}') is Format.JSON
    assert detected(b"sops:\n  mac: ENC[AES") is Format.YAML
    assert detected(b"sops_mac=ENC[AES") is Format.DOTENV
    assert detected(b"[sops]\nmac = ENC[AES") is Format.INI
    assert detected(b"mac: plain, ENC[") is None
    assert is_encrypted(b'"mac": "ENC[', Format.BINARY)
    assert not is_encrypted(b'"mac": "ENC[', Format.YAML)


def test_where_sops_looked_for_a_persons_keys_is_left_out():
    said = (
        "Group 0: FAILED\n  age1x: FAILED\n    - | failed to load age identities. Did not find keys in\n"
        "      | locations 'SOPS_AGE_KEY',\n      | and '/tmp/x/.config'.\n  age1y: FAILED\n    - | "
        + "word " * 30
        + "\n\nRecovery failed"
    )
    assert readable(said) == (
        "Group 0: FAILED\n  age1x: FAILED\n    - | failed to load age identities.\n  age1y: FAILED\n"
        "    - | " + "word " * 11 + "word\n      | " + "word " * 11 + "word\n      | " + "word " * 5 + "word\n\nRecovery failed"
    )
