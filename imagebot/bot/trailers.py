"""Git trailers that say which policies a commit wrote, as `Imagebot-Policy: apps/web registry.example.com/web:1.2.3`. Pure.

What counts as a block of trailers follows `git interpret-trailers`: the last paragraph, unless it is the subject, when all its
lines are trailers, or when it has one that Git itself writes and at least a quarter of its lines are trailers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

NAME: Final = "Imagebot-Policy"
MAX_READ: Final = 1000
"""Most lines that are read of one message, from its end."""

_TRAILER: Final = re.compile(r"[A-Za-z0-9-]+[ \t]*:")
_OF_GIT: Final = ("Signed-off-by: ", "(cherry picked from commit ")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_REF: Final = re.compile(r"[!-~]{1,1024}")
_OURS: Final = re.compile(rf"{NAME}[ \t]*:[ \t]*([^\s/]+)/([^\s/]+)[ \t]+(\S+)[ \t]*", re.IGNORECASE)


def with_trailers(message: str, refs: Mapping[tuple[str, str], str]) -> str:
    """A message that ends with a trailer for each policy.

    Args:
        message: what the commit says; a block of trailers at its end is kept and gets ours below.
        refs: namespace and name of a policy, and the image that it set, as `name:tag[@digest]`.

    Returns:
        The message as it is where it says all of that already; else with the trailers that it lacks, ordered by policy, below
        what it had, so that they count, and a newline at the end.

    Raises:
        ValueError: A name or an image has characters that names and images cannot have; nothing gets into a message this way.
    """
    lines = {policy: _line(policy, refs[policy]) for policy in sorted(refs)}
    said = read_trailers(message)
    new = [line for policy, line in lines.items() if said.get(policy) != refs[policy]]
    if not new:
        return message
    body = message.rstrip()
    return body + ("\n" if _block(body) else "\n\n") + "\n".join(new) + "\n"


def read_trailers(message: str) -> Mapping[tuple[str, str], str]:
    """The images that a commit says to have written, by namespace and name of the policy.

    The last trailer of a policy counts; those that are not of our shape are passed over. Nothing is raised, whatever the text.
    """
    found: dict[tuple[str, str], str] = {}
    for line in _block(message.rstrip())[-MAX_READ:]:
        ours = _OURS.fullmatch(line)
        if ours is None or not (_NAME.fullmatch(ours[1]) and _NAME.fullmatch(ours[2]) and _REF.fullmatch(ours[3])):
            continue
        found[ours[1], ours[2]] = ours[3]
    return found


def _line(policy: tuple[str, str], ref: str) -> str:
    namespace, name = policy
    if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
        raise ValueError(f"not the name of a policy: {namespace!r}/{name!r}")
    if not _REF.fullmatch(ref):
        raise ValueError(f"not an image: {ref!r}")
    return f"{NAME}: {namespace}/{name} {ref}"


def _block(body: str) -> list[str]:
    """The lines of the block of trailers that ends a message; none where it ends with something else."""
    lines = [line.removesuffix("\r") for line in body.split("\n")]
    start = next((at for at in range(len(lines) - 1, -1, -1) if not lines[at].strip()), None)
    if start is None:
        return []  # one paragraph: the subject
    block = lines[start + 1 :]
    trailers = others = 0
    of_git, inside = False, False
    for line in block:
        if line[:1] in {" ", "\t"}:
            if not inside:  # goes on with the line above, and is what that is
                others += 1
        elif line.startswith(_OF_GIT):
            trailers, of_git, inside = trailers + 1, True, True
        elif _TRAILER.match(line):
            trailers, inside = trailers + 1, True
        else:
            others, inside = others + 1, False
    valid = bool(trailers) and (not others or (of_git and trailers * 3 >= others))
    return block if valid else []
