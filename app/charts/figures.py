"""Charts of a sweep: map of the objective, importance of fields, parallel coordinates, costs."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from threading import Lock
from typing import Any, Literal

from app.charts.formatting import (
    Axis,
    capitalize_first,
    format_number,
    format_score,
    varied_axes,
)
from app.charts.style import (
    LEGEND_LAYOUT,
    WITHIN_NOISE_MARK,
    color_axis,
    format_trial_objective,
    group_by_mark,
    hover_text,
    objective_label,
    shorten_and_escape_label,
    tick_format,
)
from app.sweeps.snapshot import (
    SweepSnapshot,
    TrialSnapshot,
    WinnerAndCheapest,
    select_winner_and_cheapest,
)

MAX_CACHED_CHART_SETS = 8


@dataclass(frozen=True)
class Chart:
    """A Plotly figure with a title, a caption and a text alternative."""

    title: str
    caption: str
    alt: str
    figure: Any  # plotly.graph_objects.Figure
    wide: bool = False  # takes the full width of the page
    map: bool = False  # shows the objective over two fields


_chart_cache: OrderedDict[str, list[Chart]] = OrderedDict()
_draw_lock = Lock()  # drawing keeps a core busy, and threads that wait use the cached result


def sweep_charts(snapshot: SweepSnapshot) -> list[Chart]:
    """Return all charts that have something to show; none while no trial is complete.

    Charts are drawn once for the same results.
    """
    version = charts_digest(snapshot)
    with _draw_lock:
        if version not in _chart_cache:
            _chart_cache[version] = _draw_charts(snapshot)
        _chart_cache.move_to_end(version)
        while len(_chart_cache) > MAX_CACHED_CHART_SETS:
            _chart_cache.popitem(last=False)
        return _chart_cache[version]


@lru_cache(maxsize=8)
def charts_digest(snapshot: SweepSnapshot) -> str:
    """Return a hash of everything that the charts show."""
    trials = [
        (
            trial.number,
            snapshot.objective_value(trial),
            trial.trainable_parameters,
            trial.seconds,
            trial.settings,
        )
        for trial in snapshot.ranked
    ]
    shown = (snapshot.objective, snapshot.fields, select_winner_and_cheapest(snapshot), trials)
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


def _draw_charts(snapshot: SweepSnapshot) -> list[Chart]:
    selection = select_winner_and_cheapest(snapshot)
    if selection is None:
        return []
    charts = (
        objective_heatmap_or_scatter(snapshot),
        importance_chart(snapshot),
        parallel_coordinates(snapshot, selection),
        objective_against_cost_chart(snapshot, selection, "trainable_parameters"),
        objective_against_cost_chart(snapshot, selection, "seconds"),
    )
    return [chart for chart in charts if chart]


# Map: the objective over two fields

RANK_FIELD, ALPHA_FIELD = "method.r", "method.alpha"
MAX_HEATMAP_VALUES = 16  # values of an axis that fit into a heatmap
_MAX_ANNOTATED_VALUES = 10  # values of an axis that leave room for a number in each cell
_POINT_OUTLINE = {"width": 1, "color": "#8b95a5"}  # makes the palest points visible
_LOG_AXIS_RATIO = 50  # largest / smallest value above which an axis is logarithmic


def objective_heatmap_or_scatter(snapshot: SweepSnapshot) -> Chart | None:
    """Show the objective of the best trial at each pair of values of two fields.

    The fields are r and alpha, or else the two with the most values; None if fewer than two vary.
    If one has too many values for a heatmap, as in a random search, each trial is a point.
    """
    trials = snapshot.ranked
    axes = varied_axes(snapshot, trials)
    if len(axes) < 2:
        return None
    x, y = choose_map_axes(axes)
    is_heatmap = _fit_heatmap((x, y))
    figure = (_heatmap if is_heatmap else _scatter)(snapshot, trials, x, y)
    title = f"{objective_label(snapshot)} over {x.label} and {y.label}"
    best = trials[0]
    return Chart(
        title=capitalize_first(title),
        caption="Each cell shows the best trial with these values."
        if is_heatmap
        else "Each point is a trial.",
        alt=f"Map of {title}, best trial at each place. The best of all, "
        f"{format_trial_objective(snapshot, best)}, is at "
        f"{x.label} = {x.tick_labels[x.value_index(best)]}, "
        f"{y.label} = {y.tick_labels[y.value_index(best)]}.",
        figure=figure,
        map=True,
    )


def final_heatmap_fields(snapshot: SweepSnapshot) -> set[str]:
    """Return the two fields of the map once all trials have run; empty if it is no heatmap."""
    axes = varied_axes(snapshot, snapshot.trials)
    pair = choose_map_axes(axes) if len(axes) >= 2 else ()
    return {axis.field for axis in pair} if _fit_heatmap(pair) else set()


def choose_map_axes(axes: Sequence[Axis]) -> tuple[Axis, Axis]:
    """Choose the axes of the map, out of two or more."""
    by_field = {axis.field: axis for axis in axes}
    if RANK_FIELD in by_field and ALPHA_FIELD in by_field:
        return by_field[RANK_FIELD], by_field[ALPHA_FIELD]
    # `max` returns the first of equals, so the order of the space is kept.
    return max(combinations(axes, 2), key=lambda pair: sum(len(axis.tick_labels) for axis in pair))


def _fit_heatmap(axes: Sequence[Axis]) -> bool:
    return all(len(axis.tick_labels) <= MAX_HEATMAP_VALUES for axis in axes)


def _heatmap(snapshot: SweepSnapshot, trials: Sequence[TrialSnapshot], x: Axis, y: Axis) -> Any:
    import plotly.graph_objects as go

    best: dict[tuple[int, int], TrialSnapshot] = {}
    for trial in trials:  # the best come first
        best.setdefault((y.value_index(trial), x.value_index(trial)), trial)

    def rows(
        show: Callable[[SweepSnapshot, TrialSnapshot], Any], missing: str | None = ""
    ) -> list[list[Any]]:
        grid = [
            [best.get((row, column)) for column in range(len(x.tick_labels))]
            for row in range(len(y.tick_labels))
        ]
        return [[show(snapshot, trial) if trial else missing for trial in row] for row in grid]

    annotated = max(len(x.tick_labels), len(y.tick_labels)) <= _MAX_ANNOTATED_VALUES
    figure = go.Figure(
        go.Heatmap(
            z=rows(SweepSnapshot.objective_value, missing=None), text=rows(format_trial_objective),
            hovertext=rows(hover_text), texttemplate="%{text}" if annotated else None,
            hoverinfo="text", hoverongaps=False, xgap=3, ygap=3, coloraxis="coloraxis",
        )
    )  # fmt: skip
    figure.update_layout(
        height=110 + 48 * len(y.tick_labels),
        margin={"t": 10, "b": 50, "r": 20},
        coloraxis=color_axis(snapshot),
    )
    for axis, update in ((x, figure.update_xaxes), (y, figure.update_yaxes)):
        update(
            title=shorten_and_escape_label(axis.label), tickvals=list(range(len(axis.tick_labels))),
            ticktext=[shorten_and_escape_label(label) for label in axis.tick_labels],
            showgrid=False, zeroline=False,
        )  # fmt: skip
    return figure


def _scatter(snapshot: SweepSnapshot, trials: Sequence[TrialSnapshot], x: Axis, y: Axis) -> Any:
    import plotly.graph_objects as go

    drawn = trials[::-1]  # the best are on top
    scores = [snapshot.objective_value(trial) for trial in drawn]
    figure = go.Figure(
        go.Scatter(
            x=[_axis_coordinate(x, trial) for trial in drawn],
            y=[_axis_coordinate(y, trial) for trial in drawn],
            mode="markers", hoverinfo="text",
            hovertext=[hover_text(snapshot, trial) for trial in drawn],
            marker={"size": 13, "color": scores, "coloraxis": "coloraxis", "line": _POINT_OUTLINE},
        )
    )  # fmt: skip
    bar = {"tickformat": tick_format(snapshot), "thickness": 10, "outlinewidth": 0}
    figure.update_layout(
        height=420, margin={"t": 10, "b": 50},
        coloraxis={**color_axis(snapshot), "showscale": True, "colorbar": bar},
    )  # fmt: skip
    figure.update_xaxes(title=shorten_and_escape_label(x.label), **_axis_options(x))
    figure.update_yaxes(title=shorten_and_escape_label(y.label), **_axis_options(y))
    return figure


def _axis_coordinate(axis: Axis, trial: TrialSnapshot) -> float:
    position = axis.value_index(trial)
    return axis.numeric_values[position] if axis.numeric_values else position


def _axis_options(axis: Axis) -> dict[str, Any]:
    if axis.numeric_values is None:
        positions = list(range(len(axis.tick_labels)))
        return {
            "tickvals": positions,
            "ticktext": [shorten_and_escape_label(label) for label in axis.tick_labels],
        }
    low, *_, high = axis.numeric_values
    return {"type": "log" if low > 0 and high / low >= _LOG_AXIS_RATIO else "linear"}


# Importance: the share of the differences between trials that each field explains by itself

_MIN_TRIALS = 4  # a forest learns nothing from fewer
# With more trials, fewer trees give the same result: for 576 trials the shares move by less than
# 0.01, and 5,000 trials take two seconds instead of minutes.
MANY_TRIALS_ABOVE, TREES_FEW_TRIALS, TREES_MANY_TRIALS, TREE_DEPTH = 64, 64, 16, 8


def importance_chart(snapshot: SweepSnapshot) -> Chart | None:
    """Show a bar for each field; None if `compute_field_importances` returns none."""
    import plotly.graph_objects as go

    shares = compute_field_importances(snapshot)
    if shares is None:
        return None
    labels = {axis.field: axis.label for axis in varied_axes(snapshot, snapshot.ranked)}
    percentages = {labels[field]: f"{100 * share:.0f}%" for field, share in shares.items()}
    figure = go.Figure(
        go.Bar(
            x=list(shares.values()), y=[shorten_and_escape_label(label) for label in percentages],
            text=list(percentages.values()), orientation="h",
            marker_color=WITHIN_NOISE_MARK.color, hoverinfo="skip", textposition="outside",
            cliponaxis=False,
        )
    )  # fmt: skip
    figure.update_layout(
        height=60 + 38 * len(shares), margin={"t": 10, "b": 30, "r": 20}, bargap=0.45
    )
    figure.update_xaxes(
        range=[0, 1.12 * max(shares.values())], showticklabels=False, showgrid=False
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=6)
    listed = ", ".join(f"{label} {share}" for label, share in percentages.items())
    return Chart(
        title=f"Importance for {objective_label(snapshot)}",
        caption="Share of the differences that each field explains by itself (fANOVA).",
        alt=f"Share of each field: {listed}.",
        figure=figure,
    )


def compute_field_importances(snapshot: SweepSnapshot) -> dict[str, float] | None:
    """Return the share of each field that varies, the largest first; they add up to 1.

    Computed by fANOVA (Hutter, Hoos and Leyton-Brown 2014) with a fixed seed over the complete
    trials. Numbers enter by their rank among the values that were tried, so that 1, 2, 4, 8 are
    equally far apart. None for fewer than four trials, fewer than two fields, or if all scores are
    equal.
    """
    axes = varied_axes(snapshot, snapshot.ranked)
    scores = {snapshot.objective_value(trial) for trial in snapshot.ranked}
    if len(snapshot.ranked) < _MIN_TRIALS or len(axes) < 2 or len(scores) < 2:
        return None
    return _fanova_importance(snapshot, {axis.field: axis for axis in axes})


def _fanova_importance(snapshot: SweepSnapshot, axes: dict[str, Axis]) -> dict[str, float]:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)  # by default it logs each new study
    distributions: dict[str, BaseDistribution] = {
        field: IntDistribution(0, len(axis.tick_labels) - 1)
        if axis.numeric_values
        else CategoricalDistribution(range(len(axis.tick_labels)))
        for field, axis in axes.items()
    }
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(
            params={field: axis.value_index(trial) for field, axis in axes.items()},
            distributions=distributions,
            value=snapshot.objective_value(trial),
        )
        for trial in snapshot.ranked
    )
    trees = TREES_FEW_TRIALS if len(snapshot.ranked) <= MANY_TRIALS_ABOVE else TREES_MANY_TRIALS
    evaluator = FanovaImportanceEvaluator(n_trees=trees, max_depth=TREE_DEPTH, seed=0)
    importances = get_param_importances(study, evaluator=evaluator)
    return {field: float(share) for field, share in importances.items()}


# Parallel coordinates: every trial as a line through its settings

MAX_TICKS = 8  # values of a field that are labeled
MAX_LINES = 500  # more of them are one dark patch, and slow to draw
_LINE_SPREAD = 0.6  # share of a value's height that its lines spread over


def parallel_coordinates(snapshot: SweepSnapshot, selection: WinnerAndCheapest) -> Chart | None:
    """Show each trial as a line through the varied fields to its objective; None if none varies.

    The lines are a scatter plot. Plotly's own parallel coordinates need WebGL and code generated
    at run time, which the page forbids, and they would hide lines through the same values.
    """
    import plotly.graph_objects as go

    trials = snapshot.ranked[:MAX_LINES]
    axes = varied_axes(snapshot, trials)
    if not axes:
        return None
    heights = _line_heights(snapshot, trials, axes)
    figure = go.Figure()
    for mark, marked in group_by_mark(trials, selection):
        # One trace per group; the empty point at the end of each trial interrupts the line.
        figure.add_scatter(
            name=mark.name, mode="lines+markers", hoverinfo="text",
            x=[at for _ in marked for at in [*range(len(axes) + 1), None]],
            y=[height for trial in marked for height in [*heights[trial.number], None]],
            hovertext=[
                hover_text(snapshot, trial) for trial in marked for _ in range(len(axes) + 2)
            ],
            line={"width": mark.width, "color": mark.color},
            marker={"size": 3 + mark.width, "color": mark.color, "symbol": "circle"},
        )  # fmt: skip
    for at, axis in enumerate(axes):
        count = len(axis.tick_labels)
        for index in range(0, count, -(-count // MAX_TICKS)):
            _annotate(figure, at, (index + 0.5) / count, axis.tick_labels[index])
    for height, trial in ((1, trials[0]), (0, trials[-1])):
        value = format_score(snapshot.objective, snapshot.objective_value(trial) or 0.0)
        _annotate(figure, len(axes), height, value)
    for at in range(len(axes) + 1):
        figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, line_width=1, layer="below")
    figure.update_layout(
        height=460,
        margin={"t": 80, "b": 20, "l": 20, "r": 60},
        showlegend=True,
        legend={**LEGEND_LAYOUT, "y": 1.1},
    )
    names = [*(axis.label for axis in axes), objective_label(snapshot)]
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[shorten_and_escape_label(name) for name in names],
        side="top", showgrid=False, range=[-0.35, len(axes) + 0.1], ticks="",
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-0.04, 1.04])
    omitted = len(snapshot.ranked) - len(trials)
    return Chart(
        title="Settings and objective of every trial",
        caption=f"The best {MAX_LINES} trials; {omitted:,} more are not drawn." if omitted else "",
        alt=f"{len(trials)} lines, one per trial, through {', '.join(names)}. The winner is trial "
        f"{selection.winner}; the table of all trials lists the values.",
        figure=figure,
        wide=True,
    )


def _line_heights(
    snapshot: SweepSnapshot, trials: Sequence[TrialSnapshot], axes: Sequence[Axis]
) -> dict[int, list[float]]:
    """Return by trial number where its line crosses each axis, from 0 to 1.

    Lines through the same value are spread, the better ones above. On the last axis the height is
    the objective, with the best at 1.
    """
    scores = [snapshot.objective_value(trial) or 0.0 for trial in trials]
    span = scores[0] - scores[-1]
    heights = {}
    for rank, (trial, score) in enumerate(zip(trials, scores, strict=True)):
        offset = _LINE_SPREAD * (0.5 - (rank + 0.5) / len(trials))
        crossings = [
            (axis.value_index(trial) + 0.5 + offset) / len(axis.tick_labels) for axis in axes
        ]
        heights[trial.number] = [*crossings, (score - scores[-1]) / span if span else 0.5]
    return heights


def _annotate(figure: Any, at: int, height: float, text: str) -> None:
    figure.add_annotation(
        x=at,
        y=height,
        text=shorten_and_escape_label(text),
        showarrow=False,
        xanchor="right",
        xshift=-8,
    )


# Cost: the objective against trainable parameters and training time

CostMeasure = Literal["trainable_parameters", "seconds"]
_COST_LABELS: dict[CostMeasure, str] = {
    "trainable_parameters": "trainable parameters",
    "seconds": "seconds",
}


def objective_against_cost_chart(
    snapshot: SweepSnapshot, selection: WinnerAndCheapest, measure: CostMeasure
) -> Chart | None:
    """Show the objective against trainable parameters (on a log axis) or seconds.

    None if all trials cost the same.
    """
    import plotly.graph_objects as go

    costs = {trial.number: getattr(trial, measure) for trial in snapshot.ranked}
    trials = [trial for trial in snapshot.ranked if costs[trial.number] is not None]
    if len({costs[trial.number] for trial in trials}) < 2:
        return None
    label = _COST_LABELS[measure]
    figure = go.Figure()
    for mark, marked in group_by_mark(trials, selection):
        figure.add_scatter(
            name=mark.name, mode="markers", hoverinfo="text",
            marker={"symbol": mark.symbol, "size": mark.size, "color": mark.color},
            x=[costs[trial.number] for trial in marked],
            y=[snapshot.objective_value(trial) for trial in marked],
            hovertext=[
                f"{hover_text(snapshot, trial)}<br>"
                f"{format_number(costs[trial.number], digits=3)} {label}"
                for trial in marked
            ],
        )  # fmt: skip
    figure.update_layout(
        height=380, margin={"t": 50, "b": 50, "r": 20}, showlegend=True, legend=LEGEND_LAYOUT
    )
    figure.update_xaxes(title=label)
    if measure == "trainable_parameters":
        figure.update_xaxes(type="log", dtick="D2", tickformat="~s")
    figure.update_yaxes(title=objective_label(snapshot), tickformat=tick_format(snapshot))
    title = f"{capitalize_first(objective_label(snapshot))} against {label}"
    alt = (
        f"{title} of {len(trials)} trials. The winner is trial {selection.winner}, the cheapest "
        f"within noise of it is trial {selection.cheapest}; the table of all trials lists the "
        "values."
    )
    return Chart(title=title, caption="", alt=alt, figure=figure)
