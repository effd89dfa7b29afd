"""What commands print: tables for people, JSON for scripts."""

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

from app.cli.responses import Failure

PIPE_WIDTH = 200  # columns when nobody looks, so that no cell is cut
PATIENCE_SECONDS = 1.0
FIRST_ANSWER = "waiting for the answer; a model that was not asked for a while is loaded first"

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
    """A console that takes every text as it is: no markup, no emoji codes."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def plain(value: object) -> str:
    """A text of the service or of a user, safe to show: control characters become spaces."""
    return "".join(sign if sign.isprintable() else " " for sign in str(value))


def say(text: str, *, style: str | None = None) -> None:
    console().print(plain(text), style=style, soft_wrap=True)


def warn(text: str) -> None:
    console(stderr=True).print(plain(text), style="yellow", soft_wrap=True)


@contextmanager
def patience(text: str) -> Iterator[None]:
    """Says so at a terminal, while it lasts, once what is done here takes more than a second."""
    stderr = console(stderr=True)
    if not stderr.is_terminal:
        yield
        return
    status = stderr.status(text)
    timer = threading.Timer(PATIENCE_SECONDS, status.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def as_json(value: Any) -> None:
    """One JSON value."""
    sys.stdout.write(json_text(value))


def json_text(value: Any) -> str:
    """JSON on several lines, safe to show."""
    return _safe(json.dumps(value, ensure_ascii=False, indent=2)) + "\n"


def json_line(value: Any) -> None:
    """One JSON value on one line, at once."""
    sys.stdout.write(_safe(json.dumps(value, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def file(pieces: Iterable[bytes]) -> None:
    """A file as it is; at a terminal without what could steer it."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.writelines(pieces)
        return
    for line in b"".join(pieces).decode("utf-8", "replace").splitlines():
        sys.stdout.write(f"{plain(line)}\n")


def _safe(text: str) -> str:
    """The same JSON, with escapes for what could steer a terminal: U+009B begins a command, too."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text
    )


def reason(why: Failure | None) -> str | None:
    """Why something failed or waits: the message, and the code to search for."""
    return why and f"{why['message']} ({why['code']})"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Rows under a heading, or the sentence `empty`. Columns named `>like this` hold numbers."""
    shown = [[show(cell) for cell in row] for row in rows]
    if not shown:
        say(empty)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column.startswith(">")
        grid.add_column(column.lstrip(">"), justify="right" if number else "left", overflow="fold")
    for row in shown:
        grid.add_row(*row)
    console().print(grid)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; what is not known is left out."""
    known = [(name, show(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        line = Text(f"{name:<{width}}  ", style="bold").append(value, style="not bold")
        console().print(line, soft_wrap=True)


def show(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return plain(value)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def moment(at: str | None) -> str:
    """RFC 3339 in UTC to the clock of this machine."""
    return "-" if at is None else f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
