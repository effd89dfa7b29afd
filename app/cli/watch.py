"""Follows a job live: `loraworks watch JOB`. Also the progress displays of other commands."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol, Self
from uuid import UUID

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.cli.errors import RunFailed, ServiceUnreachableOrFailed
from app.cli.options import AsJson, JobId, with_client
from app.cli.output import (
    STATE_STYLE,
    console,
    format_duration,
    format_job_state,
    format_metric,
    print_fields,
    print_json,
    print_json_line,
    print_line,
    print_training_results,
    print_warning,
    strip_control_characters,
)
from app.cli.polling import OUTAGE_TIMEOUT, warn_of_outage
from lora_core.tasks.metric_info import METRICS, main_metric

if TYPE_CHECKING:
    from app.cli.client import Client, JobStreamMessage
    from app.jobs.schemas import JobStateView, JobView, MetricPointView


SeriesKey = tuple[str, str]  # split and metric, such as ("validation", "accuracy")

TRAIN_LOSS: SeriesKey = ("train", "loss")
THROUGHPUT: SeriesKey = ("train", "reviews_per_second")
_MAX_NOTES = 6
_RATE_POINTS = 20  # points from which the rate is computed


@dataclass
class MetricSeries:
    """Values by step. A new attempt replaces the values of earlier ones from its step on."""

    attempt: int = 0
    values: dict[int, float] = field(default_factory=dict)

    def add(self, step: int, value: float, attempt: int) -> None:
        if attempt > self.attempt:
            self.values = {old: value for old, value in self.values.items() if old < step}
            self.attempt = attempt
        self.values[step] = value

    def last(self) -> float | None:
        return self.values[max(self.values)] if self.values else None

    def in_order(self) -> list[float]:
        return [self.values[step] for step in sorted(self.values)]


@dataclass
class RunProgress:
    """State, position, curves, and latest notes of one run. Times are Unix timestamps."""

    title: str
    state: str = "queued"
    queue_position: int | None = None
    step: int = 0
    total: int | None = None
    unit: str = "step"
    metric: str = "accuracy"  # that is shown besides the loss
    curves: dict[SeriesKey, MetricSeries] = field(default_factory=dict)
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_NOTES))
    _step_times: deque[tuple[float, int]] = field(
        default_factory=lambda: deque(maxlen=_RATE_POINTS)
    )

    def add_note(self, message: str) -> None:
        self.notes.append(message)

    def add_point(
        self, series: SeriesKey, step: int, value: float, *, at: float, attempt: int = 1
    ) -> None:
        self.curves.setdefault(series, MetricSeries()).add(step, value, attempt)
        if series == TRAIN_LOSS:
            self.set_step(step, at=at)

    def set_step(self, step: int, *, at: float) -> None:
        """Record the current step. A step that goes back restarts the rate."""
        self.step = step
        if self._step_times and step <= self._step_times[-1][1]:  # restarted
            self._step_times.clear()
        self._step_times.append((at, step))

    def get_series(self, series: SeriesKey) -> MetricSeries:
        return self.curves.get(series, MetricSeries())

    @property
    def rate(self) -> float | None:
        """Return steps per second over the last `_RATE_POINTS` points."""
        if len(self._step_times) < 2:
            return None
        (first_time, first_step), (last_time, last_step) = self._step_times[0], self._step_times[-1]
        elapsed = last_time - first_time
        return (last_step - first_step) / elapsed if elapsed > 0 else None

    @property
    def seconds_left(self) -> float | None:
        rate, left = self.rate, (self.total or 0) - self.step
        return left / rate if rate and left > 0 else None


SPARKLINE_BLOCKS = "▁▂▃▄▅▆▇█"
SPARKLINE_ASCII = "_.-=+*#@"  # for terminals without Unicode


def sparkline(values: Sequence[float], width: int, *, unicode: bool = True) -> str:
    """Draw `values` as one line of text; more than `width` of them are averaged."""
    if not values:
        return ""
    points = _bin_averages(values, width) if len(values) > width else list(values)
    low, high = min(points), max(points)
    characters = SPARKLINE_BLOCKS if unicode else SPARKLINE_ASCII
    if high == low:
        return characters[len(characters) // 2] * len(points)
    scale = (len(characters) - 1) / (high - low)
    return "".join(characters[round((point - low) * scale)] for point in points)


def _bin_averages(values: Sequence[float], width: int) -> list[float]:
    edges = [len(values) * i // width for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


# Displays

_BAR_WIDTH = 40  # columns
_LINE_SECONDS = 5.0  # minimum interval between plain lines about the loss


class ProgressDisplay(Protocol):
    """Updated after every change; `news` is a sentence about it, if worth showing."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def update(self, progress: RunProgress, news: str | None = None) -> None: ...


