"""The objective over two fields."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from app.charts.fields import Axis, varied
from app.charts.picture import Picture, colours, objective, plain, scored, tick_format, told
from app.sweeps.board import Board, Cell

R, ALPHA = "method.r", "method.alpha"
MOST = 16  # values of an axis that squares have room for
WRITTEN = 10  # values of an axis that leave room for a number in each square
OUTLINE = {"width": 1, "color": "#8b95a5"}  # so that the palest are seen
FAR = 50  # numbers of which the largest is so many times the smallest stand on a log axis


def landscape(board: Board) -> Picture | None:
    """The objective at each pair of values of two fields, of the best cell there.

    These are r and alpha, or the two fields with most values; None where no two vary. Where one has
    too many values for squares, as in a random search, each cell is a point.
    """
    cells = board.ranked
    axes = varied(board, cells)
    if len(axes) < 2:
        return None
    x, y = two(axes)
    draw = _squares if _are_few((x, y)) else _points
    what = f"{objective(board)} over {x.label} and {y.label}"
    best = cells[0]
    return Picture(
        title=what.capitalize(),
        caption="The best cell at each place." if draw is _squares else "A point a cell.",
        alt=f"Map of {what}, the best cell at each place. The best of all, {scored(board, best)}, "
        f"stands at {x.label} = {x.texts[x.position(best)]}, "
        f"{y.label} = {y.texts[y.position(best)]}.",
        figure=draw(board, cells, x, y),
        map=True,
    )


def squares_over(board: Board) -> set[str]:
    """The two fields of the map once all cells have run; none where it is not made of squares."""
    axes = varied(board, board.cells)
    pair = two(axes) if len(axes) >= 2 else ()
    return {axis.field for axis in pair} if _are_few(pair) else set()


def two(axes: Sequence[Axis]) -> tuple[Axis, Axis]:
    """Those that a map is drawn over, of two axes or more."""
    names = {axis.field: axis for axis in axes}
    if R in names and ALPHA in names:
        return names[R], names[ALPHA]
    # The first of equals, so that the order of the space is kept.
    return max(combinations(axes, 2), key=lambda pair: sum(len(axis.texts) for axis in pair))


def _are_few(axes: Sequence[Axis]) -> bool:
    return all(len(axis.texts) <= MOST for axis in axes)


def _squares(board: Board, cells: Sequence[Cell], x: Axis, y: Axis) -> Any:
    import plotly.graph_objects as go

    best: dict[tuple[int, int], Cell] = {}
    for cell in cells:  # the best come first
        best.setdefault((y.position(cell), x.position(cell)), cell)

    def rows(show: Callable[[Board, Cell], Any], missing: str | None = "") -> list[list[Any]]:
        places = [
            [best.get((row, at)) for at in range(len(x.texts))] for row in range(len(y.texts))
        ]
        return [[show(board, cell) if cell else missing for cell in row] for row in places]

    written = max(len(x.texts), len(y.texts)) <= WRITTEN
    figure = go.Figure(
        go.Heatmap(
            z=rows(Board.score, missing=None), text=rows(scored), hovertext=rows(told),
            texttemplate="%{text}" if written else None,
            hoverinfo="text", hoverongaps=False, xgap=3, ygap=3, coloraxis="coloraxis",
        )
    )  # fmt: skip
    figure.update_layout(
        height=110 + 48 * len(y.texts), margin={"t": 10, "b": 50, "r": 20}, coloraxis=colours(board)
    )
    for axis, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        update(
            title=plain(axis.label), tickvals=list(range(len(axis.texts))),
            ticktext=[plain(text) for text in axis.texts], showgrid=False, zeroline=False,
        )  # fmt: skip
    return figure


def _points(board: Board, cells: Sequence[Cell], x: Axis, y: Axis) -> Any:
    import plotly.graph_objects as go

    drawn = cells[::-1]  # the best lie on top
    scores = [board.score(cell) for cell in drawn]
    figure = go.Figure(
        go.Scatter(
            x=[_place(x, cell) for cell in drawn],
            y=[_place(y, cell) for cell in drawn],
            mode="markers", hoverinfo="text", hovertext=[told(board, cell) for cell in drawn],
            marker={"size": 13, "color": scores, "coloraxis": "coloraxis", "line": OUTLINE},
        )
    )  # fmt: skip
    bar = {"tickformat": tick_format(board), "thickness": 10, "outlinewidth": 0}
    figure.update_layout(
        height=420, margin={"t": 10, "b": 50},
        coloraxis={**colours(board), "showscale": True, "colorbar": bar},
    )  # fmt: skip
    figure.update_xaxes(title=plain(x.label), **_scale(x))
    figure.update_yaxes(title=plain(y.label), **_scale(y))
    return figure


def _place(axis: Axis, cell: Cell) -> float:
    position = axis.position(cell)
    return axis.numbers[position] if axis.numbers else position


def _scale(axis: Axis) -> dict[str, Any]:
    if axis.numbers is None:
        places = list(range(len(axis.texts)))
        return {"tickvals": places, "ticktext": [plain(text) for text in axis.texts]}
    low, *_, high = axis.numbers
    return {"type": "log" if low > 0 and high / low >= FAR else "linear"}
