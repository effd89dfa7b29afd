"""What is known of a training run so far. Streams and local runs feed it, displays read it."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Protocol, Self, cast

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.cli.client import Client, Message
from app.cli.errors import RunFailed, Unreachable
from app.cli.options import AsJson, JobId, connected
from app.cli.output import (
    STATE_STYLE,
    console,
    duration,
    facts,
    json_line,
    percent,
    plain,
    say,
    warn,
)
from app.cli.output import as_json as print_json
from app.cli.polling import PATIENCE_SECONDS
from app.cli.responses import Job, Json, Point
from app.cli.results import print_results

Series = tuple[str, str]  # part and figure, such as ("validation", "accuracy")

TRAIN_LOSS: Series = ("train", "loss")
ACCURACY: Series = ("validation", "accuracy")
SPEED: Series = ("train", "reviews_per_second")
KEPT_NOTES = 6
RATE_POINTS = 20  # the rate is that of the last so many points


@dataclass
class Curve:
    """Values by step. A new attempt replaces what the one before it drew from that step on."""

    attempt: int = 0
    values: dict[int, float] = field(default_factory=dict)

    def add(self, step: int, value: float, attempt: int) -> None:
        if attempt > self.attempt:
            self.values = {old: kept for old, kept in self.values.items() if old < step}
            self.attempt = attempt
        self.values[step] = value

    def last(self) -> float | None:
        return self.values[max(self.values)] if self.values else None

    def ordered(self) -> list[float]:
        return [self.values[step] for step in sorted(self.values)]


@dataclass
class Progress:
    """State, position, curves and the last notes of one run. Times are seconds since 1970."""

    title: str
    state: str = "queued"
    queue_position: int | None = None
    step: int = 0
    total: int | None = None
    unit: str = "step"
    curves: dict[Series, Curve] = field(default_factory=dict)
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_NOTES))
    _pace: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RATE_POINTS))

    def note(self, message: str) -> None:
        self.notes.append(message)

    def point(
        self, series: Series, step: int, value: float, *, at: float, attempt: int = 1
    ) -> None:
        self.curves.setdefault(series, Curve()).add(step, value, attempt)
        if series == TRAIN_LOSS:
            self.reach(step, at=at)

    def reach(self, step: int, *, at: float) -> None:
        """So far it has come."""
        self.step = step
        if self._pace and step <= self._pace[-1][1]:  # begun anew
            self._pace.clear()
        self._pace.append((at, step))

    def curve(self, series: Series) -> Curve:
        return self.curves.get(series, Curve())

    @property
    def rate(self) -> float | None:
        """Steps a second."""
        if len(self._pace) < 2:
            return None
        (began, first), (ended, last) = self._pace[0], self._pace[-1]
        return (last - first) / (ended - began) if ended > began else None

    @property
    def seconds_left(self) -> float | None:
        rate, left = self.rate, (self.total or 0) - self.step
        return left / rate if rate and left > 0 else None


# MERGED app.cli.watch
# A curve in one line of text.

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"  # for terminals that know no Unicode


def sparkline(values: Sequence[float], width: int, *, unicode: bool = True) -> str:
    """`values` from the lowest sign to the highest; more than `width` of them are averaged."""
    if not values:
        return ""
    points = _averaged(values, width) if len(values) > width else list(values)
    low, high = min(points), max(points)
    signs = BLOCKS if unicode else ASCII
    if high == low:
        return signs[len(signs) // 2] * len(points)
    scale = (len(signs) - 1) / (high - low)
    return "".join(signs[round((point - low) * scale)] for point in points)


def _averaged(values: Sequence[float], width: int) -> list[float]:
    edges = [len(values) * i // width for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


# MERGED app.cli.watch
# Shows the progress of a run: a live panel in a terminal, plain lines elsewhere.

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


# MERGED app.cli.watch
# Follows a job until it ends: `loraworks watch JOB`.

RETRY_SECONDS = 1.0


def follow(client: Client, job_id: str) -> Iterator[Message]:
    """The job's messages to the last, over as many connections as it takes."""
    after: str | None = None
    heard = time.monotonic()
    while True:
        try:
            for message in client.stream(job_id, after):
                heard = time.monotonic()
                after = message.id or after
                yield message
                if message.event == "end":
                    return
        except Unreachable:
            if time.monotonic() - heard > PATIENCE_SECONDS:
                raise
        time.sleep(RETRY_SECONDS)


