"""What callers do with sweeps: start, pause, stop, resume, retry, extend, delete."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.artifacts import service as artifacts
from app.artifacts.store import Store
from app.db.base import JsonObject
from app.db.engines import Database
from app.db.turns import take_turns
from app.errors import ChangedMeanwhile
from app.idempotency import service as idempotency
from app.idempotency.calls import Call
from app.jobs import repository as jobs
from app.jobs.draft import Drafter
from app.jobs.tables import Job
from app.queue import JobQueue
from app.settings import Settings
from app.sweeps import advance, growth, planning, progress, repository
from app.sweeps.cells import Find, Pinned
from app.sweeps.errors import IllegalSweepMove, SweepNotFinished
from app.sweeps.planning import Laid
from app.sweeps.repository import Place
from app.sweeps.schemas import Counts, SweepCreate, SweepExtend, SweepView, VerdictView
from app.sweeps.space import Space
from app.sweeps.states import CellState, SweepState
from app.sweeps.tables import Sweep
from lora_core.specs.train import TrainSpec

log = structlog.get_logger(__name__)


def start(
    session: Session,
    *,
    body: SweepCreate,
    laid: Laid,
    settings: Settings,
    queue: JobQueue,
    call: Call,
) -> SweepView:
    """Store a sweep with its first cells, give the first of them jobs, commit, tell the workers.

    Raises what `planning.drafts` and `idempotency.begin` raise; then nothing is stored.
    """
    idempotency.begin(session, call)
    made = planning.drafts(laid, Drafter(session, settings))
    sweep = Sweep(
        created_by=call.caller_id,
        name=body.name,
        labels=body.metadata,
        job=body.job.model_dump(mode="json", exclude_unset=True),
        space=laid.over.kept(),
        strategy=laid.strategy.model_dump(mode="json"),
        pinned=laid.pinned.as_json(),
        objective=body.objective,
        parallel=body.parallel,
        priority=body.priority,
    )
    session.add(sweep)
    session.flush()
    growth.add(session, sweep, made[: laid.kept], first=1)
    hints = advance.advance(session, sweep.id, settings=settings)
    view = view_of(session, sweep, verdict=None)
    idempotency.keep(session, call, status=202, body=view, location=view.location)
    session.commit()
    _tell(queue, hints)
    log.info("sweep started", sweep_id=str(sweep.id), cells=view.cells)
    return view


def pause(session: Session, *, sweep_id: UUID) -> Sweep:
    """Give out no more cells; those that run go on. Raises `SweepNotFound`, `IllegalSweepMove`."""
    return _halt(session, sweep_id, SweepState.PAUSED, {CellState.QUEUED}, but=SweepState.STOPPED)


def stop(session: Session, *, sweep_id: UUID) -> Sweep:
    """Give out no more cells, and stop those that run: they keep their checkpoints.

    Raises `SweepNotFound`, `IllegalSweepMove`.
    """
    return _halt(session, sweep_id, SweepState.STOPPED, {CellState.QUEUED, CellState.RUNNING})


def resume(session: Session, *, sweep_id: UUID, settings: Settings, queue: JobQueue) -> Sweep:
    """Go on after a pause or a stop. Raises `SweepNotFound`, `IllegalSweepMove`."""
    sweep = _taken(session, sweep_id)
    if sweep.state == SweepState.FINISHED:
        hint = "to run failed cells again, retry it; to add some, extend it"
        raise IllegalSweepMove(sweep_id=sweep_id, state=sweep.state, wanted="resumed", hint=hint)
    return _run_on(session, sweep, settings, queue)


def retry(session: Session, *, sweep_id: UUID, settings: Settings, queue: JobQueue) -> Sweep:
    """Run failed and cancelled cells again, and no others. Raises `SweepNotFound`."""
    sweep = _taken(session, sweep_id)
    repository.detach(session, sweep_id, (CellState.FAILED, CellState.CANCELLED))
    return _run_on(session, sweep, settings, queue)


def more(database: Database, *, sweep_id: UUID, body: SweepExtend, find: Find) -> Laid:
    """The cells that an extension would add. No transaction is open while bases are looked up.

    Raises `SweepNotFound`, and what `planning.grow` raises.
    """
    with database.read() as session:
        sweep = repository.get(session, sweep_id)
        there = repository.settings(session, sweep_id)
    laid = planning.grow(
        TrainSpec.model_validate(sweep.job),
        over=Space.of(sweep.space),
        strategy=growth.STRATEGY.validate_python(sweep.strategy),
        pinned=Pinned.of(sweep.pinned),
        there=there,
        body=body,
        find=find,
    )
    return replace(laid, grown_from=_shape(sweep, there))


def extend(
    session: Session, *, sweep_id: UUID, laid: Laid, settings: Settings, queue: JobQueue
) -> Sweep:
    """Add the cells that `more` has found, and run them.

    Raises what `planning.drafts` raises, and `ChangedMeanwhile` if another call added some.
    """
    sweep = _taken(session, sweep_id)
    there = repository.settings(session, sweep_id)
    if _shape(sweep, there) != laid.grown_from:
        raise ChangedMeanwhile()
    made = planning.drafts(laid, Drafter(session, settings))
    sweep.space = laid.over.kept()
    sweep.strategy = laid.strategy.model_dump(mode="json")
    sweep.pinned = laid.pinned.as_json()
    growth.add(session, sweep, made[: laid.kept], first=len(there) + 1)
    return _run_on(session, sweep, settings, queue)


def delete(session: Session, *, sweep_id: UUID, store: Store) -> None:
    """Forget a sweep and the jobs that it made, but for those that others use.

    Raises `SweepNotFound`, and `SweepNotFinished` while it or one of its jobs runs.
    """
    sweep = _taken(session, sweep_id)
    if sweep.state == SweepState.RUNNING or repository.unfinished_jobs(session, sweep_id):
        state = "running" if sweep.state == SweepState.RUNNING else "still ending its jobs"
        raise SweepNotFinished(sweep_id=sweep_id, state=state)
    made = repository.jobs_of(session, sweep_id)
    repository.remove(session, sweep_id)
    gone = [artifact for job_id in made for artifact in jobs.remove(session, job_id)]
    artifacts.forget_unused(session, store, gone)


def view_of(session: Session, sweep: Sweep, *, verdict: VerdictView | None) -> SweepView:
    """A sweep as it is told."""
    counts = progress.counts(session, [sweep.id])[sweep.id]
    return SweepView(
        id=sweep.id,
        name=sweep.name,
        metadata=sweep.labels,
        state=SweepState(sweep.state),
        job=sweep.job,
        space=dict(sweep.space),
        strategy=sweep.strategy,
        objective=sweep.objective,
        parallel=sweep.parallel,
        priority=sweep.priority,
        cells=sum(counts.values()),
        counts=Counts(**counts),
        verdict=verdict,
        created_at=sweep.created_at,
        finished_at=sweep.finished_at,
    )


def _halt(
    session: Session,
    sweep_id: UUID,
    state: SweepState,
    ending: set[CellState],
    *,
    but: SweepState = SweepState.FINISHED,
) -> Sweep:
    sweep = _taken(session, sweep_id)
    if sweep.state in (SweepState.FINISHED, but):
        hint = "it gives out no cells"
        raise IllegalSweepMove(sweep_id=sweep_id, state=sweep.state, wanted=state.value, hint=hint)
    sweep.state = state
    for place in repository.places(session, sweep_id):
        if place.state in ending:
            _withdraw(session, sweep_id, place)
    session.commit()
    return sweep


def _withdraw(session: Session, sweep_id: UUID, place: Place) -> None:
    """The cell waits again; its job is cancelled unless somebody else wants it."""
    job = session.get(Job, place.job_id)
    mine = job is not None and job.sweep_id is not None
    if job and mine and not repository.used_elsewhere(session, job.id, but=sweep_id):
        jobs.request_cancel(session, job.id)
    cell = repository.cell(session, sweep_id, place.number, place.rung)
    cell.job_id, cell.reused = None, False


def _run_on(session: Session, sweep: Sweep, settings: Settings, queue: JobQueue) -> Sweep:
    sweep.state, sweep.finished_at = SweepState.RUNNING, None
    session.flush()
    hints = advance.advance(session, sweep.id, settings=settings)
    session.commit()
    _tell(queue, hints)
    return sweep


def _shape(sweep: Sweep, there: Sequence[JsonObject]) -> tuple[object, ...]:
    """What an extension goes by: nobody else may change it meanwhile."""
    return sweep.space, sweep.strategy, len(there)


def _taken(session: Session, sweep_id: UUID) -> Sweep:
    """With nobody else at it until the end of the transaction."""
    take_turns(session, advance.ONE_AT_A_TIME)
    sweep = repository.get(session, sweep_id)
    session.refresh(sweep)
    return sweep


def _tell(queue: JobQueue, hints: advance.Hints) -> None:
    for job_id, lane in hints:
        queue.hint(job_id, lane=lane)
