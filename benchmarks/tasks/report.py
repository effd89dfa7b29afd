"""The comparison of the stored cells: differences with intervals, and ratios of seconds."""

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from benchmarks.results_file import ResultsFile
from benchmarks.tasks import answers
from benchmarks.tasks.answers import Table
from benchmarks.tasks.plan import (
    ACCURACY_CELLS,
    KINDS,
    SEEDS,
    SIDES,
    SPEED_CELLS,
    SPEED_PAIRS,
    Kind,
    Size,
)

RESAMPLES = 2000
Score = Callable[[Table, Table], float]  # of answers and the truth


def score(kind: Kind, found: Table, truth: Table) -> float:
    """Macro F1 or accuracy in percent, or the RMSE."""
    match kind:
        case "multilabel":
            return 100 * float(f1_score(truth, found, average="macro", zero_division=0.0))
        case "pairs":
            return 100 * float(found.mean())
        case "regression":
            return float(np.sqrt(((found - truth) ** 2).mean()))


def scores(results: ResultsFile, kind: Kind, side: str, size: Size) -> list[float]:
    """The score of each seed."""
    truth = answers.truth(kind, size)
    return [score(kind, found, truth) for found in _answers(results, kind, side)]


def lower_bound(results: ResultsFile, kind: Kind, size: Size) -> float:
    """The lower 95% bound of ours less the Trainer's, in points, by a bootstrap over the texts.

    A resample takes texts, the same for both sides, and a seed of each: seeds are no pairs.
    """
    generator, truth = np.random.default_rng(0), answers.truth(kind, size)
    ours, theirs = (_answers(results, kind, side) for side in ("ours", "trainer"))
    differences = []
    for _ in range(RESAMPLES):
        texts = generator.integers(0, len(truth), len(truth))
        seed = generator.integers(0, len(SEEDS), 2)
        differences.append(
            score(kind, ours[seed[0]][texts], truth[texts])
            - score(kind, theirs[seed[1]][texts], truth[texts])
        )
    return float(np.quantile(differences, 0.025))


def summary(accuracy: ResultsFile, speed: ResultsFile, size: Size) -> dict[str, Any]:
    """The metrics of the issue."""
    rmse = {side: np.mean(scores(accuracy, "regression", side, size)) for side in SIDES}
    return {
        "multilabel_f1_diff_low": round(lower_bound(accuracy, "multilabel", size), 2),
        "pairs_acc_diff_low": round(lower_bound(accuracy, "pairs", size), 2),
        "regression_rmse_ratio": round(float(rmse["ours"] / rmse["trainer"]), 3),
        "modernbert_vs_trainer": round(_ratio(speed, "modernbert"), 3),
        "deberta_vs_trainer": round(_ratio(speed, "deberta-v2"), 3),
        "answers": accuracy.where(ACCURACY_CELLS),
        "speed": speed.where(SPEED_CELLS),
    }


def table(results: ResultsFile, size: Size) -> str:
    """Mean scores of all sides, and how far the seeds are apart."""
    lines = [f"{'':12} {'':8} {'score':>8} {'spread':>8}"]
    for kind in KINDS:
        for side in SIDES:
            found = scores(results, kind, side, size)
            lines.append(f"{kind:12} {side:8} {np.mean(found):8.2f} {np.ptp(found):8.2f}")
    return "\n".join(lines)


def _answers(results: ResultsFile, kind: Kind, side: str) -> list[Table]:
    return [
        answers.table(kind, results.metrics(f"{kind}-{side}-{seed}")["answers"]) for seed in SEEDS
    ]


def _ratio(results: ResultsFile, encoder: str) -> float:
    """The median over pairs of our seconds divided by those of the Trainer."""
    return median(
        results.metrics(f"speed-{encoder}-ours-{number}")["train_seconds"]
        / results.metrics(f"speed-{encoder}-trainer-{number}")["train_seconds"]
        for number in range(SPEED_PAIRS)
    )