def observe(client: Client, job: Job, display: Display) -> Job:
    """Show the job's progress on `display` until it ends, and return it as it ended."""
    progress = Progress(title=f"{job['name'] or job['id']} ({job['method']})")
    _take_job(progress, cast(Json, job))
    with display:
        display.update(progress)
        for message in follow(client, job["id"]):
            display.update(progress, _take(progress, message))
            if message.event == "end":
                return cast(Job, message.data)
    raise Unreachable("the stream ended before the job did", "stream_ended")


def conclude(job: Job) -> None:
    """Print how the job ended. Raises `RunFailed` unless it succeeded."""
    if job["state"] == "succeeded":
        print_results(job["method"], job["summary"] or {})
    else:
        raise ended(job)


def ended(job: Job) -> RunFailed:
    """The error of a job that did not succeed."""
    if error := job["error"]:
        return RunFailed(f"job {job['id']} {job['state']}: {error['message']}", error["code"])
    return RunFailed(f"job {job['id']} was {job['state']}", f"job_{job['state']}")


@connected
def watch(client: Client, job: JobId, as_json: AsJson = False) -> None:
    """Follow a job live: state, speed, loss and accuracy, events, and the result at the end.

    Ctrl-C stops watching; the job goes on. With --json every message is one line.
    """
    if as_json:
        last: Json = {}
        for message in follow(client, job):
            json_line({"event": message.event, "id": message.id, "data": message.data})
            last = message.data
        if last["state"] != "succeeded":
            raise ended(cast(Job, last))
        return
    conclude(interruptible(client, client.job(job)))


def interruptible(client: Client, job: Job, *, quiet: bool = False) -> Job:
    """Observe a job; Ctrl-C, or a service that is gone, says how to come back to it."""
    try:
        return observe(client, job, open_display(quiet=quiet))
    except (KeyboardInterrupt, Unreachable):
        job_id = job["id"]
        warn(f"The job goes on: `loraworks watch {job_id}`, `loraworks jobs cancel {job_id}`.")
        raise


def submitted(client: Client, job: Job, *, live: bool, wait: bool, as_json: bool) -> None:
    """Say what was submitted, or follow it to the end. Raises `RunFailed` unless it succeeds."""
    if not (live or wait):
        print_json(job) if as_json else _print_submitted(job)
        return
    job = interruptible(client, job, quiet=not live)
    if not as_json:
        conclude(job)
        return
    print_json(job)
    if job["state"] != "succeeded":
        raise ended(job)


def _print_submitted(job: Job) -> None:
    parameters = job["parameters"]
    facts(
        [
            ("job", job["id"]),
            ("state", job["state"]),
            ("trainable parameters", parameters and parameters["trainable"]),
            ("estimated time", duration(job["estimated_seconds"])),
            ("place in the queue", job["queue_position"]),
        ]
    )
    say(f"Follow it with `loraworks watch {job['id']}`.")


def _take(progress: Progress, message: Message) -> str | None:
    """Put a message into the progress; return its news, if it has some."""
    data = message.data
    match message.event:
        case "event":
            news = str(data["message"])
            progress.note(news)
            return news
        case "metric":
            _take_point(progress, cast(Point, data))
        case "state":
            _take_job(progress, data)
        case "end":
            _take_job(progress, data)
            return f"{progress.title}: {progress.state}"
    return None


def _take_point(progress: Progress, point: Point) -> None:
    if point["value"] is not None:
        at = datetime.fromisoformat(point["at"]).timestamp()
        series = (point["split"], point["name"])
        progress.point(series, point["step"], point["value"], at=at, attempt=point["attempt"])


def _take_job(progress: Progress, data: Json) -> None:
    """A job, or the part of it that a state message holds."""
    progress.state = data["state"]
    progress.queue_position = data["queue_position"]
    progress.step = data["step"]
    progress.total = data["total_steps"]