def open_display(*, quiet: bool = False) -> ProgressDisplay:
    """Return a display on standard error, so that standard output has only the result."""
    if quiet:
        return NullDisplay()
    return LiveDisplay() if console(stderr=True).is_terminal else PlainTextDisplay()


class NullDisplay:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, progress: RunProgress, news: str | None = None) -> None:
        pass


class PlainTextDisplay(NullDisplay):
    """Prints a line per event and evaluation, and one about the loss every few seconds."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._printed_at = float("-inf")

    def update(self, progress: RunProgress, news: str | None = None) -> None:
        if news is not None:
            self._console.print(strip_control_characters(news), soft_wrap=True)
        elif progress.step and monotonic() - self._printed_at >= _LINE_SECONDS:
            self._printed_at = monotonic()
            loss = progress.get_series(TRAIN_LOSS).last()
            line = _format_position(progress) + ("" if loss is None else f", loss {loss:.4f}")
            self._console.print(line, soft_wrap=True)


class LiveDisplay:
    """A panel that is redrawn in position."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._unicode = self._console.encoding.startswith("utf")
        self._live = Live(console=self._console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def update(self, progress: RunProgress, news: str | None = None) -> None:
        del news  # already in the notes
        self._live.update(render_panel(progress, unicode=self._unicode))


def render_panel(progress: RunProgress, *, unicode: bool = True) -> RenderableType:
    """Render state, progress bar, two curves, and the latest notes."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(strip_control_characters(progress.title), style="bold"),
        Text(progress.state, style=STATE_STYLE.get(progress.state, "")),
    )
    bar = ProgressBar(total=progress.total or 1, completed=progress.step, width=_BAR_WIDTH)
    grid.add_row(bar, Text(_format_position(progress)))
    metric = progress.metric
    curves: list[tuple[str, SeriesKey, Callable[[float], str]]] = [
        ("train loss", TRAIN_LOSS, "{:.4f}".format),
        (
            f"validation {METRICS[metric].label}",
            ("validation", metric),
            partial(format_metric, metric),
        ),
    ]
    for name, series, show in curves:
        curve = progress.get_series(series)
        last = curve.last()
        if last is not None:
            curve_text = sparkline(curve.in_order(), _BAR_WIDTH, unicode=unicode)
            grid.add_row(Text(curve_text, style="cyan"), Text(f"{name} {show(last)}"))
    return Group(
        grid, *(Text(f"  {strip_control_characters(note)}", style="dim") for note in progress.notes)
    )


def _format_position(progress: RunProgress) -> str:
    """Return the position, such as `step 120/250, 96 reviews/s, 40 s left`."""
    if progress.state == "queued" and progress.queue_position is not None:
        return f"queue position {progress.queue_position}"
    position = f"{progress.unit} {progress.step}/{progress.total}"
    parts = [position if progress.total else progress.state]
    speed = progress.get_series(THROUGHPUT).last()
    if speed is not None:
        parts.append(f"{speed:.0f} reviews/s")
    if progress.seconds_left is not None:
        parts.append(f"{format_duration(progress.seconds_left)} left")
    return ", ".join(parts)


# Following a job

RETRY_SECONDS = 1.0


def stream_job_messages(client: "Client", job_id: str | UUID) -> Iterator["JobStreamMessage"]:
    """Yield the job's messages until its end, reconnecting as needed."""
    after: str | None = None
    failing_since: float | None = None  # not since the last message: a queued job sends none
    while True:
        try:
            for message in client.stream_job(job_id, after):
                failing_since = None
                after = message.id or after
                yield message
                if message.event == "end":
                    return
        except ServiceUnreachableOrFailed as error:
            if failing_since is None:
                failing_since = monotonic()
                warn_of_outage(error)
            elif monotonic() - failing_since > OUTAGE_TIMEOUT:
                raise
        sleep(RETRY_SECONDS)


def watch_job(client: "Client", job: "JobView", display: ProgressDisplay) -> "JobView":
    """Show the job's progress on `display` until it ends, and return the finished job."""
    from app.jobs.schemas import JobView

    progress = RunProgress(
        title=f"{job.name or job.id} ({job.method})", metric=main_metric(job.spec)
    )
    _apply_state(progress, job)
    with display:
        display.update(progress)
        for message in stream_job_messages(client, job.id):
            display.update(progress, _apply_message(progress, message))
            if isinstance(message.body, JobView):
                return message.body
    raise ServiceUnreachableOrFailed("the stream ended before the job finished", "stream_ended")


def print_outcome_and_require_success(job: "JobView") -> None:
    """Print how the job ended. Raises `RunFailed` unless it succeeded."""
    if job.state == "succeeded":
        print_training_results(job.method, job.summary or {})
    else:
        raise job_failed_error(job)


def job_failed_error(job: "JobView") -> RunFailed:
    """Return the error of a job that did not succeed."""
    if error := job.error:
        return RunFailed(f"job {job.id} {job.state}: {error.message}", error.code)
    return RunFailed(f"job {job.id} was {job.state}", f"job_{job.state}")


@with_client
def watch(client: "Client", job: JobId, as_json: AsJson = False) -> None:
    """Follow a job live: state, throughput, loss, accuracy, events, and the result.

    Ctrl-C stops watching; the job keeps running. --json prints one message per line.
    """
    from app.jobs.schemas import JobView

    if as_json:
        for message in stream_job_messages(client, job):
            print_json_line({"event": message.event, "id": message.id, "data": message.body})
            if isinstance(message.body, JobView) and message.body.state != "succeeded":
                raise job_failed_error(message.body)
        return
    print_outcome_and_require_success(watch_job_with_hint(client, client.get_job(job)))


def watch_job_with_hint(client: "Client", job: "JobView", *, quiet: bool = False) -> "JobView":
    """Watch a job. After Ctrl-C or an outage, print how to return to it."""
    try:
        return watch_job(client, job, open_display(quiet=quiet))
    except (KeyboardInterrupt, ServiceUnreachableOrFailed):
        job_id = job.id
        print_warning(
            f"The job continues. Follow it with `loraworks watch {job_id}`, or stop it with "
            f"`loraworks jobs cancel {job_id}`."
        )
        raise


def report_or_watch(
    client: "Client", job: "JobView", *, live: bool, wait: bool, as_json: bool
) -> None:
    """Print the submitted job, or follow it to its end. Raises `RunFailed` if it fails."""
    if not (live or wait):
        print_json(job) if as_json else _print_submitted(job)
        return
    job = watch_job_with_hint(client, job, quiet=not live)
    if not as_json:
        print_outcome_and_require_success(job)
        return
    print_json(job)
    if job.state != "succeeded":
        raise job_failed_error(job)


def _print_submitted(job: "JobView") -> None:
    print_fields(
        [
            ("job", job.id),
            ("state", format_job_state(job)),
            ("trainable parameters", job.parameters.trainable),
            ("estimated time", format_duration(job.estimated_seconds)),
            ("queue position", job.queue_position),
        ]
    )
    print_line(f"Follow it with `loraworks watch {job.id}`.")


def _apply_message(progress: RunProgress, message: "JobStreamMessage") -> str | None:
    """Apply a message to the progress. Return a sentence if it is worth showing."""
    from app.jobs.schemas import JobEventView, JobView, MetricPointView

    match message.body:
        case JobEventView() as event:
            progress.add_note(event.message)
            return event.message
        case MetricPointView() as point:
            _apply_point(progress, point)
        case JobView() as job:
            _apply_state(progress, job)
            return f"{progress.title}: {progress.state}"
        case state:
            _apply_state(progress, state)
    return None


def _apply_point(progress: RunProgress, point: "MetricPointView") -> None:
    if point.value is not None:
        series = (point.split, point.name)
        progress.add_point(series, point.step, point.value, at=point.at, attempt=point.attempt)


def _apply_state(progress: RunProgress, job: "JobView | JobStateView") -> None:
    progress.state = format_job_state(job)
    progress.queue_position = job.queue_position
    progress.step = job.step
    progress.total = job.total_steps
