"""Sweeps as they were last seen, so that only the cells that changed since are read again.

Whoever watches asks every two seconds, and most cells have ended or wait.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from threading import Lock
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs.results import comparison
from app.jobs.results.comparison import Graded
from app.queue.states import JobState
from app.queue.tables import Job
from app.sweeps import repository
from app.sweeps.repository import Place
from app.sweeps.schemas import CellView, ComparisonView, ScoreView, Standing, VerdictView
from app.sweeps.search_space import Space
from app.sweeps.snapshot import FIGURES, PARTS, Board, Cell
from app.sweeps.states import CellState
from app.sweeps.tables import Sweep, SweepCell
from app.sweeps.winner import Score, Verdict, judge

KEPT = 4  # sweeps

About = tuple[str | None, ...]
Places = Mapping[int, list[Place]]  # of each cell, by rung
Read = Callable[[list[int] | None], Iterable[Cell]]  # cells of these numbers; None: all


class _Seen(NamedTuple):
    about: About  # the sweep itself
    places: Places
    board: Board


class _Memory:
    """The last few sweeps that somebody looked at. Safe to share between threads."""

    def __init__(self) -> None:
        self._seen: OrderedDict[UUID, _Seen] = OrderedDict()
        self._lock = Lock()

    def get(self, sweep_id: UUID) -> _Seen | None:
        with self._lock:
            return self._seen.get(sweep_id)

    def put(self, sweep_id: UUID, seen: _Seen) -> None:
        with self._lock:
            self._seen[sweep_id] = seen
            self._seen.move_to_end(sweep_id)
            while len(self._seen) > KEPT:
                self._seen.popitem(last=False)


_memory = _Memory()


def look(session: Session, sweep: Sweep, read: Read) -> Board:
    """The sweep as it is now: the board of before, if nothing has changed."""
    about = (sweep.name, sweep.state, sweep.strategy["type"], sweep.objective)
    places = _places(session, sweep.id)
    before = _memory.get(sweep.id)
    if before is not None and (before.about, before.places) == (about, places):
        return before.board
    board = Board(
        name=sweep.name or str(sweep.id),
        state=sweep.state,
        strategy=sweep.strategy["type"],
        objective=sweep.objective,
        fields=Space.of(sweep.space).fields,
        cells=tuple(_refreshed(places, before, read)),
    )
    _memory.put(sweep.id, _Seen(about, places, board))
    return board


def _places(session: Session, sweep_id: UUID) -> Places:
    places: defaultdict[int, list[Place]] = defaultdict(list)
    for place in repository.places(session, sweep_id):
        places[place.number].append(place)
    return dict(sorted(places.items()))


def _refreshed(places: Places, before: _Seen | None, read: Read) -> Iterator[Cell]:
    if before is None:
        yield from read(None)
        return
    changed = [number for number, its in places.items() if before.places.get(number) != its]
    cells = {cell.number: cell for cell in (*before.board.cells, *read(changed))}
    yield from (cells[number] for number in places)


# MERGED app.sweeps.results
# From rows to what is known of a sweep at this moment.

Row = tuple[SweepCell, Job | None]


def board(session: Session, sweep: Sweep) -> Board:
    """Every cell at its last rung. While nothing changes it is the same object each time."""
    return look(session, sweep, partial(_cells, session, sweep))


def verdict_view(found: Board) -> VerdictView | None:
    """Who won, with what it won by; None while no cell has run to its end."""
    verdict = judge(found)
    if verdict is None:
        return None
    by_number = {cell.number: cell for cell in found.cells}
    return VerdictView(
        winner=_standing(by_number[verdict.winner], verdict, "winner"),
        cheapest=_standing(by_number[verdict.cheapest], verdict, "cheapest"),
        near=list(verdict.near),
        compared=verdict.compared,
        validation=_compared(verdict, "validation"),
        test=_compared(verdict, "test"),
    )


def cell_views(found: Board, rows: Sequence[tuple[int, bool]]) -> list[CellView]:
    """The cells as they are told; `rows` says of each number whether it was known before."""
    reused = dict(rows)
    return [
        CellView(
            number=cell.number,
            settings=dict(cell.settings),
            state=cell.state,
            share=cell.share,
            trainable_parameters=cell.trainable_parameters,
            seconds=cell.seconds,
            figures={part: dict(figures) for part, figures in cell.figures.items()},
            reused=reused.get(cell.number, False),
            job_id=UUID(cell.job_id) if cell.job_id else None,
            error=cell.error,
        )
        for cell in found.cells
    ]


def _cells(session: Session, sweep: Sweep, numbers: Collection[int] | None) -> Iterator[Cell]:
    rows = repository.whole(session, sweep.id, only=numbers)
    graded = comparison.of(session, [job.id for _, job in rows if job is not None])
    fields = Space.of(sweep.space).fields
    for _, history in groupby(rows, key=lambda row: row[0].number):
        yield _cell(list(history), fields, graded)


def _cell(
    history: Sequence[Row], fields: Sequence[str], graded: Mapping[UUID, Mapping[str, Graded]]
) -> Cell:
    row, job = history[-1]
    # What a cell did last stands until its next rung has ended.
    done = next((each for _, each in reversed(history) if _succeeded(each)), None)
    ran = [job.running_seconds for _, job in history if job is not None]
    spec: JsonObject = row.draft.get("spec", {})
    trial = (spec if done is None else done.spec).get("trial")
    return Cell(
        number=row.number,
        settings={field: row.settings[field] for field in fields},
        spec=spec,
        state=_state(row, job),
        share=1.0 if trial is None else trial["share"],
        trainable_parameters=_parameters(row, job),
        seconds=sum(ran) if any(ran) else None,
        figures=_figures(done),
        graded=graded[done.id] if done is not None else {},
        error=row.problem or (job.error_message if job is not None else None),
        job_id=str(job.id) if job is not None else None,
    )


def _succeeded(job: Job | None) -> bool:
    return job is not None and job.state == JobState.SUCCEEDED


def _state(row: SweepCell, job: Job | None) -> str:
    if row.problem is not None:
        return CellState.FAILED
    return CellState.WAITING if job is None else job.state


def _parameters(row: SweepCell, job: Job | None) -> int:
    """As counted by the run, once it has ended; until then as planned."""
    summary: JsonObject = (job.summary if job is not None else None) or {}
    planned = row.draft.get("plan", {}).get("parameters", {}).get("trainable", 0)
    return int(summary.get("trainable_parameters", planned))


def _figures(job: Job | None) -> dict[str, dict[str, float]]:
    summary: dict[str, Any] = (job.summary if job is not None else None) or {}
    return {
        part: {name: summary[part][name] for name in FIGURES if name in summary[part]}
        for part in PARTS
        if part in summary
    }


def _standing(cell: Cell, verdict: Verdict, which: str) -> Standing:
    def view(part: str) -> ScoreView | None:
        score: Score | None = getattr(verdict, f"{which}_{part}")
        return None if score is None else ScoreView(**asdict(score))

    return Standing(
        number=cell.number,
        settings=dict(cell.settings),
        job_id=UUID(cell.job_id) if cell.job_id else None,
        trainable_parameters=cell.trainable_parameters,
        validation=view("validation"),
        test=view("test"),
    )


def _compared(verdict: Verdict, part: str) -> ComparisonView | None:
    found = getattr(verdict, part)
    if found is None:
        return None
    return ComparisonView(
        difference=found.difference, low=found.low, high=found.high, p=found.p, texts=found.texts
    )
