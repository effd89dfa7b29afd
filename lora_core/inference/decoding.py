"""Decoding of logits into labels with scores, or numbers."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from lora_core.specs.encoded_labels import qualified_output_name
from lora_core.specs.predict import ScoreFunction
from lora_core.tasks.base import UNCALIBRATED, Calibration, Task
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel


class DecodedOutput(NamedTuple):
    """An output of a model for a text. What its task does not have is None."""

    label: str  # of a regression, `value`
    score: float
    predicted: bool | None = None  # multi-label: whether the label reaches its threshold
    low: float | None = None  # regression: the interval around the number, if it has one
    high: float | None = None
    target: str | None = None  # several targets: which of them it is an output of

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not None."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def decode_outputs(
    logits: Any,
    task: Task,
    calibration: Calibration = UNCALIBRATED,
    function: ScoreFunction | None = None,
) -> list[list[DecodedOutput]]:
    """Return what `decode_label_scores` returns, with the predicted labels or the intervals of the
    task.

    They do not depend on `function`. Of several targets, the outputs of one follow those of
    another.
    """
    if isinstance(task, SeveralTargets):
        by_target = [
            [
                [output._replace(target=name) for output in row]
                for row in decode_outputs(z, each, calibration.of_target(name), function)
            ]
            for name, each, z in _logits_by_target(logits, task)
        ]
        return [list(chain(*rows)) for rows in zip(*by_target, strict=True)]
    rows = decode_label_scores(logits, task, calibration, function)
    match task:
        case MultiLabel():
            predicted = [
                dict(zip(task.labels, of_text, strict=True))
                for of_text in task.predict(np.asarray(logits), calibration).tolist()
            ]
            return [
                [DecodedOutput(label, score, predicted=of_text[label]) for label, score in row]
                for row, of_text in zip(rows, predicted, strict=True)
            ]
        case Regression() if (half := calibration.half_width) is not None:
            numbers = task.calibrated_logits(np.asarray(logits, dtype=np.float64), calibration)
            return [
                [DecodedOutput(name, score, low=y - half, high=y + half)]
                for [(name, score)], [y] in zip(rows, numbers.tolist(), strict=True)
            ]
        case _:
            return [[DecodedOutput(label, score) for label, score in row] for row in rows]


def decode_label_scores(
    logits: Any,
    task: Task,
    calibration: Calibration = UNCALIBRATED,
    function: ScoreFunction | None = None,
) -> list[list[tuple[str, float]]]:
    """Return the outputs of each row with their scores, highest first.

    But with thresholds of a single-label task, the predicted label is first: the order is that of
    probability / threshold. Of several targets, the outputs of one follow those of another.

    Args:
        logits: Tensor or array (rows, outputs).
        task: Names the outputs.
        calibration: Applied to the logits if `function` is the one that the task has by default.
        function: Maps logits to scores. None: probabilities by softmax or, of a multi-label task
            and of a single output, by sigmoid; the number of a regression.
    """
    if isinstance(task, SeveralTargets):
        by_target = [
            [
                [(qualified_output_name(name, label), score) for label, score in row]
                for row in decode_label_scores(z, each, calibration.of_target(name), function)
            ]
            for name, each, z in _logits_by_target(logits, task)
        ]
        return [list(chain(*rows)) for rows in zip(*by_target, strict=True)]
    if function is None:
        one_label = isinstance(task, SingleLabel) and len(task.labels) == 1
        function = "sigmoid" if one_label else task.score_function
    rows = np.asarray(logits, dtype=np.float64)
    if function == task.score_function:
        rows = task.calibrated_logits(rows, calibration)
    scores = _FUNCTIONS[function](rows)
    if isinstance(task, SingleLabel) and calibration.thresholds:
        rows = task.decision_function(np.asarray(logits), calibration)
    order = np.argsort(-rows, axis=-1, kind="stable")
    return [
        [(task.labels[i], row[i]) for i in indices]
        for row, indices in zip(scores.tolist(), order.tolist(), strict=True)
    ]


def _logits_by_target(logits: Any, task: SeveralTargets) -> Iterator[tuple[str, Task, Any]]:
    """Yield the name, the task and the logits of each target."""
    rows = np.asarray(logits)
    for name, each in task.tasks.items():
        yield name, each, rows[:, task.outputs[name]]


_FUNCTIONS: Mapping[ScoreFunction, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "softmax": lambda logits: softmax(logits, axis=-1),
    "sigmoid": expit,
    "none": lambda logits: logits,
}
