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
from structlog.tracebacks import ExceptionDictTransformer

from reconcile.redact import redact

Encoding = Literal["json", "console"]
LEVELS = {"trace": 5, "debug": logging.DEBUG, "info": logging.INFO, "error": logging.ERROR, "none": logging.CRITICAL}

MAX_TEXT = 16 * 1024
"""Characters of one field of a line."""
MAX_DEPTH = 8

_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(0x7F, 0xA0)) if code not in (9, 10)} | {
    10: "\n    "  # so that no text passes for a line of its own
}

bound = structlog.contextvars.bound_contextvars
"""Context manager that adds fields to every line logged inside."""


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(component=name)
    return logger


def _redacted(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _clean(value)
    return event


def _clean(value: Any, depth: int = 0) -> Any:
    """`value` with every text in it redacted and bounded; what is neither data nor text becomes text first."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and depth < MAX_DEPTH:
        return {str(k): _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple) and depth < MAX_DEPTH:
        return [_clean(v, depth + 1) for v in value]
    text = value if isinstance(value, str) else repr(value)
    text = redact(text[:MAX_TEXT])
    return text if len(text) < MAX_TEXT else f"{text}..."


def _harmless(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Texts as a terminal may have them: what comes from outside must not steer it. JSON escapes by itself."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = value.translate(_CONTROLS)
        elif key == "exception":
            event[key] = str(value).translate({**_CONTROLS, 10: "\n"})
    return event


def _named_as_upstream(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["logger"] = event.pop("component", "")
    event["msg"] = event.pop("event", "")
    return event


class _Bridge(logging.Handler):
    """Passes what libraries log to our own loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record under the name of the library's logger."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        get_logger(record.name).log(logging.getLevelNamesMapping()[level.upper()], record.getMessage(), exc_info=record.exc_info)


def configure(level: str = "info", encoding: Encoding | None = None) -> None:
    """Set up logging for the process; `encoding` None means console on a terminal and JSON elsewhere."""
    colour = sys.stderr.isatty()
    chosen = encoding or ("console" if colour else "json")
    renderer: list[Any]
    if chosen == "console":
        renderer = [
            _harmless,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=colour, pad_event_to=32, pad_level=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    else:
        renderer = [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            _named_as_upstream,
            structlog.processors.JSONRenderer(),
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            # Tracebacks become text before redaction, and without local variables: those hold credentials.
            structlog.processors.format_exc_info
            if chosen == "console"
            else structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False, max_frames=20)),
            _redacted,
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(max(LEVELS[level], logging.DEBUG)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard module; only what is wrong concerns us, in the same form and redacted as well.
    logging.basicConfig(level=logging.WARNING, handlers=[_Bridge()], force=True)
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
