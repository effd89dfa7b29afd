"""State transitions: how an attempt may end, and what that writes to the row of its job."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, case, func, literal, null, select
from sqlalchemy.orm import InstrumentedAttribute

from app.database.base import JsonObject, now
from app.queue.enums import AttemptOutcome, JobState
from app.queue.events import EventContent
from app.queue.tables import Attempt, Job

CRASH_LOOP = "crash_loop"  # error code: the job keeps failing at the same step
QUEUE_TIMEOUT = "queue_timeout"  # error code: no worker claimed the job in time
# Waiting code: the disk, the data folder, the store or the database is unavailable.
STORAGE_UNAVAILABLE = "storage_unavailable"
FAILURES_EXHAUSTED = (
    "{} This was failure {} in a row without progress, which is the limit (LORAWORKS_MAX_FAILURES)."
)
MAX_BACKOFF_SECONDS = 600.0
_MAX_DOUBLINGS = 20

CANCEL_REQUESTED = Job.cancel_requested_at.is_not(None)
PAUSE_REQUESTED = Job.pause_requested_at.is_not(None)
PAUSED = and_(Job.state == JobState.QUEUED, PAUSE_REQUESTED)
CLAIMABLE = and_(Job.state == JobState.QUEUED, ~PAUSE_REQUESTED)  # queued and not paused
CLEARED_WAIT: dict[str, Any] = {
    "waiting_since": null(),
    "waiting_code": null(),
    "waiting_message": null(),
}
RELEASED_LEASE: dict[str, Any] = {
    **CLEARED_WAIT,
    "worker": null(),
    "lease_expires_at": null(),
    "dispatched_at": null(),
    "dispatch_count": 0,
}


# Results of an attempt


@dataclass(frozen=True)
class Succeeded:
    """The artifact is stored; its row is part of the same transaction. Ignores a late cancel."""

    artifact_id: UUID
    summary: JsonObject


@dataclass(frozen=True)
class PermanentFailure:
    """A permanent failure: another attempt would fail the same way."""

    code: str
    message: str
    detail: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Cancelled:
    """Stopped because a cancel was requested."""


@dataclass(frozen=True)
class Preempted:
    """Stopped because the worker shuts down. The job is requeued, and no failure is counted."""


@dataclass(frozen=True)
class Paused:
    """Stopped because a pause was requested. The job is requeued, and no failure is counted.

    It is not claimed again before it is resumed, which may have happened already.
    """


@dataclass(frozen=True)
class RetryableFailure:
    """A transient failure. It is counted, and each retry waits twice as long as the last."""

    code: str
    message: str
    backoff_seconds: float


@dataclass(frozen=True)
class InfrastructureUnavailable:
    """Disk, storage, hub or database failed. The job waits and shows why; no failure is counted."""

    code: str
    message: str
    seconds: float  # until the next attempt


AttemptResult = (
    Succeeded
    | PermanentFailure
    | Cancelled
    | Preempted
    | Paused
    | RetryableFailure
    | InfrastructureUnavailable
)


@dataclass(frozen=True)
class ProcessExitStatus:
    """How the training process exited: with a code, or killed by the signal of that number."""

    code: int | None = None
    signal: int | None = None


def attempt_end_event(
    result: AttemptResult, state: JobState, error_code: str | None, *, pause_requested: bool
) -> EventContent:
    """Return the event for a result that left the job in `state`; a failed job has `error_code`."""
    code, cause, level = "preempted", "The worker is shutting down.", "info"
    if isinstance(result, Paused):
        code, cause = "pause_requested", "A pause was requested."
    if isinstance(result, PermanentFailure | RetryableFailure | InfrastructureUnavailable):
        code, cause, level = result.code, result.message, "warning"
    match state:
        case JobState.SUCCEEDED:
            return EventContent("succeeded", "info", "Succeeded.", {})
        case JobState.CANCELLED:
            return EventContent("cancelled", "info", "Cancelled.", {})
        case JobState.FAILED:
            return EventContent("failed", "error", cause, {"code": error_code})
        case _ if pause_requested:
            return EventContent("paused", level, f"{cause} The job is paused.", {"code": code})
        case _:
            message = f"{cause} The job is back in the queue."
            return EventContent("requeued", level, message, {"code": code})


# Columns written by a result


def outcome_and_columns(result: AttemptResult) -> tuple[AttemptOutcome, dict[str, Any]]:
    """Return the outcome of the attempt and the new column values of its job."""
    requeued = {
        "state": case((CANCEL_REQUESTED, JobState.CANCELLED), else_=JobState.QUEUED),
        "finished_at": case((CANCEL_REQUESTED, now()), else_=null()),
    }
    match result:
        case Succeeded(artifact_id, summary):
            values = {"artifact_id": artifact_id, "summary": summary}
            return AttemptOutcome.SUCCEEDED, _final_state(JobState.SUCCEEDED) | values
        case PermanentFailure(code, message, detail):
            error = {"error_code": code, "error_message": message, "error_detail": detail}
            return AttemptOutcome.FAILED, _final_state(JobState.FAILED) | error
        case Cancelled():
            return AttemptOutcome.CANCELLED, _final_state(JobState.CANCELLED)
        case Preempted() | Paused():
            return AttemptOutcome.PREEMPTED, {**requeued, "run_after": now()}
        case RetryableFailure():
            return AttemptOutcome.FAILED, {**requeued, **failure_count_and_delay_columns(result)}
        case InfrastructureUnavailable(code, message, seconds):
            since = case((Job.waiting_code == code, Job.waiting_since), else_=now())
            reason = {"waiting_since": since, "waiting_code": code, "waiting_message": message}
            if_queued = {
                name: case((CANCEL_REQUESTED, null()), else_=value)
                for name, value in reason.items()
            }
            schedule = {"run_after": now() + seconds}
            return AttemptOutcome.PREEMPTED, {**requeued, **if_queued, **schedule}


def _final_state(state: JobState) -> dict[str, Any]:
    return {"state": state, "finished_at": now()}


def failure_count_and_delay_columns(failure: RetryableFailure) -> dict[str, Any]:
    """Return the columns that count one more consecutive failure and delay the next attempt."""
    count = prior_failures_expression()
    return {
        "failures_counted": count + 1,
        "run_after": now() + backoff_expression(failure.backoff_seconds, count),
    }


def prior_failures_expression() -> ColumnElement[int]:
    """Return how many failures before the ending attempt still count.

    Progress resets the count: it is 0 if the attempt got further than any before it. (Storing a
    checkpoint has already reset it.)
    """
    return case((Job.step > furthest_attempt_step_expression(), 0), else_=Job.failures_counted)


def furthest_attempt_step_expression() -> ColumnElement[int]:
    """Return the last step that an ended attempt reached."""
    reached = select(func.max(Attempt.last_step)).where(
        Attempt.job_id == Job.id, Attempt.ended_at.is_not(None)
    )
    return func.coalesce(reached.scalar_subquery(), 0)


def backoff_expression(
    seconds: float,
    count: ColumnElement[int] | InstrumentedAttribute[int],
    *,
    max_seconds: float = MAX_BACKOFF_SECONDS,
) -> ColumnElement[float]:
    """Return a delay that doubles with `count`.

    It is at most `max_seconds`, or `seconds` if that is longer.
    """
    longest = max(max_seconds, seconds)
    doublings = case((count < _MAX_DOUBLINGS, count), else_=_MAX_DOUBLINGS)
    delay = seconds * literal(1).bitwise_lshift(doublings)
    return case((delay < longest, delay), else_=longest)
