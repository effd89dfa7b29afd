"""Decoding of logits into labels with scores."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from lora_core.specs.predict import ScoreFunction
from lora_core.tasks.base import UNCALIBRATED, Calibration, Task
from lora_core.tasks.single_label import SingleLabel


def decode(
    logits: Any,
    task: Task,
    calibration: Calibration = UNCALIBRATED,
    function: ScoreFunction | None = None,
) -> list[list[tuple[str, float]]]:
    """Return the outputs of each row with their scores, highest first.

    Args:
        logits: Tensor or array (rows, outputs).
        task: Names the outputs.
        calibration: Applied to the logits, except by `none`, and by `sigmoid` of single-label
            tasks.
        function: Maps logits to scores. None: probabilities by softmax or, of a multi-label task
            and of a single output, by sigmoid; the number of a regression.
    """
    if function is None:
        one_label = isinstance(task, SingleLabel) and len(task.labels) == 1
        function = "sigmoid" if one_label else task.score_function
    rows = np.asarray(logits, dtype=np.float64)
    if function == task.score_function:
        rows = task.calibrated(rows, calibration)
    scores = _FUNCTIONS[function](rows)
    order = np.argsort(-rows, axis=-1, kind="stable")
    return [
        [(task.labels[i], row[i]) for i in indices]
        for row, indices in zip(scores.tolist(), order.tolist(), strict=True)
    ]


_FUNCTIONS: Mapping[ScoreFunction, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "softmax": lambda logits: softmax(logits, axis=-1),
    "sigmoid": expit,
    "none": lambda logits: logits,
}
