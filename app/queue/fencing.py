"""What workers and database agree on: worker identities, leases, and the fencing condition.

What a worker writes of an attempt repeats the condition of `fencing_conditions`, so a worker that
lost its lease changes nothing.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement

from app.database.base import JsonObject
from app.queue.enums import JobKind, JobState
from app.queue.tables import Job
from app.storage.store import ArtifactRef

FenceConditions = tuple[ColumnElement[bool], ...]

# Execution option of bulk statements: no session holds the affected rows as objects.
NO_SESSION_SYNC = {"synchronize_session": False}


@dataclass(frozen=True)
class WorkerIdentity:
    """One worker process. (boot_id, pid, pid_start) identify it until its host reboots."""

    id: str
    host: str
    boot_id: str
    pid: int
    pid_start: int  # clock ticks since boot


@dataclass(frozen=True)
class Lease:
    """The right of one attempt to write; each renewal extends it to `seconds` from now."""

    job_id: UUID
    attempt: int
    worker: str
    seconds: float


class LeaseLost(Exception):
    """The attempt is not this worker's any more, so nothing may be written."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in the store from which a run can resume."""

    job_id: UUID  # of the job itself, or of the job it continues
    attempt: int
    step: int
    ref: ArtifactRef


@dataclass(frozen=True)
class ClaimedJob:
    """A job that a worker has claimed, with what is known from its earlier attempts."""

    lease: Lease
    kind: JobKind
    spec: JsonObject
    dataset_ids: JsonObject
    register_as: str | None
    promote_to: str | None  # alias that moves to the registered version
    failure_count: int  # consecutive failures without progress
    furthest_step: int  # reached by an earlier attempt
    failed_steps: frozenset[int]  # where attempts with the same first step failed, kills excluded
    checkpoint: StoredCheckpoint | None
    time_limit_seconds: float | None  # for all attempts together
    running_seconds: float  # of the earlier attempts
    waiting_code: str | None  # what it waited for, other than its turn
    waited_seconds: float | None  # since that resource became unavailable


@dataclass(frozen=True)
class LeaseRenewal:
    """A renewed lease. `first_seq` is the first of the reserved sequence numbers."""

    cancel_requested: bool
    pause_requested: bool
    first_seq: int


@dataclass(frozen=True)
class RunningJob:
    """A running job and its worker. `owner` is None when the worker has no row."""

    job_id: UUID
    attempt: int
    owner: WorkerIdentity | None
    lease_expired: bool
    seconds_since_heartbeat: float  # of its worker


def fencing_conditions(lease: Lease) -> FenceConditions:
    """Return the conditions under which the attempt still owns its job."""
    return (
        Job.id == lease.job_id,
        Job.attempt == lease.attempt,
        Job.worker == lease.worker,
        Job.state == JobState.RUNNING,
    )
