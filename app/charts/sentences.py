"""What came out of a sweep, in words."""

from collections import Counter

from app.charts.fields import OBJECTIVES, labels, percent, score, settings
from app.charts.picture import objective, scored
from app.jobs.comparison import Comparison
from app.sweeps.board import AT_WORK, ENDED, Board, Cell
from app.sweeps.verdict import Score, Verdict

STATES = ("succeeded", "failed", "cancelled", "running", "queued", "waiting")


def about(board: Board) -> str:
    """What was tried, and what it was about."""
    fields = ", ".join(labels(board.fields).values())
    return f"Sweep ({board.strategy}) over {fields}, judged by {objective(board)}."


def standing(board: Board) -> str:
    """How far the sweep is."""
    done = sum(cell.state in ENDED for cell in board.cells)
    if board.state in AT_WORK:
        return f"Not over yet: {done} of {len(board.cells)} cells are done. All below may change."
    states = Counter(cell.state for cell in board.cells)
    told = ", ".join(f"{states[state]} {state}" for state in STATES if states[state])
    partly = sum(cell.state == "succeeded" and not cell.whole for cell in board.cells)
    stopped = f"; {partly} of those that succeeded ran a part of their steps" if partly else ""
    return f"{_count(len(board.cells), 'cell')}: {told or 'none'}{stopped}."


def findings(board: Board, verdict: Verdict | None) -> list[str]:
    """The winner, the test part, who is as good, and the cheapest of them."""
    if verdict is None:
        return ["No cell has run to its end yet, so there is nothing to compare."]
    cells = {cell.number: cell for cell in board.cells}
    winner, cheapest = cells[verdict.winner], cells[verdict.cheapest]
    told = [_won(board, winner, verdict), *_on_test(board, verdict), _as_good(verdict)]
    if verdict.cheapest != verdict.winner:
        told.append(_saved(board, winner, cheapest, verdict))
    elif len(verdict.near) > 1:
        told.append("No cell that is as good has fewer trainable parameters.")
    return told


def interval(value: Score) -> str:
    """An accuracy with its 95 % interval."""
    return (
        f"{percent(value.accuracy)} (95 % interval {100 * value.low:.1f} to {percent(value.high)})"
    )


def _won(board: Board, winner: Cell, verdict: Verdict) -> str:
    on = verdict.winner_validation
    texts = f" on {_count(on.texts, 'text')}" if on else ""
    return (
        f"Cell {winner.number} has the best {objective(board)}, {scored(board, winner)}{texts}: "
        f"{', '.join(settings(board, winner))}."
    )


def _on_test(board: Board, verdict: Verdict) -> list[str]:
    value = verdict.winner_test
    if value is None:
        return []
    also = ""
    if board.objective != "accuracy" and value.objective is not None:
        also = f", its {OBJECTIVES[board.objective]} {score(board.objective, value.objective)}"
    return [
        f"On {_count(value.texts, 'test text')}, by which nothing was chosen, its accuracy is "
        f"{interval(value)}{also}."
    ]


def _as_good(verdict: Verdict) -> str:
    others = len(verdict.near) - 1
    if verdict.compared == 1:
        return "No other cell is known to have answered the same validation texts."
    test = "the difference in accuracy on the same validation texts (exact McNemar test, p"
    if others == 0:
        return f"No other cell is as good: chance hardly explains {test} < 0.05)."
    compared = _count(verdict.compared - 1, "other cell")
    return (
        f"As good, so far as can be told: {others} of {compared}. "
        f"Chance alone could explain {test} ≥ 0.05)."
    )


def _saved(board: Board, winner: Cell, cheapest: Cell, verdict: Verdict) -> str:
    parts = (("validation", verdict.validation), ("test", verdict.test))
    behind = [_behind(difference, part) for part, difference in parts if difference]
    chosen = ", ".join(settings(board, cheapest))
    return (
        f"The cheapest that is as good is cell {cheapest.number} ({chosen}) with "
        f"{cheapest.trainable_parameters:,} trainable parameters instead of "
        f"{winner.trainable_parameters:,}. Its accuracy is {' and '.join(behind)}."
    )


def _behind(difference: Comparison, part: str) -> str:
    points = 100 * difference.difference
    # Turned round, so that minus says what is lost by the cheapest; + 0.0 makes -0.0 a zero.
    low, high = (round(-100 * each, 1) + 0.0 for each in (difference.high, difference.low))
    where = (
        f"the same on {part}"
        if difference.difference == 0
        else f"{abs(points):.1f} points {'lower' if points > 0 else 'higher'} on {part}"
    )
    return f"{where} (95 % interval {low:+.1f} to {high:+.1f})"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
