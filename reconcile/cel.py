"""CEL expressions over objects of Kubernetes, as Flux evaluates them: bounded, with its words for what is wrong.

The engine is Google's own in C++, with the grammar and the type checker of the one that Flux uses, optional types, and the
extension libraries `strings`, `sets` and `encoders`. The only importer of `cel_expr_python`.

Bounds: the length of an expression, 32 levels of nesting, and 10,000 turns of comprehensions in one evaluation. The engine
has no bound for what a turn costs, and expressions come from tenants: `.replace('a', 'aaaa')`, repeated, takes all the memory
there is. So it evaluates in a process of its own with little memory and time, which is started with the first evaluation, and
again when an expression has ended it.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from reconcile.errors import Invalid, LimitExceeded, ReconcileError

MAX_EXPRESSION = 10_000
"""Characters of an expression."""
CPU_SECONDS = 0.25
"""Processor time of one evaluation."""
WALL_SECONDS, START_SECONDS = 10.0, 30.0
"""How long an answer, and the start of the process, may take where the machine has other things to do."""
MEMORY = 512 * 1024**2
"""Bytes of address space of the process that evaluates, over what it has at its start."""
MOST_ENDED, FORGET_SECONDS = 256, 300.0
"""Expressions that ended the process: how many are remembered, and how long, so that each costs but once in a while."""


class CelError(Invalid):
    """An expression does not compile; nothing helps until somebody edits it."""


class EvaluationFailed(ReconcileError):
    """An expression has no value for these objects, as a field is missing or of another type."""


class Expression:
    """An expression that compiles. Evaluation blocks for some tenths of a millisecond, at worst for `CPU_SECONDS`."""

    __slots__ = ("_checked", "_names", "text")

    def __init__(self, text: str, names: tuple[str, ...], *, checked: bool) -> None:
        self.text = text
        self._names, self._checked = names, checked

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Its value for these variables, given as plain data.

        Raises:
            EvaluationFailed: It has none, or one that is no boolean; Flux's words. Or it would take too much time or memory.
        """
        found, why = _ENGINE.ask(self.text, self._names, self._checked, values)
        if why is not None:
            raise EvaluationFailed(why)
        return found


def compile_bool(text: str, variables: Sequence[str]) -> Expression:
    """An expression over these variables that is checked, and whose value is a boolean.

    Raises:
        CelError: It does not parse, names something else, or its value is of another type.
        LimitExceeded: It is too long.
    """
    names = tuple(variables)
    try:
        compiled = _compiled(text, names, checked=True)
    except CelError as error:
        # Numbers of different types may be compared; the checker knows no way to be told so.
        if not _ONLY_NUMBERS.fullmatch(str(error)):
            raise CelError(f"failed to parse the CEL expression '{text}': {error}") from None
        _compiled(text, names, checked=False)
        return Expression(text, names, checked=False)
    kind = compiled.return_type().name().lower()
    if kind != "bool":
        raise CelError(f"CEL expression output type mismatch: expected bool, got {kind}")
    return Expression(text, names, checked=True)


def parse(text: str) -> Expression:
    """An expression over any variables that is parsed and not checked.

    Raises:
        CelError: It does not parse.
        LimitExceeded: It is too long.
    """
    try:
        _compiled(text, (), checked=False)
    except CelError as error:
        raise CelError(f"failed to parse the CEL expression '{text}': {error}") from None
    return Expression(text, (), checked=False)


_NUMBER = r"(?:int|uint|double)"
_ONLY_NUMBERS = re.compile(
    rf"(?:ERROR: <input>:\d+:\d+: found no matching overload for '_(?:<|<=|>|>=)_' applied to '\({_NUMBER}, {_NUMBER}\)'"
    r"(?:\n \| [^\n]*)*\n?)+"
)


def _compiled(text: str, variables: tuple[str, ...], *, checked: bool) -> Any:
    if len(text) > MAX_EXPRESSION:
        raise LimitExceeded(f"a CEL expression has {len(text)} characters, more than {MAX_EXPRESSION}")
    try:
        return _environment(variables).compile(text, disable_check=not checked)
    except RuntimeError as error:
        raise CelError(_compile_words(str(error))) from None


@functools.lru_cache(maxsize=8)
def _environment(variables: tuple[str, ...]) -> Any:
    """An environment with these variables; the engine is loaded with the first of them."""
    from cel_expr_python import cel  # type: ignore[import-untyped]
    from cel_expr_python.ext import ext_encoders, ext_optional, ext_strings  # type: ignore[import-untyped]

    lists = [cel.Type.List(cel.Type.DYN)] * 2
    functions = [
        cel.FunctionDecl(name, [cel.Overload(overload, return_type=cel.Type.BOOL, parameters=lists, impl=implementation)])
        for name, overload, implementation in (
            ("sets.contains", "list_sets_contains_list", _contains),
            ("sets.equivalent", "list_sets_equivalent_list", _equivalent),
            ("sets.intersects", "list_sets_intersects_list", _intersects),
        )
    ]
    return cel.NewEnv(
        variables=dict.fromkeys(variables, cel.Type.DYN),
        extensions=[ext_encoders.ExtEncoders(), ext_optional.ExtOptional(), ext_strings.ExtStrings()],
        functions=functions,
    )


