"""Scheduling of trials: assigns jobs to waiting trials and adds trials that a strategy proposes.

All state is in the database, so any process can continue where another one stopped. Every step is
one transaction, and a lock lets only one run at a time, so that no trial gets two jobs.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple
from uuid import UUID

import structlog
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from app.database.base import JsonObject, now
from app.database.engines import Database, acquire_transaction_lock, call_after_commit
from app.database.errors import OUTAGE_ERRORS
from app.jobs import data_sources
from app.jobs import service as jobs
from app.jobs.resolve import JobResolver, ResolvedJob
from app.outbox import repository as outbox
from app.outbox.enums import EventType
from app.queue import heartbeats
from app.queue.dispatch import WorkerNotifier
from app.queue.tables import Job
from app.resources import Resources
from app.settings import Settings
from app.sweeps import repository, strategies, trials
from app.sweeps.search_space import SearchSpace, TrialSettings
from app.sweeps.states import SweepState
from app.sweeps.strategies import Strategy, TrialResult
from app.sweeps.tables import Sweep, Trial
from app.sweeps.trials import ResolvedInputs
from lora_core.errors import LoraCoreError
from lora_core.failpoints import failpoint
from lora_core.specs.train import TrainSpec

ADVANCE_LOCK = "sweeps"  # one for all sweeps: two of them may share a job
TRIALS_PER_TRANSACTION = 100  # trials that one transaction stores
MAX_ASSIGNED_PER_TRANSACTION = 20  # waiting trials that one transaction looks at
STRATEGY_ADAPTER: TypeAdapter[Strategy] = TypeAdapter(Strategy)

log = structlog.get_logger(__name__)


def advance_sweeps_after_job(resources: Resources, job_id: UUID) -> None:
    """Advance the sweeps that may wait for this job, of which an attempt has ended."""
    with resources.database.read() as session:
        sweep_ids = repository.list_running_sweep_ids_using_job(session, job_id)
    _advance_each(resources, sweep_ids)


def advance_running_sweeps(resources: Resources) -> None:
    """Advance every running sweep.

    This covers processes that died before they could advance one, and workers that were added.
    """
    with resources.database.read() as session:
        sweep_ids = repository.list_running_sweep_ids(session)
    _advance_each(resources, sweep_ids)


def _advance_each(resources: Resources, sweep_ids: Sequence[UUID]) -> None:
    """Advance these sweeps. Raises one of `OUTAGE_ERRORS`."""
    for sweep_id in sweep_ids:
        advance_sweep_in_batches(
            resources.database,
            sweep_id,
            settings=resources.settings,
            notifier=resources.notifier,
        )


def advance_sweep_in_batches(
    database: Database, sweep_id: UUID, *, settings: Settings, notifier: WorkerNotifier
) -> None:
    """Advance a sweep in transactions of its own. If that fails, a reconciler does it later.

    Raises one of `OUTAGE_ERRORS`.
    """
    try:
        more = True
        while more:
            with database.write() as session:
                call_after_commit(session, partial(failpoint, "sweep_committed"))
                more = advance_sweep(session, sweep_id, settings=settings, notifier=notifier)
                failpoint("sweep_advanced")
    except OUTAGE_ERRORS:
        raise
    except Exception:
        log.exception("advancing the sweep failed", sweep_id=str(sweep_id))


def advance_sweep(
    session: Session, sweep_id: UUID, *, settings: Settings, notifier: WorkerNotifier
) -> bool:
    """Give trials their jobs, as many as may run at a time, and add the trials that come next.

    Returns whether there is more to do, in another transaction.
    """
    acquire_transaction_lock(session, ADVANCE_LOCK)
    sweep = session.get(Sweep, sweep_id, populate_existing=True)
    if sweep is None or sweep.state != SweepState.RUNNING or not sweep.ready:
        return False
    while True:
        assignment = _assign_jobs(session, sweep, notifier, settings)
        if assignment.in_progress or assignment.more:
            return assignment.more
        if not _add_next_trials(session, sweep, settings):
            sweep.state, sweep.finished_at = SweepState.FINISHED, now()
            session.flush()
            data = {"id": str(sweep_id), "name": sweep.name, "state": sweep.state}
            outbox.publish_event(session, EventType.SWEEP_FINISHED, data)
            call_after_commit(session, partial(log.info, "sweep finished", sweep_id=str(sweep_id)))
            return False


class _AssignmentResult(NamedTuple):
    in_progress: bool  # some trial has not ended
    more: bool  # some waiting trials were not looked at


def _assign_jobs(
    session: Session, sweep: Sweep, notifier: WorkerNotifier, settings: Settings
) -> _AssignmentResult:
    """Give waiting trials an existing job, or a new one while fewer than the maximum run."""
    max_jobs = sweep.max_parallel_jobs or max(
        1, heartbeats.count_worker_slots(session, lease_seconds=settings.lease_seconds)
    )
    active = repository.list_active_job_ids(session, sweep.id)
    pending = repository.list_pending_trials(
        session, sweep.id, limit=MAX_ASSIGNED_PER_TRANSACTION + 1
    )
    stopping = 0  # jobs that are being cancelled: they still take a slot
    for index, candidate in enumerate(pending):
        if len(active) + stopping >= max_jobs:
            return _AssignmentResult(in_progress=True, more=False)
        if index == MAX_ASSIGNED_PER_TRANSACTION:
            # If all of them wait for jobs that are being cancelled, another look changes nothing.
            return _AssignmentResult(in_progress=True, more=stopping < index)
        trial = repository.get_trial(session, sweep.id, candidate.number, candidate.rung)
        existing = trials.find_existing_job(session, trial.trial_sha256, trial.job_columns)
        if isinstance(existing, trials.ExistingJob):
            trial.job_id, trial.reused = existing.job_id, True
            if not existing.finished:
                active.add(existing.job_id)
        elif existing.wait:
            stopping += 1
        elif job := _queue_job(session, sweep, trial, existing.resume_from, notifier):
            trial.lost_jobs += candidate.is_retry
            active.add(job.id)
    session.flush()
    return _AssignmentResult(in_progress=bool(active) or stopping > 0, more=False)


def _queue_job(
    session: Session, sweep: Sweep, trial: Trial, resume_from: Job | None, notifier: WorkerNotifier
) -> Job | None:
    """Create the job of a trial, or record as its problem that its data or base was deleted."""
    job = Job(
        **trials.continuing_job_columns(trial.job_columns, resume_from),
        name=f"{(sweep.name or 'sweep')[:190]} {trial.number}",
        user_metadata={},
        priority=sweep.priority,
        sweep_id=sweep.id,
    )
    try:
        data_sources.lock_datasets_against_deletion(session, job.dataset_ids)
        jobs.insert_and_enqueue(session, job, created_by=sweep.created_by, notifier=notifier)
    except LoraCoreError as error:
        trial.problem = str(error)
        return None
    trial.job_id, trial.reused = job.id, False
    return job


def trial_row_batches(
    sweep_id: UUID,
    resolved: Sequence[tuple[TrialSettings, ResolvedJob]],
    *,
    first_number: int,
) -> Iterator[list[JsonObject]]:
    """Yield rows of new trials at the first rung, one batch per transaction."""
    numbered = enumerate(resolved, start=first_number)
    while batch := list(islice(numbered, TRIALS_PER_TRANSACTION)):
        yield [
            _trial_columns(sweep_id, number, 0, settings, job) for number, (settings, job) in batch
        ]


def _add_next_trials(session: Session, sweep: Sweep, settings: Settings) -> bool:
    """Add the trials that the strategy proposes next; return False if there are none."""
    strategy = STRATEGY_ADAPTER.validate_python(sweep.strategy)
    space = SearchSpace.from_pairs(sweep.space)
    results = [
        TrialResult(
            row.number,
            row.rung,
            row.settings,
            repository.signed_objective_score(row.summary, sweep.objective),
        )
        for row in repository.list_trial_job_summaries(session, sweep.id)
    ]
    proposed = strategies.next_trials(strategy, space, results)
    factory = _TrialFactory(sweep, strategy, JobResolver(session, settings))
    settings_of_trials = {result.number: result.settings for result in results}
    for rung, numbers in proposed.promoted.items():
        for number in numbers:
            session.add(factory.create(number, rung, settings_of_trials[number]))
    for number, trial_settings in enumerate(proposed.new, start=len(results) + 1):
        session.add(factory.create(number, 0, trial_settings))
    sweep.resolved_inputs = factory.inputs.to_json()
    session.flush()
    return bool(proposed)


class _TrialFactory:
    """Creates the trials that a strategy proposes, at any rung."""

    def __init__(self, sweep: Sweep, strategy: Strategy, resolver: JobResolver) -> None:
        self.inputs = ResolvedInputs.from_json(sweep.resolved_inputs)
        self._sweep, self._strategy, self._resolver = sweep, strategy, resolver
        self._job = TrainSpec.model_validate(sweep.job)

    def create(self, number: int, rung: int, settings: TrialSettings) -> Trial:
        """Create a trial; one that can never run is created with the reason, and has failed."""
        # From the job as the caller sent it: `inputs` knows its sources by the names used there.
        (spec,) = trials.build_trial_specs_or_errors(self._job, [settings])
        since = (0.0, *strategies.rung_budgets(self._strategy))[rung]
        try:
            if isinstance(spec, Exception):
                raise spec
            spec = trials.spec_at_rung(spec, self._strategy, rung)
            job = self.inputs.resolve_job(self._resolver, spec, since=since)
        except (*trials.RESOLVE_ERRORS, ValueError) as error:
            reason = trials.error_reason(error)
            return _failed_trial(self._sweep, number, rung, settings, reason)
        return Trial(**_trial_columns(self._sweep.id, number, rung, settings, job))


def _trial_columns(
    sweep_id: UUID, number: int, rung: int, settings: Mapping[str, object], job: ResolvedJob
) -> JsonObject:
    columns = job.columns()
    return {
        "sweep_id": sweep_id,
        "number": number,
        "rung": rung,
        "settings": dict(settings),
        "job_columns": columns,
        "trial_sha256": columns["trial_sha256"],
    }


def _failed_trial(
    sweep: Sweep, number: int, rung: int, settings: Mapping[str, object], problem: str
) -> Trial:
    no_columns: JsonObject = {}
    return Trial(
        sweep_id=sweep.id,
        number=number,
        rung=rung,
        settings=dict(settings),
        job_columns=no_columns,
        trial_sha256="",
        problem=problem,
    )
