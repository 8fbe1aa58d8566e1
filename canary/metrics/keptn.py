"""Keptn as a judge: a KeptnMetric's value, or an Analysis that is made for the question (`metrics.keptn.sh/v1beta1`)."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from canary.metrics.backend import number
from canary.metrics.base import NoValues, ProviderConfig, Sample
from canary.site import MANAGER
from reconcile.errors import Invalid, NotFound, ReconcileError, TimedOut
from reconcile.net.errors import DEADLINE
from reconcile.ports.cluster import Object, Reference
from reconcile.runtime.logs import get_logger

API: Final = "metrics.keptn.sh/v1beta1"
DURATION: Final = "1m"
"""How far an Analysis looks back when the query does not say."""
PAUSE: Final = 1.0
"""Seconds between two looks at an Analysis."""
_KINDS: Final = {"keptnmetric": "KeptnMetric", "keptnmetrics": "KeptnMetric", "analysis": "Analysis", "analyses": "Analysis"}
_FORM: Final = "<keptnmetric|analysis>/<namespace>/<resourceName>/<duration>/<arguments>"
_TIDYING: Final = 5.0
"""Seconds for deleting an Analysis."""

_log = get_logger("canary.metrics")


@dataclass(frozen=True, slots=True)
class Question:
    """A query in its parts."""

    kind: str
    namespace: str
    name: str
    duration: str = DURATION
    arguments: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, query: str) -> Question:
        """`keptnmetric/NAMESPACE/NAME` or `analysis/NAMESPACE/NAME[/DURATION[/KEY=VALUE;…]]`; all of it becomes lower case.

        Raises:
            Invalid: It is neither, in Flagger's words.
        """
        parts = [part.strip() for part in query.lower().strip().split("/")]
        if len(parts) < 3 or not all(parts[1:3]):
            raise Invalid(f"unexpected query format. query must be in the format {_FORM}")
        kind = _KINDS.get(parts[0])
        if kind is None:
            raise Invalid("unexpected resource kind provided in the query. must be one of: ['keptnmetric', 'analysis']")
        pairs = [pair.split("=") for pair in (parts[4].split(";") if len(parts) > 4 else ())]
        arguments = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        return cls(kind, parts[1], parts[2], parts[3] if len(parts) > 3 else DURATION, arguments)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Keptn:
    """Keptn's objects in the cluster. A `Provider`.

    Raises:
        Invalid: There is no cluster.
    """

    def __init__(self, config: ProviderConfig) -> None:
        if config.objects is None:
            raise Invalid("could not initialize KeptnProvider: no KubeConfig provided")
        self._objects = config.objects
        self._clock = config.clock
        self._seconds = config.timeout

    async def query(self, text: str, interval: str = "", now: datetime | None = None) -> Sample:  # noqa: ARG002
        """The value of a KeptnMetric; for an Analysis 1 when it passed and 0 when it failed."""
        question = Question.parse(text)
        if question.kind == "KeptnMetric":
            return await self._metric(question)
        return Sample(float(await self._analysis(question)))

    async def online(self) -> None:
        """Always, as in Flagger."""

    async def _metric(self, question: Question) -> Sample:
        what = Reference(API, question.kind, question.namespace, question.name)
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._objects.read(what)
        except TimeoutError:
            raise TimedOut(f"could not retrieve KeptnMetric {question}: {DEADLINE}") from None
        except ReconcileError as error:
            raise ReconcileError(f"could not retrieve KeptnMetric {question}: {error}") from error
        try:
            value = number((found.get("status") or {}).get("value") or None)
        except ReconcileError as error:
            raise ReconcileError(f"could not parse value of KeptnMetric {question} to float: {error}") from error
        if value is None:
            raise NoValues
        return Sample(value)

    async def _analysis(self, question: Question) -> bool:
        wanted = _analysis(question)
        which = Reference.of(wanted)
        late = f"encountered timeout while waiting for Keptn Analysis {question} to be finished"
        ours = True
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    await self._objects.create(wanted, manager=MANAGER)
                except ReconcileError as error:
                    ours = False
                    raise ReconcileError(f"could not create Keptn Analysis {question}: {error}") from error
                passed = await self._result(question, which)
        except TimeoutError:
            raise TimedOut(late) from None
        finally:
            if ours:
                await self._remove(which)
        if passed is None:
            raise TimedOut(late)
        return passed

    async def _result(self, question: Question, which: Reference) -> bool | None:
        end = self._clock.monotonic() + self._seconds
        while self._clock.monotonic() + PAUSE <= end:
            await self._clock.sleep(PAUSE)
            try:
                status = (await self._objects.read(which)).get("status") or {}
            except ReconcileError as error:
                raise ReconcileError(f"could not check status of created Keptn Analysis {question}: {error}") from error
            if status.get("state") == "Completed" and isinstance(status.get("pass"), bool):
                return bool(status["pass"])
        return None

    async def _remove(self, which: Reference) -> None:
        """Delete an Analysis: what became of it is known by now, and nobody else waits for it."""
        with contextlib.suppress(NotFound, TimeoutError):
            async with asyncio.timeout(_TIDYING):
                try:
                    await self._objects.delete(which)
                except ReconcileError as error:
                    _log.warning("could not delete a Keptn Analysis", analysis=str(which), error=str(error))


def _analysis(question: Question) -> Object:
    return {
        "apiVersion": API,
        "kind": "Analysis",
        "metadata": {"name": f"{question.name}-{uuid.uuid4().hex[:6]}", "namespace": question.namespace},
        "spec": {
            "analysisDefinition": {"name": question.name},
            "timeframe": {"recent": question.duration},
            "args": question.arguments,
        },
    }
