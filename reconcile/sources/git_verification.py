"""Which signatures a GitRepository wants, and what became of them; texts and reasons are those of Flux's source-controller."""

from __future__ import annotations

from dataclasses import dataclass

from reconcile.api.source import GitVerification
from reconcile.errors import Failed, Invalid, Stalled
from reconcile.git.mirror import Mirror
from reconcile.git.objects import TREE_LIMIT
from reconcile.git.signatures import SignatureType, Signed, split_commit, split_tag, target_of_tag
from reconcile.git.verify import TrustedKeys, verify
from reconcile.runtime.threads import Threads
from reconcile.sources.git_reference import Target

_PARTS = {
    "head": frozenset(("commit",)),
    "HEAD": frozenset(("commit",)),
    "Tag": frozenset(("tag",)),
    "TagAndHEAD": frozenset(("commit", "tag")),
}
_TAGS_IN_TAGS = 8


def unsatisfied(wanted: GitVerification | None, observed: str | None) -> bool:
    """Whether the mode asks for more than what was found to be signed before. Pure."""
    return wanted is not None and not _PARTS[wanted.mode] <= _PARTS.get(observed or "", frozenset())


def check_mode(wanted: GitVerification, target: Target) -> None:
    """Raise Stalled InvalidVerificationMode when a tag is to be signed and the reference is none. Pure."""
    if "tag" in _PARTS[wanted.mode] and not target.tag:
        raise Stalled("InvalidVerificationMode", "cannot verify tag object's signature if a tag reference is not specified")


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks what a target is signed with; `threads` are where gpg is waited for."""

    threads: Threads

    async def verify(self, mirror: Mirror, wanted: GitVerification, target: Target, keys: TrustedKeys) -> str:
        """What was verified, for SourceVerified. The commit must be in the mirror; a tag is fetched.

        Raises:
            Failed: InvalidGitObject, InvalidTagSignature or InvalidCommitSignature.
            GitError: the tag could not be fetched.
        """
        parts, lines = _PARTS[wanted.mode], []
        if "tag" in parts:
            name = f"{target.tag}@{target.tag_object or target.commit}"
            signed = await self._tag(mirror, target, name)
            if signed.type is SignatureType.EMPTY:
                raise Failed("InvalidGitObject", f"cannot verify signature of tag '{name}' since it is not signed")
            key = await self._check(signed, keys, "tag", "InvalidTagSignature", f"tag '{name}'")
            lines.append(f"tag '{name}' with key '{key}'")
        if "commit" in parts:
            raw = (await mirror.read([target.commit], TREE_LIMIT))[target.commit]
            try:
                signed = split_commit(raw)
            except Invalid as error:
                raise _invalid("InvalidCommitSignature", f"commit '{target.commit}'", error) from None
            key = await self._check(signed, keys, "commit", "InvalidCommitSignature", f"commit '{target.commit}'")
            lines.append(f"commit '{target.commit}' with key '{key}'")
        return "verified signature of" + "".join(f"\n\t- {line}" for line in lines)

    async def _check(self, signed: Signed, keys: TrustedKeys, what: str, reason: str, shown: str) -> str:
        try:
            return await self.threads.run(lambda: verify(signed, keys, what))
        except Invalid as error:
            raise _invalid(reason, shown, error) from None

    async def _tag(self, mirror: Mirror, target: Target, name: str) -> Signed:
        if not target.tag_object:
            return Signed(b"", b"")
        await mirror.fetch(target.tag_object)
        raw = (await mirror.read([target.tag_object], TREE_LIMIT))[target.tag_object]
        signed = split_tag(raw)
        # The server says which commit a tag stands for; what was signed must say the same.
        try:
            oid, kind = target_of_tag(raw)
            for _ in range(_TAGS_IN_TAGS):
                if kind != "tag":
                    break
                oid, kind = target_of_tag((await mirror.read([oid], TREE_LIMIT))[oid])
        except Invalid as error:
            raise _invalid("InvalidTagSignature", f"tag '{name}'", error) from None
        if (oid, kind) != (target.commit, "commit"):
            raise _invalid("InvalidTagSignature", f"tag '{name}'", f"it does not stand for commit {target.commit}")
        return signed


def _invalid(reason: str, shown: str, why: object) -> Failed:
    return Failed(reason, f"signature verification of {shown} failed: {why}")
