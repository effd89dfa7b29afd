"""Shows the progress of a run: a live panel in a terminal, plain lines elsewhere."""

import time
from typing import Protocol, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.cli.output import STATE_STYLE, console, duration, percent, plain
from app.cli.progress import ACCURACY, SPEED, TRAIN_LOSS, Progress
from app.cli.sparkline import sparkline

BAR = 40  # columns
LINE_SECONDS = 5.0  # a plain line about the loss, at most this often


class Display(Protocol):
    """Told after every change; `news` is a sentence about it, if it deserves one."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def update(self, progress: Progress, news: str | None = None) -> None: ...


def open_display(*, quiet: bool = False) -> Display:
    """Drawn on standard error, so that standard output holds the result alone."""
    if quiet:
        return Silent()
    return LivePanel() if console(stderr=True).is_terminal else PlainLines()


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: Progress, news: str | None = None) -> None:
        pass


class PlainLines(Silent):
    """One line per event and evaluation, and one about the loss every few seconds."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._spoke = float("-inf")

    def update(self, progress: Progress, news: str | None = None) -> None:
        if news is not None:
            self._console.print(plain(news), soft_wrap=True)
        elif progress.step and time.monotonic() - self._spoke >= LINE_SECONDS:
            self._spoke = time.monotonic()
            loss = progress.curve(TRAIN_LOSS).last()
            told = _position(progress) + ("" if loss is None else f", loss {loss:.4f}")
            self._console.print(told, soft_wrap=True)


class LivePanel:
    """Redrawn in place."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._unicode = self._console.encoding.startswith("utf")
        self._live = Live(console=self._console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def update(self, progress: Progress, news: str | None = None) -> None:
        del news  # among the notes already
        self._live.update(panel(progress, unicode=self._unicode))


def panel(progress: Progress, *, unicode: bool = True) -> RenderableType:
    """State, bar, two curves, the last notes."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(plain(progress.title), style="bold"),
        Text(progress.state, style=STATE_STYLE.get(progress.state, "")),
    )
    bar = ProgressBar(total=progress.total or 1, completed=progress.step, width=BAR)
    grid.add_row(bar, Text(_position(progress)))
    for name, series, show in (
        ("train loss", TRAIN_LOSS, lambda value: f"{value:.4f}"),
        ("validation accuracy", ACCURACY, percent),
    ):
        curve = progress.curve(series)
        last = curve.last()
        if last is not None:
            drawn = sparkline(curve.ordered(), BAR, unicode=unicode)
            grid.add_row(Text(drawn, style="cyan"), Text(f"{name} {show(last)}"))
    return Group(grid, *(Text(f"  {plain(note)}", style="dim") for note in progress.notes))


def _position(progress: Progress) -> str:
    """`step 120/250, 96 reviews/s, 40 s left`"""
    if progress.state == "queued" and progress.queue_position is not None:
        return f"place {progress.queue_position} in the queue"
    place = f"{progress.unit} {progress.step}/{progress.total}"
    parts = [place if progress.total else progress.state]
    speed = progress.curve(SPEED).last()
    if speed is not None:
        parts.append(f"{speed:.0f} reviews/s")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return ", ".join(parts)
