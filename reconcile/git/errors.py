"""What can go wrong with Git, and how what git and ssh print becomes one of these. Pure.

`str(error)` is the text Flux's controllers show after their own prefix (`failed to checkout source: `,
`failed to update source: `), so that alerts that match on it keep working. What a server or hook printed beyond that is
in `detail`, bounded and without secrets.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from reconcile.errors import ReconcileError
from reconcile.redact import redact, redact_url

DETAIL_LIMIT = 4096
"""Characters of server output that are kept."""


class GitError(ReconcileError):
    """Something about a repository failed; `detail` is what the other side printed (may be empty)."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class AuthenticationRequired(GitError):
    """The server wants credentials, or refuses those it got."""


class RepositoryNotFound(GitError):
    """There is no such repository, or it is hidden from these credentials."""


class ReferenceNotFound(GitError):
    """The branch, tag, name, version range or commit is not on the remote."""


class PathNotFound(GitError):
    """A file to edit is not in the commit, or is not a regular file."""


class EmptyRepository(ReferenceNotFound):
    """The remote has no commit yet."""


class RemoteUnreachable(GitError):
    """No connection: name, network, TLS, proxy, or a server that answers with an error."""


class HostKeyMismatch(GitError):
    """The SSH server shows a key that is not the one in known_hosts; nothing was sent to it."""


class GitTimeout(GitError):
    """The deadline passed; the processes are gone."""


class PushFailed(GitError):
    """A push did not happen; `ref` is the reference it failed on, `status` the server's word for it."""

    def __init__(self, message: str, *, ref: str = "", status: str = "", detail: str = "") -> None:
        super().__init__(message, detail)
        self.ref = ref
        self.status = status


class LostRace(PushFailed):
    """Somebody moved the reference since it was read: read again, apply again, push again."""


class PushRejected(PushFailed):
    """The server said no: hook, protected branch, missing capability."""

    @property
    def protected(self) -> bool:
        """Whether the server takes no pushes to this branch, but would take a merge request: its words say so.

        Known are those of GitHub (protected branches, rulesets), GitLab, Gitea and Forgejo, Bitbucket (Cloud, Data Center) and
        Azure DevOps. A hook that refuses for other reasons, or commits that would be refused in a request as well (unsigned, with
        secrets), are not meant.
        """
        return _PROTECTED.search(f"{self.status}\n{self.detail}") is not None


_PROTECTED = re.compile(
    r"Changes must be made through (?:a pull request|the merge queue)"  # GitHub, GH006 and GH013
    r"|GH006: Protected branch update failed[\s\S]*(?:[Rr]equired status check|not authorized to push)"
    r"|Cannot update this protected ref|Required status checks? \"|approving reviews? (?:is|are) required"
    r"|not allowed to (?:force )?push code to protected branches|not allowed to push to protected branch"  # GitLab; older Gitea
    r"|(?:Gitea|Forgejo|Gogs): Not allowed to push to protected branch"
    r"|can only be modified through pull requests|Permission denied to update branch"  # Bitbucket
    r"|TF402455|TF401027: You need the Git 'GenericContribute'"  # Azure DevOps
)


class UnsupportedRepository(GitError):
    """The remote uses something that is not supported, such as SHA-256 object names."""


class ObjectTooLarge(GitError):
    """A file is larger than the limit it was read with."""


class MirrorDamaged(GitError):
    """The local mirror lost or broke objects; it is built again on the next fetch."""


class InvalidCredentials(GitError):
    """The content of a credentials Secret does not fit; the text is Flux's."""


class SigningFailed(GitError):
    """A signing key cannot be used; the text is Flux's where Flux has one."""


def remote_lines(stderr: str) -> str:
    """What the server printed (`remote: ` lines), bounded and redacted."""
    lines = [line.removeprefix("remote:").strip() for line in re.split(r"[\r\n]+", stderr) if line.startswith("remote:")]
    # git's own echo of what the status says anyway.
    return bounded("\n".join(line for line in lines if line and not line.startswith("error: hook declined to update ")))


