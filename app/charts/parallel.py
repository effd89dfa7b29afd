"""Every cell as a line through its settings."""

from collections.abc import Sequence
from typing import Any

from app.charts.fields import Axis, score, varied
from app.charts.marks import groups
from app.charts.picture import LEGEND, Picture, objective, plain, told
from app.sweeps.board import Board, Cell
from app.sweeps.verdict import Verdict

MOST = 8  # values of a field that are written
LINES = 500  # more of them are one dark patch, and slow to draw
SPREAD = 0.6  # share of the room of a value that its lines take


def parallel(board: Board, verdict: Verdict) -> Picture | None:
    """A line a cell through the fields that vary to its objective; None where there are none.

    Made of ordinary lines: Plotly's own parallel coordinates need WebGL and code made at run time,
    which the page forbids, and lines through the same values would hide each other.
    """
    import plotly.graph_objects as go

    cells, last = board.ranked[:LINES], objective(board)
    axes = varied(board, cells)
    if not axes:
        return None
    heights = _heights(board, cells, axes)
    figure = go.Figure()
    for mark, marked in groups(cells, verdict):
        # One trace a group; the empty point at the end of each cell breaks the line.
        figure.add_scatter(
            name=mark.name, mode="lines+markers", hoverinfo="text",
            x=[at for _ in marked for at in [*range(len(axes) + 1), None]],
            y=[height for cell in marked for height in [*heights[cell.number], None]],
            hovertext=[told(board, cell) for cell in marked for _ in range(len(axes) + 2)],
            line={"width": mark.width, "color": mark.colour},
            marker={"size": 3 + mark.width, "color": mark.colour, "symbol": "circle"},
        )  # fmt: skip
    for at, axis in enumerate(axes):
        for place in range(0, len(axis.texts), -(-len(axis.texts) // MOST)):
            _write(figure, at, (place + 0.5) / len(axis.texts), axis.texts[place])
    for height, cell in ((1, cells[0]), (0, cells[-1])):
        _write(figure, len(axes), height, score(board.objective, board.score(cell) or 0.0))
    for at in range(len(axes) + 1):
        figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, line_width=1, layer="below")
    figure.update_layout(
        height=460,
        margin={"t": 80, "b": 20, "l": 20, "r": 60},
        showlegend=True,
        legend={**LEGEND, "y": 1.1},
    )
    names = [*(axis.label for axis in axes), last]
    figure.update_xaxes(
        tickvals=list(range(len(names))), ticktext=[plain(name) for name in names],
        side="top", showgrid=False, range=[-0.35, len(axes) + 0.1], ticks="",
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-0.04, 1.04])
    alt = (
        f"{len(cells)} lines, one a cell, through {', '.join(names)}. The winner is cell "
        f"{verdict.winner}; the table of all cells has their numbers."
    )
    left = len(board.ranked) - len(cells)
    caption = f"The best {LINES} cells; {left:,} more are not drawn." if left else ""
    return Picture("Every cell through its settings", caption, alt, figure, wide=True)


def _heights(board: Board, cells: Sequence[Cell], axes: Sequence[Axis]) -> dict[int, list[float]]:
    """Where each line crosses each axis, from 0 to 1.

    Lines through one value lie beside each other, the better above; those of the objective where
    it is, the best at 1.
    """
    scores = [board.score(cell) or 0.0 for cell in cells]
    span = scores[0] - scores[-1]
    heights = {}
    for rank, (cell, value) in enumerate(zip(cells, scores, strict=True)):
        aside = SPREAD * (0.5 - (rank + 0.5) / len(cells))
        through = [(axis.position(cell) + 0.5 + aside) / len(axis.texts) for axis in axes]
        heights[cell.number] = [*through, (value - scores[-1]) / span if span else 0.5]
    return heights


def _write(figure: Any, at: int, height: float, text: str) -> None:
    figure.add_annotation(
        x=at, y=height, text=plain(text), showarrow=False, xanchor="right", xshift=-8
    )
