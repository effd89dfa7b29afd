"""Counts over the tables. Each is a list of rows: the values of the labels, then the number."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import ColumnElement, Executable, and_, func, select
from sqlalchemy.orm import Session

from app.database.clock import now
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.queue.states import JobState, Kind, Lane, Outcome
from app.queue.tables import Attempt, Checkpoint, Job, Worker
from app.storage.tables import RESULTS, Artifact
from lora_core.specs.method import MethodName

Row = tuple[Any, ...]
Rows = list[Row]

_QUEUED = Job.state == JobState.QUEUED
_METHODS = get_args(MethodName)
_DEVICES = ("cpu", "cuda")


class Look:
    """One look at the tables. A worker counts as alive for `lease_seconds` after its last beat."""

    def __init__(self, session: Session, *, lease_seconds: float) -> None:
        self._session = session
        self._alive = Worker.seen_at >= now() - lease_seconds

    def jobs(self) -> Rows:
        """State, method."""
        counted = select(Job.state, Job.method, func.count()).where(Job.kind == Kind.TRAINING)
        grouped = counted.group_by(Job.state, Job.method)
        expected = [(state.value, method) for state in JobState for method in _METHODS]
        return _filled(expected, self._rows(grouped))

    def predictions(self) -> Rows:
        """State."""
        counted = select(Job.state, func.count()).where(Job.kind == Kind.PREDICTION)
        expected = [(state.value,) for state in JobState]
        return _filled(expected, self._rows(counted.group_by(Job.state)))

    def queued(self) -> Rows:
        """Lane."""
        grouped = select(Job.lane, func.count()).where(_QUEUED).group_by(Job.lane)
        return _filled(_lanes(), self._rows(grouped))

    def oldest_queued(self) -> Rows:
        """Lane; seconds since the job could have been taken."""
        age = func.max(now() - Job.run_after)
        grouped = select(Job.lane, age).where(_QUEUED, Job.run_after <= now()).group_by(Job.lane)
        return _filled(_lanes(), self._rows(grouped))

    def hints_resent(self) -> Rows:
        return self._sum(Job.dispatch_count, _QUEUED)

    def attempts(self) -> Rows:
        """Outcome, code of the failure. Only the last attempt of a failed job has one."""
        ended = select(Attempt.outcome, func.count()).where(Attempt.outcome.is_not(None))
        last = and_(Attempt.job_id == Job.id, Attempt.attempt == Job.attempt)
        failed = (
            select(Attempt.outcome, Job.error_code, func.count())
            .join(Job, last)
            .where(Job.kind.in_(tuple(Kind)), Job.state == JobState.FAILED)  # by the index
            .where(Job.error_code.is_not(None), Attempt.outcome.is_not(None))
        )
        with_code = self._rows(failed.group_by(Attempt.outcome, Job.error_code))
        left: Counter[str] = Counter(dict(self._rows(ended.group_by(Attempt.outcome))))
        for outcome, _, number in with_code:
            left[outcome] -= number
        without = [(outcome, "", number) for outcome, number in left.items() if number]
        return _filled([(outcome.value, "") for outcome in Outcome], without + with_code)

    def lease_losses(self) -> Rows:
        lost = select(func.count()).select_from(Attempt).where(Attempt.outcome == Outcome.LOST)
        return self._rows(lost)

    def running(self) -> Rows:
        """Kind of device."""
        held = and_(Job.id == Attempt.job_id, Job.attempt == Attempt.attempt)
        devices = select(Attempt.device).join(Job, held).where(Job.state == JobState.RUNNING)
        return _by_kind(device for (device,) in self._rows(devices))

    def slots(self) -> Rows:
        """Kind of device."""
        lists = select(Worker.devices).where(self._alive)
        return _by_kind(device for (devices,) in self._rows(lists) for device in devices)

    def workers(self) -> Rows:
        """`active` or `draining`."""
        grouped = select(Worker.draining, func.count()).where(self._alive).group_by(Worker.draining)
        found = [("draining" if gone else "active", count) for gone, count in self._rows(grouped)]
        return _filled([("active",), ("draining",)], found)

    def stored_bytes(self) -> Rows:
        """Kind of file."""
        kinds = {
            "artifacts": self._sum(Artifact.bytes, Artifact.kind != RESULTS),
            "results": self._sum(Artifact.bytes, Artifact.kind == RESULTS),
            "checkpoints": self._sum(Checkpoint.bytes),
            "datasets": self._sum(Dataset.bytes, Dataset.deleted_at.is_(None)),
        }
        return [(kind, total) for kind, [(total,)] in kinds.items()]

    def _rows(self, statement: Executable) -> Rows:
        return [tuple(row) for row in self._session.execute(statement)]

    def _sum(self, column: Any, *conditions: ColumnElement[bool]) -> Rows:
        return self._rows(select(func.coalesce(func.sum(column), 0)).where(*conditions))


def _lanes() -> list[Row]:
    return [(lane.value,) for lane in Lane]


def _filled(expected: Sequence[Row], found: Rows) -> Rows:
    """With a zero for what was not found, so that a series does not come and go."""
    there = {row[:-1] for row in found}
    return found + [(*labels, 0) for labels in expected if labels not in there]


def _by_kind(devices: Iterable[str | None]) -> Rows:
    """`cuda:0` and `cuda:1` are two of a kind."""
    kinds = Counter((device or "unknown").partition(":")[0] for device in devices)
    return _filled([(kind,) for kind in _DEVICES], [(kind, n) for kind, n in kinds.items()])


# MERGED app.metrics.database
# What is counted in the tables, under which name. docs/reference/metrics.md is made from here.
#
# These are gauges also where they only seem to grow: deleting a job takes its attempts along.

UP = "loraworks_database_up"
UP_HELP = "1 if the tables could be counted; if not, what is counted in them is left out."


@dataclass(frozen=True, slots=True)
class Measure:
    """One family of figures."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Look], Rows]


