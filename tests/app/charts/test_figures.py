"""Data in the charts, compared with the trials."""

import math
from dataclasses import replace
from typing import Any

import pytest

from app.charts.figures import (
    MAX_LINES,
    Chart,
    CostMeasure,
    compute_field_importances,
    importance_chart,
    objective_against_cost_chart,
    objective_heatmap_or_scatter,
    parallel_coordinates,
)
from app.sweeps.snapshot import SweepSnapshot, WinnerAndCheapest, select_winner_and_cheapest
from tests.sweep_snapshots import FIELDS, grid_snapshot, make_snapshot, make_trial

GRID = grid_snapshot()
COMPLETE = [each for each in GRID.trials if each.succeeded_at_full_budget]
Results = list[tuple[dict[str, Any], float]]


def winner_of(snapshot: SweepSnapshot) -> WinnerAndCheapest:
    selection = select_winner_and_cheapest(snapshot)
    assert selection is not None
    return selection


def not_none(chart: Chart | None) -> Chart:
    assert chart is not None
    return chart


def traces(chart: Chart | None) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = not_none(chart).figure.to_dict()["data"]
    return data


def snapshot_of(results: Results, **fields: Any) -> SweepSnapshot:
    return make_snapshot(
        *(
            make_trial(
                n, settings=settings, metrics={"validation": {"accuracy": value, "loss": value}}
            )
            for n, (settings, value) in enumerate(results, 1)
        ),
        **fields,
    )


def test_a_heatmap_cell_shows_the_best_trial_there() -> None:
    chart = not_none(objective_heatmap_or_scatter(GRID))
    (heatmap,) = traces(chart)
    for column, r in enumerate((1, 2, 4, 8, 16, 32)):
        for row, alpha in enumerate((4.0, 16.0, 64.0)):
            here = [
                each.metrics["validation"]["accuracy"]
                for each in COMPLETE
                if (each.settings["method.r"], each.settings["method.alpha"]) == (r, alpha)
            ]
            assert heatmap["z"][row][column] == max(here)
            assert heatmap["text"][row][column] == f"{100 * max(here):.1f}%"
    assert chart.figure.layout.xaxis.ticktext == ("1", "2", "4", "8", "16", "32")
    assert chart.figure.layout.yaxis.ticktext == ("4", "16", "64")
    best = max(COMPLETE, key=lambda each: each.metrics["validation"]["accuracy"])
    assert f"r = {best.settings['method.r']}, alpha = 16." in chart.alt
    assert f"trial {best.number}:" in heatmap["hovertext"][1][5]


def test_the_lowest_loss_is_the_best_and_gaps_stay_empty() -> None:
    results: Results = [
        ({"method.r": 1, "method.alpha": 1.0, "method.targets": ["key"]}, 0.5),
        ({"method.r": 1, "method.alpha": 1.0, "method.targets": ["mlp"]}, 0.3),
        ({"method.r": 2, "method.alpha": 2.0, "method.targets": ["mlp"]}, 0.4),
    ]
    chart = not_none(objective_heatmap_or_scatter(snapshot_of(results, objective="loss")))
    (heatmap,) = traces(chart)
    assert heatmap["z"] == [[0.3, None], [None, 0.4]]
    assert heatmap["text"] == [["0.300", ""], ["", "0.400"]]
    assert chart.figure.layout.coloraxis.reversescale is True


def test_without_r_and_alpha_the_two_fields_with_most_values_are_used() -> None:
    fields = ("method.r", "method.C", "optim.batch_size")
    results: Results = [
        (dict(zip(fields, (1 + n % 2, n % 3, n), strict=True)), 0.5 + n / 100) for n in range(6)
    ]
    chart = not_none(objective_heatmap_or_scatter(snapshot_of(results, fields=fields)))
    assert chart.title == "Validation accuracy over C and batch_size"


def test_many_values_are_points_on_numeric_axes() -> None:
    results: Results = [
        ({"lr": 10 ** (-5 + n / 10), "kind": "ab"[n % 2]}, n / 100) for n in range(1, 30)
    ]
    chart = not_none(objective_heatmap_or_scatter(snapshot_of(results, fields=("lr", "kind"))))
    (points,) = traces(chart)
    assert points["type"] == "scatter"
    assert sorted(points["x"]) == [settings["lr"] for settings, _ in results]
    assert points["marker"]["color"] == [n / 100 for n in range(1, 30)]  # the best last, on top
    assert chart.figure.layout.xaxis.type == "log"
    assert chart.figure.layout.yaxis.ticktext == (
        "b",
        "a",
    )  # in the order of the trials, the best first


def test_importance_of_fields() -> None:
    results: Results = [
        ({"a": a, "b": b, "c": c}, 0.5 + 0.1 * a + 0.01 * (b == "x"))
        for a in range(4)
        for b in "xyz"
        for c in (1, 2)
    ]
    snapshot = snapshot_of(results, fields=("c", "b", "a"))
    found = compute_field_importances(snapshot)
    assert found is not None
    assert list(found) == ["a", "b", "c"]
    # The variance of each main effect: 0.1 * (0, 1, 2, 3), and 0.01 in a third of the trials.
    of_a, of_b = 0.01 * 1.25, 0.0001 * (1 / 3) * (2 / 3)
    assert found["a"] == pytest.approx(of_a / (of_a + of_b), abs=0.01)
    assert math.fsum(found.values()) == pytest.approx(1)
    assert compute_field_importances(snapshot) == found
    (bars,) = traces(importance_chart(snapshot))
    assert (bars["y"], bars["x"]) == (["a", "b", "c"], list(found.values()))


