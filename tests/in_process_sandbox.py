"""Run `lora_core` in the process of a test instead of a child, which takes a second to start."""

import sys
from collections.abc import Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO
from unittest.mock import patch

from pydantic import BaseModel

from app.sandbox.runner import SandboxLimits, SandboxResult
from lora_core import __main__ as library
from lora_core import child_protocol
from lora_core.arguments import build_parser
from lora_core.errors import LoraCoreError
from lora_core.events import Failed


class _Lines(library.ExclusiveStdoutJsonWriter):
    """Collects lines instead of writing them to standard output."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, value: BaseModel) -> None:
        self.content += child_protocol.format_json_line(value).encode() + b"\n"


def run_in_process(
    arguments: Sequence[str],
    *,
    limits: SandboxLimits,
    readable: Sequence[Path],
    writable: Sequence[Path] = (),
    stdin: IO[bytes] | None = None,
) -> SandboxResult:
    """Do what `app.sandbox.runner.run_lora_core_sandboxed` does, without limits."""
    del limits, readable, writable
    parsed, lines = build_parser(None).parse_args(arguments), _Lines()
    code = 0
    sent = TextIOWrapper(BytesIO(stdin.read() if stdin else b""))
    try:
        with patch.object(sys, "stdin", sent):
            library._COMMANDS[parsed.command](parsed, lines)
    except LoraCoreError as error:
        detail = library._json_ready(error.detail)
        lines.write(Failed(code=error.code, message=str(error), detail=detail))
        code = child_protocol.EXIT_FAILED
    return SandboxResult(code, lines.content, "")
