"""Errors that a reader may raise, reported as the service reports them."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.sandbox.runner import SandboxResult
from lora_core import __main__ as library
from lora_core.child_protocol import EXIT_FAILED, format_json_line
from lora_core.errors import LoraCoreError
from lora_core.events import Failed


@contextmanager
def documented_errors() -> Iterator[None]:
    """Take errors of the library, which must survive the way from the child to the service."""
    try:
        yield
    except LoraCoreError as error:
        _report(error)


def _report(error: LoraCoreError) -> None:
    detail = library._json_ready(error.detail)
    failed = Failed(code=error.code, message=str(error), detail=detail)
    line = format_json_line(failed).encode()
    reported = SandboxResult(EXIT_FAILED, line, "").parse_error(LoraCoreError)
    assert type(reported) is type(error)
