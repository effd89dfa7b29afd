"""How good answers are: the figures of one part. Needs no torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

# Those figures of a report that are told as it trains.
CURVES = ("loss", "accuracy", "balanced_accuracy", "macro_f1")


def report(
    logits: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str]
) -> dict[str, Any]:
    """All figures; rows of the confusion matrix are true labels, columns answers.

    `logits` (texts, classes); `names` are those of the classes.
    """
    predicted = logits.argmax(axis=1)
    classes = np.arange(len(names))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    with np.errstate(invalid="ignore", over="ignore"):  # it may be NaN, which ends the run
        log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return {
        "loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "accuracy": float(accuracy_score(labels, predicted)),
        # Mean recall, of the classes that have a text: as `balanced_accuracy_score`.
        "balanced_accuracy": float(recall[support > 0].mean()),
        # Of the classes that stand among labels or answers: as `f1_score` by itself.
        "macro_f1": float(f1[np.union1d(labels, predicted)].mean()),
        "per_class": {
            label: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, label in enumerate(names)
        },
        "confusion_matrix": confusion_matrix(labels, predicted, labels=classes).tolist(),
    }