def bounded(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` redacted and cut to `DETAIL_LIMIT` with a mark where it was cut."""
    # Cut before the costly part; the margin keeps a secret that lies across the final cut whole until it is masked.
    text = text[: DETAIL_LIMIT + 1024]
    text = redact("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text), secrets)
    return text if len(text) <= DETAIL_LIMIT else text[:DETAIL_LIMIT] + " …"


_DAMAGE = re.compile(
    r"is corrupt|bad object|unable to read (?:sha1 file|tree|[0-9a-f]{40})|[Cc]ould not read [0-9a-f]{40}"
    r"|not a git repository \(or|not a git repository: '|inflate: data stream error|unable to unpack [0-9a-f]{40}|is truncated"
    r"|does not match index|file .*\.idx is|garbage at end of loose object|missing (?:blob|tree|commit) object|invalid object"
    r"|object file .* is empty|not a valid object|is not a tree object|bad tree|unable to parse|pack has bad object"
    r"|bad config line|Invalid path .*: No such file|unknown repository extension|packfile .* cannot be"
    r"|did not send all necessary objects|index file .* too small|broken ref|reference broken|does not point to a valid object"
    r"|missing necessary objects"
)


def is_damage(stderr: str) -> bool:
    """Whether git complains about the mirror itself rather than about the remote."""
    local = "\n".join(line for line in re.split(r"[\r\n]+", stderr) if not line.startswith("remote:"))
    return _DAMAGE.search(local) is not None


class Classifier:
    """Turns the standard error of one git process into an error with Flux's text."""

    def __init__(self, url: str, prefix: str, service: str, secrets: tuple[str, ...] = ()) -> None:
        """`url` may hold credentials; `prefix` goes in front of each text; `service` is git-upload-pack or git-receive-pack."""
        self.url = redact_url(url)
        self.prefix = prefix
        self.service = service
        self.secrets = secrets

    def error(self, stderr: str) -> GitError:
        """The error that `stderr` stands for."""
        said = bounded(remote_lines(stderr), self.secrets)
        # What the server prints is shown but never believed.
        stderr = "\n".join(line for line in re.split(r"[\r\n]+", stderr) if not line.startswith("remote:"))
        for match in (self._damage, self._ssh, self._network, self._http, self._protocol):
            found = match(stderr, said)
            if found is not None:
                return found
        return GitError(self.prefix + (self._last_line(stderr) or "git failed without a message"), said)

    def timeout(self) -> GitTimeout:
        """The error for a process that was ended at its deadline; Go's words for it."""
        return GitTimeout(self.prefix + "context deadline exceeded")

    def _get(self, cause: str) -> str:
        return f'{self.prefix}Get "{self.url}/info/refs?service={self.service}": {cause}'

    def _address(self) -> str:
        parts = urlsplit(self.url)
        default = {"https": 443, "http": 80, "ssh": 22}.get(parts.scheme, 0)
        try:
            port = parts.port or default
        except ValueError:
            port = default
        host = parts.hostname or ""
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _damage(self, stderr: str, said: str) -> GitError | None:
        return (
            MirrorDamaged(f"{self.prefix}the local mirror is damaged: {self._last_line(stderr)}", said)
            if is_damage(stderr)
            else None
        )

    def _ssh(self, stderr: str, said: str) -> GitError | None:
        if "IDENTIFICATION HAS CHANGED" in stderr:
            return HostKeyMismatch(f"{self.prefix}ssh: handshake failed: knownhosts: key mismatch", said)
        if "Host key verification failed" in stderr or "host key is known for" in stderr:
            return HostKeyMismatch(f"{self.prefix}ssh: handshake failed: knownhosts: key is unknown", said)
        if "Permission denied (" in stderr or "Too many authentication failures" in stderr:
            return AuthenticationRequired(
                f"{self.prefix}ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey], "
                "no supported methods remain",
                said,
            )
        match = re.search(r"ssh: connect to host (\S+) port (\d+): (.+)", stderr)
        if match:
            return RemoteUnreachable(f"{self.prefix}dial tcp {match[1]}:{match[2]}: connect: {match[3].strip().lower()}", said)
        match = re.search(r"ssh: Could not resolve hostname ([^:\s]+)", stderr)
        if match:
            return RemoteUnreachable(f"{self.prefix}dial tcp: lookup {match[1]}: no such host", said)
        match = re.search(r"kex_exchange_identification: (.+)|Unable to negotiate with .*: (.+)", stderr)
        return RemoteUnreachable(f"{self.prefix}ssh: handshake failed: {(match[1] or match[2]).strip()}", said) if match else None

    def _network(self, stderr: str, said: str) -> GitError | None:
        # curl phrases these differently from version to version; only the words that never change are looked for.
        match = re.search(r"Could not resolve (host|proxy): ([^\s;]+)", stderr)
        if match:
            return RemoteUnreachable(self._get(f"dial tcp: lookup {match[2]}: no such host"), said)
        match = re.search(r"Failed to connect to (\S+) port (\d+)[^:]*:\s*(.+)", stderr)
        if match or "Couldn't connect to server" in stderr:
            cause = match[3].strip() if match else ""
            reason = "i/o timeout" if "imed out" in cause or "Timeout" in cause else "connect: connection refused"
            if "nreachable" in cause or "No route" in cause:
                reason = "connect: " + cause.lower()
            return RemoteUnreachable(self._get(f"dial tcp {self._address()}: {reason}"), said)
        match = re.search(r"((?:SSL|TLS|server certificate|GnuTLS|gnutls|certificate)[^\n]*)", stderr)
        if match and "unable to access" in stderr:
            return RemoteUnreachable(self._get(f"tls: {redact(match[1], self.secrets).strip()}"), said)
        return None

    def _http(self, stderr: str, said: str) -> GitError | None:
        if re.search(r"Authentication failed for|could not read (?:Username|Password)|terminal prompts disabled", stderr):
            return AuthenticationRequired(f"{self.prefix}authentication required: {said}", said)
        match = re.search(r"The requested URL returned error: (\d{3})", stderr)
        if match:
            code = int(match[1])
            if code == 401:
                return AuthenticationRequired(f"{self.prefix}authentication required: {said}", said)
            if code in (403, 407):
                return AuthenticationRequired(f"{self.prefix}authorization failed: {said}", said)
            if code == 404:
                return RepositoryNotFound(f"{self.prefix}repository not found: {said}", said)
            if 300 <= code < 400:
                return RemoteUnreachable(
                    self._get(f"redirect ({code}) refused: credentials are not sent on to another address"), said
                )
            asked = f"{self.url}/info/refs?service={self.service}"
            text = f'unexpected client error: unexpected requesting "{asked}" status code: {code}'
            return RemoteUnreachable(f"{self.prefix}{text}", said)
        if "CONNECT tunnel failed" in stderr or "from proxy after CONNECT" in stderr:
            match = re.search(r"(?:response|HTTP code) (\d+)", stderr)
            return RemoteUnreachable(self._get(f"proxy refused the connection: {match[1] if match else 'no answer'}"), said)
        return None

    def _protocol(self, stderr: str, said: str) -> GitError | None:
        if re.search(r"repository '.*' not found|does not appear to be a git repository|[Rr]epository not found", stderr):
            return RepositoryNotFound(f"{self.prefix}repository not found: {said}", said)
        if "mismatched algorithms" in stderr or "unknown object format" in stderr:
            return UnsupportedRepository(
                f"{self.prefix}the repository uses the sha256 object format, which is not supported", said
            )
        match = re.search(r"couldn't find remote ref (\S+)", stderr)
        if match:
            return ReferenceNotFound(f'{self.prefix}couldn\'t find remote ref "{match[1]}"', said)
        if re.search(r"not our ref|unadvertised object|no such remote ref", stderr):
            return ReferenceNotFound(f"{self.prefix}object not found", said)
        match = re.search(r"the receiving end does not support ([^\n]+)", stderr)
        if match:
            return PushRejected(f"{self.prefix}the receiving end does not support {match[1]}", status=match[0], detail=said)
        return RemoteUnreachable(f"{self.prefix}{self._last_line(stderr)}", said) if _CUT.search(stderr) else None

    def _last_line(self, stderr: str) -> str:
        lines = [line for line in stderr.splitlines() if line.startswith(("fatal: ", "error: "))]
        text = lines[0].partition(": ")[2] if lines else (stderr.strip().splitlines() or [""])[-1]
        return bounded(text, self.secrets)[:500]


_CUT = re.compile(
    r"unable to access|hung up unexpectedly|early EOF|RPC failed|Could not read from remote|unexpected disconnect|protocol error"
    r"|not valid: is this a git repository|invalid server response|expected (?:flush|service)|bad line length"
)
