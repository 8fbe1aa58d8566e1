"""What the Linux kernel can forbid a program: files with Landlock, sockets with a seccomp filter.

Both are properties of a thread and are inherited by what it starts, and neither can be taken off again. So a thread of our own,
which does nothing else and ends at once, takes them on and starts the program; the rest of the process is not touched. That costs
a tenth of a millisecond, where a launcher in between would cost fifty.

Both work without privileges, and both may be missing: an old kernel, or a container runtime that forbids the calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULE_PATH_BENEATH: Final = 1
_CREATE_RULESET_VERSION: Final = 1

_EXECUTE: Final = 1 << 0
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights to files each version of the interface knows."""

_TCP: Final = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11

_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_DENY: Final = 0x00050000 | errno.EACCES
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_X32: Final = 0x40000000

_FORBIDDEN: Final = {
    # architecture: its number for seccomp, then socket, socketpair, ptrace, process_vm_readv, process_vm_writev, io_uring_setup
    "x86_64": (0xC000003E, (41, 53, 101, 310, 311, 425)),
    "aarch64": (0xC00000B7, (198, 199, 117, 270, 271, 425)),
}


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


@dataclass(frozen=True, slots=True)
class Kernel:
    """What this kernel can forbid.

    Attributes:
        landlock: version of the Landlock interface; 0 when there is none.
        seccomp: filters of system calls work.
    """

    landlock: int
    seccomp: bool

    def __str__(self) -> str:
        """For a log line."""
        files = f"Landlock version {self.landlock}" if self.landlock else "no Landlock"
        return f"{files}, {'a seccomp filter' if self.seccomp else 'no seccomp filter'}"


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return libc


@cache
def kernel() -> Kernel:
    """What this kernel can forbid; asked once."""
    if platform.system() != "Linux":
        return Kernel(0, seccomp=False)
    version = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))
    # Without a filter the call fails with EFAULT where filters exist, with EINVAL where they do not.
    ctypes.set_errno(0)
    _libc().prctl(_PR_SET_SECCOMP, _MODE_FILTER, 0, 0, 0)
    return Kernel(max(version, 0), seccomp=ctypes.get_errno() == errno.EFAULT and platform.machine() in _FORBIDDEN)


def restrict_thread(able: Kernel, readable: Iterable[Path], executable: Iterable[Path]) -> None:
    """Forbid the calling thread, for ever, and all it starts, what `able` says the kernel can forbid.

    Left are: reading `readable` (with all below) and `executable`, running `executable`. Not even the names in other folders can
    be listed; nothing can be written; no connection made; no process outside signalled.

    Raises:
        OSError: a path cannot be opened, or the kernel refuses.
    """
    if not (able.landlock or able.seccomp):
        return
    _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if able.landlock:
        _restrict_files(able.landlock, readable, executable)
    if able.seccomp:
        _filter_calls()


def _restrict_files(version: int, readable: Iterable[Path], executable: Iterable[Path]) -> None:
    handled = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _TCP)
    if version >= 6:
        attributes += struct.pack("=Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
    ruleset = _libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    _checked(ruleset, "landlock_create_ruleset")
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | (_READ_DIR if path.is_dir() else 0))
        for path in executable:
            _allow(ruleset, path, _READ_FILE | _EXECUTE | (_READ_DIR if path.is_dir() else 0))
        _checked(_libc().syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, descriptor)
        arguments = ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0)
        _checked(_libc().syscall(_ADD_RULE, *arguments), "landlock_add_rule")
    finally:
        os.close(descriptor)


def _filter_calls() -> None:
    number, forbidden = _FORBIDDEN[platform.machine()]
    steps = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_EQUAL, 1, 0, number),
        (_RETURN, 0, 0, _DENY),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_AT_LEAST, len(forbidden) + 1, 0, _X32),
        *((_EQUAL, len(forbidden) - index, 0, call) for index, call in enumerate(forbidden)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    program = b"".join(struct.pack("=HBBI", *step) for step in steps)
    filters = _Filter(len(steps), program)
    _checked(_libc().prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(filters), 0, 0), "seccomp")


def _checked(result: int, call: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
