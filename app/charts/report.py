"""The tables of the page: winner beside the cheapest as good, and all cells."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.charts import figures
from app.charts.fields import OBJECTIVES, all_numbers, labels, percent, score, settings, text
from app.charts.style import CHEAPEST, WINNER, mark, objective, scored
from app.jobs.results.comparison import Comparison
from app.sweeps.snapshot import AT_WORK, ENDED, Board, Cell
from app.sweeps.winner import Score, Verdict, judge

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


# MERGED app.charts.report
# What came out of a sweep, in words.

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


# MERGED app.charts.report
# A sweep as one HTML page that needs nothing else: no network, no service, no other file.

# For a route that serves the page: scripts run, but as strangers to the service. What the page may
# load, which is nothing from elsewhere, it says itself.
CONTENT_SECURITY_POLICY = "sandbox allow-scripts allow-downloads; frame-ancestors 'none'"
PAGE = Path(__file__).with_name("page")


def render(board: Board) -> str:
    """The page. Whatever comes from users stands in it as text, never as markup or code."""
    import jinja2
    from plotly.offline import get_plotlyjs

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False}
    verdict = judge(board)
    drawn = figures.of(board)
    scripts = [get_plotlyjs(), (PAGE / "report.js").read_text(encoding="utf-8")] if drawn else []
    return templates.get_template("report.html").render(
        board=board,
        about=about(board),
        running=board.state in AT_WORK,
        standing=standing(board),
        findings=findings(board, verdict),
        choices=choices(board, verdict),
        pictures=drawn,
        figures=[picture.figure.to_dict() for picture in drawn],
        cells=cells(board, verdict),
        style=(PAGE / "report.css").read_text(encoding="utf-8"),
        scripts=scripts,
        policy=_policy(scripts),
    )


def _policy(scripts: list[str]) -> str:
    """Nothing from elsewhere, and of scripts these alone, whatever a name may smuggle in."""
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    )
