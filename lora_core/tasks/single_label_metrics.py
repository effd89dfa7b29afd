"""Classification metrics of one split. Needs no torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

# The metrics of a report that are logged during training.
CURVE_METRICS = ("loss", "accuracy", "balanced_accuracy", "macro_f1")


def classification_report(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    names: Sequence[str],
    predicted: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Return all metrics for `logits` (texts, classes) and true `labels` (texts,).

    `names` are the names of the classes; `predicted` are the predicted labels, by default those
    with the highest logits. Rows of the confusion matrix are true labels, columns are
    predicted labels.
    """
    if predicted is None:
        predicted = logits.argmax(axis=1)
    classes = np.arange(len(names))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    with np.errstate(invalid="ignore", over="ignore"):  # a NaN loss ends the run
        log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    return {
        "loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "accuracy": float(accuracy_score(labels, predicted)),
        # Mean recall over the classes that have texts, as in `balanced_accuracy_score`.
        "balanced_accuracy": float(recall[support > 0].mean()),
        # Over the classes that occur among true or predicted labels, as in `f1_score`.
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
