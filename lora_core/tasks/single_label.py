"""Single-label classification: one of two or more labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from lora_core.tasks import temperature_scaling
from lora_core.tasks.base import Calibration, Logits, Task
from lora_core.tasks.metrics import CURVE_METRICS, classification_report
from lora_core.tasks.mispredictions import Misprediction, most_confident_errors
from lora_core.tasks.primary_metric import Accuracy
from lora_core.tasks.targets import Target, Targets


class SingleLabel(Task):
    """Two or more labels, of which each text has one. `ordered`: they are ranks, lowest first."""

    type = "single_label"
    problem_type = "single_label_classification"
    score_function = "softmax"
    curve_metrics = CURVE_METRICS
    metric = Accuracy()

    def __init__(self, labels: Sequence[str], *, ordered: bool = False) -> None:
        super().__init__(labels)
        self.ordered = ordered

    def affine(self, calibration: Calibration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        size = len(self.labels)
        return np.full(size, 1 / (calibration.temperature or 1.0)), np.zeros(size)

    def targets(self, values: Sequence[Target]) -> NDArray[np.int64]:
        return np.array(values, dtype=np.int64)

    def calibrate(self, logits: Logits, targets: Targets) -> Calibration:
        return Calibration(**temperature_scaling.calibrate(logits, targets))

    def predict(
        self,
        logits: Logits,
        calibration: Calibration | None = None,  # noqa: ARG002 - it changes no prediction
    ) -> NDArray[np.int64]:
        """Return the index (texts,) of the label with the highest logit."""
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)

    def strata(self, targets: Targets) -> NDArray[np.int64]:
        return targets

    def target(self, prediction: Any) -> int:
        return int(prediction)

    def name(self, target: Target) -> str:
        return self.labels[target]

    def mispredictions(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> list[Misprediction]:
        temperature = calibration.temperature or 1.0
        return most_confident_errors(logits, targets, temperature=temperature, limit=len(targets))

    def constant(self, targets: Targets) -> tuple[NDArray[np.int64], str]:
        """Return the most frequent label, the first of several."""
        majority = np.bincount(targets).argmax()
        return np.array([majority], dtype=np.int64), self.labels[majority]

    def report(
        self,
        logits: Logits,
        targets: Targets,
        calibration: Calibration | None = None,  # noqa: ARG002 - it changes no prediction
    ) -> dict[str, Any]:
        """Return all metrics of `classification_report`; of ranks also `kappa` and `mae`.

        `kappa` is Cohen's, with quadratic weights; `mae` is the mean distance of ranks.
        """
        report = classification_report(logits, targets, self.labels)
        if self.ordered:
            report |= self.rank_agreement(targets, logits.argmax(axis=1))
        return report

    def rank_agreement(
        self, targets: NDArray[np.int64], predicted: NDArray[np.int64]
    ) -> dict[str, float]:
        """Return `kappa` and `mae` of predicted ranks."""
        with np.errstate(invalid="ignore"):  # NaN if all texts have the same label
            kappa = cohen_kappa_score(
                targets, predicted, labels=range(len(self.labels)), weights="quadratic"
            )
        return {"kappa": float(kappa), "mae": float(np.abs(predicted - targets).mean())}

    def compare_calibration(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> dict[str, Any]:
        return temperature_scaling.compare_calibration(
            logits, targets, calibration.temperature or 1.0
        )
