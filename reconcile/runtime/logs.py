"""Logs: structlog with constant messages and fields; the object and the reconcile id come from context.

JSON lines carry the keys that Flux's controllers write (level, ts, logger, msg, controller, name, namespace, reconcileID);
on a terminal the same fields are shown for people. Logs go to stderr, always: stdout belongs to results.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from reconcile.redact import redact

Encoding = Literal["json", "console"]
LEVELS = {"trace": 5, "debug": logging.DEBUG, "info": logging.INFO, "error": logging.ERROR, "none": logging.CRITICAL}

bound = structlog.contextvars.bound_contextvars
"""Context manager that adds fields to every line logged inside."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(component=name)
    return logger


def _redacted(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def _named_as_upstream(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["logger"] = event.pop("component", "")
    event["msg"] = event.pop("event", "")
    return event


def configure(level: str = "info", encoding: Encoding | None = None) -> None:
    """Set up logging for the process; `encoding` None means console on a terminal and JSON elsewhere."""
    colour = sys.stderr.isatty()
    chosen = encoding or ("console" if colour else "json")
    renderer: list[Any]
    if chosen == "console":
        renderer = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=colour, pad_event_to=32, pad_level=False),
        ]
    else:
        renderer = [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            _named_as_upstream,
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _redacted,
            *([structlog.processors.format_exc_info] if chosen == "console" else []),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(max(LEVELS[level], logging.DEBUG)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard module; only what is wrong concerns us.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
