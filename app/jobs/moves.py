"""What an ending writes to the row of its job."""

from typing import Any

from sqlalchemy import ColumnElement, case, func, literal, null
from sqlalchemy.orm import InstrumentedAttribute

from app.db.clock import now
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
from app.jobs.tables import Job

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
_MOST_DOUBLINGS = 10


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
            since = func.coalesce(Job.waiting_since, now())
            again = {"waiting_since": since, "run_after": now() + seconds}
            return Outcome.PREEMPTED, {**waits, **reason, **again}


def _final(state: JobState) -> dict[str, Any]:
    return {"state": state, "finished_at": now()}


def counted(retry: Retry) -> dict[str, Any]:
    """One failure more; the n-th waits 2^(n-1) times as long as the first."""
    return {
        "failures_counted": Job.failures_counted + 1,
        "run_after": now() + retry.backoff_seconds * doubled(Job.failures_counted),
    }


def doubled(count: InstrumentedAttribute[int]) -> ColumnElement[int]:
    """2^count, at most 2^10: later pauses grow no more."""
    doublings = case((count < _MOST_DOUBLINGS, count), else_=_MOST_DOUBLINGS)
    return literal(1).bitwise_lshift(doublings)
