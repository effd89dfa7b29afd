"""What a worker and the database agree on: who it is, what it holds, and for how long."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.queue.states import JobState, Kind
from app.queue.tables import Job, JobEvent
from app.queue.transitions import Told
from app.storage.store import ArtifactRef


@dataclass(frozen=True)
class Owner:
    """One worker process. (boot_id, pid, pid_start) name it as long as its machine is up."""

    id: str
    host: str
    boot_id: str
    pid: int
    pid_start: int  # clock ticks since boot


@dataclass(frozen=True)
class Lease:
    """The right of one attempt to write, renewed for `seconds` at each beat."""

    job_id: UUID
    attempt: int
    worker: str
    seconds: float


@dataclass(frozen=True)
class StoredCheckpoint:
    """Where a run can go on, as its row tells it."""

    job_id: UUID  # whose it is: of the job itself, or of the one that it continues
    attempt: int
    step: int
    ref: ArtifactRef


@dataclass(frozen=True)
class Claimed:
    """A job in the hands of a worker, with what its earlier attempts tell."""

    lease: Lease
    kind: Kind
    spec: JsonObject
    dataset_ids: JsonObject
    register_as: str | None
    promote_to: str | None  # alias of what it registers
    sweep_id: UUID | None
    failures: int  # counted in a row without progress
    furthest: int  # step that an earlier attempt reached
    failed_at: frozenset[int]  # steps where attempts failed by themselves that began as this one
    checkpoint: StoredCheckpoint | None
    time_limit_seconds: float | None  # of all attempts together
    running_seconds: float  # of the attempts before
    waiting_code: str | None  # what it waited for, other than its turn
    waited_seconds: float | None  # since that began to fail


@dataclass(frozen=True)
class Beat:
    """The lease goes on. `first_seq` is the first of the numbers that were reserved."""

    cancel_requested: bool
    first_seq: int


@dataclass(frozen=True)
class Rewound:
    """Where the run goes on after a checkpoint turned out to be bad. None: at its beginning."""

    checkpoint: StoredCheckpoint | None


@dataclass(frozen=True)
class Held:
    """A running job as others see it. `owner` is None when its worker left no row."""

    job_id: UUID
    attempt: int
    owner: Owner | None
    overdue: bool  # its lease has run out
    silent_seconds: float  # since its worker last said that it is alive


# MERGED app.queue.fencing
# The condition of every write of a worker, and the event that goes with a change of a job.

Guard = tuple[ColumnElement[bool], ...]

UNSYNCED = {"synchronize_session": False}  # no session holds these rows as objects


def held(lease: Lease) -> Guard:
    """The attempt still owns its job."""
    return (
        Job.id == lease.job_id,
        Job.attempt == lease.attempt,
        Job.worker == lease.worker,
        Job.state == JobState.RUNNING,
    )


def append(session: Session, job: Row[*tuple[Any, ...]] | Job, told: Told) -> None:
    """`job` has just reserved its `stream_seq` for this event."""
    session.add(JobEvent(job_id=job.id, seq=job.stream_seq, attempt=job.attempt, **told._asdict()))
