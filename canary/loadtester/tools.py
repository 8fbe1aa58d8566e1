"""helm and kubectl in a restricted way: which of their sub-commands and options a caller may use. Pure.

Options that say which API server is asked, as whom, or what program is run are refused: with them a caller could send the
credentials of the load tester anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from canary.loadtester.payload import Refused
from reconcile.regexp import Regexp

MAX_ARGUMENTS = 200

_ELSEWHERE = frozenset(
    {
        "as",
        "as-group",
        "as-uid",
        "as-user-extra",
        "burst-limit",
        "cache-dir",
        "certificate-authority",
        "client-certificate",
        "client-key",
        "cluster",
        "context",
        "insecure-skip-tls-verify",
        "kubeconfig",
        "kuberc",
        "password",
        "post-renderer",
        "post-renderer-args",
        "profile",
        "profile-output",
        "registry-config",
        "repository-cache",
        "repository-config",
        "server",
        "tls-server-name",
        "token",
        "user",
        "username",
    }
)
_PREFIXES = ("kube-",)
_SHORT_SWITCHES = frozenset("ARhqwi")
"""Short options of kubectl without a value: another one may be written behind them without a dash."""


def arguments(program: str, command: str, allowed: Collection[str], namespaces: Regexp | None) -> list[str]:
    """The arguments of helm or kubectl, split at spaces as Flagger's load tester does.

    Args:
        program: `helm` or `kubectl`.
        command: What follows its name.
        allowed: Sub-commands that may be used; they come first.
        namespaces: What a namespace must match that is named, None for any.

    Raises:
        Refused: There is none, or one that is not allowed.
    """
    words = command.split()
    if not words:
        raise Refused(400, "cmd not found in metadata")
    if len(words) > MAX_ARGUMENTS or "\0" in command:
        raise Refused(400, f"{program}: more than {MAX_ARGUMENTS} arguments, or a NUL in one of them")
    if words[0] not in allowed:
        raise Refused(
            403,
            f"{program} {words[0][:40]} is not allowed: the load tester runs {', '.join(sorted(allowed)) or 'nothing'} "
            f"(--{program}-commands), and the sub-command comes first",
        )
    for place, word in enumerate(words[1:], start=1):
        if word == "--":
            raise Refused(403, f"{program}: -- is not allowed")
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and (name in _ELSEWHERE or name.startswith(_PREFIXES)):
            raise Refused(403, f"{program}: --{name} is not allowed: it leads to another server, user or program")
        if word.startswith("-") and not word.startswith("--") and "s" in _shorts(word):
            raise Refused(403, f"{program}: -s is not allowed: it leads to another server")
        if namespaces is not None:
            _check_namespace(program, words, place, namespaces)
    return words


def _shorts(word: str) -> str:
    """The short options in a word such as `-Ao=json`, up to the first that has a value."""
    found = ""
    for letter in word[1:]:
        found += letter
        if letter not in _SHORT_SWITCHES:
            break
    return found


def _check_namespace(program: str, words: Sequence[str], place: int, namespaces: Regexp) -> None:
    """Refuse the option at this place when it names a namespace that is not allowed."""
    word = words[place]
    shorts = _shorts(word) if word.startswith("-") and not word.startswith("--") else ""
    if word.partition("=")[0] == "--all-namespaces" or "A" in shorts:
        raise Refused(403, f"{program}: all namespaces are not allowed here")
    named: str | None = None
    if word.startswith("--namespace="):
        named = word.partition("=")[2]
    elif shorts.endswith("n"):
        named = word[1 + len(shorts) :].removeprefix("=") or None
    if named is None and (word == "--namespace" or shorts.endswith("n")):
        named = words[place + 1] if place + 1 < len(words) else ""
    if named is not None and not namespaces.matches(named):
        raise Refused(403, "Forbidden")
