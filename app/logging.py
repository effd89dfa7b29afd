"""Logging setup, and the audit log.

Log lines go to standard error: one JSON object per line, or colored text if it is a terminal.

Values may come from a caller. So control characters are escaped, long texts are truncated, and API
keys and passwords in URLs are masked. Request bodies, headers and texts of datasets are never
logged.

The audit log has one line (event `audit`) for each change to API keys, models and the notes of
jobs, at every log level. A line about a request has its `request_id` and the `key_id` of the
caller.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

APP_LOGGERS = ("app", "worker", "lora_core", "__main__", "uvicorn.error")
AUDIT_LOGGER = "app.audit"
# These libraries set a level or handlers of their own. All others log warnings only.
LIBRARY_LEVELS = {"uvicorn": "INFO", "uvicorn.access": "WARNING", "celery": "WARNING"} | {
    "celery.redirected": "WARNING",
    "kombu": "WARNING",
    "amqp": "ERROR",
}
MAX_TEXT_LENGTH = 2_000  # characters
MAX_TRACEBACK_LENGTH = 20_000  # characters

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|[\ud800-\udfff]")
_SECRET_PATTERNS = (
    (re.compile(r"(lws?_[0-9a-f]{32}_)[\w-]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=]{8,}"), "whsec_***"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s]+@"), r"\1***@"),
)
# Whether there is anything to replace: one search for most texts, where each pattern would take one
_UNSAFE = re.compile(
    "|".join(each.pattern for each in (_CONTROL_CHARACTERS, *(p for p, _ in _SECRET_PATTERNS))),
    re.IGNORECASE,
)

audit_log = structlog.get_logger(AUDIT_LOGGER)


def write_audit_line(action: str, **fields: object) -> None:
    """Write a line to the audit log. Call it after the commit."""
    audit_log.info("audit", action=action, **fields)


def configure(level: str = "INFO", *, stream: TextIO | None = None) -> None:
    """Configure logging for the whole process, including libraries. May be called repeatedly."""
    to_terminal = stream is None and sys.stderr.isatty()
    shared_processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    renderers: list[Processor] = (
        [
            _sanitize_event_for_terminal,
            # The default formatter shows local variables, such as texts, keys and passwords.
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
        if to_terminal
        else [
            sanitize_event,
            structlog.processors.JSONRenderer(ensure_ascii=True, default=repr),
        ]
    )
    handler = _StderrHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared_processors,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    for previous in [each for each in root.handlers if isinstance(each, _StderrHandler)]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name, logger_level in {
        **LIBRARY_LEVELS,
        **dict.fromkeys(APP_LOGGERS, level),
        AUDIT_LOGGER: "INFO",
    }.items():
        _configure_logger(logging.getLogger(name), logger_level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared_processors,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _configure_logger(logger: logging.Logger, level: str) -> None:
    """Send the logger's records to the root handler, whatever its library configured before."""
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(level)


def sanitize_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make every text of an event safe to print and to store. A structlog processor."""
    return {
        name: _sanitize(value, MAX_TRACEBACK_LENGTH if name == "exception" else MAX_TEXT_LENGTH)
        for name, value in event.items()
    }


def _sanitize_event_for_terminal(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Do the same, but keep the lines of a traceback."""
    lines = event.pop("exception", "").splitlines()
    event = sanitize_event(logger, method, event)
    if lines:
        event["exception"] = "\n".join(_sanitize(line, MAX_TEXT_LENGTH) for line in lines)
    return event


def _sanitize(value: Any, max_length: int) -> Any:
    if isinstance(value, str):
        if not _UNSAFE.search(value) and len(value) <= max_length:
            return value
        for pattern, mask in _SECRET_PATTERNS:
            value = pattern.sub(mask, value)
        if len(value) > max_length:
            value = f"{value[:max_length]}… ({len(value)} characters)"
        return _CONTROL_CHARACTERS.sub(lambda match: ascii(match[0])[1:-1], value)
    if isinstance(value, Mapping):
        return {
            str(_sanitize(name, 200)): _sanitize(each, max_length) for name, each in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_sanitize(each, max_length) for each in value]
    return value


class _StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, not to the one at setup."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = self._stream or sys.stderr
            stream.write(f"{self.format(record)}\n")
            stream.flush()
        except Exception:
            self.handleError(record)
