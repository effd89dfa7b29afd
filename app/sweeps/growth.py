"""The rows of cells: those to begin with, and those that a strategy asks for as it goes on."""

from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from app.db.base import JsonObject
from app.jobs.draft import Draft, Drafter
from app.settings import Settings
from app.sweeps import cells, repository, strategies
from app.sweeps.cells import Pinned
from app.sweeps.space import Settings as Choice
from app.sweeps.space import Space
from app.sweeps.strategies import Known, Strategy
from app.sweeps.tables import Sweep, SweepCell
from lora_core.specs.train import TrainSpec

STRATEGY: TypeAdapter[Strategy] = TypeAdapter(Strategy)


def add(
    session: Session, sweep: Sweep, drafts: Sequence[tuple[Choice, Draft]], *, first: int
) -> None:
    """New cells at the first rung, numbered from `first`."""
    for number, (choice, draft) in enumerate(drafts, start=first):
        session.add(_row(sweep, number, 0, choice, draft))
    session.flush()


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
    drafter, pinned = Drafter(session, settings), Pinned.of(sweep.pinned)
    for rung, numbers in step.promoted.items():
        for number in numbers:
            before = repository.cell(session, sweep.id, number, rung - 1)
            _promote(session, sweep, before, (drafter, pinned, strategy))
    if step.new:
        _propose(session, sweep, step.new, (drafter, pinned, strategy), first=len(known) + 1)
    session.flush()
    return bool(step)


def _promote(
    session: Session, sweep: Sweep, before: SweepCell, tools: tuple[Drafter, Pinned, Strategy]
) -> None:
    """The same cell at the next rung."""
    drafter, pinned, strategy = tools
    rung = before.rung + 1
    # From the words of its author, by which `pinned` knows what they mean.
    (spec,) = cells.specs(TrainSpec.model_validate(sweep.job), [before.settings])
    since = strategies.shares(strategy)[before.rung]
    try:
        if isinstance(spec, Exception):
            raise spec
        draft = pinned.draft(drafter, cells.at_rung(spec, strategy, rung), since=since)
    except (*cells.REFUSALS, ValueError) as error:
        session.add(_failed(sweep, before.number, rung, before.settings, cells.reason(error)))
    else:
        session.add(_row(sweep, before.number, rung, before.settings, draft))


def _propose(
    session: Session,
    sweep: Sweep,
    proposed: Sequence[Choice],
    tools: tuple[Drafter, Pinned, Strategy],
    *,
    first: int,
) -> None:
    """Cells that a strategy has thought of. One that cannot run counts as failed."""
    drafter, pinned, strategy = tools
    described = cells.specs(TrainSpec.model_validate(sweep.job), proposed)
    for number, (choice, spec) in enumerate(zip(proposed, described, strict=True), start=first):
        try:
            if isinstance(spec, Exception):
                raise spec
            draft = pinned.draft(drafter, cells.at_rung(spec, strategy, 0))
        except (*cells.REFUSALS, ValueError) as error:
            session.add(_failed(sweep, number, 0, choice, cells.reason(error)))
        else:
            session.add(_row(sweep, number, 0, choice, draft))
    sweep.pinned = pinned.as_json()


def _row(
    sweep: Sweep, number: int, rung: int, choice: Mapping[str, object], draft: Draft
) -> SweepCell:
    columns = draft.columns()
    return SweepCell(
        sweep_id=sweep.id,
        number=number,
        rung=rung,
        settings=dict(choice),
        draft=columns,
        cell_sha256=columns["cell_sha256"],
    )


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
