"""Writes the events of a child process to the database: points of curves, and messages.

Rows are written in batches, one transaction each. Its first statement renews the lease, reports
whether the job is still ours, and reserves the sequence numbers of the rows. While the database is
unreachable, the process continues and the rows are buffered here.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, NamedTuple

import structlog
from sqlalchemy.orm import Session

from app.database.engines import Database
from app.database.errors import OUTAGE_ERRORS
from app.queue import checkpoints, leases
from app.queue.events import EventContent
from app.queue.fencing import Lease, StoredCheckpoint
from app.queue.tables import JobEvent, MetricPoint
from app.storage.store import ArtifactRef
from lora_core.data.data_report import format_count
from lora_core.events import (
    CandidateEvaluated,
    CheckpointSaved,
    Evaluated,
    Event,
    Finished,
    LinearModelFitted,
    MethodSelected,
    NoteLogged,
    ProgressReported,
    Resumed,
    Started,
    StepLogged,
)
from lora_core.specs.data import Split
from lora_core.specs.method import describe_method
from lora_core.tasks.metric_info import METRICS
from worker.outages import OutageTracker

STEP_METRICS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "reviews_per_second",
    "tokens_per_second",
    "peak_memory_mb",
)


class CheckpointRow(NamedTuple):
    """A stored checkpoint whose database row is to be written."""

    step: int
    ref: ArtifactRef

    def to_event_content(self) -> EventContent:
        return EventContent(
            "checkpoint", "info", f"Saved at step {self.step:,}.", {"step": self.step}
        )


class StepMetricValue(NamedTuple):
    """One metric at one step. A value that is not finite is None, with `nonfinite` set."""

    split: Split
    name: str
    step: int
    epoch: float | None
    value: float | None
    nonfinite: bool


def metric_values(event: Event) -> Iterator[StepMetricValue]:
    """Yield the metrics in an event."""
    if isinstance(event, StepLogged):
        for name in STEP_METRICS:
            yield _metric_value(Split.TRAIN, name, event.step, event.epoch, getattr(event, name))
    elif isinstance(event, Evaluated):
        for name, value in event.metrics.items():
            yield _metric_value(event.split, name, event.step, None, value)


def event_to_content(event: Event) -> EventContent | None:
    """Return the row of an event, if it has one. A failure has none: the final event reports it."""
    match event:
        case Started():
            return EventContent("training", "info", _describe_start(event), _event_data(event))
        case Resumed():
            level = "info" if event.exact else "warning"
            return EventContent("resumed", level, _describe_resume(event), _event_data(event))
        case NoteLogged():
            return EventContent("noted", event.level, event.message, {"code": event.code})
        case Evaluated():
            return EventContent(
                "evaluated", "info", _describe_evaluation(event), _event_data(event)
            )
        case LinearModelFitted():
            return EventContent("linear_model", "info", _describe_linear(event), _event_data(event))
        case CandidateEvaluated():
            return EventContent("candidate", "info", _describe_candidate(event), _event_data(event))
        case MethodSelected():
            text = f"Training {describe_method(event.method)} on all {event.texts:,} texts."
            return EventContent("selected", "info", text, _event_data(event))
        case Finished():
            return EventContent("storing", "info", "Storing the result.", {})
        case _:
            return None


def _metric_value(
    split: Split, name: str, step: int, epoch: float | None, value: float | None
) -> StepMetricValue:
    finite = value is not None and math.isfinite(value)
    return StepMetricValue(
        split, name, step, epoch, value if finite else None, nonfinite=not finite
    )


def _event_data(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(event.model_dump_json(exclude={"event"}))
    return data


def _describe_start(event: Started) -> str:
    return (
        f"Training {event.trainable_parameters:,} of {event.total_parameters:,} parameters "
        f"for {format_count(event.total_steps, 'step')} on {event.device}."
    )


def _describe_resume(event: Resumed) -> str:
    sentence = f"Resumed from step {event.step:,}."
    if event.exact:
        return sentence
    changes = "; ".join(event.differences)
    return f"{sentence} Metrics will differ from those of an uninterrupted run: {changes}."


def _describe_evaluation(event: Evaluated) -> str:
    metrics = (
        f"{metric.name} {'not finite' if metric.value is None else format(metric.value, '.4f')}"
        for metric in metric_values(event)
    )
    return f"{event.split.capitalize()} at step {event.step}: {', '.join(metrics)}."


def _describe_candidate(event: CandidateEvaluated) -> str:
    result, name = event.result, METRICS[event.result.metric].label
    form = ".1%" if METRICS[result.metric].is_share else ".4g"
    value, low, high = (format(each, form) for each in (result.value, result.low, result.high))
    what = (
        f"classifies {value} of {result.texts:,} held-out texts correctly"
        if result.metric == "accuracy"
        else f"has {name} {value} on {result.texts:,} held-out texts"
    )
    return (
        f"{event.number} of {event.of}: {describe_method(result.method)} {what} "
        f"(95% interval {low} to {high})."
    )


def _describe_linear(event: LinearModelFitted) -> str:
    split, values = event.held_out
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    return f"Linear model (TF-IDF + {event.estimator}) on {split}: {metrics}."


WRITE_SECONDS = 1.0  # between two writes of new rows
MAX_BATCH_ROWS = 50
# While the database is unreachable, further metrics are dropped; messages are always kept.
MAX_BUFFERED_ROWS = 10_000
MAX_MESSAGE_CHARS = 4_000

log = structlog.get_logger(__name__)


@contextmanager
def running_periodically_in_thread(work: Callable[[], None], *, seconds: float) -> Iterator[None]:
    """Call `work` every `seconds` in a thread while the block runs. The block must not call it."""
    stopped = threading.Event()

    def repeat() -> None:
        while not stopped.wait(seconds):
            try:
                work()
            except Exception:  # the next call may succeed: a lease must not expire for this one
                log.exception("a periodic call failed")

    thread = threading.Thread(target=repeat, name="periodic", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class Recorder:
    """Buffers the events of one attempt until they are written.

    `step` is the last one reported. `to_public` replaces local paths in later events with the names
    that users know.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        *,
        heartbeat_seconds: float,
        delete_artifact: Callable[[str], None],
    ) -> None:
        """Start empty. `delete_artifact` removes the files of a superseded checkpoint by key."""
        self.to_public: Callable[[Any], Any] = lambda value: value
        self.step = 0
        self.saved_step: int | None = None  # of this attempt's last checkpoint that is recorded
        self.cancel_requested = False
        self.pause_requested = False
        self.lease_lost = False
        self._database = database
        self._lease = lease
        self._heartbeat_seconds = heartbeat_seconds
        self._delete_artifact = delete_artifact
        self._outages = OutageTracker(log)
        self._resumed_exactly: bool | None = None  # to be recorded with the next write
        self._total_steps: int | None = None
        self._rows: list[StepMetricValue | EventContent | CheckpointRow] = []
        # First sequence number and length of a batch whose commit may or may not have succeeded.
        self._uncertain_batch = (0, 0)
        self._last_steps: dict[tuple[str, str], int] = {}
        self._written_at = time.monotonic()
        self._written_step = 0

    def set_start_step(self, checkpoint: StoredCheckpoint | None) -> None:
        """Set the step where the training starts: that of the checkpoint, or 0."""
        self.step = checkpoint.step if checkpoint else 0

    def add_event(self, event: Event) -> None:
        """Buffer an event until the next write."""
        if isinstance(event, ProgressReported | StepLogged | CheckpointSaved):
            self.step = max(self.step, event.step)
        elif isinstance(event, Started):
            self._total_steps = event.total_steps
        elif isinstance(event, Resumed):
            self.step, self._resumed_exactly = event.step, event.exact
        for metric in metric_values(event):
            curve = (metric.split, metric.name)
            # Steps only increase: the final evaluation repeats the step of the best one.
            is_new = metric.step > self._last_steps.get(curve, -1)
            if is_new and len(self._rows) < MAX_BUFFERED_ROWS:
                self._last_steps[curve] = metric.step
                self._rows.append(metric)
        if (entry := event_to_content(event)) is not None:
            message = self.to_public(entry.message)[:MAX_MESSAGE_CHARS]
            self._rows.append(entry._replace(message=message, data=self.to_public(entry.data)))

    def add_row(self, row: EventContent | CheckpointRow) -> None:
        """Buffer a message of the worker or a stored checkpoint, in order with the events."""
        self._rows.append(row)

    def is_due(self) -> bool:
        """Return whether it is time to write."""
        waited = time.monotonic() - self._written_at
        pending = bool(self._rows) or self.step > self._written_step
        return (
            waited >= self._heartbeat_seconds
            or (waited >= WRITE_SECONDS and pending)
            or len(self._rows) >= MAX_BATCH_ROWS
        )

    def renew_lease_and_write(self) -> None:
        """Renew the lease and write the buffered rows.

        Sets `lease_lost`, `cancel_requested` and `pause_requested`.
        """
        with suppress(*OUTAGE_ERRORS), self._outages.tracking_outage():
            self._write()

    def flush(self) -> None:
        """Write the last rows, retrying until the database is reachable, so no curve has a gap."""
        self._outages.retry(self._write)

    def renewing_lease(self) -> AbstractContextManager[None]:
        """Renew the lease in the background while the block handles files.

        The block must not call any other method of the recorder.
        """
        return running_periodically_in_thread(
            self.renew_lease_and_write, seconds=self._heartbeat_seconds
        )

    def _write(self) -> None:
        self._written_at = time.monotonic()
        with self._database.write() as session:
            renewal = leases.renew_lease(
                session,
                self._lease,
                step=self.step,
                total_steps=self._total_steps,
                reserve=len(self._rows),
            )
            if renewal is None:
                self.lease_lost = True
                return
            self._resolve_uncertain_commit(session)
            if self._resumed_exactly is not None:
                leases.record_resume_exactness(session, self._lease, exact=self._resumed_exactly)
            self._uncertain_batch = (renewal.first_seq, len(self._rows))
            superseded = [
                key
                for seq, row in enumerate(self._rows, renewal.first_seq)
                for key in self._insert_row(session, seq, row)
            ]
        self._resumed_exactly = None
        self._mark_written(len(self._rows))
        for key in superseded:
            self._delete_artifact(key)
        self._written_step = self.step
        self.cancel_requested = renewal.cancel_requested
        self.pause_requested = renewal.pause_requested

    def _resolve_uncertain_commit(self, session: Session) -> None:
        """Find out whether a batch was written whose connection broke during the commit.

        The renewal has locked the job, so its first row is a reliable sign.
        """
        first_seq, count = self._uncertain_batch
        if count and self._row_exists(session, first_seq, self._rows[0]):
            self._mark_written(count)

    def _row_exists(
        self, session: Session, seq: int, row: StepMetricValue | EventContent | CheckpointRow
    ) -> bool:
        """Return whether the row was written under this number.

        The number may have gone to another event instead, such as a request to cancel.
        """
        key = (self._lease.job_id, seq)
        if isinstance(row, StepMetricValue):
            return session.get(MetricPoint, key) is not None
        entry = row.to_event_content() if isinstance(row, CheckpointRow) else row
        event = session.get(JobEvent, key)
        return event is not None and (event.kind, event.message) == (entry.kind, entry.message)

    def _mark_written(self, count: int) -> None:
        """Remove the first `count` rows from the buffer: they are in the database."""
        for row in self._rows[:count]:
            if isinstance(row, CheckpointRow):
                self.saved_step = row.step
        del self._rows[:count]
        self._uncertain_batch = (0, 0)

    def _insert_row(
        self, session: Session, seq: int, row: StepMetricValue | EventContent | CheckpointRow
    ) -> list[str]:
        """Insert one row. Return the storage keys of the checkpoints that it supersedes."""
        columns = {"job_id": self._lease.job_id, "attempt": self._lease.attempt, "seq": seq}
        if isinstance(row, StepMetricValue):
            session.add(MetricPoint(**columns, **row._asdict()))
            return []
        if isinstance(row, EventContent):
            session.add(JobEvent(**columns, **row._asdict()))
            return []
        session.add(JobEvent(**columns, **row.to_event_content()._asdict()))
        return checkpoints.record_and_rotate_checkpoints(
            session, self._lease, step=row.step, ref=row.ref, seq=seq
        )
