"""What a side answers to the test texts, in a form that is stored and compared.

multilabel  0 or 1 for each text and label       pairs  0 or 1 for each text: right or wrong
regression  a number for each text
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.tasks.plan import Kind, Size
from benchmarks.tasks.sets import load
from lora_core.specs.data import Split
from lora_core.tasks.multi_label import best_threshold
from lora_core.tasks.targets import multi_hot

Table = NDArray[np.float64]


def names(kind: Kind, size: Size) -> list[str]:
    """The labels in order; none of a regression."""
    labels = [row.label for row in load(kind, size)[Split.TRAIN]]
    match kind:
        case "multilabel":
            return sorted({name for found in labels for name in found})
        case "pairs":
            return sorted(set(labels))
        case "regression":
            return []


def truth(kind: Kind, size: Size, split: Split = Split.TEST) -> Table:
    """(texts, labels), or (texts,): indices of labels, or numbers."""
    labels, order = [row.label for row in load(kind, size)[split]], names(kind, size)
    match kind:
        case "multilabel":
            return multi_hot([tuple(map(order.index, found)) for found in labels], len(order))
        case "pairs":
            return np.array([order.index(label) for label in labels], dtype=float)
        case "regression":
            return np.array(labels, dtype=float)


def decide(kind: Kind, size: Size, validation: Table, test: Table) -> list[Any]:
    """Answers from logits (texts, outputs); thresholds are chosen on validation.

    All sides choose them in the same way.
    """
    match kind:
        case "multilabel":
            answer = np.empty(test.shape, dtype=int)
            for i, column in enumerate(truth(kind, size, Split.VALIDATION).T):
                threshold = best_threshold(expit(validation[:, i]), column)
                answer[:, i] = expit(test[:, i]) >= threshold
            return ["".join(map(str, row)) for row in answer.tolist()]
        case "pairs":
            right = test.argmax(axis=1) == truth(kind, size)
            return ["".join(str(int(each)) for each in right)]
        case "regression":
            return [round(float(value), 4) for value in test[:, 0]]


def table(kind: Kind, answers: list[Any]) -> Table:
    """Stored answers as an array."""
    if kind == "regression":
        return np.array(answers)
    rows = np.array([[float(each) for each in row] for row in answers])
    return rows if kind == "multilabel" else rows[0]