MEASURES = (
    Measure("loraworks_jobs", "Jobs.", ("state", "method"), Look.jobs),
    Measure("loraworks_predictions", "Prediction runs.", ("state",), Look.predictions),
    Measure(
        "loraworks_queued_jobs",
        "Jobs and prediction runs that wait, by the kind of device that they need.",
        ("lane",),
        Look.queued,
    ),
    Measure(
        "loraworks_oldest_queued_seconds",
        "How long the longest of them has waited since it could have been taken.",
        ("lane",),
        Look.oldest_queued,
    ),
    Measure(
        "loraworks_hints_resent",
        "Hints that were sent again for what waits now.",
        (),
        Look.hints_resent,
    ),
    Measure(
        "loraworks_attempts",
        "Attempts of both that have ended. The last one of a failed job or run has the code of "
        "the failure.",
        ("outcome", "code"),
        Look.attempts,
    ),
    Measure(
        "loraworks_lease_losses",
        "Attempts that ended because their worker fell silent or died.",
        (),
        Look.lease_losses,
    ),
    Measure("loraworks_running_attempts", "Attempts that run.", ("device",), Look.running),
    Measure(
        "loraworks_slots",
        "Jobs and prediction runs that the workers alive can run at a time.",
        ("device",),
        Look.slots,
    ),
    Measure(
        "loraworks_workers",
        "Workers that were seen within a lease.",
        ("state",),
        Look.workers,
    ),
    Measure(
        "loraworks_stored_bytes",
        "Size of what the tables know to be stored.",
        ("kind",),
        Look.stored_bytes,
    ),
)


# MERGED app.metrics.database
# The figures of the tables as Prometheus metrics, counted when they are asked for.

Counted = Mapping[str, Rows]
DOWN: Counted = {}


def count(database: Database, *, lease_seconds: float) -> Counted:
    """Every measure, in one short transaction."""
    with database.read() as session:
        look = Look(session, lease_seconds=lease_seconds)
        return {measure.name: measure.read(look) for measure in MEASURES}


class TablesCollector:
    """A collector for one scrape, of what was counted for it. `DOWN`: the database is away."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(UP, UP_HELP, value=1 if self._counted else 0)
        for measure in MEASURES:
            family = GaugeMetricFamily(measure.name, measure.help, labels=measure.labels)
            for *labels, number in self._counted.get(measure.name, ()):
                family.add_metric(labels, float(number))
            if family.samples:
                yield family
