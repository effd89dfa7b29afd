"""Sweeps as they were last seen, so that only the cells that changed since are read again.

Whoever watches asks every two seconds, and most cells have ended or wait.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.sweeps import repository
from app.sweeps.board import Board, Cell
from app.sweeps.repository import Place
from app.sweeps.space import Space
from app.sweeps.tables import Sweep

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
        cells=tuple(_cells(places, before, read)),
    )
    _memory.put(sweep.id, _Seen(about, places, board))
    return board


def _places(session: Session, sweep_id: UUID) -> Places:
    places: defaultdict[int, list[Place]] = defaultdict(list)
    for place in repository.places(session, sweep_id):
        places[place.number].append(place)
    return dict(sorted(places.items()))


def _cells(places: Places, before: _Seen | None, read: Read) -> Iterator[Cell]:
    if before is None:
        yield from read(None)
        return
    changed = [number for number, its in places.items() if before.places.get(number) != its]
    cells = {cell.number: cell for cell in (*before.board.cells, *read(changed))}
    yield from (cells[number] for number in places)
