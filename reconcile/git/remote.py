"""Commands that talk to the remote: one session with the credentials for each process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconcile.git.auth import GitCredentials, Remote
from reconcile.git.environment import PROTOCOLS
from reconcile.git.errors import Classifier, InvalidCredentials
from reconcile.git.folder import Folder
from reconcile.git.process import Completed, Job
from reconcile.git.session import session
from reconcile.git.sshkeys import KeyNeedsPassphrase, UnreadableKey, WrongPassphrase


class RemoteRunner:
    """A remote and its credentials."""

    def __init__(self, remote: Remote, credentials: GitCredentials, protocols: str = PROTOCOLS) -> None:
        """`protocols` is git's GIT_ALLOW_PROTOCOL."""
        self._remote = remote
        self._credentials = credentials
        self._protocols = protocols

    @property
    def url(self) -> str:
        """The URL without credentials."""
        return self._remote.url

    def classifier(self, prefix: str, service: str) -> Classifier:
        """Reads errors of this remote."""
        return Classifier(self._remote.url, prefix, service, self._credentials.secrets())

    def speaks_git(self, job: Job, folder: Folder, argv: Sequence[str]) -> bool:
        """Run a listing again and see whether any packet of Git's protocol came.

        A page of HTML passes for a repository of the old, static kind without references.
        """
        done = self.run(job, folder, argv, {"GIT_TRACE_PACKET": "1"})
        return "packet:" in done.stderr

    def run(self, job: Job, folder: Folder, argv: Sequence[str], extra: Mapping[str, str] | None = None) -> Completed:
        """Run one command with the credentials in place; they are gone when it returns. Raises `InvalidCredentials`."""
        try:
            with session(folder.scratch, self._remote, self._credentials, self._protocols, job.remaining()) as env:
                return job.run(argv, {**env, **folder.location(), **(extra or {})}, folder.path)
        except KeyNeedsPassphrase:
            raise InvalidCredentials(
                "invalid 'ssh' auth option: 'identity' is protected by a passphrase and 'password' is not set"
            ) from None
        except WrongPassphrase:
            raise InvalidCredentials("invalid 'ssh' auth option: 'password' does not fit 'identity'") from None
        except UnreadableKey as error:
            raise InvalidCredentials(f"invalid 'ssh' auth option: 'identity': {error}") from None
