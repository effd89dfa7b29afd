"""Transitions of retraining runs. Each is part of the caller's transaction."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from sqlalchemy.orm import Session

from app import logging
from app.database.base import now
from app.database.engines import call_after_commit
from app.outbox import repository as outbox
from app.outbox.enums import EventType
from app.registry.tables import RegisteredModel
from app.retraining import repository
from app.retraining.schemas import RetrainingErrorView
from app.retraining.states import NotPromotedReason, RetrainingState
from app.retraining.tables import RetrainingRun


def lock_claimed_run(
    session: Session, run_id: UUID, state: RetrainingState, claim: int
) -> RetrainingRun | None:
    """Return a run, locked until the transaction ends; None if the claim was lost.

    It is lost if the run was cancelled, or if another worker claimed the step since.
    """
    run = repository.lock_run_in_state(session, run_id, state)
    return run if run is not None and run.claims == claim else None


def advance_run(session: Session, run: RetrainingRun, state: RetrainingState) -> None:
    """Begin the next step, which nobody has claimed yet."""
    run.state, run.claims, run.excused, run.claimed_until = state, 0, 0, None
    session.flush()


def end_run_and_publish(
    session: Session,
    run: RetrainingRun,
    state: RetrainingState,
    *,
    reasons: Sequence[NotPromotedReason] = (),
    error: RetrainingErrorView | None = None,
) -> None:
    """End a run, and publish that. What it stored so far stays."""
    run.state, run.finished_at, run.claimed_until = state, now(), None
    run.reasons = [reason.value for reason in reasons]
    if error is not None:
        run.error_code, run.error_message = error.code, error.message
    session.flush()
    name = session.get_one(RegisteredModel, run.model_id).name
    data = {
        "id": str(run.id),
        "model": name,
        "state": state.value,
        "version": None if run.new_number is None else f"{name}:{run.new_number}",
        "compared_with": f"{name}:{run.current_number}",
        "reasons": run.reasons,
        "error": run.error_code,
    }
    outbox.publish_event(session, EventType.RETRAINING_FINISHED, data)
    fields = {"model": name, "run": str(run.id), "state": state.value, "version": data["version"]}
    call_after_commit(session, partial(logging.write_audit_line, "retraining_finished", **fields))
