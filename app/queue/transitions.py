"""How a worker may end its attempt, and what is told about it.

What becomes of the row is decided in `moves`.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, literal, null, select
from sqlalchemy.orm import InstrumentedAttribute

from app.database.base import JsonObject
from app.database.clock import now
from app.queue.states import JobState, Outcome
from app.queue.tables import Attempt, Job

CRASH_LOOP = "crash_loop"  # it fails at the same step again and again
STORAGE = "storage_unavailable"  # what a job waits for: disk, data folder, store or database
SPENT = (
    "{} This was failure {} in a row without progress, and the last that is allowed "
    "(LORAWORKS_MAX_FAILURES)."
)


@dataclass(frozen=True)
class Succeeded:
    """The artifact is stored, its row in the same transaction. A cancel comes too late."""

    artifact_id: UUID
    summary: JsonObject


@dataclass(frozen=True)
class Failed:
    """Another try would fail the same way."""

    code: str
    message: str
    detail: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Cancelled:
    """Stopped because the job was asked to be cancelled."""


@dataclass(frozen=True)
class Preempted:
    """Stopped because the worker leaves. The job waits again, and nothing is counted."""


@dataclass(frozen=True)
class Retry:
    """A failure that may pass. It is counted; each waits twice as long as the one before."""

    code: str
    message: str
    backoff_seconds: float


@dataclass(frozen=True)
class Waiting:
    """Disk, storage or hub failed. The job waits for them with its reason shown, uncounted."""

    code: str
    message: str
    seconds: float


Ending = Succeeded | Failed | Cancelled | Preempted | Retry | Waiting


@dataclass(frozen=True)
class ExitStatus:
    """How the training process left: a code, or the number of the signal that ended it."""

    code: int | None = None
    signal: int | None = None


class Told(NamedTuple):
    """The words of an event."""

    kind: str
    level: str
    message: str
    data: JsonObject


def closing(ending: Ending, state: JobState, error_code: str | None) -> Told:
    """The event of an ending that left the job in `state`, and with that code if it failed."""
    code, cause, level = "preempted", "The worker stops.", "info"
    if isinstance(ending, Failed | Retry | Waiting):
        code, cause, level = ending.code, ending.message, "warning"
    match state:
        case JobState.SUCCEEDED:
            return Told("succeeded", "info", "Succeeded.", {})
        case JobState.CANCELLED:
            return Told("cancelled", "info", "Cancelled.", {})
        case JobState.FAILED:
            return Told("failed", "error", cause, {"code": error_code})
        case _:
            return Told("requeued", level, f"{cause} The job waits again.", {"code": code})


# MERGED app.queue.transitions
# What an ending writes to the row of its job.

ASKED = Job.cancel_requested_at.is_not(None)
NOT_WAITING: dict[str, Any] = {
    "waiting_since": null(),
    "waiting_code": null(),
    "waiting_message": null(),
}
LEFT_BEHIND: dict[str, Any] = {
    **NOT_WAITING,
    "worker": null(),
    "lease_expires_at": null(),
    "dispatched_at": null(),
    "dispatch_count": 0,
}
LONGEST_BACKOFF = 600.0  # seconds
_MOST_DOUBLINGS = 20


def move(ending: Ending) -> tuple[Outcome, dict[str, Any]]:
    """How the attempt ended, and the columns of its job."""
    waits = {
        "state": case((ASKED, JobState.CANCELLED), else_=JobState.QUEUED),
        "finished_at": case((ASKED, now()), else_=null()),
    }
    match ending:
        case Succeeded(artifact_id, summary):
            made = {"artifact_id": artifact_id, "summary": summary}
            return Outcome.SUCCEEDED, _final(JobState.SUCCEEDED) | made
        case Failed(code, message, detail):
            error = {"error_code": code, "error_message": message, "error_detail": detail}
            return Outcome.FAILED, _final(JobState.FAILED) | error
        case Cancelled():
            return Outcome.CANCELLED, _final(JobState.CANCELLED)
        case Preempted():
            return Outcome.PREEMPTED, {**waits, "run_after": now()}
        case Retry():
            return Outcome.FAILED, {**waits, **counted(ending)}
        case Waiting(code, message, seconds):
            reason = {"waiting_code": code, "waiting_message": message}
            since = case((Job.waiting_code == code, Job.waiting_since), else_=now())
            again = {"waiting_since": since, "run_after": now() + seconds}
            return Outcome.PREEMPTED, {**waits, **reason, **again}


def _final(state: JobState) -> dict[str, Any]:
    return {"state": state, "finished_at": now()}


def counted(retry: Retry) -> dict[str, Any]:
    """One failure more, in a row without progress; each waits twice as long as the one before."""
    before = failures_before()
    return {
        "failures_counted": before + 1,
        "run_after": now() + backoff(retry.backoff_seconds, before),
    }


def failures_before() -> ColumnElement[int]:
    """What counts of the failures before the attempt that ends. Progress forgives: none, if it got
    further than any attempt before it. (A checkpoint has set the count to zero already.)
    """
    return case((Job.step > furthest(), 0), else_=Job.failures_counted)


def furthest() -> ColumnElement[int]:
    """The last step that an ended attempt reached."""
    reached = select(func.max(Attempt.last_step)).where(
        Attempt.job_id == Job.id, Attempt.ended_at.is_not(None)
    )
    return func.coalesce(reached.scalar_subquery(), 0)


def backoff(
    seconds: float, count: ColumnElement[int] | InstrumentedAttribute[int]
) -> ColumnElement[float]:
    """A pause that doubles with each count, up to ten minutes or its first length."""
    longest = max(LONGEST_BACKOFF, seconds)
    doublings = case((count < _MOST_DOUBLINGS, count), else_=_MOST_DOUBLINGS)
    pause = seconds * literal(1).bitwise_lshift(doublings)
    return case((pause < longest, pause), else_=longest)
