"""Summarizes the cells: one JSON object and a table."""

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from benchmarks.columns import aligned
from benchmarks.results_file import ResultsFile
from benchmarks.spread import Spread, bits
from benchmarks.sweep.plan import ALPHA, SAMPLED, TARGETS, Size

ONCE = ("import_seconds", "data_seconds")  # what a loop in one process has once


def summary(results: ResultsFile, size: Size) -> dict[str, Any]:
    """Seconds of all trials, ratios to the competitor's loop, accuracies from 0 to 1."""
    competitors = {side: competitor_seconds(results, side, size) for side in SAMPLED}
    ours = {strategy: results.metrics(f"ours-{strategy}") for strategy in ("grid", "halving")}
    best = best_on_test(ours["grid"]["trials"])
    assert len(ours["grid"]["trials"]) == size.trials, "the grid is not whole"
    digests = {results.metrics(cell)["data"] for side in SAMPLED.values() for cell in side}
    assert digests == {best["data"]}, "the two sides saw other texts"
    return {
        **{name: _strategy(metrics, competitors) for name, metrics in ours.items()},
        "best_of_grid_accuracy": round(best["test"], 4),
        "best_of_grid": best["settings"],
        "winner_vs_best": versus(winner(ours["halving"]), best),
        "competitors": competitors,
        "trials": size.trials,
        "sampled": {side: len(cells) for side, cells in SAMPLED.items()},
        "computed": [cell for cell in _sampled() if results.metrics(cell)["computed_seconds"]],
        **results.where(),
    }


def competitor_seconds(results: ResultsFile, side: str, size: Size) -> dict[str, float]:
    """Of all trials of the grid, half of them of each kind of targets, from those that were timed.

    `seconds`: a loop in one process, which imports and tokenizes once. `seconds_in_processes`: a
    process for each trial.
    """
    found = {cell: results.metrics(cell) for cell in SAMPLED[side]}
    of_kind = [
        fmean(each["trial_seconds"] for cell, each in found.items() if f"-{kind}-" in cell)
        for kind in TARGETS
    ]
    trials = size.trials * fmean(of_kind)
    once = sum(fmean(each[name] for each in found.values()) for name in ONCE)
    return {
        "seconds": round(trials + once, 1),
        "seconds_in_processes": round(trials + size.trials * once, 1),
    }


def _strategy(metrics: dict[str, Any], competitors: dict[str, dict[str, float]]) -> dict[str, Any]:
    seconds, chosen = metrics["sweep_seconds"], winner(metrics)
    return {
        "seconds": round(seconds, 1),
        **{f"vs_{side}": round(each["seconds"] / seconds, 2) for side, each in competitors.items()},
        "winner": chosen["settings"],
        "winner_accuracy": round(chosen["test"], 4),
    }


def winner(metrics: dict[str, Any]) -> dict[str, Any]:
    """The trial that a sweep chose, by validation."""
    (found,) = (each for each in metrics["trials"] if each["number"] == metrics["winner"])
    chosen: dict[str, Any] = found
    return chosen


def best_on_test(trials: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The best on test, which could not be chosen in advance; the first of equals."""
    return max((each for each in trials if each["test"] is not None), key=lambda each: each["test"])


def versus(chosen: dict[str, Any], best: dict[str, Any]) -> dict[str, float]:
    """Difference of the two accuracies on the same test texts, with its 95% interval."""
    assert chosen["texts"] == best["texts"], "they were asked other texts"
    spread = Spread(bits([chosen["correct"]]) - bits([best["correct"]]))
    low, high = spread.interval()
    return {
        "difference": round(spread.mean, 4), "low": round(low, 4), "high": round(high, 4),
    }  # fmt: skip


def table(results: ResultsFile, report: dict[str, Any]) -> str:
    """All trials by strategy, then the competitor's timed trials with ours of the same settings."""
    lines = [["", "seconds", "vs_default", "vs_tuned", "winner_accuracy", "winner"]]
    for side, each in report["competitors"].items():
        lines.append([f"{side}, one process", str(each["seconds"])])
        lines.append([f"{side}, a process a trial", str(each["seconds_in_processes"])])
    for name in ("grid", "halving"):
        each = report[name]
        metrics = [str(each[column]) for column in lines[0][1:-1]]
        lines.append([name, *metrics, _settings(each["winner"])])
    versus = report["winner_vs_best"]
    return "\n".join([
        aligned(lines),
        f"best of the grid on test: {report['best_of_grid_accuracy']}, "
        f"{_settings(report['best_of_grid'])}; the winner of halving less that: "
        f"{versus['difference']}, from {versus['low']} to {versus['high']}",
        "",
        aligned(_timed(results)),
    ])  # fmt: skip


def _timed(results: ResultsFile) -> list[list[str]]:
    lines = [["", "seconds", "of these computed", "accuracy", "ours"]]
    grid = results.metrics("ours-grid")["trials"]
    for cell in _sampled():
        each = results.metrics(cell)
        _, _, kind, rank = cell.split("-")
        same = {"method.alpha": ALPHA, "method.r": int(rank), "method.targets": [*TARGETS[kind]]}
        ours = [str(other["test"]) for other in grid if other["settings"] == same]
        seconds = [f"{each[name]:.1f}" for name in ("trial_seconds", "computed_seconds")]
        lines.append([cell, *seconds, str(each.get("test_accuracy", "")), *ours])
    return lines


def _settings(settings: dict[str, Any]) -> str:
    """Such as "alpha 16, r 8, targets query value"."""
    parts = []
    for path, value in settings.items():
        words = [str(each) for each in value] if isinstance(value, list) else [str(value)]
        parts.append(" ".join([path.rpartition(".")[2], *words]))
    return ", ".join(parts)


def _sampled() -> list[str]:
    return [cell for cells in SAMPLED.values() for cell in cells]
