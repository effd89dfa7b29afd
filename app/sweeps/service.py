"""Operations on sweeps: start, pause, stop, resume, retry, extend, delete, promote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.base import new_id
from app.database.engines import Database, acquire_transaction_lock
from app.database.errors import OUTAGE_ERRORS
from app.errors import ConcurrentUpdate
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import data_sources, estimate
from app.jobs import repository as jobs
from app.jobs.pretrained_bases import FindBase
from app.jobs.resolve import JobResolver
from app.jobs.schemas import JobView
from app.jobs.service import enqueue_and_save_response
from app.jobs.views import job_view
from app.queue import checkpoints
from app.queue.dispatch import WorkerNotifier
from app.queue.enums import JobKind, JobState
from app.queue.tables import Job
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import Store
from app.sweeps import planning, repository, results, scheduler
from app.sweeps.errors import (
    InvalidSweepTransition,
    NothingToPromote,
    SweepNotFinished,
    TrialNotFound,
    TrialNotRunnable,
    TrialQuotaExceeded,
)
from app.sweeps.planning import ResolvedTrials, SweepBeforeExtension, UnresolvedPlan
from app.sweeps.repository import TrialStatus
from app.sweeps.schemas import SweepCreate, SweepExtend, SweepPromote, SweepView
from app.sweeps.search_space import SearchSpace
from app.sweeps.snapshot import select_winner_and_cheapest
from app.sweeps.states import ACTIVE_STATES, SweepState, TrialState
from app.sweeps.strategies import rung_budgets
from app.sweeps.tables import Sweep, Trial
from app.sweeps.trials import ResolvedInputs, budget_of, continuing_job_columns
from app.sweeps.views import sweep_view
from lora_core.specs.train import TrainSpec

JOBS_PER_DELETE = 20  # jobs that one transaction deletes

log = structlog.get_logger(__name__)


def create_sweep(  # noqa: PLR0913 - what a sweep is made of, and who asks
    database: Database,
    *,
    body: SweepCreate,
    plan: UnresolvedPlan,
    settings: Settings,
    notifier: WorkerNotifier,
    call: IdempotentRequest,
    link: Callable[[Session, UUID], None] | None = None,
) -> SweepView:
    """Store a sweep with its first trials, create their first jobs and notify the workers.

    Trials are stored in small transactions, so that other writers do not wait long. The last
    transaction makes the sweep visible; if the process dies before, garbage collection removes it.
    `link` is called first in that transaction, with the id of the sweep.

    Raises `TrialQuotaExceeded`, and what `link`, `planning.resolve_trial_jobs`,
    `planning.resolve_objective` and `idempotency.reserve` raise; nothing is stored then.
    """
    with database.read() as session:
        _check_trial_quota(session, call.caller_id, settings, added=plan.total_trials)
        resolved = planning.resolve_trial_jobs(plan, JobResolver(session, settings))
    objective = planning.resolve_objective(body.objective, resolved)
    job = body.job.model_dump(mode="json", exclude_unset=True)
    task = resolved[0][1].spec.task
    if task != body.job.task:  # that of the dataset
        job["task"] = task.model_dump(mode="json")
    sweep = Sweep(
        id=new_id(),
        created_by=call.caller_id,
        name=body.name,
        user_metadata=body.metadata,
        job=job,
        space=plan.space.to_pairs(),
        strategy=plan.strategy.model_dump(mode="json"),
        resolved_inputs=plan.inputs.to_json(),
        objective=objective,
        max_parallel_jobs=body.max_parallel_jobs,
        priority=body.priority,
        ready=False,
    )
    first_trials = resolved[: plan.trial_count]
    with _stored_hidden(database, sweep, first_trials), database.write() as session:
        idempotency.reserve(session, call)
        if link is not None:
            link(session, sweep.id)
        acquire_transaction_lock(session, scheduler.ADVANCE_LOCK)
        _check_trial_quota(session, call.caller_id, settings, added=plan.total_trials)
        sweep = repository.mark_sweep_ready(session, sweep.id)
        more = scheduler.advance_sweep(session, sweep.id, settings=settings, notifier=notifier)
        view = sweep_view(session, sweep, result=None)
        idempotency.save_response(session, call, status=202, body=view, location=view.location)
    if more:
        scheduler.advance_sweep_in_batches(database, sweep.id, settings=settings, notifier=notifier)
    log.info("sweep started", sweep_id=str(sweep.id), trials=view.trial_count)
    return view


@contextmanager
def _stored_hidden(
    database: Database, sweep: Sweep, resolved: ResolvedTrials, *, first_number: int = 1
) -> Iterator[None]:
    """Store a sweep that is not ready with trials, in small transactions.

    It is deleted if the block raises; if the process dies, garbage collection deletes it.
    """
    try:
        with database.write() as session:
            session.add(sweep)
        for rows in scheduler.trial_row_batches(sweep.id, resolved, first_number=first_number):
            with database.write() as session:
                repository.add_trials(session, rows)
        yield
    except Exception:
        with suppress(*OUTAGE_ERRORS), database.write() as session:
            repository.delete_unready_sweep(session, sweep.id)
        raise


def pause_sweep(session: Session, *, sweep_id: UUID) -> None:
    """Create no more jobs; running jobs continue.

    Raises `SweepNotFound`, `InvalidSweepTransition`.
    """
    _stop_scheduling(
        session, sweep_id, SweepState.PAUSED, {TrialState.QUEUED}, not_from=SweepState.STOPPED
    )


def stop_sweep(session: Session, *, sweep_id: UUID) -> None:
    """Create no more jobs and cancel the running ones, which keep their checkpoints.

    Raises `SweepNotFound`, `InvalidSweepTransition`.
    """
    withdrawn = {TrialState.QUEUED, TrialState.RUNNING}
    _stop_scheduling(session, sweep_id, SweepState.STOPPED, withdrawn)


def resume_sweep(
    database: Database, *, sweep_id: UUID, settings: Settings, notifier: WorkerNotifier
) -> None:
    """Continue after a pause or a stop.

    Raises `SweepNotFound`, `InvalidSweepTransition`, `TrialQuotaExceeded`.
    """
    with database.write() as session:
        sweep = _lock_sweep(session, sweep_id)
        if sweep.state == SweepState.FINISHED:
            hint = "retry it to run failed trials again, or extend it to add trials"
            raise InvalidSweepTransition(
                sweep_id=sweep_id, state=sweep.state, wanted="resumed", hint=hint
            )
        _continue_running(session, sweep, settings)
    scheduler.advance_sweep_in_batches(database, sweep_id, settings=settings, notifier=notifier)


def retry_sweep(
    database: Database, *, sweep_id: UUID, settings: Settings, notifier: WorkerNotifier
) -> None:
    """Run only the failed and cancelled trials again; a finished sweep without any stays finished.

    Raises `SweepNotFound`, `InvalidSweepTransition`, `TrialQuotaExceeded`.
    """
    with database.write() as session:
        sweep = _lock_sweep(session, sweep_id)
        _check_not_suspended(sweep, "retried")
        repository.reset_trials(session, sweep_id, (TrialState.FAILED, TrialState.CANCELLED))
        if sweep.state == SweepState.FINISHED and not repository.list_pending_trials(
            session, sweep_id, limit=1
        ):
            return
        _continue_running(session, sweep, settings)
    scheduler.advance_sweep_in_batches(database, sweep_id, settings=settings, notifier=notifier)


def plan_sweep_extension(
    database: Database, *, sweep_id: UUID, body: SweepExtend, find_base: FindBase
) -> UnresolvedPlan:
    """Plan the trials that an extension adds. Bases are resolved outside of a transaction.

    Raises `SweepNotFound`, and what `planning.plan_extension` raises.
    """
    with database.read() as session:
        sweep = repository.get_sweep(session, sweep_id)
        existing = repository.list_trial_settings(session, sweep_id)
        before = _before_extension(session, sweep)
    plan = planning.plan_extension(
        TrainSpec.model_validate(sweep.job),
        space=SearchSpace.from_pairs(sweep.space),
        strategy=scheduler.STRATEGY_ADAPTER.validate_python(sweep.strategy),
        inputs=ResolvedInputs.from_json(sweep.resolved_inputs),
        existing=existing,
        body=body,
        find_base=find_base,
    )
    return replace(plan, extends=before)


def extend_sweep(
    database: Database,
    *,
    sweep_id: UUID,
    plan: UnresolvedPlan,
    settings: Settings,
    notifier: WorkerNotifier,
) -> None:
    """Add the trials of `plan_sweep_extension` to a sweep, and run them.

    They are stored in small transactions, with a hidden sweep; the last transaction moves them.

    Raises `InvalidSweepTransition`, `TrialQuotaExceeded`, `ConcurrentUpdate` if the sweep has got
    other trials since it was planned, and what `planning.resolve_trial_jobs` raises; the sweep is
    unchanged then.
    """
    if plan.extends is None:
        raise ValueError("the plan is not one of `plan_sweep_extension`")
    with database.read() as session:
        resolved = planning.resolve_trial_jobs(plan, JobResolver(session, settings))
        sweep = repository.get_sweep(session, sweep_id)
        _check_can_extend(session, sweep, plan, settings)
    hidden = Sweep(
        id=new_id(),
        created_by=sweep.created_by,
        user_metadata={},
        job={},
        space=[],
        strategy={},
        resolved_inputs={},
        objective=sweep.objective,
        ready=False,
    )
    new_trials, first_number = resolved[: plan.trial_count], plan.extends.trials + 1
    with (
        _stored_hidden(database, hidden, new_trials, first_number=first_number),
        database.write() as session,
    ):
        sweep = _lock_sweep(session, sweep_id)
        _check_can_extend(session, sweep, plan, settings)
        repository.merge_hidden_sweep(session, hidden.id, to=sweep_id)
        sweep.space = plan.space.to_pairs()
        sweep.strategy = plan.strategy.model_dump(mode="json")
        sweep.resolved_inputs = plan.inputs.to_json()
        _continue_running(session, sweep, settings)
    scheduler.advance_sweep_in_batches(database, sweep_id, settings=settings, notifier=notifier)


def _before_extension(session: Session, sweep: Sweep) -> SweepBeforeExtension:
    return SweepBeforeExtension(
        space=sweep.space,
        strategy=sweep.strategy,
        trials=repository.count_trials(session, sweep.id),
        task_type=TrainSpec.model_validate(sweep.job).task.type,
    )


def _check_can_extend(
    session: Session, sweep: Sweep, plan: UnresolvedPlan, settings: Settings
) -> None:
    """Raise `InvalidSweepTransition`, `ConcurrentUpdate` or `TrialQuotaExceeded`."""
    _check_not_suspended(sweep, "extended")
    if _before_extension(session, sweep) != plan.extends:
        raise ConcurrentUpdate()
    counted = _count_planned(session, sweep) if sweep.state in ACTIVE_STATES else 0
    added = plan.total_trials - counted
    _check_trial_quota(session, sweep.created_by, settings, added=added)


def _check_not_suspended(sweep: Sweep, wanted: str) -> None:
    """Raise `InvalidSweepTransition` if the trials that wait would run, too."""
    if sweep.state in (SweepState.PAUSED, SweepState.STOPPED):
        raise InvalidSweepTransition(
            sweep_id=sweep.id, state=sweep.state, wanted=wanted, hint="resume it first"
        )


def delete_sweep(database: Database, *, sweep_id: UUID, store: Store) -> None:
    """Delete a sweep and the jobs that it created, except those that other sweeps use.

    Jobs are deleted first, a few per transaction. If the process dies, the same call continues.

    Raises `SweepNotFound`, `SweepNotFinished` while the sweep or one of its jobs runs, and
    `JobContinued`.
    """
    more = True
    while more:
        with database.write() as session:
            sweep = _lock_sweep(session, sweep_id)
            if sweep.state == SweepState.RUNNING:
                raise SweepNotFinished(sweep_id=sweep_id, state="running")
            # Each time: another sweep may have reused a job since the last transaction.
            job_ids = repository.hand_over_shared_jobs(session, sweep_id)
            if repository.count_unfinished_jobs(session, sweep_id):
                raise SweepNotFinished(sweep_id=sweep_id, state="still ending its jobs")
            jobs.raise_if_continued(session, Job.sweep_id == sweep_id)
            artifact_ids = [
                jobs.delete_finished_job(session, job_id, kind=JobKind.TRAINING) or []
                for job_id in job_ids[:JOBS_PER_DELETE]
            ]
            artifacts.delete_unused_artifacts(session, store, chain.from_iterable(artifact_ids))
            more = len(job_ids) > JOBS_PER_DELETE
            if not more:
                repository.delete_sweep_row(session, sweep_id)


def _stop_scheduling(
    session: Session,
    sweep_id: UUID,
    state: SweepState,
    withdrawn: set[TrialState],
    *,
    not_from: SweepState = SweepState.FINISHED,
) -> None:
    """Set the state, and return trials in the `withdrawn` states to waiting."""
    sweep = _lock_sweep(session, sweep_id)
    if sweep.state in (SweepState.FINISHED, not_from):
        hint = "it creates no more jobs"
        raise InvalidSweepTransition(
            sweep_id=sweep_id, state=sweep.state, wanted=state.value, hint=hint
        )
    sweep.state = state
    for status in repository.list_trial_statuses(session, sweep_id):
        if status.state in withdrawn:
            _return_to_waiting(session, sweep_id, status)


def _return_to_waiting(session: Session, sweep_id: UUID, status: TrialStatus) -> None:
    """Detach the trial from its job, and cancel the job unless another sweep or caller needs it."""
    job = session.get(Job, status.job_id)
    if (
        job is not None
        and job.sweep_id is not None
        and not repository.is_used_by_other_active_sweep(session, job.id, but=sweep_id)
    ):
        jobs.request_cancel(session, job.id)
    trial = repository.get_trial(session, sweep_id, status.number, status.rung)
    trial.job_id, trial.reused = None, False


def _continue_running(session: Session, sweep: Sweep, settings: Settings) -> None:
    """Set a sweep to running. Raises `TrialQuotaExceeded` if its trials did not count until now."""
    if sweep.state not in ACTIVE_STATES:
        added = _count_planned(session, sweep)
        _check_trial_quota(session, sweep.created_by, settings, added=added)
    sweep.state, sweep.finished_at = SweepState.RUNNING, None


def _count_planned(session: Session, sweep: Sweep) -> int:
    """Return the trials of a sweep, also those that its strategy will propose later."""
    return sweep.strategy.get("trials") or repository.count_trials(session, sweep.id)


def _check_trial_quota(
    session: Session, caller_id: UUID, settings: Settings, *, added: int
) -> None:
    existing = repository.count_trials_in_active_sweeps(session, caller_id)
    if added > 0 and existing + added > settings.max_trials_per_key:
        raise TrialQuotaExceeded(there=existing, added=added, limit=settings.max_trials_per_key)


def _lock_sweep(session: Session, sweep_id: UUID) -> Sweep:
    """Load the sweep while holding the scheduler lock, until the end of the transaction."""
    acquire_transaction_lock(session, scheduler.ADVANCE_LOCK)
    sweep = repository.get_sweep(session, sweep_id)
    session.refresh(sweep)
    return sweep


# -- Promotion of a trial: trials keep metrics only, so a job makes the model ---------------------


def enqueue_trial_registration(
    session: Session,
    *,
    sweep_id: UUID,
    body: SweepPromote,
    settings: Settings,
    notifier: WorkerNotifier,
    call: IdempotentRequest,
) -> JobView:
    """Queue the job that makes the model of a trial and registers it.

    The job resumes from the last checkpoint of the trial, so it only evaluates and saves the model.
    If the checkpoint is gone, the job trains again.

    Raises `SweepNotFound`, `TrialNotFound`, `TrialNotRunnable`, `NothingToPromote`,
    `DataNotFound`, and what `idempotency.reserve` and `enqueue_and_save_response` raise.
    """
    idempotency.reserve(session, call)
    sweep = repository.get_sweep(session, sweep_id)
    number = body.trial or _winner_number(session, sweep)
    trial, last_job = _find_trial(session, sweep, number)
    data_sources.lock_datasets_against_deletion(session, trial.job_columns["dataset_ids"])
    columns = continuing_job_columns(trial.job_columns, last_job)
    result = {**columns["spec"]["result"], "model": True}
    spec = {**columns["spec"], "trial": None, "result": result}
    seconds = _estimate_promotion(session, sweep, trial, last_job)
    plan = {**columns["plan"], "estimated_seconds": seconds}
    job = Job(
        **{**columns, "spec": spec, "plan": plan},
        name=f"{(sweep.name or 'sweep')[:180]} {number}: model",
        user_metadata={},
        priority=sweep.priority,
        register_as=body.model,
        promote_to=body.alias,
    )
    return enqueue_and_save_response(
        session, job, view_of=job_view, settings=settings, notifier=notifier, call=call
    )


def _estimate_promotion(session: Session, sweep: Sweep, trial: Trial, last_job: Job | None) -> int:
    """Return the estimate for what is left of a trial's run. Its plan covers its last rung only."""
    strategy = scheduler.STRATEGY_ADAPTER.validate_python(sweep.strategy)
    since, until = (0.0, *rung_budgets(strategy))[trial.rung : trial.rung + 2]
    planned = trial.job_columns["plan"]["estimated_seconds"]
    whole = estimate.extrapolate_whole_run_seconds(planned, until - since)
    if last_job and checkpoints.find_newest_usable_checkpoint(session, last_job.id):
        return estimate.remaining_seconds(whole, budget_of(last_job.spec))
    return whole


def _winner_number(session: Session, sweep: Sweep) -> int:
    selection = select_winner_and_cheapest(results.read_cached_snapshot(session, sweep))
    if selection is None:
        raise NothingToPromote(sweep_id=sweep.id)
    return selection.winner


def _find_trial(session: Session, sweep: Sweep, number: int) -> tuple[Trial, Job | None]:
    """Return the trial at its last rung, and its last job that succeeded.

    Raises `TrialNotFound`, `TrialNotRunnable`.
    """
    rungs = repository.list_trials_with_jobs(session, sweep.id, numbers=[number])
    if not rungs:
        raise TrialNotFound(sweep_id=sweep.id, number=number)
    if (problem := rungs[-1][0].problem) is not None:
        raise TrialNotRunnable(sweep_id=sweep.id, number=number, problem=problem.rstrip("."))
    succeeded = [job for _, job in rungs if job and job.state == JobState.SUCCEEDED]
    return rungs[-1][0], succeeded[-1] if succeeded else None
