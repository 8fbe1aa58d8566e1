"""Credentials as files for one git process: a private folder that exists as long as the process.

Nothing secret is ever an argument, part of a URL or an environment variable. Basic credentials go through an askpass script that
answers only for the host they are meant for, so that they do not follow a redirect; a bearer token is a header in the
configuration file, and redirects are off with it, because git would send the header on.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reconcile.git.auth import GitCredentials, Remote
from reconcile.git.environment import PROTOCOLS, configuration, environment, write_private
from reconcile.git.sshkeys import private_key_file

ORIGIN = 'remote "origin"'
TRACKING = "refs/mirror/"

_ASKPASS = """\
#!/bin/sh
case "$1" in
    {username}) cat -- {username_file} ;;
    {password}*{password_end}) cat -- {password_file} ;;
    *) exit 1 ;;
esac
"""

_SSH = """\
Host *
\tBatchMode yes
\tIdentityAgent none
\tIdentitiesOnly yes
\tIdentityFile {identity}
\tUserKnownHostsFile {known_hosts}
\tGlobalKnownHostsFile /dev/null
\tStrictHostKeyChecking yes
\tUpdateHostKeys no
\tVerifyHostKeyDNS no
\tCheckHostIP no
\tPreferredAuthentications publickey
\tControlMaster no
\tControlPath none
\tForwardAgent no
\tForwardX11 no
\tClearAllForwardings yes
\tPermitLocalCommand no
\tConnectTimeout 30
\tServerAliveInterval 15
\tServerAliveCountMax 2
\tLogLevel ERROR
"""


MACHINE_CA = "SSL_CERT_FILE"
"""Environment variable with a file of certificate authorities in place of the machine's."""


@contextmanager
def session(
    parent: Path, remote: Remote, credentials: GitCredentials, protocols: str = PROTOCOLS, timeout: float = 60.0
) -> Iterator[dict[str, str]]:
    """Files for one process under `parent` (mode 0700); yields its environment, removes the files on every path."""
    folder = Path(tempfile.mkdtemp(prefix="session-", dir=parent))
    try:
        settings = [(ORIGIN, "url", remote.url), (ORIGIN, "fetch", f"+refs/heads/*:{TRACKING}heads/*")]
        extra: dict[str, str] = {}
        if remote.scheme in ("http", "https"):
            settings += _http(folder, remote, credentials, extra)
        elif remote.scheme == "ssh":
            _ssh(folder, credentials, extra, timeout)
        config = write_private(folder / "config", configuration(settings).encode())
        yield environment(folder, config, protocols, extra)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _http(folder: Path, remote: Remote, credentials: GitCredentials, extra: dict[str, str]) -> list[tuple[str, str, str]]:
    settings: list[tuple[str, str, str]] = []
    if credentials.bearer_token:
        # Never through git's own prompt: servers that want a bearer token refuse the same text as a password.
        settings.append(
            (f'http "{remote.scheme}://{remote.origin}/"', "extraHeader", f"Authorization: Bearer {credentials.bearer_token}")
        )
        settings.append(("http", "followRedirects", "false"))
    elif credentials.username:
        extra["GIT_ASKPASS"] = str(_askpass(folder, remote, credentials))
    for key, data in (
        ("sslCAInfo", credentials.ca),
        ("sslCert", credentials.client_certificate),
        ("sslKey", credentials.client_key),
    ):
        if data:
            settings.append(("http", key, str(write_private(folder / key, data))))
    machine = os.environ.get(MACHINE_CA, "")
    if not credentials.ca and machine:
        # What the HTTP clients of this process trust, git trusts too: the authority of a company, for instance.
        settings.append(("http", "sslCAInfo", machine))
    if credentials.proxy:
        settings.append(("http", "proxy", credentials.proxy))
        extra |= {"NO_PROXY": "", "no_proxy": ""}
    return settings


def _askpass(folder: Path, remote: Remote, credentials: GitCredentials) -> Path:
    where = f"{remote.scheme}://"
    return write_private(
        folder / "askpass",
        _ASKPASS.format(
            username=shlex.quote(f"Username for '{where}{remote.origin}': "),
            username_file=shlex.quote(str(write_private(folder / "username", credentials.username.encode() + b"\n"))),
            password=shlex.quote(f"Password for '{where}"),
            password_end=shlex.quote(f"@{remote.origin}': "),
            password_file=shlex.quote(str(write_private(folder / "password", credentials.password.encode() + b"\n"))),
        ).encode(),
        0o700,
    )


def _ssh(folder: Path, credentials: GitCredentials, extra: dict[str, str], timeout: float) -> None:
    identity = write_private(
        folder / "identity", private_key_file(credentials.ssh_key, credentials.ssh_passphrase, folder, timeout)
    )
    known = write_private(folder / "known_hosts", credentials.known_hosts)
    text = _SSH.format(identity=_ssh_quote(identity), known_hosts=_ssh_quote(known))
    if credentials.proxy:
        settings = write_private(folder / "proxy", credentials.proxy.encode())
        script = Path(__file__).with_name("sshproxy.py")
        command: Sequence[str] = (sys.executable, "-I", str(script), str(settings), "%h", "%p")
        text += (
            "\tProxyCommand "
            + " ".join(word if word in ("%h", "%p") else shlex.quote(word.replace("%", "%%")) for word in command)
            + "\n"
        )
    config = write_private(folder / "ssh_config", text.encode())
    extra["GIT_SSH_COMMAND"] = f"ssh -F {shlex.quote(str(config))}"
    extra["GIT_SSH_VARIANT"] = "ssh"


def _ssh_quote(path: Path) -> str:
    # ssh expands % and ${} in file names of its configuration.
    return '"' + str(path).replace("%", "%%") + '"'
