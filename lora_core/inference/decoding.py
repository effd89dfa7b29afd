"""From logits to labels with scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from lora_core.specs.predict import Function


def decode(
    logits: Any,
    labels: Sequence[str],
    function: Function | None = None,
    temperature: float = 1.0,
) -> list[list[tuple[str, float]]]:
    """A score for each label of each row, the highest first.

    `logits` (rows, labels) are a tensor or an array. By default the scores are probabilities:
    softmax of logits / temperature, or sigmoid where there is one label only. Their order is that
    of the logits.
    """
    function = function or ("softmax" if len(labels) > 1 else "sigmoid")
    divisor = temperature if function == "softmax" else 1.0
    rows = np.asarray(logits, dtype=np.float64)
    scores = _FUNCTIONS[function](rows / divisor)
    order = np.argsort(-rows, axis=-1, kind="stable")
    return [
        [(labels[i], row[i]) for i in ranks]
        for row, ranks in zip(scores.tolist(), order.tolist(), strict=True)
    ]


_FUNCTIONS: Mapping[Function, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "softmax": lambda logits: softmax(logits, axis=-1),
    "sigmoid": expit,
    "none": lambda logits: logits,
}
