"""Promotion of a trial to a model version. Trials keep metrics only, so a job makes the model."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentCall
from app.jobs import data_sources
from app.jobs import service as jobs
from app.jobs.schemas import JobView
from app.queue.dispatch import JobQueue
from app.queue.states import JobState
from app.queue.tables import Job
from app.settings import Settings
from app.sweeps import repository, results
from app.sweeps.errors import NothingToPromote, TrialNotFound
from app.sweeps.schemas import SweepPromote
from app.sweeps.tables import Sweep, Trial
from app.sweeps.winner import select_winner


def promote(
    session: Session,
    *,
    sweep_id: UUID,
    body: SweepPromote,
    settings: Settings,
    queue: JobQueue,
    call: IdempotentCall,
) -> JobView:
    """Queue the job that makes the model of a trial and registers it.

    The job resumes from the last checkpoint of the trial, so it only evaluates and saves the model.
    If the checkpoint is gone, the job trains again.

    Raises `SweepNotFound`, `TrialNotFound`, `NothingToPromote`, `DataNotFound`, and what
    `idempotency.reserve` and `enqueue` raise.
    """
    idempotency.reserve(session, call)
    sweep = repository.get(session, sweep_id)
    number = body.cell or _winner_number(session, sweep)
    trial, last_job = _find_trial(session, sweep, number)
    data_sources.lock_uploads(session, trial.draft["dataset_ids"])
    columns = dict(trial.draft)
    columns["spec"] = {**columns["spec"], "trial": None}
    columns["spec"]["result"] = {**columns["spec"]["result"], "model": True}
    job = Job(
        **columns,
        name=f"{(sweep.name or 'sweep')[:180]} {number}: model",
        labels={},
        priority=sweep.priority,
        register_as=body.model,
        promote_to=body.alias,
        continues=last_job.id if last_job is not None else None,
    )
    return jobs.enqueue(
        session, job, view_of=JobView.from_job, settings=settings, queue=queue, call=call
    )


def _winner_number(session: Session, sweep: Sweep) -> int:
    selection = select_winner(results.read_snapshot(session, sweep))
    if selection is None:
        raise NothingToPromote(sweep_id=sweep.id)
    return selection.winner


def _find_trial(session: Session, sweep: Sweep, number: int) -> tuple[Trial, Job | None]:
    """Return the trial at its last rung, and its last job that succeeded."""
    rungs = [
        row for row in repository.trials_with_jobs(session, sweep.id) if row[0].number == number
    ]
    if not rungs or rungs[-1][0].problem is not None:
        raise TrialNotFound(sweep_id=sweep.id, number=number)
    succeeded = [job for _, job in rungs if job and job.state == JobState.SUCCEEDED]
    return rungs[-1][0], succeeded[-1] if succeeded else None
