"""Single-label classification: one of two or more labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from lora_core.data.targets import Target, Targets
from lora_core.tasks import temperature_scaling
from lora_core.tasks.base import Calibration, Logits, Task
from lora_core.tasks.metrics import CURVE_METRICS, classification_report


class SingleLabel(Task):
    """Two or more labels, of which each text has one. `ordered`: they are ranks, lowest first."""

    type = "single_label"
    problem_type = "single_label_classification"
    score_function = "softmax"
    curve_metrics = CURVE_METRICS

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
            predicted = logits.argmax(axis=1)
            with np.errstate(invalid="ignore"):  # NaN if all texts have the same label
                kappa = cohen_kappa_score(
                    targets, predicted, labels=range(len(self.labels)), weights="quadratic"
                )
            report["kappa"] = float(kappa)
            report["mae"] = float(np.abs(predicted - targets).mean())
        return report

    def compare_calibration(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> dict[str, Any]:
        return temperature_scaling.compare_calibration(
            logits, targets, calibration.temperature or 1.0
        )
