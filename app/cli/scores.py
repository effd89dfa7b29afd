"""How good answers are: accuracy, F1, loss, and which labels are taken for which."""

import math
from collections import Counter
from collections.abc import Sequence

from app.cli.answers import Json, Label


def scores(labels: Sequence[str], truth: Sequence[str], answers: Sequence[Sequence[Label]]) -> Json:
    """Figures over texts whose true labels are `truth`; each answer has the best label first.

    `accuracy_standard_error` is that of a share of so many texts. `loss` is the mean of -ln of the
    probability of the true label; null where one of these is 0. Rows of the confusion matrix are
    true labels, columns answers, both in the order of `labels`; a label without texts counts in
    `macro_f1` with 0, as in training.
    """
    given = [answer[0]["label"] for answer in answers]
    pairs = Counter(zip(truth, given, strict=True))
    n = len(truth)
    accuracy = sum(pairs[label, label] for label in labels) / n
    per_class = {label: _of_class(label, labels, pairs) for label in labels}
    return {
        "texts": n,
        "accuracy": accuracy,
        "accuracy_standard_error": math.sqrt(accuracy * (1 - accuracy) / n),
        "macro_f1": sum(figures["f1"] for figures in per_class.values()) / len(labels),
        "loss": _loss(truth, answers),
        "labels": list(labels),
        "per_class": per_class,
        "confusion_matrix": [[pairs[true, found] for found in labels] for true in labels],
    }


def _of_class(label: str, labels: Sequence[str], pairs: Counter[tuple[str, str]]) -> Json:
    hits = pairs[label, label]
    support = sum(pairs[label, other] for other in labels)
    found = sum(pairs[other, label] for other in labels)
    return {
        "precision": hits / found if found else 0.0,
        "recall": hits / support if support else 0.0,
        "f1": 2 * hits / (found + support) if hits else 0.0,
        "support": support,
    }


def _loss(truth: Sequence[str], answers: Sequence[Sequence[Label]]) -> float | None:
    total = 0.0
    for label, answer in zip(truth, answers, strict=True):
        probability = next(each["score"] for each in answer if each["label"] == label)
        if probability <= 0:
            return None
        total -= math.log(probability)
    return total / len(truth)
