"""Counts over the tables. Each is a list of rows: the values of the labels, then the number."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from sqlalchemy import ColumnElement, Executable, and_, func, select
from sqlalchemy.orm import Session

from app.database.clock import now
from app.datasets.tables import Dataset
from app.jobs.states import JobState, Kind, Lane, Outcome
from app.jobs.tables import Attempt, Checkpoint, Job, Worker
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
