"""The rows of cells: those to begin with, and those that a strategy asks for as it goes on."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs.draft import Draft, Drafter
from app.settings import Settings
from app.sweeps import cells, repository, strategies
from app.sweeps.cells import Pinned
from app.sweeps.space import Settings as Choice
from app.sweeps.space import Space
from app.sweeps.strategies import Known, Strategy
from app.sweeps.tables import Sweep, SweepCell
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
        (spec,) = cells.specs(self._job, [choice])
        since = (0.0, *strategies.shares(self._strategy))[rung]
        try:
            if isinstance(spec, Exception):
                raise spec
            part = cells.at_rung(spec, self._strategy, rung)
            draft = self.pinned.draft(self._drafter, part, since=since)
        except (*cells.REFUSALS, ValueError) as error:
            return _failed(self._sweep, number, rung, choice, cells.reason(error))
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
