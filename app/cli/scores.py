"""How good answers are: accuracy, F1, loss, and which labels are taken for which."""

import math
from collections.abc import Sequence

from app.cli.answers import Json, Label

FIGURES = ("precision", "recall", "f1", "support")


def scores(labels: Sequence[str], truth: Sequence[str], answers: Sequence[Sequence[Label]]) -> Json:
    """Figures over texts whose true labels are `truth`; each answer has the best label first.

    `accuracy_standard_error` is that of a share of so many texts. `loss` is the mean of -ln of the
    probability of the true label; null where one of these is 0. Rows of the confusion matrix are
    true labels, columns answers, both in the order of `labels`; `macro_f1` is of
    the labels that stand among true ones or answers, `balanced_accuracy`, the mean recall, of true
    ones alone, as in training and in scikit-learn.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    given, names = [answer[0]["label"] for answer in answers], list(labels)
    matrix = confusion_matrix(truth, given, labels=names)
    figures = precision_recall_fscore_support(truth, given, labels=names, zero_division=0.0)
    occurs = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    accuracy = int(matrix.trace()) / len(truth)
    return {
        "texts": len(truth),
        "accuracy": accuracy,
        "accuracy_standard_error": math.sqrt(accuracy * (1 - accuracy) / len(truth)),
        "balanced_accuracy": float(figures[1][figures[3] > 0].mean()),
        "macro_f1": float(figures[2][occurs].mean()),
        "loss": _loss(truth, answers),
        "labels": names,
        "per_class": {
            name: dict(zip(FIGURES, of_class, strict=True))
            for name, *of_class in zip(names, *(each.tolist() for each in figures), strict=True)
        },
        "confusion_matrix": matrix.tolist(),
    }


def _loss(truth: Sequence[str], answers: Sequence[Sequence[Label]]) -> float | None:
    total = 0.0
    for label, answer in zip(truth, answers, strict=True):
        probability = next(each["score"] for each in answer if each["label"] == label)
        if probability <= 0:
            return None
        total -= math.log(probability)
    return total / len(truth)
