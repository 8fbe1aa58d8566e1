"""The types of tasks: what their metadata means, and which of them are allowed.

`cmd` and `bash` are run by the built-in load generator as long as they are command lines of hey, wrk or curl; a shell is only
used when that was switched on, and so are helm and kubectl.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from canary.loadtester.commandline import translate
from canary.loadtester.generator import generate, succeeded
from canary.loadtester.load import Load, duration, http_load
from canary.loadtester.measures import Measures
from canary.loadtester.payload import Payload, Refused, is_name, is_namespace, is_true
from canary.loadtester.processes import Completed, run_program
from canary.loadtester.releases import TYPES, Releases
from canary.loadtester.tasks import Outcome, Task, Work
from canary.loadtester.tools import arguments
from canary.loadtester.words import MAX_COMMAND
from reconcile.ports.clock import Clock
from reconcile.redact import redact, redact_url
from reconcile.regexp import Regexp

CMD, BASH, HTTP = "cmd", "bash", "http"
HELM: Final = {"helm": "helm", "helmv3": "helm", "kubectl": "kubectl"}
"""Types of tasks that run a tool, and the tool."""
NOT_BUILT: Final = ("concord", "ngrinder")
KINDS: Final = (CMD, BASH, *HELM, *TYPES, HTTP)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What callers may have done.

    Attributes:
        shell: Whether command lines are given to a shell.
        helm: Sub-commands of helm; none switches it off.
        kubectl: Sub-commands of kubectl; none switches it off.
        namespaces: What the namespace of a Canary, and of an object that is waited for, must match; None for any.
    """

    shell: bool = False
    helm: frozenset[str] = frozenset()
    kubectl: frozenset[str] = frozenset()
    namespaces: Regexp | None = None

    def check(self, namespace: str) -> None:
        """Raise Refused when a namespace is not allowed."""
        if self.namespaces is not None and not self.namespaces.matches(namespace):
            raise Refused(403, "Forbidden")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What tasks are made with.

    Attributes:
        allowed: What callers may have done.
        measures: Where requests are counted.
        clock: Time for loads.
        longest: Seconds that one task may take.
        releases: The objects of Flux, None without a cluster.
    """

    allowed: Allowed
    measures: Measures
    clock: Clock
    longest: float
    releases: Releases | None = None

    def task(self, payload: Payload) -> Task:
        """The task that a payload asks for.

        Raises:
            Refused: There is none, it is not allowed, or its metadata cannot be read; with the HTTP status and a text that says
                what to change.
        """
        if not payload.metadata:
            raise Refused(400, "metadata not found in payload")
        kind = payload.metadata.get("type") or CMD
        if kind in NOT_BUILT:
            raise Refused(501, f"tasks of type {kind} are not built into this load tester; call its API in a script of type bash")
        maker = _MAKERS.get(kind)
        if maker is None:
            raise Refused(400, f"unknown type of task {kind[:40]!r}: use one of {', '.join(KINDS)}")
        return maker(self, kind, payload)


def _command(metadata: Mapping[str, str]) -> str:
    command = metadata.get("cmd", "")
    if not command.strip():
        raise Refused(400, "cmd not found in metadata")
    if len(command) > MAX_COMMAND or "\0" in command:
        raise Refused(400, f"cmd is longer than {MAX_COMMAND} characters or has a NUL in it")
    return command


def _shell_task(workshop: Workshop, kind: str, payload: Payload) -> Task:
    command = _command(payload.metadata)
    if workshop.allowed.shell:
        shell = "bash" if kind == BASH else "sh"
        return _program_task(kind, payload, [shell, "-c", command], command, background=kind == CMD)
    return _load_task(workshop, kind, payload, translate(command), command, background=kind == CMD)


def _tool_task(workshop: Workshop, kind: str, payload: Payload) -> Task:
    program = HELM[kind]
    allowed = workshop.allowed.helm if program == "helm" else workshop.allowed.kubectl
    if not allowed:
        raise Refused(403, f"{program} is not allowed: start the load tester with --enable-{program}")
    command = _command(payload.metadata)
    words = arguments(program, command, allowed, workshop.allowed.namespaces)
    return _program_task(kind, payload, [program, *words], command, background=False)


def _program_task(kind: str, payload: Payload, argv: Sequence[str], command: str, *, background: bool) -> Task:
    async def work() -> Outcome:
        return _judged(argv[0], await run_program(argv))

    return _task(kind, payload, command, redact(command), work, background=background)


def _judged(program: str, ended: Completed) -> Outcome:
    if ended.status == 0:
        return Outcome(ok=True, output=ended.output)
    why = f"exit status {ended.status}" if ended.status > 0 else f"signal {-ended.status}"
    return Outcome(ok=False, output=ended.output, error=f"{program} failed: {why}")


def _http_task(workshop: Workshop, kind: str, payload: Payload) -> Task:
    load = http_load(payload.metadata)
    identity = orjson.dumps(dict(payload.metadata), option=orjson.OPT_SORT_KEYS).decode()
    waits = is_true(payload.metadata, "wait")
    return _load_task(workshop, kind, payload, load, identity, background=not waits, shows_output=True)


def _load_task(
    workshop: Workshop, kind: str, payload: Payload, asked: Load, command: str, *, background: bool, shows_output: bool = False
) -> Task:
    load = asked.within(workshop.longest)

    async def work() -> Outcome:
        summary = await generate(load, workshop.measures.load_of(payload.canary), workshop.clock)
        shown = orjson.dumps(summary.shown()).decode()
        output = summary.sample.decode("utf-8", "replace") if load.shows_body else shown
        if succeeded(load, summary):
            return Outcome(ok=True, output=output)
        return Outcome(ok=False, output=output, error=f"{summary.errors} of {summary.requests} requests failed: {shown}")

    title = f"{load.method} {redact_url(load.url)}"
    return _task(kind, payload, command, title, work, background=background, shows_output=shows_output)


def _release_task(workshop: Workshop, kind: str, payload: Payload) -> Task:
    name = is_name(payload.metadata.get("name", ""))
    namespace = is_namespace(payload.metadata.get("namespace") or payload.canary.namespace)
    if not name or not namespace:
        raise Refused(400, f"{TYPES[kind]}: name and namespace must be in the metadata")
    workshop.allowed.check(namespace)
    releases = workshop.releases
    if releases is None:
        raise Refused(501, f"the load tester has no way to a cluster, so it cannot wait for a {TYPES[kind]}")
    asked = payload.metadata.get("timeout")
    seconds = min(duration(asked, "timeout") if asked else workshop.longest, workshop.longest)

    async def work() -> Outcome:
        return Outcome(ok=True, output=await releases.ready(TYPES[kind], namespace, name, seconds))

    title = f"{TYPES[kind]} {namespace}/{name}"
    return _task(kind, payload, title, title, work, background=False, shows_output=True)


def _task(
    kind: str, payload: Payload, command: str, title: str, work: Work, *, background: bool, shows_output: bool = False
) -> Task:
    metadata = payload.metadata
    return Task(
        kind=kind,
        canary=payload.canary,
        command=command,
        title=title,
        work=work,
        background=background,
        shows_output=shows_output or is_true(metadata, "returnCmdOutput"),
        logs_output=is_true(metadata, "logCmdOutput"),
    )


_MAKERS: Mapping[str, Callable[[Workshop, str, Payload], Task]] = {
    CMD: _shell_task,
    BASH: _shell_task,
    **dict.fromkeys(HELM, _tool_task),
    **dict.fromkeys(TYPES, _release_task),
    HTTP: _http_task,
}
