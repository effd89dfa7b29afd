"""What the figures hold, beside the cells they are of."""

import math
from dataclasses import replace
from typing import Any

import pytest

from app.charts.figures import LINES, Cost, cost, importance, landscape, parallel, shares
from app.charts.style import Picture
from app.sweeps.snapshot import Board
from app.sweeps.winner import Verdict, judge
from tests.boards import FIELDS, board, cell, grid

GRID = grid()
WHOLE = [each for each in GRID.cells if each.whole]
Rows = list[tuple[dict[str, Any], float]]


def judged(whole: Board) -> Verdict:
    verdict = judge(whole)
    assert verdict is not None
    return verdict


def drawn(picture: Picture | None) -> Picture:
    assert picture is not None
    return picture


def traces(picture: Picture | None) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = drawn(picture).figure.to_dict()["data"]
    return data


def scored(rows: Rows, **more: Any) -> Board:
    return board(
        *(
            cell(n, settings=settings, figures={"validation": {"accuracy": value, "loss": value}})
            for n, (settings, value) in enumerate(rows, 1)
        ),
        **more,
    )


def test_a_square_holds_the_best_of_its_place() -> None:
    picture = drawn(landscape(GRID))
    (squares,) = traces(picture)
    for column, r in enumerate((1, 2, 4, 8, 16, 32)):
        for row, alpha in enumerate((4.0, 16.0, 64.0)):
            here = [
                each.figures["validation"]["accuracy"]
                for each in WHOLE
                if (each.settings["method.r"], each.settings["method.alpha"]) == (r, alpha)
            ]
            assert squares["z"][row][column] == max(here)
            assert squares["text"][row][column] == f"{100 * max(here):.1f} %"
    assert picture.figure.layout.xaxis.ticktext == ("1", "2", "4", "8", "16", "32")
    assert picture.figure.layout.yaxis.ticktext == ("4", "16", "64")
    best = max(WHOLE, key=lambda each: each.figures["validation"]["accuracy"])
    assert f"r = {best.settings['method.r']}, alpha = 16." in picture.alt
    assert f"cell {best.number}:" in squares["hovertext"][1][5]


def test_of_a_loss_the_lowest_is_the_best_and_holes_stay_open() -> None:
    rows: Rows = [
        ({"method.r": 1, "method.alpha": 1.0, "method.targets": ["key"]}, 0.5),
        ({"method.r": 1, "method.alpha": 1.0, "method.targets": ["mlp"]}, 0.3),
        ({"method.r": 2, "method.alpha": 2.0, "method.targets": ["mlp"]}, 0.4),
    ]
    picture = drawn(landscape(scored(rows, objective="loss")))
    (squares,) = traces(picture)
    assert squares["z"] == [[0.3, None], [None, 0.4]]
    assert squares["text"] == [["0.300", ""], ["", "0.400"]]
    assert picture.figure.layout.coloraxis.reversescale is True


def test_the_two_fields_with_most_values_take_the_place_of_r_and_alpha() -> None:
    fields = ("method.r", "optim.epochs", "optim.batch_size")
    rows: Rows = [
        (dict(zip(fields, (1 + n % 2, n % 3, n), strict=True)), 0.5 + n / 100) for n in range(6)
    ]
    picture = drawn(landscape(scored(rows, fields=fields)))
    assert picture.title == "Validation accuracy over epochs and batch_size"


def test_many_values_are_points_on_axes_of_numbers() -> None:
    rows: Rows = [({"lr": 10 ** (-5 + n / 10), "kind": "ab"[n % 2]}, n / 100) for n in range(1, 30)]
    picture = drawn(landscape(scored(rows, fields=("lr", "kind"))))
    (points,) = traces(picture)
    assert points["type"] == "scatter"
    assert sorted(points["x"]) == [settings["lr"] for settings, _ in rows]
    assert points["marker"]["color"] == [n / 100 for n in range(1, 30)]  # the best last, on top
    assert picture.figure.layout.xaxis.type == "log"
    assert picture.figure.layout.yaxis.ticktext == ("b", "a")  # as they come, the best first


def test_importance_finds_the_field_that_matters() -> None:
    rows: Rows = [
        ({"a": a, "b": b, "c": c}, 0.5 + 0.1 * a + 0.01 * (b == "x"))
        for a in range(4)
        for b in "xyz"
        for c in (1, 2)
    ]
    whole = scored(rows, fields=("c", "b", "a"))
    found = shares(whole)
    assert found is not None
    assert list(found) == ["a", "b", "c"]
    # The variance of each main effect by hand: 0.1 * (0, 1, 2, 3), and 0.01 in a third of all.
    of_a, of_b = 0.01 * 1.25, 0.0001 * (1 / 3) * (2 / 3)
    assert found["a"] == pytest.approx(of_a / (of_a + of_b), abs=0.01)
    assert math.fsum(found.values()) == pytest.approx(1)
    assert shares(whole) == found
    (bars,) = traces(importance(whole))
    assert (bars["y"], bars["x"]) == (["a", "b", "c"], list(found.values()))


