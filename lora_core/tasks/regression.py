"""Regression: a number for each text."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from lora_core.specs.encoded_labels import NUMBER
from lora_core.tasks.base import Calibration, Logits, Task
from lora_core.tasks.mispredictions import Misprediction
from lora_core.tasks.primary_metric import RootMeanSquaredError
from lora_core.tasks.targets import Target, Targets
from lora_core.tasks.temperature_scaling import require_finite_as_float64

INTERVAL_COVERAGE = 0.9  # of the interval around a prediction


class Regression(Task):
    """A number y. A model predicts z = (y - mean) / std, with those of the training texts."""

    type = "regression"
    problem_type = "regression"
    score_function = "none"
    curve_metrics = ("loss", "rmse", "mae", "r2", "spearman")
    metric = RootMeanSquaredError()

    def __init__(self, mean: float, std: float) -> None:
        super().__init__((NUMBER,))
        self.mean, self.std = mean, std

    @classmethod
    def of_training_targets(cls, values: Sequence[Target]) -> "Regression":
        """Create the task for these training targets. If all are equal, `std` is 1."""
        numbers = np.array(values, dtype=np.float64)
        # The deviation of equal numbers may be a rounding error, such as that of their mean.
        return cls(float(numbers.mean()), float(numbers.std()) if np.ptp(numbers) else 1.0)

    def scale_and_offset(
        self,
        calibration: Calibration,  # noqa: ARG002 - it has the mean and std of the task
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array([self.std]), np.array([self.mean])

    def targets(self, values: Sequence[Target]) -> NDArray[np.float32]:
        return np.array(values, dtype=np.float32)

    def predict(
        self,
        logits: Logits,
        calibration: Calibration | None = None,  # noqa: ARG002 - it only scales, as the task does
    ) -> NDArray[np.float64]:
        """Return the predicted number (texts,) of each text."""
        return self.mean + self.std * np.asarray(logits, np.float64)[:, 0]

    def standardize(self, numbers: NDArray[Any]) -> NDArray[np.float64]:
        """Return the z (texts,) that a model should compute for these numbers."""
        return (np.asarray(numbers, np.float64) - self.mean) / self.std

    def restandardize_logits_from(self, logits: Logits, of: Task) -> Logits:
        """Return logits in terms of the mean and std of this task."""
        return self.standardize(of.predict(logits))[:, None].astype(np.float32)

    def strata(self, targets: Targets) -> NDArray[np.int64]:
        """Return the decile of each number."""
        limits = np.quantile(targets, np.arange(1, 10) / 10)
        return np.searchsorted(limits, targets).astype(np.int64)

    def prediction_to_target(self, prediction: Any) -> float:
        return float(prediction)

    def target_to_label(self, target: Target) -> str:
        return repr(target)

    def mispredictions(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> list[Misprediction]:
        """Return all texts, those with the largest errors first."""
        predicted = self.predict(logits, calibration)
        ranked = np.argsort(-np.abs(predicted - targets), kind="stable")
        return [
            Misprediction(int(i), self.prediction_to_target(predicted[i]), None, None)
            for i in ranked
        ]

    def best_constant_prediction(self, targets: Targets) -> tuple[NDArray[np.float64], str]:
        """Return the mean."""
        mean = float(targets.astype(np.float64).mean())
        return np.array([mean]), f"the mean, {mean:.4g}"

    def calibrate(self, logits: Logits, targets: Targets) -> Calibration:
        """Return the scale of the numbers, and the half width of an interval around a prediction.

        By split conformal prediction (Papadopoulos et al. 2002; Angelopoulos & Bates 2021, arXiv
        2107.07511): the ⌈(n + 1) 0.9⌉-th smallest absolute error of n texts.
        """
        require_finite_as_float64(logits)
        errors = np.sort(np.abs(self.predict(logits) - targets))
        rank = math.ceil((len(errors) + 1) * INTERVAL_COVERAGE)
        enough = rank <= len(errors)
        return Calibration(
            fitted=enough,
            scale=(self.std,),
            offset=(self.mean,),
            half_width=float(errors[rank - 1]) if enough else None,
        )

    def report(
        self,
        logits: Logits,
        targets: Targets,
        calibration: Calibration | None = None,  # noqa: ARG002 - it changes no prediction
    ) -> dict[str, Any]:
        """Return `rmse` and `mae` in the unit of the numbers, `r2`, and `spearman`.

        The loss is the mean squared error of z. A correlation with a constant is 0.
        """
        predicted, truth = self.predict(logits), targets.astype(np.float64)
        errors = predicted - truth
        mse = float((errors**2).mean())
        finite = math.isfinite(mse)
        return {
            "loss": mse / self.std**2,
            "rmse": math.sqrt(mse) if finite else mse,
            "mae": float(np.abs(errors).mean()),
            "r2": _r2(truth, predicted) if finite else math.nan,
            "spearman": _spearman(truth, predicted) if finite else math.nan,
        }

    def evaluate_calibration(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> dict[str, Any]:
        """Return the share of texts whose number is within the interval: `coverage`."""
        require_finite_as_float64(logits)
        if calibration.half_width is None:
            return {"texts": len(targets)}
        within = np.abs(self.predict(logits) - targets) <= calibration.half_width
        return {"texts": len(targets), "coverage": float(within.mean())}


def _r2(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """R² needs two texts, and says nothing about equal numbers: then it is 0."""
    return float(r2_score(truth, predicted)) if len(truth) > 1 and np.ptp(truth) else 0.0


def _spearman(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    if len(truth) < 2 or not np.ptp(truth) or not np.ptp(predicted):
        return 0.0
    return float(spearmanr(truth, predicted).statistic)
