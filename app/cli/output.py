"""The output of commands: tables for people, JSON for scripts."""

import json
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.responses import FailureJson

PIPE_WIDTH = 200  # columns when the output is not a terminal, so that no cell is cut
SPINNER_DELAY_SECONDS = 1.0
MODEL_LOADING_MESSAGE = "waiting for the response; a model that is not in memory is loaded first"

STATE_STYLE = {
    "queued": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
    "finished": "green",
    "paused": "yellow",
    "stopped": "magenta",
}


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no emoji codes."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def strip_control_characters(value: object) -> str:
    """Return untrusted text that is safe to print: control characters become spaces."""
    return "".join(character if character.isprintable() else " " for character in str(value))


def print_line(text: str, *, style: str | None = None) -> None:
    console().print(strip_control_characters(text), style=style, soft_wrap=True)


def print_warning(text: str) -> None:
    console(stderr=True).print(strip_control_characters(text), style="yellow", soft_wrap=True)


@contextmanager
def slow_spinner(text: str) -> Iterator[None]:
    """On a terminal, show a spinner while the block runs, after the first second."""
    stderr = console(stderr=True)
    if not stderr.is_terminal:
        yield
        return
    status = stderr.status(text)
    timer = threading.Timer(SPINNER_DELAY_SECONDS, status.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def print_json(value: Any) -> None:
    """Print a JSON value."""
    sys.stdout.write(format_json(value))


def format_json(value: Any) -> str:
    """Return indented JSON that is safe to print."""
    return _escape_control_characters(json.dumps(value, ensure_ascii=False, indent=2)) + "\n"


def print_json_line(value: Any) -> None:
    """Print a JSON value on one line, and flush."""
    sys.stdout.write(_escape_control_characters(json.dumps(value, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def print_file(chunks: Iterable[bytes]) -> None:
    """Print the bytes of a file; on a terminal, without control characters."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.writelines(chunks)
        return
    for line in b"".join(chunks).decode("utf-8", "replace").splitlines():
        sys.stdout.write(f"{strip_control_characters(line)}\n")


def _escape_control_characters(text: str) -> str:
    """Return the same JSON with terminal control characters escaped; U+009B (CSI) is one, too."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
        for character in text
    )


def format_failure(failure: FailureJson | None) -> str | None:
    """Return why something failed or waits: the message, and the code to search for."""
    return failure and f"{failure['message']} ({failure['code']})"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows under a header, or the sentence `empty`. `>name` is a right-aligned column."""
    cells = [[format_value(cell) for cell in row] for row in rows]
    if not cells:
        print_line(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if number else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console().print(table)


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one per line, without values that are None."""
    fields = [(name, format_value(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in fields), default=0)
    for name, value in fields:
        line = Text(f"{name:<{width}}  ", style="bold").append(value, style="not bold")
        console().print(line, soft_wrap=True)


def format_value(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return strip_control_characters(value)


def format_percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}%"


def format_time(at: str | None) -> str:
    """Convert an RFC 3339 time in UTC to local time."""
    return "-" if at is None else f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S}"


def format_duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
