"""What an event of a training process is in the tables: points of curves, or words."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple

import structlog
from sqlalchemy.orm import Session

from app.database.engines import Database
from app.database.errors import OUTAGE
from app.queue import checkpoints, leases
from app.queue.fencing import Lease, StoredCheckpoint
from app.queue.tables import JobEvent, MetricPoint
from app.queue.transitions import Told
from app.storage.store import ArtifactRef
from lora_core.events import (
    CandidateTried,
    CheckpointSaved,
    Evaluated,
    Event,
    Finished,
    Noted,
    Resumed,
    RivalFitted,
    Selected,
    Started,
    StepLogged,
    Tick,
)
from lora_core.specs.data import Split
from lora_core.specs.method import named
from worker.db_retry import Contact
from worker.periodic import meanwhile

STEP_METRICS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "reviews_per_second",
    "tokens_per_second",
    "peak_memory_mb",
)


class Kept(NamedTuple):
    """A checkpoint that is in the store."""

    step: int
    ref: ArtifactRef

    def told(self) -> Told:
        return Told("checkpoint", "info", f"Saved at step {self.step:,}.", {"step": self.step})


class Point(NamedTuple):
    """One figure at one step. A value that is not finite has none, and says so."""

    split: Split
    name: str
    step: int
    epoch: float | None
    value: float | None
    nonfinite: bool


def points(event: Event) -> Iterator[Point]:
    """The figures in an event."""
    if isinstance(event, StepLogged):
        for name in STEP_METRICS:
            yield _point(Split.TRAIN, name, event.step, event.epoch, getattr(event, name))
    elif isinstance(event, Evaluated):
        for name, value in event.metrics.items():
            yield _point(event.split, name, event.step, None, value)


def told(event: Event) -> Told | None:
    """The row of an event, if it has one. A failure has none: the closing event tells it."""
    match event:
        case Started():
            return Told("training", "info", _beginning(event), _data(event))
        case Resumed():
            level = "info" if event.exact else "warning"
            return Told("resumed", level, _onward(event), _data(event))
        case Noted():
            return Told("noted", event.level, event.message, {"code": event.code})
        case Evaluated():
            return Told("evaluated", "info", _figures(event), _data(event))
        case RivalFitted():
            return Told("rival", "info", _rival(event), _data(event))
        case CandidateTried():
            return Told("candidate", "info", _tried(event), _data(event))
        case Selected():
            text = f"{named(event.method)} is trained on all {event.texts:,} texts."
            return Told("selected", "info", text, _data(event))
        case Finished():
            return Told("trained", "info", "Done; the result is being stored.", {})
        case _:
            return None


def _point(split: Split, name: str, step: int, epoch: float | None, value: float | None) -> Point:
    finite = value is not None and math.isfinite(value)
    return Point(split, name, step, epoch, value if finite else None, nonfinite=not finite)


def _data(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(event.model_dump_json(exclude={"event"}))
    return data


def _beginning(event: Started) -> str:
    return (
        f"Training {event.trainable_parameters:,} of {event.total_parameters:,} parameters "
        f"for {event.total_steps:,} steps on {event.device}."
    )


def _onward(event: Resumed) -> str:
    exactly = f"Going on from step {event.step:,}."
    if event.exact:
        return exactly
    changes = "; ".join(event.differences)
    return f"{exactly} The numbers will differ from those of an unbroken run: {changes}."


def _figures(event: Evaluated) -> str:
    figures = (
        f"{point.name} {'not finite' if point.value is None else format(point.value, '.4f')}"
        for point in points(event)
    )
    return f"{event.split.capitalize()} at step {event.step}: {', '.join(figures)}."


def _tried(event: CandidateTried) -> str:
    found = event.result
    return (
        f"{event.number} of {event.of}: {named(found.method)} answers {found.accuracy:.1%} of "
        f"{found.texts:,} held-out texts rightly ({found.low:.1%} to {found.high:.1%})."
    )


def _rival(event: RivalFitted) -> str:
    part, values = ("validation", event.validation) if event.validation else ("test", event.test)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
    return f"The linear rival on {part}: {figures}."


# MERGED worker.recorder
# Gathers what a training process tells and writes it down.
#
# Rows are written together, in one transaction whose first statement is the beat: it renews the
# lease, reports whether the job is still ours, and reserves the numbers of the rows. While the
# database does not answer, training continues and the rows wait here.

WRITE_SECONDS = 1.0
WRITE_ROWS = 50
MOST_ROWS = 10_000  # kept while the database is away; points beyond are dropped, words are not
LONGEST_MESSAGE = 4_000  # characters

log = structlog.get_logger(__name__)


class Recorder:
    """Holds what one attempt has told and not yet written. `step` is the last one heard of.

    `public` makes what is told fit for users; it concerns what is added from then on.
    """

    def __init__(
        self, database: Database, lease: Lease, *, beat_seconds: float, drop: Callable[[str], None]
    ) -> None:
        """`drop` removes the files of a checkpoint that is not needed any more."""
        self.public: Callable[[Any], Any] = lambda value: value
        self.step = 0
        self.saved_step: int | None = None  # of the last checkpoint of this attempt that counts
        self.cancel_requested = False
        self.fenced = False
        self._database = database
        self._lease = lease
        self._beat_seconds = beat_seconds
        self._drop = drop
        self._contact = Contact(log)
        self._exact = True
        self._total_steps: int | None = None
        self._rows: list[Point | Told | Kept] = []
        self._unsure = (0, 0)  # first number and length of a batch that may be written or not
        self._last_steps: dict[tuple[str, str], int] = {}
        self._written_at = time.monotonic()
        self._written_step = 0

    def begin(self, checkpoint: StoredCheckpoint | None) -> None:
        """Where the training goes on. `None`: at its beginning."""
        self.step = checkpoint.step if checkpoint else 0

    def add(self, event: Event) -> None:
        """Take an event in; `write` brings it to the database."""
        if isinstance(event, Tick | StepLogged | CheckpointSaved):
            self.step = max(self.step, event.step)
        elif isinstance(event, Started):
            self._total_steps = event.total_steps
        elif isinstance(event, Resumed):
            self.step, self._exact = event.step, event.exact
        for point in points(event):
            curve = (point.split, point.name)
            # A curve only goes on: the last evaluation repeats the step of the best one.
            if point.step > self._last_steps.get(curve, -1) and len(self._rows) < MOST_ROWS:
                self._last_steps[curve] = point.step
                self._rows.append(point)
        if (words := told(event)) is not None:
            message = self.public(words.message)[:LONGEST_MESSAGE]
            self._rows.append(words._replace(message=message, data=self.public(words.data)))

    def note_stored(self, step: int, ref: ArtifactRef) -> None:
        """A checkpoint is stored; its row takes its place among what was told before and after."""
        self._rows.append(Kept(step, ref))

    def note(self, told: Told) -> None:
        """Words of our own."""
        self._rows.append(told)

    def due(self) -> bool:
        """Whether it is time to write."""
        waited = time.monotonic() - self._written_at
        news = bool(self._rows) or self.step > self._written_step
        return (
            waited >= self._beat_seconds
            or (waited >= WRITE_SECONDS and news)
            or len(self._rows) >= WRITE_ROWS
        )

    def write(self) -> None:
        """Beat, and write what has gathered. Sets `fenced` and `cancel_requested`."""
        with suppress(*OUTAGE), self._contact.trying():
            self._write()

    def flush(self) -> None:
        """Write the last rows, once the database answers, so that no curve ends up with a gap."""
        self._contact.insist(self._write)

    def beating(self) -> AbstractContextManager[None]:
        """Keep the job while the block is busy with files. Nothing else may be called inside."""
        return meanwhile(self.write, seconds=self._beat_seconds)

    def _write(self) -> None:
        self._written_at = time.monotonic()
        with self._database.write() as session:
            beat = leases.beat(
                session,
                self._lease,
                step=self.step,
                total_steps=self._total_steps,
                reserve=len(self._rows),
            )
            if beat is None:
                self.fenced = True
                return
            self._settle(session)
            if not self._exact:
                leases.note_inexact(session, self._lease)
            self._unsure = (beat.first_seq, len(self._rows))
            stale = [
                key
                for seq, row in enumerate(self._rows, beat.first_seq)
                for key in self._insert(session, seq, row)
            ]
            session.commit()
        self._forget(len(self._rows))
        for key in stale:
            self._drop(key)
        self._written_step = self.step
        self.cancel_requested = beat.cancel_requested

    def _settle(self, session: Session) -> None:
        """A connection that breaks in a commit leaves open whether it happened. Now that the beat
        has locked the job, the first row of that batch tells.
        """
        first_seq, count = self._unsure
        if count and self._is_there(session, first_seq, self._rows[0]):
            self._forget(count)

    def _is_there(self, session: Session, seq: int, row: Point | Told | Kept) -> bool:
        """The number may also have gone to other words, such as a request to cancel."""
        key = (self._lease.job_id, seq)
        if isinstance(row, Point):
            return session.get(MetricPoint, key) is not None
        words = row.told() if isinstance(row, Kept) else row
        found = session.get(JobEvent, key)
        return found is not None and (found.kind, found.message) == (words.kind, words.message)

    def _forget(self, count: int) -> None:
        """The first rows are in the database."""
        for row in self._rows[:count]:
            if isinstance(row, Kept):
                self.saved_step = row.step
        del self._rows[:count]
        self._unsure = (0, 0)

    def _insert(self, session: Session, seq: int, row: Point | Told | Kept) -> list[str]:
        """One row under its number. Returns the keys of checkpoints that it makes superfluous."""
        place = {"job_id": self._lease.job_id, "attempt": self._lease.attempt, "seq": seq}
        if isinstance(row, Point):
            session.add(MetricPoint(**place, **row._asdict()))
            return []
        if isinstance(row, Told):
            session.add(JobEvent(**place, **row._asdict()))
            return []
        session.add(JobEvent(**place, **row.told()._asdict()))
        return checkpoints.add(session, self._lease, step=row.step, ref=row.ref, seq=seq)
