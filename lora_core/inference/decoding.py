"""Decoding of logits into labels with scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from lora_core.specs.predict import ScoreFunction


def decode(
    logits: Any,
    labels: Sequence[str],
    function: ScoreFunction | None = None,
    temperature: float = 1.0,
) -> list[list[tuple[str, float]]]:
    """Return the labels of each row with their scores, highest first.

    Args:
        logits: Tensor or array (rows, labels). It determines the order of the labels.
        labels: Names of the columns.
        function: Maps logits to scores. None: probabilities, by softmax of logits / temperature,
            or by sigmoid if there is only one label.
        temperature: Used by softmax only.
    """
    function = function or ("softmax" if len(labels) > 1 else "sigmoid")
    divisor = temperature if function == "softmax" else 1.0
    rows = np.asarray(logits, dtype=np.float64)
    scores = _FUNCTIONS[function](rows / divisor)
    order = np.argsort(-rows, axis=-1, kind="stable")
    return [
        [(labels[i], row[i]) for i in indices]
        for row, indices in zip(scores.tolist(), order.tolist(), strict=True)
    ]


_FUNCTIONS: Mapping[ScoreFunction, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "softmax": lambda logits: softmax(logits, axis=-1),
    "sigmoid": expit,
    "none": lambda logits: logits,
}
