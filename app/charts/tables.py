"""The tables of the page: winner beside the cheapest as good, and all cells."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.charts.fields import OBJECTIVES, all_numbers, labels, percent, score, text
from app.charts.marks import CHEAPEST, WINNER, mark
from app.sweeps.board import Board, Cell
from app.sweeps.verdict import Score, Verdict

NOTHING = "–"  # noqa: RUF001


@dataclass(frozen=True)
class Table:
    """What is written; the first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[bool]  # whether a column holds numbers
    marked: Sequence[bool]  # whether a row stands out


def choices(board: Board, verdict: Verdict | None) -> Table | None:
    """The winner, and beside it the cheapest that cannot be told from it."""
    if verdict is None:
        return None
    found = {cell.number: cell for cell in board.cells}
    chosen = [(WINNER.name, verdict.winner, verdict.winner_validation, verdict.winner_test)]
    if verdict.cheapest != verdict.winner:
        cheap = (CHEAPEST.name, verdict.cheapest)
        chosen.append((*cheap, verdict.cheapest_validation, verdict.cheapest_test))
    names = labels(board.fields)
    rows = [
        ["cell", *(str(number) for _, number, _, _ in chosen)],
        *(
            [names[field], *(text(found[number].settings.get(field)) for _, number, _, _ in chosen)]
            for field in board.fields
        ),
        [
            "trainable parameters",
            *(f"{found[number].trainable_parameters:,}" for _, number, _, _ in chosen),
        ],
        ["seconds", *(_seconds(found[number]) for _, number, _, _ in chosen)],
        ["validation accuracy", *(_interval(value) for *_, value, _ in chosen)],
        ["test accuracy", *(_interval(value) for *_, value in chosen)],
    ]
    columns = ["", *(name for name, *_ in chosen)]
    return Table(columns, rows, [False, *(True for _ in chosen)], [False] * len(rows))


def ordered(board: Board) -> list[Cell]:
    """All cells: those that can be compared, the best first, then the others as they come."""
    ranked = {cell.number for cell in board.ranked}
    return [*board.ranked, *(cell for cell in board.cells if cell.number not in ranked)]


def cells(board: Board, verdict: Verdict | None, shown: Sequence[Cell] | None = None) -> Table:
    """The cells that are to be shown, with the columns of all of them."""
    order = ordered(board) if shown is None else shown
    names = labels(board.fields)
    partly = any(0 < cell.share < 1 for cell in board.cells)
    figures = [
        (part, name)
        for part in ("validation", "test")
        for name in dict.fromkeys((board.objective, "accuracy"))
        if any(cell.figure(part, name) is not None for cell in board.cells)
    ]
    failed = any(cell.error for cell in board.cells)
    columns = [
        ("cell", True),
        ("", False),
        *((names[field], all_numbers(board.cells, field)) for field in board.fields),
        *((f"{part} {OBJECTIVES[name]}", True) for part, name in figures),
        ("trainable parameters", True),
        ("seconds", True),
        ("state", False),
        *([("of its steps", True)] if partly else []),
        *([("error", False)] if failed else []),
    ]
    rows = [
        [
            str(cell.number),
            _standing(cell, verdict),
            *(text(cell.settings.get(field)) for field in board.fields),
            *(_figure(cell, part, name) for part, name in figures),
            f"{cell.trainable_parameters:,}",
            _seconds(cell),
            cell.state,
            *([percent(cell.share)] if partly else []),
            *([cell.error or ""] if failed else []),
        ]
        for cell in order
    ]
    chosen = {verdict.winner, verdict.cheapest} if verdict else set()
    return Table(
        [name for name, _ in columns],
        rows,
        [number for _, number in columns],
        [cell.number in chosen for cell in order],
    )


def _standing(cell: Cell, verdict: Verdict | None) -> str:
    if verdict is None or cell.number not in verdict.near:
        return ""
    return mark(cell, verdict).name


def _figure(cell: Cell, part: str, name: str) -> str:
    value = cell.figure(part, name)
    return NOTHING if value is None else score(name, value)


def _seconds(cell: Cell) -> str:
    return NOTHING if cell.seconds is None else f"{cell.seconds:,.0f}"


def _interval(value: Score | None) -> str:
    if value is None:
        return NOTHING
    return f"{percent(value.accuracy)} ({100 * value.low:.1f} to {100 * value.high:.1f})"