# --- sets


def _contains(one: list[Any], other: list[Any]) -> bool:
    return all(_has(one, value) for value in other)


def _equivalent(one: list[Any], other: list[Any]) -> bool:
    return _contains(one, other) and _contains(other, one)


def _intersects(one: list[Any], other: list[Any]) -> bool:
    return any(_has(one, value) for value in other)


def _has(values: list[Any], value: Any) -> bool:
    """Whether a value is among others; to CEL true is no number, to Python it is 1."""
    return any(isinstance(each, bool) == isinstance(value, bool) and each == value for each in values)


# --- words

_CODE = re.compile(r"^[A-Z_]+: ")
_MISSING_KEY = re.compile(r'^Key not found in map : "(.*)"$', re.DOTALL)
_MISSING_NAME = re.compile(r'^No value with name "(.*)" found in Activation$', re.DOTALL)


def _compile_words(text: str) -> str:
    return re.sub(r" \[[A-Z_]+\]$", "", _CODE.sub("", text))


def _evaluation_words(text: str) -> str:
    said = _compile_words(text)
    key, name = _MISSING_KEY.match(said), _MISSING_NAME.match(said)
    if key is not None:
        return f"no such key: {key[1]}"
    return f"no such attribute(s): {name[1]}" if name is not None else said


# --- the process that evaluates


class _Engine:
    """Asks the process; one question at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: OrderedDict[str, float] = OrderedDict()

    def ask(self, text: str, names: tuple[str, ...], checked: bool, values: Mapping[str, Any]) -> tuple[bool, str | None]:
        """Whether it holds, and why there is no value."""
        question = orjson.dumps([text, names, checked, values])
        with self._lock:
            if self._ended.get(text, 0.0) > time.monotonic():
                return False, _too_much(text)
            answer = self._answer(question)
            if answer is None:
                self.close()
                self._ended[text] = time.monotonic() + FORGET_SECONDS
                self._ended.move_to_end(text)
                while len(self._ended) > MOST_ENDED:
                    self._ended.popitem(last=False)
                return False, _too_much(text)
        found, why = orjson.loads(answer)
        return bool(found), why

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _answer(self, question: bytes) -> bytes | None:
        """The answer; None when the process has ended over it. One that ended before is started again."""
        process = self._process
        if process is None or process.poll() is not None:
            self.close()
            process = self._process = self._started()
        assert process.stdin is not None  # noqa: S101 - they are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(len(question).to_bytes(8, "big") + question)
            process.stdin.flush()
        except OSError:
            return None
        return _received(process.stdout, WALL_SECONDS)

    def _started(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=env, start_new_session=True
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        if _received(process.stdout, START_SECONDS) is None:
            process.kill()
            process.communicate()
            raise EvaluationFailed("the process that evaluates CEL expressions does not start")
        return process


def _too_much(text: str) -> str:
    return f"failed to evaluate the CEL expression '{text}': it takes too much time or memory"


def _received(pipe: IO[bytes], seconds: float) -> bytes | None:
    """One message; None when there is none in time, or no sender any more."""
    end, found, wanted = time.monotonic() + seconds, b"", 8
    while len(found) < wanted:
        ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
        more = os.read(pipe.fileno(), 1 << 16) if ready else b""
        if not more:
            return None
        found += more
        if len(found) >= 8:
            wanted = 8 + int.from_bytes(found[:8], "big")
    return found[8:]


def _evaluated(text: str, names: tuple[str, ...], checked: bool, values: Mapping[str, Any]) -> tuple[bool, str | None]:
    from cel_expr_python import cel

    try:
        found = _kept(text, names, checked).eval(data=values)
        kind = found.type()
        if kind == cel.Type.BOOL:
            return bool(found.value()), None
        why = _evaluation_words(str(found.value())) if kind == cel.Type.ERROR else ""
    except (RuntimeError, TypeError, ValueError) as error:
        why = _evaluation_words(str(error))
    if why:
        return False, f"failed to evaluate the CEL expression '{text}': {why}"
    return False, f"failed to evaluate CEL expression as boolean: '{text}'"


@functools.lru_cache(maxsize=512)
def _kept(text: str, names: tuple[str, ...], checked: bool) -> Any:
    return _compiled(text, names, checked=checked)


def _serve() -> None:
    """Answer questions from standard input until it ends; the kernel ends what takes too much time or memory."""
    _environment(())
    size = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc/self/statm").exists() else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(b"ready")
    while len(head := sys.stdin.buffer.read(8)) == 8:
        text, names, checked, values = orjson.loads(sys.stdin.buffer.read(int.from_bytes(head, "big")))
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # nobody handles its signal, which ends the process
        answer = _evaluated(text, tuple(names), checked, values)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(orjson.dumps(answer))


def _send(message: bytes) -> None:
    sys.stdout.buffer.write(len(message).to_bytes(8, "big") + message)
    sys.stdout.buffer.flush()


_ENGINE = _Engine()
atexit.register(_ENGINE.close)

if __name__ == "__main__":
    _serve()
