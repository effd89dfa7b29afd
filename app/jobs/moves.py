"""What an ending writes to the row of its job."""

from typing import Any

from sqlalchemy import ColumnElement, case, func, literal, null, select
from sqlalchemy.orm import InstrumentedAttribute

from app.database.clock import now
from app.jobs.endings import (
    Cancelled,
    Ending,
    Failed,
    Preempted,
    Retry,
    Succeeded,
    Waiting,
)
from app.jobs.states import JobState, Outcome
from app.jobs.tables import Attempt, Job

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
