"""Metrics of the answers of a service to labeled texts, as training computes them."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from app.cli.output import Json

if TYPE_CHECKING:
    from app.serving.schemas import LabelScore

PER_CLASS_METRICS = ("precision", "recall", "f1", "support")


def compute_single_label_metrics(
    labels: Sequence[str], truth: Sequence[str], answers: Sequence[Sequence["LabelScore"]]
) -> Json:
    """Compute metrics for texts whose true labels are `truth`.

    Args:
        labels: the order of rows and columns of the confusion matrix.
        truth: the true label of each text.
        answers: the predicted labels of each text, the best first.

    `accuracy_standard_error` is that of a binomial proportion. `loss` is the mean of -ln of the
    probability of the true label; null if one of them is 0. Rows of the confusion matrix are true
    labels, columns are predictions. `macro_f1` averages over labels that are true or predicted for
    some text; `balanced_accuracy` is the mean recall over true labels: as in training and in
    scikit-learn.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, names = [answer[0].label for answer in answers], list(labels)
    matrix = confusion_matrix(truth, predicted, labels=names)
    per_class = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0.0)
    present = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    accuracy = int(matrix.trace()) / len(truth)
    return {
        "texts": len(truth),
        "accuracy": accuracy,
        "accuracy_standard_error": math.sqrt(accuracy * (1 - accuracy) / len(truth)),
        "balanced_accuracy": float(per_class[1][per_class[3] > 0].mean()),
        "macro_f1": float(per_class[2][present].mean()),
        "loss": _cross_entropy(truth, answers),
        "labels": names,
        "per_class": {
            name: dict(zip(PER_CLASS_METRICS, of_class, strict=True))
            for name, *of_class in zip(names, *(each.tolist() for each in per_class), strict=True)
        },
        "confusion_matrix": matrix.tolist(),
    }


def compute_multi_label_metrics(
    thresholds: Mapping[str, float],
    truth: Sequence[Collection[str]],
    answers: Sequence[Sequence["LabelScore"]],
) -> Json:
    """Compute the metrics of a multi-label model for texts whose true labels are `truth`.

    They are those of training, `MultiLabel.report`, with the calibrated probabilities in `answers`
    and the thresholds of the model, by label. `loss` is the mean binary cross-entropy.
    """
    import numpy as np
    from scipy.special import logit

    from lora_core.tasks.base import Calibration
    from lora_core.tasks.multi_label import MultiLabel

    names = list(thresholds)
    task, size = MultiLabel(names), len(names)
    by_label = [{each.label: each.score for each in answer} for answer in answers]
    scores = np.array([[of_text[name] for name in names] for of_text in by_label])
    smallest = np.finfo(np.float64).eps  # the logit of 0 is infinite
    logits = logit(scores.clip(smallest, 1 - smallest))
    targets = task.targets(
        [tuple(i for i, name in enumerate(names) if name in of_text) for of_text in truth]
    )
    identity = Calibration(
        scale=(1.0,) * size, offset=(0.0,) * size, thresholds=tuple(thresholds.values())
    )
    report = task.report(logits, targets, identity)
    return {"texts": len(truth), **_without_nan(report), "labels": names}


def compute_regression_metrics(
    truth: Sequence[float], answers: Sequence[Sequence["LabelScore"]]
) -> Json:
    """Compute the metrics of a regression for texts whose true numbers are `truth`.

    They are those of training, `Regression.report`, but for the loss. `coverage` is the share of
    texts whose true number is in the interval; null without intervals.
    """
    import numpy as np

    from lora_core.tasks.regression import Regression

    numbers = [answer[0] for answer in answers]
    values = np.array([[number.score] for number in numbers])
    report = Regression(0.0, 1.0).report(values, np.array(truth))
    within = [
        number.low <= value <= number.high
        for number, value in zip(numbers, truth, strict=True)
        if number.low is not None and number.high is not None
    ]
    del report["loss"]
    coverage = sum(within) / len(within) if within else None
    return {"texts": len(truth), **_without_nan(report), "coverage": coverage}


def _without_nan(report: Json) -> Json:
    """Return the report with null for metrics that are not defined for these texts."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in report.items()
    }


def _cross_entropy(truth: Sequence[str], answers: Sequence[Sequence["LabelScore"]]) -> float | None:
    total = 0.0
    for label, answer in zip(truth, answers, strict=True):
        probability = next(each.score for each in answer if each.label == label)
        if probability <= 0:
            return None
        total -= math.log(probability)
    return total / len(truth)
