"""The objective against what a cell costs: parameters to keep, seconds to train."""

from typing import Literal

from app.charts.marks import groups
from app.charts.picture import LEGEND, Picture, objective, tick_format, told
from app.sweeps.board import Board
from app.sweeps.verdict import Verdict

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