@pytest.mark.parametrize(
    "rows",
    [
        [({"a": n, "b": -n}, n / 10) for n in range(3)],  # too few
        [({"a": n, "b": 1}, n / 10) for n in range(5)],  # one field
        [({"a": n, "b": -n}, 0.5) for n in range(5)],  # nothing differs
    ],
)
def test_importance_of_too_little_is_none(rows: Rows) -> None:
    assert importance(scored(rows, fields=("a", "b"))) is None


def test_every_whole_cell_is_a_line() -> None:
    verdict = judged(GRID)
    lines = {trace["name"]: trace for trace in traces(parallel(GRID, verdict))}
    assert list(lines) == ["other cells", "as good", "cheapest as good", "winner"]
    counts = {name: line["x"].count(0) for name, line in lines.items()}
    assert counts["as good"] == len(verdict.near) - 2
    assert sum(counts.values()) == len(WHOLE)
    assert lines["winner"]["x"] == [0, 1, 2, 3, None]
    crossings = [
        point for line in lines.values() for point in zip(line["x"], line["y"], strict=True)
    ]
    # On the second axis, alpha, each of three values has a third.
    places = sorted(int(3 * y) for x, y in crossings if x == 1)
    assert places == sorted((4.0, 16.0, 64.0).index(c.settings["method.alpha"]) for c in WHOLE)
    scores = [each.figures["validation"]["accuracy"] for each in WHOLE]
    heights = sorted(y for x, y in crossings if x == 3)
    low, high = min(scores), max(scores)
    assert heights == pytest.approx(sorted((score - low) / (high - low) for score in scores))
    assert lines["winner"]["y"][3] == 1


def test_of_very_many_cells_the_best_are_lines_and_that_is_said() -> None:
    rows: Rows = [({FIELDS[0]: n % 7, FIELDS[1]: n % 3}, n / 1000) for n in range(LINES + 20)]
    whole = scored(rows)
    picture = drawn(parallel(whole, judged(whole)))
    assert sum(line["x"].count(0) for line in traces(picture)) == LINES
    assert picture.caption == f"The best {LINES} cells; 20 more are not drawn."


def test_importance_of_many_cells_needs_fewer_trees() -> None:
    rows: Rows = [
        ({"a": a, "b": b, "c": c}, 0.5 + 0.1 * a + 0.02 * b)
        for a in range(6)
        for b in range(6)
        for c in range(4)
    ]
    found = shares(scored(rows, fields=("c", "b", "a")))
    assert found is not None
    assert found["a"] == pytest.approx(25 / 26, abs=0.01)  # variances are as 0.1² to 0.02²


@pytest.mark.parametrize("of", ["trainable_parameters", "seconds"])
def test_cost_marks_winner_and_cheapest(of: Cost) -> None:
    verdict = judged(GRID)
    picture = drawn(cost(GRID, verdict, of))
    points = {trace["name"]: trace for trace in traces(picture)}
    found = {each.number: each for each in WHOLE}
    for name, number in (("winner", verdict.winner), ("cheapest as good", verdict.cheapest)):
        assert points[name]["x"] == [getattr(found[number], of)]
        assert points[name]["y"] == [found[number].figures["validation"]["accuracy"]]
    assert sum(len(trace["x"]) for trace in points.values()) == len(WHOLE)
    assert picture.figure.layout.xaxis.type == ("log" if of == "trainable_parameters" else None)


def test_there_is_nothing_to_draw_of_one_cell_or_of_equal_ones() -> None:
    one = cell(1, settings={"method.r": 8}, figures={"validation": {"accuracy": 0.5}})
    for whole in (board(one), board(one, replace(one, number=2))):
        verdict = judged(whole)
        assert landscape(whole) is None
        assert importance(whole) is None
        assert parallel(whole, verdict) is None
        assert cost(whole, verdict, "seconds") is None
        assert cost(whole, verdict, "trainable_parameters") is None


def test_what_did_not_run_whole_is_not_drawn() -> None:
    half = [replace(each, share=0.5) if each.number % 2 else each for each in GRID.cells]
    whole = replace(GRID, cells=tuple(half))
    shown = sum(len(trace["x"]) for trace in traces(cost(whole, judged(whole), "seconds")))
    assert shown == sum(each.whole for each in half) < len(WHOLE)


def test_values_are_escaped() -> None:
    whole = scored([({FIELDS[0]: f"<b>{n}</b>", FIELDS[1]: n}, n / 10) for n in range(2)])
    for picture in (landscape(whole), parallel(whole, judged(whole))):
        told = str(drawn(picture).figure.to_dict())
        assert "&lt;b&gt;0" in told
        assert "<b>0" not in told
