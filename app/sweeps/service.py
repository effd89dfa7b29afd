"""What callers do with sweeps: start, pause, stop, resume, retry, extend, delete."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.base import new_id
from app.database.engines import Database
from app.database.errors import OUTAGE
from app.database.locks import take_turns
from app.errors import ChangedMeanwhile
from app.idempotency import service as idempotency
from app.idempotency.service import Call
from app.jobs import repository as jobs
from app.jobs.resolve import Drafter
from app.queue.dispatch import JobQueue
from app.queue.states import Kind
from app.queue.tables import Job
from app.settings import Settings
from app.storage import service as artifacts
from app.storage.store import Store
from app.sweeps import add_trials, planning, progress, repository
from app.sweeps.errors import IllegalSweepMove, SweepNotFinished, TooManyTrials
from app.sweeps.planning import Laid
from app.sweeps.repository import Place
from app.sweeps.schemas import (
    Counts,
    SweepCreate,
    SweepExtend,
    SweepListItem,
    SweepView,
    VerdictView,
)
from app.sweeps.search_space import Space
from app.sweeps.states import CellState, SweepState
from app.sweeps.tables import Sweep
from app.sweeps.trials import Find, Pinned
from lora_core.specs.train import TrainSpec

MOST_REMOVED = 20  # jobs that one transaction deletes

log = structlog.get_logger(__name__)


def start(
    database: Database,
    *,
    body: SweepCreate,
    laid: Laid,
    settings: Settings,
    queue: JobQueue,
    call: Call,
) -> SweepView:
    """Store a sweep with its first cells, give the first of them jobs, tell the workers.

    Cells are stored in small transactions, so that other writers need not wait. The last one lets
    the sweep be seen; if the process dies before, garbage collection removes what is stored.

    Raises `TooManyTrials`, and what `planning.drafts` and `idempotency.begin` raise; then nothing
    is stored.
    """
    with database.read() as session:
        _check_room(session, call.caller_id, laid, settings)
        made = planning.drafts(laid, Drafter(session, settings))[: laid.kept]
    sweep = Sweep(
        id=new_id(),
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
        ready=False,
    )
    try:
        with database.write() as session:
            session.add(sweep)
            session.commit()
        for rows in add_trials.batches(sweep.id, made, first=1):
            with database.write() as session:
                repository.add_trials(session, rows)
                session.commit()
        with database.write() as session:
            idempotency.begin(session, call)
            take_turns(session, f"trials of {call.caller_id}")
            _check_room(session, call.caller_id, laid, settings)
            sweep = repository.make_ready(session, sweep.id)
            hints, more = add_trials.advance(session, sweep.id, settings=settings)
            view = view_of(session, sweep, verdict=None)
            idempotency.keep(session, call, status=202, body=view, location=view.location)
            session.commit()
    except Exception:
        with suppress(*OUTAGE), database.write() as session:
            repository.discard_unready(session, sweep.id)
            session.commit()
        raise
    _tell(queue, hints)
    while more:
        with database.write() as session:
            hints, more = add_trials.advance(session, sweep.id, settings=settings)
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
        strategy=add_trials.STRATEGY.validate_python(sweep.strategy),
        pinned=Pinned.of(sweep.pinned),
        there=there,
        body=body,
        find=find,
    )
    return replace(laid, grown_from=(sweep.space, sweep.strategy, len(there)))


def extend(
    database: Database, *, sweep_id: UUID, laid: Laid, settings: Settings, queue: JobQueue
) -> Sweep:
    """Add the cells that `more` has found, in small transactions, and run them.

    If the process dies on the way, the same call adds the rest. Raises what `planning.drafts`
    raises, `TooManyTrials`, and `ChangedMeanwhile` if another call added some.
    """
    with database.read() as session:
        made = planning.drafts(laid, Drafter(session, settings))[: laid.kept]
    space, strategy, there = laid.grown_from

    def taken(session: Session) -> Sweep:
        sweep = _taken(session, sweep_id)
        if (sweep.space, sweep.strategy) != (space, strategy):
            raise ChangedMeanwhile()
        if repository.count(session, sweep_id) != there:
            raise ChangedMeanwhile()
        return sweep

    with database.write() as session:
        sweep = taken(session)
        _check_room(session, sweep.created_by, laid, settings)
    for rows in add_trials.batches(sweep_id, made, first=there + 1):
        with database.write() as session:
            taken(session)
            repository.add_trials(session, rows)
            session.commit()
        there += len(rows)
    with database.write() as session:
        sweep = taken(session)
        sweep.space = laid.over.kept()
        sweep.strategy = laid.strategy.model_dump(mode="json")
        sweep.pinned = laid.pinned.as_json()
        return _run_on(session, sweep, settings, queue)


def delete(database: Database, *, sweep_id: UUID, store: Store) -> None:
    """Forget a sweep and the jobs that it made, but for those that others use.

    The jobs go first, few at a time: after a process that died the same call goes on.

    Raises `SweepNotFound`, and `SweepNotFinished` while it or one of its jobs runs.
    """
    with database.write() as session:
        _ended(session, sweep_id)
        made = repository.jobs_of(session, sweep_id)
        session.commit()
    for first in range(0, len(made), MOST_REMOVED):
        with database.write() as session:
            _ended(session, sweep_id)
            gone = [
                jobs.discard(session, job_id, kind=Kind.TRAINING) or []
                for job_id in made[first : first + MOST_REMOVED]
            ]
            artifacts.forget_unused(session, store, chain.from_iterable(gone))
    with database.write() as session:
        _ended(session, sweep_id)
        repository.remove(session, sweep_id)
        session.commit()


def view_of(session: Session, sweep: Sweep, *, verdict: VerdictView | None) -> SweepView:
    """A sweep as it is told."""
    counts = progress.counts(session, [sweep.id])[sweep.id]
    return SweepView(
        **_fields(sweep, counts), job=sweep.job, space=dict(sweep.space), verdict=verdict
    )


def list_items(session: Session, sweeps: Sequence[Sweep]) -> list[SweepListItem]:
    """Sweeps as lists show them."""
    counts = progress.counts(session, [sweep.id for sweep in sweeps])
    return [SweepListItem(**_fields(sweep, counts[sweep.id])) for sweep in sweeps]


def _fields(sweep: Sweep, counts: dict[str, int]) -> dict[str, Any]:
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
        "counts": Counts(**counts),
        "created_at": sweep.created_at,
        "finished_at": sweep.finished_at,
    }


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
    hints, _ = add_trials.advance(session, sweep.id, settings=settings)
    session.commit()
    _tell(queue, hints)
    return sweep


def _check_room(session: Session, caller_id: UUID, laid: Laid, settings: Settings) -> None:
    there = repository.trials_of(session, caller_id)
    if there + laid.kept > settings.key_trials:
        raise TooManyTrials(there=there, added=laid.kept, limit=settings.key_trials)


def _ended(session: Session, sweep_id: UUID) -> None:
    sweep = _taken(session, sweep_id)
    if sweep.state == SweepState.RUNNING or repository.unfinished_jobs(session, sweep_id):
        state = "running" if sweep.state == SweepState.RUNNING else "still ending its jobs"
        raise SweepNotFinished(sweep_id=sweep_id, state=state)


def _taken(session: Session, sweep_id: UUID) -> Sweep:
    """With nobody else at it until the end of the transaction."""
    take_turns(session, add_trials.ONE_AT_A_TIME)
    sweep = repository.get(session, sweep_id)
    session.refresh(sweep)
    return sweep


def _tell(queue: JobQueue, hints: add_trials.Hints) -> None:
    for job_id, lane in hints:
        queue.hint(job_id, lane=lane)
