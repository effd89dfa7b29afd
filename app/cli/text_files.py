"""Text files that commands read."""

import sys
from collections.abc import Iterator
from pathlib import Path

from app.cli.errors import UsageError


def read_text_file(file: Path) -> str:
    """Return a text, of standard input for `-`, with its line ends, without a byte order mark.

    Raises `UsageError`.
    """
    content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8: {error}; save it as UTF-8", "not_utf8") from error


def read_numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers from 1. Raises `UsageError`.

    Only LF and CRLF end a line: texts may contain the other separators of Unicode.
    """
    for number, line in enumerate(read_text_file(file).split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")
