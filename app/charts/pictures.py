"""All pictures of a sweep, drawn once for the same results."""

import hashlib
from collections import OrderedDict
from functools import lru_cache
from threading import Lock

from app.charts.cost import cost
from app.charts.importance import importance
from app.charts.landscape import landscape
from app.charts.parallel import parallel
from app.charts.picture import Picture
from app.sweeps.board import Board
from app.sweeps.verdict import judge

KEPT = 8  # sets of pictures

_drawn: OrderedDict[str, list[Picture]] = OrderedDict()
_one_at_a_time = Lock()  # it is work for a core, and whoever waits takes what the other has drawn


def of(board: Board) -> list[Picture]:
    """Those that there is something to show in; none while no cell has run whole."""
    version = version_of(board)
    with _one_at_a_time:
        if version not in _drawn:
            _drawn[version] = _draw(board)
        _drawn.move_to_end(version)
        while len(_drawn) > KEPT:
            _drawn.popitem(last=False)
        return _drawn[version]


@lru_cache(maxsize=8)
def version_of(board: Board) -> str:
    """Names all that the pictures show: another one, and they have to be drawn anew."""
    shown = [
        (cell.number, board.score(cell), cell.trainable_parameters, cell.seconds, cell.settings)
        for cell in board.ranked
    ]
    told = (board.objective, board.fields, judge(board), shown)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _draw(board: Board) -> list[Picture]:
    verdict = judge(board)
    if verdict is None:
        return []
    drawn = (
        landscape(board),
        importance(board),
        parallel(board, verdict),
        cost(board, verdict, "trainable_parameters"),
        cost(board, verdict, "seconds"),
    )
    return [picture for picture in drawn if picture]
