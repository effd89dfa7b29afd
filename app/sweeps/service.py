"""Operations on sweeps: start, pause, stop, resume, retry, extend, delete."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.base import new_id
from app.database.engines import Database, acquire_transaction_lock
from app.database.errors import OUTAGE_ERRORS
from app.errors import ConcurrentUpdate
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentCall
from app.jobs import repository as jobs
from app.jobs.resolve import JobResolver
from app.queue.dispatch import JobQueue
from app.queue.states import JobKind
from app.queue.tables import Job
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import Store
from app.sweeps import planning, progress, repository, scheduler
from app.sweeps.errors import IllegalSweepTransition, SweepNotFinished, TrialQuotaExceeded
from app.sweeps.planning import CandidatePlan, SweepVersion
from app.sweeps.repository import TrialStatus
from app.sweeps.schemas import (
    SweepCreate,
    SweepExtend,
    SweepListItem,
    SweepView,
    TrialCounts,
    WinnerView,
)
from app.sweeps.search_space import SearchSpace
from app.sweeps.states import SweepState, TrialState
from app.sweeps.tables import Sweep
from app.sweeps.trials import FindBase, ResolvedInputs
from lora_core.specs.train import TrainSpec

JOBS_PER_DELETE = 20  # jobs that one transaction deletes

log = structlog.get_logger(__name__)


def start(
    database: Database,
    *,
    body: SweepCreate,
    plan: CandidatePlan,
    settings: Settings,
    queue: JobQueue,
    call: IdempotentCall,
) -> SweepView:
    """Store a sweep with its first trials, create their first jobs and notify the workers.

    Trials are stored in small transactions, so that other writers do not wait long. The last
    transaction makes the sweep visible; if the process dies before, garbage collection removes it.

    Raises `TrialQuotaExceeded`, and what `planning.resolve_trials` and `idempotency.reserve` raise;
    nothing is stored then.
    """
    with database.read() as session:
        _check_trial_quota(session, call.caller_id, plan, settings)
        resolved = planning.resolve_trials(plan, JobResolver(session, settings))
    sweep = Sweep(
        id=new_id(),
        created_by=call.caller_id,
        name=body.name,
        labels=body.metadata,
        job=body.job.model_dump(mode="json", exclude_unset=True),
        space=plan.space.to_pairs(),
        strategy=plan.strategy.model_dump(mode="json"),
        pinned=plan.inputs.to_json(),
        objective=body.objective,
        parallel=body.parallel,
        priority=body.priority,
        ready=False,
    )
    try:
        with database.write() as session:
            session.add(sweep)
            session.commit()
        first_trials = resolved[: plan.trial_count]
        for rows in scheduler.trial_row_batches(sweep.id, first_trials, first_number=1):
            with database.write() as session:
                repository.insert_trials(session, rows)
                session.commit()
        with database.write() as session:
            idempotency.reserve(session, call)
            acquire_transaction_lock(session, f"trials of {call.caller_id}")
            _check_trial_quota(session, call.caller_id, plan, settings)
            sweep = repository.mark_ready(session, sweep.id)
            queued, more = scheduler.advance(session, sweep.id, settings=settings)
            view = sweep_view(session, sweep, winner=None)
            idempotency.save_response(session, call, status=202, body=view, location=view.location)
            session.commit()
    except Exception:
        with suppress(*OUTAGE_ERRORS), database.write() as session:
            repository.delete_unready(session, sweep.id)
            session.commit()
        raise
    _notify_workers(queue, queued)
    while more:
        with database.write() as session:
            queued, more = scheduler.advance(session, sweep.id, settings=settings)
            session.commit()
        _notify_workers(queue, queued)
    log.info("sweep started", sweep_id=str(sweep.id), cells=view.cells)
    return view


def pause(session: Session, *, sweep_id: UUID) -> Sweep:
    """Create no more jobs; running jobs continue.

    Raises `SweepNotFound`, `IllegalSweepTransition`.
    """
    return _stop_scheduling(
        session, sweep_id, SweepState.PAUSED, {TrialState.QUEUED}, not_from=SweepState.STOPPED
    )


def stop(session: Session, *, sweep_id: UUID) -> Sweep:
    """Create no more jobs and cancel the running ones, which keep their checkpoints.

    Raises `SweepNotFound`, `IllegalSweepTransition`.
    """
    withdrawn = {TrialState.QUEUED, TrialState.RUNNING}
    return _stop_scheduling(session, sweep_id, SweepState.STOPPED, withdrawn)


def resume(session: Session, *, sweep_id: UUID, settings: Settings, queue: JobQueue) -> Sweep:
    """Continue after a pause or a stop. Raises `SweepNotFound`, `IllegalSweepTransition`."""
    sweep = _lock_sweep(session, sweep_id)
    if sweep.state == SweepState.FINISHED:
        hint = "retry it to run failed trials again, or extend it to add trials"
        raise IllegalSweepTransition(
            sweep_id=sweep_id, state=sweep.state, wanted="resumed", hint=hint
        )
    return _continue_running(session, sweep, settings, queue)


def retry(session: Session, *, sweep_id: UUID, settings: Settings, queue: JobQueue) -> Sweep:
    """Run only the failed and cancelled trials again. Raises `SweepNotFound`."""
    sweep = _lock_sweep(session, sweep_id)
    repository.reset_trials(session, sweep_id, (TrialState.FAILED, TrialState.CANCELLED))
    return _continue_running(session, sweep, settings, queue)


def plan_extension(
    database: Database, *, sweep_id: UUID, body: SweepExtend, find_base: FindBase
) -> CandidatePlan:
    """Plan the trials that an extension adds. Bases are resolved outside of a transaction.

    Raises `SweepNotFound`, and what `planning.plan_extension` raises.
    """
    with database.read() as session:
        sweep = repository.get(session, sweep_id)
        existing = repository.trial_settings(session, sweep_id)
    plan = planning.plan_extension(
        TrainSpec.model_validate(sweep.job),
        space=SearchSpace.from_pairs(sweep.space),
        strategy=scheduler.STRATEGY_ADAPTER.validate_python(sweep.strategy),
        inputs=ResolvedInputs.from_json(sweep.pinned),
        existing=existing,
        body=body,
        find_base=find_base,
    )
    return replace(plan, extends=SweepVersion(sweep.space, sweep.strategy, len(existing)))


def extend(
    database: Database, *, sweep_id: UUID, plan: CandidatePlan, settings: Settings, queue: JobQueue
) -> Sweep:
    """Store the trials of `plan_extension` in small transactions, and run them.

    If the process dies in between, the same call adds the rest. Raises `TrialQuotaExceeded`,
    `ConcurrentUpdate` if another call extended the sweep, and what `planning.resolve_trials`
    raises.
    """
    if plan.extends is None:
        raise ValueError("the plan is not one of `plan_extension`")
    with database.read() as session:
        resolved = planning.resolve_trials(plan, JobResolver(session, settings))
    expected, stored = plan.extends, plan.extends.trials

    def lock_unchanged(session: Session) -> Sweep:
        sweep = _lock_sweep(session, sweep_id)
        if (sweep.space, sweep.strategy) != (expected.space, expected.strategy):
            raise ConcurrentUpdate()
        if repository.count_trials(session, sweep_id) != stored:
            raise ConcurrentUpdate()
        return sweep

    with database.write() as session:
        sweep = lock_unchanged(session)
        _check_trial_quota(session, sweep.created_by, plan, settings)
    added = resolved[: plan.trial_count]
    for rows in scheduler.trial_row_batches(sweep_id, added, first_number=stored + 1):
        with database.write() as session:
            lock_unchanged(session)
            repository.insert_trials(session, rows)
            session.commit()
        stored += len(rows)
    with database.write() as session:
        sweep = lock_unchanged(session)
        sweep.space = plan.space.to_pairs()
        sweep.strategy = plan.strategy.model_dump(mode="json")
        sweep.pinned = plan.inputs.to_json()
        return _continue_running(session, sweep, settings, queue)


def delete(database: Database, *, sweep_id: UUID, store: Store) -> None:
    """Delete a sweep and the jobs that it created, except those that other sweeps use.

    Jobs are deleted first, a few per transaction. If the process dies, the same call continues.

    Raises `SweepNotFound`, and `SweepNotFinished` while the sweep or one of its jobs runs.
    """
    with database.write() as session:
        _require_ended(session, sweep_id)
        job_ids = repository.release_shared_jobs(session, sweep_id)
        session.commit()
    for first in range(0, len(job_ids), JOBS_PER_DELETE):
        with database.write() as session:
            _require_ended(session, sweep_id)
            artifact_ids = [
                jobs.delete_finished(session, job_id, kind=JobKind.TRAINING) or []
                for job_id in job_ids[first : first + JOBS_PER_DELETE]
            ]
            artifacts.delete_unused_artifacts(session, store, chain.from_iterable(artifact_ids))
    with database.write() as session:
        _require_ended(session, sweep_id)
        repository.delete_sweep(session, sweep_id)
        session.commit()


def sweep_view(session: Session, sweep: Sweep, *, winner: WinnerView | None) -> SweepView:
    """Return the response body of one sweep."""
    counts = progress.state_counts(session, [sweep.id])[sweep.id]
    return SweepView(
        **_list_fields(sweep, counts), job=sweep.job, space=dict(sweep.space), verdict=winner
    )


def list_items(session: Session, sweeps: Sequence[Sweep]) -> list[SweepListItem]:
    """Return the list items of these sweeps."""
    counts = progress.state_counts(session, [sweep.id for sweep in sweeps])
    return [SweepListItem(**_list_fields(sweep, counts[sweep.id])) for sweep in sweeps]


def _list_fields(sweep: Sweep, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "id": sweep.id,
        "name": sweep.name,
        "metadata": sweep.labels,
        "state": SweepState(sweep.state),
        "strategy": sweep.strategy,
        "objective": sweep.objective,
        "parallel": sweep.parallel,
        "priority": sweep.priority,
        "cells": sum(counts.values()),
        "counts": TrialCounts(**counts),
        "created_at": sweep.created_at,
        "finished_at": sweep.finished_at,
    }


def _stop_scheduling(
    session: Session,
    sweep_id: UUID,
    state: SweepState,
    withdrawn: set[TrialState],
    *,
    not_from: SweepState = SweepState.FINISHED,
) -> Sweep:
    """Set the state, and return trials in the `withdrawn` states to waiting."""
    sweep = _lock_sweep(session, sweep_id)
    if sweep.state in (SweepState.FINISHED, not_from):
        hint = "it creates no more jobs"
        raise IllegalSweepTransition(
            sweep_id=sweep_id, state=sweep.state, wanted=state.value, hint=hint
        )
    sweep.state = state
    for status in repository.trial_statuses(session, sweep_id):
        if status.state in withdrawn:
            _return_to_waiting(session, sweep_id, status)
    session.commit()
    return sweep


def _return_to_waiting(session: Session, sweep_id: UUID, status: TrialStatus) -> None:
    """Detach the trial from its job, and cancel the job unless another sweep or caller needs it."""
    job = session.get(Job, status.job_id)
    if (
        job is not None
        and job.sweep_id is not None
        and not repository.used_by_other_sweep(session, job.id, but=sweep_id)
    ):
        jobs.request_cancel(session, job.id)
    trial = repository.get_trial(session, sweep_id, status.number, status.rung)
    trial.job_id, trial.reused = None, False


def _continue_running(session: Session, sweep: Sweep, settings: Settings, queue: JobQueue) -> Sweep:
    sweep.state, sweep.finished_at = SweepState.RUNNING, None
    session.flush()
    queued, _ = scheduler.advance(session, sweep.id, settings=settings)
    session.commit()
    _notify_workers(queue, queued)
    return sweep


def _check_trial_quota(
    session: Session, caller_id: UUID, plan: CandidatePlan, settings: Settings
) -> None:
    existing, added = repository.count_open_trials(session, caller_id), plan.trial_count
    if existing + added > settings.key_trials:
        raise TrialQuotaExceeded(there=existing, added=added, limit=settings.key_trials)


def _require_ended(session: Session, sweep_id: UUID) -> None:
    sweep = _lock_sweep(session, sweep_id)
    if sweep.state == SweepState.RUNNING:
        raise SweepNotFinished(sweep_id=sweep_id, state="running")
    if repository.count_unfinished_jobs(session, sweep_id):
        raise SweepNotFinished(sweep_id=sweep_id, state="still ending its jobs")


def _lock_sweep(session: Session, sweep_id: UUID) -> Sweep:
    """Load the sweep while holding the scheduler lock, until the end of the transaction."""
    acquire_transaction_lock(session, scheduler.ADVANCE_LOCK)
    sweep = repository.get(session, sweep_id)
    session.refresh(sweep)
    return sweep


def _notify_workers(queue: JobQueue, queued: scheduler.QueuedJobs) -> None:
    for job_id, device_class in queued:
        queue.send(job_id, device_class=device_class)