@pytest.mark.parametrize(
    "results",
    [
        [({"a": n, "b": -n}, n / 10) for n in range(3)],  # too few
        [({"a": n, "b": 1}, n / 10) for n in range(5)],  # one field
        [({"a": n, "b": -n}, 0.5) for n in range(5)],  # nothing differs
    ],
)
def test_no_importance_without_enough_differences(results: Results) -> None:
    assert importance_chart(snapshot_of(results, fields=("a", "b"))) is None


def test_every_complete_trial_is_a_line() -> None:
    selection = winner_of(GRID)
    lines = {trace["name"]: trace for trace in traces(parallel_coordinates(GRID, selection))}
    assert list(lines) == ["other trials", "within noise", "cheapest within noise", "winner"]
    counts = {name: line["x"].count(0) for name, line in lines.items()}
    assert counts["within noise"] == len(selection.within_noise) - 2
    assert sum(counts.values()) == len(COMPLETE)
    assert lines["winner"]["x"] == [0, 1, 2, 3, None]
    crossings = [
        point for line in lines.values() for point in zip(line["x"], line["y"], strict=True)
    ]
    # On the second axis, alpha, each of three values takes a third of the height.
    places = sorted(int(3 * y) for x, y in crossings if x == 1)
    assert places == sorted((4.0, 16.0, 64.0).index(c.settings["method.alpha"]) for c in COMPLETE)
    scores = [each.metrics["validation"]["accuracy"] for each in COMPLETE]
    heights = sorted(y for x, y in crossings if x == 3)
    low, high = min(scores), max(scores)
    assert heights == pytest.approx(sorted((score - low) / (high - low) for score in scores))
    assert lines["winner"]["y"][3] == 1


def test_only_the_best_of_very_many_trials_are_lines() -> None:
    results: Results = [
        ({FIELDS[0]: n % 7, FIELDS[1]: n % 3}, n / 1000) for n in range(MAX_LINES + 20)
    ]
    snapshot = snapshot_of(results)
    chart = not_none(parallel_coordinates(snapshot, winner_of(snapshot)))
    assert sum(line["x"].count(0) for line in traces(chart)) == MAX_LINES
    assert chart.caption == f"The best {MAX_LINES} trials; 20 more are not drawn."


def test_importance_of_many_trials() -> None:
    results: Results = [
        ({"a": a, "b": b, "c": c}, 0.5 + 0.1 * a + 0.02 * b)
        for a in range(6)
        for b in range(6)
        for c in range(4)
    ]
    found = compute_field_importances(snapshot_of(results, fields=("c", "b", "a")))
    assert found is not None
    assert found["a"] == pytest.approx(25 / 26, abs=0.01)  # variances are as 0.1² to 0.02²


@pytest.mark.parametrize("of", ["trainable_parameters", "seconds"])
def test_cost_marks_winner_and_cheapest(of: CostMeasure) -> None:
    selection = winner_of(GRID)
    chart = not_none(objective_against_cost_chart(GRID, selection, of))
    points = {trace["name"]: trace for trace in traces(chart)}
    found = {each.number: each for each in COMPLETE}
    for name, number in (
        ("winner", selection.winner),
        ("cheapest within noise", selection.cheapest),
    ):
        assert points[name]["x"] == [getattr(found[number], of)]
        assert points[name]["y"] == [found[number].metrics["validation"]["accuracy"]]
    assert sum(len(trace["x"]) for trace in points.values()) == len(COMPLETE)
    axis = chart.figure.layout.xaxis
    assert (axis.type, axis.tickformat) == (
        ("log", "~s") if of == "trainable_parameters" else (None, None)
    )


def test_one_trial_or_equal_trials_have_no_charts() -> None:
    one = make_trial(1, settings={"method.r": 8}, metrics={"validation": {"accuracy": 0.5}})
    for snapshot in (make_snapshot(one), make_snapshot(one, replace(one, number=2))):
        selection = winner_of(snapshot)
        assert objective_heatmap_or_scatter(snapshot) is None
        assert importance_chart(snapshot) is None
        assert parallel_coordinates(snapshot, selection) is None
        assert objective_against_cost_chart(snapshot, selection, "seconds") is None
        assert objective_against_cost_chart(snapshot, selection, "trainable_parameters") is None


def test_incomplete_trials_are_not_drawn() -> None:
    half = [replace(each, budget=0.5) if each.number % 2 else each for each in GRID.trials]
    snapshot = replace(GRID, trials=tuple(half))
    shown = sum(
        len(trace["x"])
        for trace in traces(objective_against_cost_chart(snapshot, winner_of(snapshot), "seconds"))
    )
    assert shown == sum(each.succeeded_at_full_budget for each in half) < len(COMPLETE)


def test_values_are_escaped() -> None:
    snapshot = snapshot_of([({FIELDS[0]: f"<b>{n}</b>", FIELDS[1]: n}, n / 10) for n in range(2)])
    for chart in (
        objective_heatmap_or_scatter(snapshot),
        parallel_coordinates(snapshot, winner_of(snapshot)),
    ):
        text = str(not_none(chart).figure.to_dict())
        assert "&lt;b&gt;0" in text
        assert "<b>0" not in text
