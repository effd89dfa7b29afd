"""From the cells to the figures that are told: one JSON object, and a table."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from benchmarks.columns import aligned
from benchmarks.kept import Kept
from benchmarks.spread import Spread, bits
from benchmarks.sweep.plan import ALPHA, SAMPLED, TARGETS, Size

ONCE = ("import_seconds", "data_seconds")  # what a loop in one process has once


def summary(results: Kept, size: Size) -> dict[str, Any]:
    """Seconds of all cells, ratios to the rival's loop in one process, accuracies from 0 to 1."""
    rivals = {side: rival_seconds(results, side, size) for side in SAMPLED}
    ours = {strategy: results.figures(f"ours-{strategy}") for strategy in ("grid", "halving")}
    best = best_on_test(ours["grid"]["cells"])
    assert len(ours["grid"]["cells"]) == size.cells, "the grid is not whole"
    digests = {results.figures(cell)["data"] for side in SAMPLED.values() for cell in side}
    assert digests == {best["data"]}, "the two sides saw other texts"
    newest = max(results.cells.values(), key=lambda each: str(each["date"]))
    return {
        **{name: _strategy(figures, rivals) for name, figures in ours.items()},
        "best_of_grid_accuracy": round(best["test"], 4),
        "best_of_grid": best["settings"],
        "winner_vs_best": versus(winner(ours["halving"]), best),
        "rivals": rivals,
        "cells": size.cells,
        "sampled": {side: len(cells) for side, cells in SAMPLED.items()},
        "computed": [cell for cell in _sampled() if results.figures(cell)["computed_seconds"]],
        "processor": newest["processor"],
        "versions": newest["versions"],
        "date": newest["date"],
    }


def rival_seconds(results: Kept, side: str, size: Size) -> dict[str, float]:
    """Of all cells of the grid, half of them of each kind of targets, from those that were timed.

    `seconds`: a loop in one process, which imports and tokenises once. `seconds_in_processes`: a
    process for each cell.
    """
    found = {cell: results.figures(cell) for cell in SAMPLED[side]}
    of_kind = [
        fmean(each["cell_seconds"] for cell, each in found.items() if f"-{kind}-" in cell)
        for kind in TARGETS
    ]
    cells = size.cells * fmean(of_kind)
    once = sum(fmean(each[name] for each in found.values()) for name in ONCE)
    return {
        "seconds": round(cells + once, 1),
        "seconds_in_processes": round(cells + size.cells * once, 1),
    }


def _strategy(figures: dict[str, Any], rivals: dict[str, dict[str, float]]) -> dict[str, Any]:
    seconds, chosen = figures["sweep_seconds"], winner(figures)
    return {
        "seconds": round(seconds, 1),
        **{f"vs_{side}": round(each["seconds"] / seconds, 2) for side, each in rivals.items()},
        "winner": chosen["settings"],
        "winner_accuracy": round(chosen["test"], 4),
    }


def winner(figures: dict[str, Any]) -> dict[str, Any]:
    """The cell that a sweep chose, by validation."""
    (found,) = (each for each in figures["cells"] if each["number"] == figures["winner"])
    chosen: dict[str, Any] = found
    return chosen


def best_on_test(cells: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The most right on test, which nobody could choose beforehand; of equals the first."""
    return max((each for each in cells if each["test"] is not None), key=lambda each: each["test"])


def versus(chosen: dict[str, Any], best: dict[str, Any]) -> dict[str, float]:
    """How much more of the same test texts the first answers rightly, with its 95 % interval."""
    assert chosen["texts"] == best["texts"], "they were asked other texts"
    spread = Spread(bits([chosen["correct"]]) - bits([best["correct"]]))
    low, high = spread.interval()
    return {
        "difference": round(spread.mean, 4), "low": round(low, 4), "high": round(high, 4),
    }  # fmt: skip


def table(results: Kept, told: dict[str, Any]) -> str:
    """All cells by each way, then the rival's that were timed beside ours of the same settings."""
    lines = [["", "seconds", "vs_default", "vs_tuned", "winner_accuracy", "winner"]]
    for side, each in told["rivals"].items():
        lines.append([f"{side}, one process", str(each["seconds"])])
        lines.append([f"{side}, a process a cell", str(each["seconds_in_processes"])])
    for name in ("grid", "halving"):
        each = told[name]
        figures = [str(each[column]) for column in lines[0][1:-1]]
        lines.append([name, *figures, _settings(each["winner"])])
    versus = told["winner_vs_best"]
    return "\n".join([
        aligned(lines),
        f"best of the grid on test: {told['best_of_grid_accuracy']}, "
        f"{_settings(told['best_of_grid'])}; the winner of halving less that: "
        f"{versus['difference']}, from {versus['low']} to {versus['high']}",
        "",
        aligned(_timed(results)),
    ])  # fmt: skip


def _timed(results: Kept) -> list[list[str]]:
    lines = [["", "seconds", "of these computed", "accuracy", "ours"]]
    grid = results.figures("ours-grid")["cells"]
    for cell in _sampled():
        each = results.figures(cell)
        _, _, kind, rank = cell.split("-")
        same = {"method.alpha": ALPHA, "method.r": int(rank), "method.targets": [*TARGETS[kind]]}
        ours = [str(other["test"]) for other in grid if other["settings"] == same]
        seconds = [f"{each[name]:.1f}" for name in ("cell_seconds", "computed_seconds")]
        lines.append([cell, *seconds, str(each.get("test_accuracy", "")), *ours])
    return lines


def _settings(settings: dict[str, Any]) -> str:
    """Such as "alpha 16, r 8, targets query value"."""
    told = []
    for path, value in settings.items():
        words = [str(each) for each in value] if isinstance(value, list) else [str(value)]
        told.append(" ".join([path.rpartition(".")[2], *words]))
    return ", ".join(told)


def _sampled() -> list[str]:
    return [cell for cells in SAMPLED.values() for cell in cells]
