"""The rows of cells: those to begin with, and those that a strategy asks for as it goes on."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple
from uuid import UUID

import structlog
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.database.clock import now
from app.database.errors import OUTAGE
from app.database.locks import take_turns
from app.jobs import data_sources
from app.jobs import service as jobs
from app.jobs.resolve import Draft, Drafter
from app.queue import heartbeats
from app.queue.states import Lane
from app.queue.tables import Job
from app.resources import Resources
from app.settings import Settings
from app.sweeps import repository, strategies, trials
from app.sweeps.search_space import Settings as Choice
from app.sweeps.search_space import Space
from app.sweeps.states import SweepState
from app.sweeps.strategies import Known, Strategy
from app.sweeps.tables import Sweep, SweepCell
from app.sweeps.trials import Pinned
from lora_core.errors import LoraCoreError
from lora_core.failpoints import reach
from lora_core.specs.train import TrainSpec

BATCH = 100  # trials that one transaction stores
STRATEGY: TypeAdapter[Strategy] = TypeAdapter(Strategy)


def batches(
    sweep_id: UUID, drafts: Sequence[tuple[Choice, Draft]], *, first: int
) -> Iterator[list[JsonObject]]:
    """Rows of new trials at the first rung, numbered from `first`, for a transaction each."""
    numbered = enumerate(drafts, start=first)
    while some := list(islice(numbered, BATCH)):
        yield [_columns(sweep_id, number, 0, choice, draft) for number, (choice, draft) in some]


def extend(session: Session, sweep: Sweep, settings: Settings) -> bool:
    """Add what the strategy says comes next; whether there is anything."""
    strategy = STRATEGY.validate_python(sweep.strategy)
    space = Space.of(sweep.space)
    rows = repository.summaries(session, sweep.id)
    known = [
        Known(row.number, row.rung, row.settings, repository.score(row.summary, sweep.objective))
        for row in rows
    ]
    step = strategies.following(strategy, space, known)
    rows_of = _Rows(sweep, strategy, Drafter(session, settings))
    for rung, numbers in step.promoted.items():
        for number in numbers:
            before = repository.cell(session, sweep.id, number, rung - 1)
            session.add(rows_of.cell(number, rung, before.settings))
    for number, choice in enumerate(step.new, start=len(known) + 1):
        session.add(rows_of.cell(number, 0, choice))
    sweep.pinned = rows_of.pinned.as_json()
    session.flush()
    return bool(step)


class _Rows:
    """Makes the rows of cells that a strategy asks for, at any rung."""

    def __init__(self, sweep: Sweep, strategy: Strategy, drafter: Drafter) -> None:
        self.pinned = Pinned.of(sweep.pinned)
        self._sweep, self._strategy, self._drafter = sweep, strategy, drafter
        self._job = TrainSpec.model_validate(sweep.job)

    def cell(self, number: int, rung: int, choice: Choice) -> SweepCell:
        """Of one that cannot run a row that says why: it counts as failed."""
        # From the words of its author, by which `pinned` knows what they mean.
        (spec,) = trials.specs(self._job, [choice])
        since = (0.0, *strategies.shares(self._strategy))[rung]
        try:
            if isinstance(spec, Exception):
                raise spec
            part = trials.at_rung(spec, self._strategy, rung)
            draft = self.pinned.draft(self._drafter, part, since=since)
        except (*trials.REFUSALS, ValueError) as error:
            return _failed(self._sweep, number, rung, choice, trials.reason(error))
        return SweepCell(**_columns(self._sweep.id, number, rung, choice, draft))


def _columns(
    sweep_id: UUID, number: int, rung: int, choice: Mapping[str, object], draft: Draft
) -> JsonObject:
    columns = draft.columns()
    return {
        "sweep_id": sweep_id,
        "number": number,
        "rung": rung,
        "settings": dict(choice),
        "draft": columns,
        "cell_sha256": columns["cell_sha256"],
    }


def _failed(
    sweep: Sweep, number: int, rung: int, choice: Mapping[str, object], problem: str
) -> SweepCell:
    nothing: JsonObject = {}
    return SweepCell(
        sweep_id=sweep.id,
        number=number,
        rung=rung,
        settings=dict(choice),
        draft=nothing,
        cell_sha256="",
        problem=problem,
    )


# MERGED app.sweeps.add_trials
# The next jobs of a sweep. Whoever looks next goes on from the rows: nothing is in memory.
#
# Each call is one transaction, and one at a time of all sweeps, so that no cell gets two jobs.

ONE_AT_A_TIME = "sweeps"

MOST_LOOKED = 20  # cells of one transaction

Hints = list[tuple[UUID, Lane]]


class Advanced(NamedTuple):
    """New jobs, and whether another transaction should go on at once."""

    hints: Hints
    more: bool


log = structlog.get_logger(__name__)


def after(resources: Resources, job_id: UUID) -> None:
    """A job has ended: go on with the sweeps that waited for it."""
    with resources.database.read() as session:
        sweeps = repository.concerned(session, job_id)
    _go_on_with(resources, sweeps)


def all_of_them(resources: Resources) -> None:
    """Go on with every sweep: for whoever died before he could, and for workers that came."""
    with resources.database.read() as session:
        sweeps = repository.running(session)
    _go_on_with(resources, sweeps)


def _go_on_with(resources: Resources, sweeps: Sequence[UUID]) -> None:
    """One that cannot go on must not hold up the others. Raises one of `OUTAGE`."""
    for sweep_id in sweeps:
        try:
            go_on(resources, sweep_id)
        except OUTAGE:
            raise
        except Exception:
            log.exception("the sweep cannot go on", sweep_id=str(sweep_id))


def go_on(resources: Resources, sweep_id: UUID) -> None:
    """Advance in transactions of its own, and tell the workers."""
    more = True
    while more:
        with resources.database.write() as session:
            hints, more = advance(session, sweep_id, settings=resources.settings)
            reach("sweep_advanced")
            session.commit()
        reach("sweep_committed")
        for job_id, lane in hints:
            resources.queue.hint(job_id, lane=lane)


def advance(session: Session, sweep_id: UUID, *, settings: Settings) -> Advanced:
    """Give cells their jobs, as many as may run at a time, and find the cells that come next.

    The caller commits, and then tells the workers of the jobs that it returns.
    """
    take_turns(session, ONE_AT_A_TIME)
    sweep = session.get(Sweep, sweep_id, populate_existing=True)
    if sweep is None or sweep.state != SweepState.RUNNING or not sweep.ready:
        return Advanced([], more=False)
    hints: Hints = []
    while True:
        filled = _fill(session, sweep, hints, settings)
        if filled.under_way or filled.more:
            return Advanced(hints, filled.more)
        if not extend(session, sweep, settings):
            sweep.state, sweep.finished_at = SweepState.FINISHED, now()
            session.flush()
            log.info("the sweep is finished", sweep_id=str(sweep_id))
            return Advanced(hints, more=False)


class _Filled(NamedTuple):
    under_way: bool  # some cell has not ended
    more: bool  # cells are left that were not looked at


def _fill(session: Session, sweep: Sweep, hints: Hints, settings: Settings) -> _Filled:
    """Give waiting cells their jobs: those that are known, or new ones while there is room."""
    room = sweep.parallel or max(1, _slots(session, settings))
    active = repository.active(session, sweep.id)
    places = repository.waiting(session, sweep.id, limit=MOST_LOOKED + 1)
    stopping = 0  # jobs that are just ending: they take their place all the same
    for looked, place in enumerate(places):
        if len(active) + stopping >= room:
            return _Filled(under_way=True, more=False)
        if looked == MOST_LOOKED:  # if all of them wait for jobs that are ending, nothing is new
            return _Filled(under_way=True, more=stopping < looked)
        cell = repository.cell(session, sweep.id, place.number, place.rung)
        found = trials.find(session, cell.cell_sha256, cell.draft)
        if isinstance(found, trials.Entry):
            cell.job_id, cell.reused = found.job_id, True
            if not found.ended:
                active.add(found.job_id)
        elif found.later:
            stopping += 1
        elif job := _new_job(session, sweep, cell, found.continues):
            cell.lost += place.again
            active.add(job.id)
            hints.append((job.id, Lane(job.lane)))
    session.flush()
    return _Filled(under_way=bool(active) or stopping > 0, more=False)


def _slots(session: Session, settings: Settings) -> int:
    return heartbeats.slots(session, lease_seconds=settings.lease_seconds)


def _new_job(session: Session, sweep: Sweep, cell: SweepCell, continues: UUID | None) -> Job | None:
    """In the queue; None when its data are gone, which the cell tells."""
    try:
        data_sources.hold(session, cell.draft["dataset_ids"])
    except LoraCoreError as error:
        cell.problem = str(error)
        return None
    job = Job(
        **cell.draft,
        name=f"{(sweep.name or 'sweep')[:190]} {cell.number}",
        labels={},
        priority=sweep.priority,
        sweep_id=sweep.id,
        continues=continues,
    )
    jobs.add(session, job, created_by=sweep.created_by)
    cell.job_id, cell.reused = job.id, False
    return job
