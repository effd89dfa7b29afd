"""The winner of a sweep becomes a model: cells keep figures alone, so its last step is made."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.idempotency import service as idempotency
from app.idempotency.service import Call
from app.jobs import data_sources
from app.jobs import service as jobs
from app.jobs.schemas import JobView
from app.queue.dispatch import JobQueue
from app.queue.states import JobState
from app.queue.tables import Job
from app.settings import Settings
from app.sweeps import repository, results
from app.sweeps.errors import CellNotFound, NothingToPromote
from app.sweeps.schemas import SweepPromote
from app.sweeps.tables import Sweep, SweepCell
from app.sweeps.winner import judge


def promote(
    session: Session,
    *,
    sweep_id: UUID,
    body: SweepPromote,
    settings: Settings,
    queue: JobQueue,
    call: Call,
) -> JobView:
    """Queue the job that makes the model of a cell and registers it.

    It goes on from the last checkpoint of the cell, where the weights are, and only measures and
    saves; if the checkpoint is gone, the cell is trained once more.

    Raises `SweepNotFound`, `CellNotFound`, `NothingToPromote`, `DataNotFound`, and what
    `idempotency.begin` and `enqueue` raise.
    """
    idempotency.begin(session, call)
    sweep = repository.get(session, sweep_id)
    number = body.cell or _winner(session, sweep)
    cell, made = _find(session, sweep, number)
    data_sources.hold(session, cell.draft["dataset_ids"])
    columns = dict(cell.draft)
    columns["spec"] = {**columns["spec"], "trial": None}
    columns["spec"]["result"] = {**columns["spec"]["result"], "model": True}
    job = Job(
        **columns,
        name=f"{(sweep.name or 'sweep')[:180]} {number}: model",
        labels={},
        priority=sweep.priority,
        register_as=body.model,
        promote_to=body.alias,
        continues=made.id if made is not None else None,
    )
    return jobs.enqueue(session, job, view_of=JobView.of, settings=settings, queue=queue, call=call)


def _winner(session: Session, sweep: Sweep) -> int:
    verdict = judge(results.board(session, sweep))
    if verdict is None:
        raise NothingToPromote(sweep_id=sweep.id)
    return verdict.winner


def _find(session: Session, sweep: Sweep, number: int) -> tuple[SweepCell, Job | None]:
    """The cell at its last rung, and the job whose checkpoint is its furthest."""
    found = [row for row in repository.whole(session, sweep.id) if row[0].number == number]
    if not found or found[-1][0].problem is not None:
        raise CellNotFound(sweep_id=sweep.id, number=number)
    succeeded = [job for _, job in found if job and job.state == JobState.SUCCEEDED]
    return found[-1][0], succeeded[-1] if succeeded else None
