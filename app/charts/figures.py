"""The objective against what a cell costs: parameters to keep, seconds to train."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations
from threading import Lock
from typing import Any, Literal

from app.charts.fields import Axis, score, varied
from app.charts.style import (
    LEGEND,
    NEAR,
    Picture,
    colours,
    groups,
    objective,
    plain,
    scored,
    tick_format,
    told,
)
from app.sweeps.snapshot import Board, Cell
from app.sweeps.winner import Verdict, judge

Cost = Literal["trainable_parameters", "seconds"]
NAMES: dict[Cost, str] = {"trainable_parameters": "trainable parameters", "seconds": "seconds"}


def cost(board: Board, verdict: Verdict, of: Cost) -> Picture | None:
    """The objective against trainable parameters (on a log axis) or seconds.

    None where no two cells differ in it.
    """
    import plotly.graph_objects as go

    costs = {cell.number: getattr(cell, of) for cell in board.ranked}
    cells = [cell for cell in board.ranked if costs[cell.number] is not None]
    if len({costs[cell.number] for cell in cells}) < 2:
        return None
    figure = go.Figure()
    for mark, marked in groups(cells, verdict):
        figure.add_scatter(
            name=mark.name, mode="markers", hoverinfo="text",
            marker={"symbol": mark.symbol, "size": mark.size, "color": mark.colour},
            x=[costs[cell.number] for cell in marked],
            y=[board.score(cell) for cell in marked],
            hovertext=[
                f"{told(board, cell)}<br>{costs[cell.number]:,.0f} {NAMES[of]}" for cell in marked
            ],
        )  # fmt: skip
    figure.update_layout(
        height=380, margin={"t": 50, "b": 50, "r": 20}, showlegend=True, legend=LEGEND
    )
    figure.update_xaxes(title=NAMES[of], tickformat="~s")
    if of == "trainable_parameters":
        figure.update_xaxes(type="log", dtick="D2")
    figure.update_yaxes(title=objective(board), tickformat=tick_format(board))
    what = f"{objective(board).capitalize()} against {NAMES[of]}"
    alt = (
        f"{what} of {len(cells)} cells. The winner is cell {verdict.winner}, the cheapest as good "
        f"cell {verdict.cheapest}; the table of all cells has their numbers."
    )
    return Picture(title=what, caption="", alt=alt, figure=figure)


# MERGED app.charts.figures
# How much of what differs between cells each field explains by itself.

FEWEST = 4  # cells; of fewer a forest learns nothing
# With more cells fewer trees tell the same: shares of 576 move by less than one in a hundred, and
# 5,000 take two seconds instead of minutes.
FEW, TREES_OF_FEW, TREES, DEPTH = 64, 64, 16, 8


def importance(board: Board) -> Picture | None:
    """A bar for each field; None where there are no `shares`."""
    import plotly.graph_objects as go

    found = shares(board)
    if found is None:
        return None
    names = {axis.field: axis.label for axis in varied(board, board.ranked)}
    told = {names[field]: f"{100 * share:.0f} %" for field, share in found.items()}
    figure = go.Figure(
        go.Bar(
            x=list(found.values()), y=[plain(name) for name in told], text=list(told.values()),
            orientation="h", marker_color=NEAR.colour, hoverinfo="skip",
            textposition="outside", cliponaxis=False,
        )
    )  # fmt: skip
    figure.update_layout(
        height=60 + 38 * len(found), margin={"t": 10, "b": 30, "r": 20}, bargap=0.45
    )
    figure.update_xaxes(range=[0, 1.12 * max(found.values())], showticklabels=False, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=6)
    alt = f"Share of each field: {', '.join(f'{name} {share}' for name, share in told.items())}."
    return Picture(
        title=f"What moved the {objective(board)}",
        caption="Share of the differences that each field explains by itself (fANOVA).",
        alt=alt,
        figure=figure,
    )


def shares(board: Board) -> dict[str, float] | None:
    """The share of each field that varies, the largest first; they add up to 1.

    None of fewer than four cells, or two fields, or where all cells came to the same. By fANOVA
    (Hutter, Hoos and Leyton-Brown 2014), with a fixed seed, over the cells that ran whole. Numbers
    enter as their places among the values that were tried, so that 1, 2, 4, 8 lie equally far
    apart.
    """
    axes = varied(board, board.ranked)
    scores = {board.score(cell) for cell in board.ranked}
    if len(board.ranked) < FEWEST or len(axes) < 2 or len(scores) < 2:
        return None
    return _fanova(board, {axis.field: axis for axis in axes})


def _fanova(board: Board, axes: dict[str, Axis]) -> dict[str, float]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it tells each study that is made
    places: dict[str, BaseDistribution] = {
        field: IntDistribution(0, len(axis.texts) - 1)
        if axis.numbers
        else CategoricalDistribution(range(len(axis.texts)))
        for field, axis in axes.items()
    }
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(
            params={field: axis.position(cell) for field, axis in axes.items()},
            distributions=places,
            value=board.score(cell),
        )
        for cell in board.ranked
    )
    trees = TREES_OF_FEW if len(board.ranked) <= FEW else TREES
    forest = FanovaImportanceEvaluator(n_trees=trees, max_depth=DEPTH, seed=0)
    found = get_param_importances(study, evaluator=forest)
    return {field: float(share) for field, share in found.items()}


# MERGED app.charts.figures
# The objective over two fields.

R, ALPHA = "method.r", "method.alpha"
MAX_HEATMAP_VALUES = 16  # values of an axis that squares have room for
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
    return all(len(axis.texts) <= MAX_HEATMAP_VALUES for axis in axes)


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


# MERGED app.charts.figures
# Every cell as a line through its settings.

MAX_TICKS = 8  # values of a field that are written
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
        for place in range(0, len(axis.texts), -(-len(axis.texts) // MAX_TICKS)):
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


# MERGED app.charts.figures
# All pictures of a sweep, drawn once for the same results.

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
