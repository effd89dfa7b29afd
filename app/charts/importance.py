"""How much of what differs between cells each field explains by itself."""

from app.charts.fields import Axis, varied
from app.charts.marks import NEAR
from app.charts.picture import Picture, objective, plain
from app.sweeps.board import Board

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
