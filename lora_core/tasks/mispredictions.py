"""The texts for which a model predicts something else than their target, the worst first.

Needs no scikit-learn.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_core.tasks.targets import Target


class Misprediction(NamedTuple):
    """One text whose prediction is not its target.

    The scores are those of a label: of a multi-label task, of the wrong and of the right answer to
    the label that the model is most wrong about. A number has none.
    """

    text_index: int  # of the text in its split
    predicted: Target
    score: float | None  # calibrated probability of the predicted label
    true_score: float | None  # probability of the true label
    target: str | None = None  # which of several targets it is about; `predicted` is one of its own


def most_confident_errors(
    logits: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    *,
    temperature: float,
    limit: int,
    predicted: NDArray[np.int64] | None = None,
) -> list[Misprediction]:
    """Return at most `limit` errors, the most confident first. Logits are (texts, classes).

    `predicted` are the predicted labels, by default those with the highest logits.
    """
    z = logits.astype(np.float64) / temperature
    scores = np.exp(z - z.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    if predicted is None:
        predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    ranked = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")]
    return [
        Misprediction(int(i), int(predicted[i]), scores[i, predicted[i]], scores[i, labels[i]])
        for i in ranked[:limit]
    ]
