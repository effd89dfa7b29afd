"""Which cell of a sweep to take: the best on validation, or one as good that costs less."""

from dataclasses import dataclass
from functools import lru_cache

from app.jobs.results.comparison import (
    CHANCE,
    Comparison,
    Graded,
    accuracy,
    compare,
    discordant,
    interval,
    mcnemar,
    same_texts,
)
from app.sweeps.snapshot import Board, Cell


@dataclass(frozen=True)
class Score:
    """How a cell did on one part."""

    accuracy: float
    low: float  # 95 % interval of the accuracy
    high: float
    texts: int
    objective: float | None  # the figure that the sweep is about; None where it is unknown


@dataclass(frozen=True)
class Verdict:
    """The winner on validation, those that can't be told from it, and the cheapest of them.

    Choosing by validation flatters what is chosen there, so the test part has the last word.
    """

    winner: int  # numbers of cells
    cheapest: int  # may be the winner itself
    near: tuple[int, ...]  # within noise of the winner, which is one of them; in ascending order
    compared: int  # cells that answered the winner's validation texts, the winner among them
    winner_validation: Score | None  # None where it is unknown which texts were right
    cheapest_validation: Score | None
    winner_test: Score | None
    cheapest_test: Score | None
    validation: Comparison | None  # winner less cheapest; None where they are one
    test: Comparison | None


@lru_cache(maxsize=8)
def judge(board: Board) -> Verdict | None:
    """Judge the cells that ran whole; None while there is none whose objective is known.

    The best objective wins; of equal ones that with the fewest trainable parameters, then the
    lowest number. Within noise of it is what the exact McNemar test on the accuracy of the same
    validation texts gives p >= 0.05. Of these the cheapest has the fewest trainable
    parameters, then the better objective, then the lowest number.
    """
    ranked = board.ranked
    if not ranked:
        return None
    winner = ranked[0]
    comparable = [cell for cell in ranked if cell is winner or _paired(winner, cell, "validation")]
    near = _near(winner, comparable)
    # `near` keeps the order of the ranking, and min takes the first of equals.
    cheapest = min(near, key=lambda cell: cell.trainable_parameters)
    return Verdict(
        winner=winner.number,
        cheapest=cheapest.number,
        near=tuple(sorted(cell.number for cell in near)),
        compared=len(comparable),
        winner_validation=_score(board, winner, "validation"),
        cheapest_validation=_score(board, cheapest, "validation"),
        winner_test=_score(board, winner, "test"),
        cheapest_test=_score(board, cheapest, "test"),
        validation=_compared(winner, cheapest, "validation"),
        test=_compared(winner, cheapest, "test"),
    )


def _near(winner: Cell, comparable: list[Cell]) -> list[Cell]:
    others = [cell for cell in comparable if cell is not winner]
    if not others:
        return [winner]
    pairs = discordant(winner.graded["validation"], [cell.graded["validation"] for cell in others])
    kept = mcnemar(*pairs) >= CHANCE
    return [winner, *(cell for cell, keep in zip(others, kept, strict=True) if keep)]


def _paired(a: Cell, b: Cell, part: str) -> tuple[Graded, Graded] | None:
    """What both answered of a part; None where these are other texts, or unknown."""
    if part not in a.graded or part not in b.graded:
        return None
    ours, theirs = a.graded[part], b.graded[part]
    return (ours, theirs) if same_texts(ours, theirs) else None


def _compared(winner: Cell, cheapest: Cell, part: str) -> Comparison | None:
    pair = None if cheapest is winner else _paired(winner, cheapest, part)
    return compare(*pair) if pair else None


def _score(board: Board, cell: Cell, part: str) -> Score | None:
    graded = cell.graded.get(part)
    if graded is None or graded.count == 0:
        return None
    low, high = interval(graded)
    return Score(
        accuracy=accuracy(graded),
        low=low,
        high=high,
        texts=graded.count,
        objective=cell.figure(part, board.objective),
    )
