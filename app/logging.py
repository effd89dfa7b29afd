"""Log lines: one JSON object each on standard error, or coloured text when that is a terminal.

What goes in may come from a caller, so control characters are escaped, texts are capped, and keys
and passwords in addresses are blotted out. Bodies, headers and texts of data sets are not logged at
all.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

OWN = ("app", "worker", "lora_core", "__main__", "uvicorn.error")
# The others: warnings only. These would set a level or handlers of their own.
LIBRARIES = {"uvicorn": "INFO", "uvicorn.access": "WARNING", "celery": "WARNING"} | {
    "celery.redirected": "WARNING",
    "kombu": "WARNING",
    "amqp": "ERROR",
}
LONGEST = 2_000
LONGEST_TRACE = 20_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|[\ud800-\udfff]")
_SECRETS = (
    (re.compile(r"(lws?_[0-9a-f]{32}_)[\w-]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s]+@"), r"\1***@"),
)


def configure(level: str = "INFO", *, stream: TextIO | None = None) -> None:
    """Set up logging of the whole process, libraries included. May be called again."""
    human = stream is None and sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    ending: list[Processor] = (
        [tidy, structlog.dev.ConsoleRenderer()]
        if human
        else [
            structlog.processors.format_exc_info,
            tidy,
            structlog.processors.JSONRenderer(ensure_ascii=True, default=repr),
        ]
    )
    handler = _StandardError(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _StandardError)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name, least in {
        **LIBRARIES,
        **dict.fromkeys(OWN, level),
        LOGGER: "INFO",
    }.items():
        _adopt(logging.getLogger(name), least)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _adopt(logger: logging.Logger, level: str) -> None:
    """Its lines go the way of all others, whatever its library has set up before."""
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(level)


def tidy(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make every text of a line safe to print and to keep."""
    return {
        name: _cleaned(value, LONGEST_TRACE if name == "exception" else LONGEST)
        for name, value in event.items()
    }


def _cleaned(value: Any, length: int) -> Any:
    if isinstance(value, str):
        for pattern, blot in _SECRETS:
            value = pattern.sub(blot, value)
        if len(value) > length:
            value = f"{value[:length]}… ({len(value)} characters)"
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], value)
    if isinstance(value, Mapping):
        return {str(_cleaned(name, 200)): _cleaned(each, length) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(each, length) for each in value]
    return value


class _StandardError(logging.Handler):
    """Writes to what standard error is now, not to what it was at set-up."""

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


# MERGED app.logging
# Who did what to keys, models and the notes of jobs: one log line of the event `audit` for each,
# whatever the level.
#
# A line about a request names its `request_id` and the `key_id` of the caller.

LOGGER = "app.logging"
log = structlog.get_logger(LOGGER)


def note(action: str, **about: object) -> None:
    """Called once it is done: after the commit."""
    log.info("audit", action=action, **about)
