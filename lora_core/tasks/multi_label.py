"""Multi-label classification: each text has any number of labels, none included."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from lora_core.specs.encoded_labels import encode_label_set
from lora_core.tasks.base import Calibration, Logits, Task
from lora_core.tasks.mispredictions import Misprediction
from lora_core.tasks.primary_metric import MacroF1
from lora_core.tasks.targets import Target, Targets, multi_hot
from lora_core.tasks.temperature_scaling import (
    MIN_TEXTS,
    clip_inverse_temperature,
    require_finite_as_float64,
)

MIN_POSITIVES = 10  # texts with a label, and without it, to fit its calibration and threshold on
DEFAULT_THRESHOLD = 0.5  # unless it is fitted


class MultiLabel(Task):
    """Independent labels: a model computes one logit for each."""

    type = "multi_label"
    problem_type = "multi_label_classification"
    score_function = "sigmoid"
    curve_metrics = ("loss", "accuracy", "micro_f1", "macro_f1", "map")
    metric = MacroF1()
    has_thresholds = True

    @property
    def num_target_columns(self) -> int:
        return len(self.labels)

    def scale_and_offset(
        self, calibration: Calibration
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.array(calibration.scale), np.array(calibration.offset)

    def targets(self, values: Sequence[Target]) -> NDArray[np.float32]:
        return multi_hot(values, len(self.labels))

    def calibrate(self, logits: Logits, targets: Targets) -> Calibration:
        """Fit scale and offset of each label (Platt 1999), and the threshold with the best F1.

        A label with fewer than `MIN_POSITIVES` texts keeps its scores and `DEFAULT_THRESHOLD`.
        """
        z, size = require_finite_as_float64(logits), len(self.labels)
        scale, offset, thresholds = np.ones(size), np.zeros(size), np.full(size, DEFAULT_THRESHOLD)
        positives = targets.sum(axis=0)
        enough = np.minimum(positives, len(z) - positives) >= MIN_POSITIVES
        fitted = len(z) >= MIN_TEXTS and bool(enough.any())
        for i in np.flatnonzero(enough) if fitted else ():
            scale[i], offset[i] = fit_platt(z[:, i], targets[:, i])
            scores = expit(scale[i] * z[:, i] + offset[i])
            thresholds[i] = best_threshold(scores, targets[:, i])
        return Calibration(
            fitted=fitted,
            scale=tuple(scale.tolist()),
            offset=tuple(offset.tolist()),
            thresholds=tuple(thresholds.tolist()),
        )

    def predict(self, logits: Logits, calibration: Calibration | None = None) -> NDArray[np.bool_]:
        """Return whether each label (texts, labels) is predicted."""
        if calibration is None:
            return np.asarray(logits >= logit(DEFAULT_THRESHOLD))
        return np.asarray(
            expit(self.calibrated_logits(logits, calibration)) >= calibration.thresholds
        )

    def strata(self, targets: Targets) -> NDArray[np.int64]:
        """Return the rarest label of each text; those without a label are a stratum, too."""
        frequency = np.where(targets > 0, targets.sum(axis=0), np.inf)
        rarest: NDArray[np.int64] = frequency.argmin(axis=1)
        return np.where((targets > 0).any(axis=1), rarest, len(self.labels))

    def prediction_to_target(self, prediction: Any) -> tuple[int, ...]:
        return tuple(np.flatnonzero(prediction).tolist())

    def target_to_label(self, target: Target) -> str:
        return encode_label_set([self.labels[i] for i in target])

    def mispredictions(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> list[Misprediction]:
        predicted = self.predict(logits, calibration)
        scores = expit(self.calibrated_logits(logits, calibration))
        confidence = np.where(predicted, scores, 1 - scores)  # in what is said about each label
        confidence[predicted == (targets > 0)] = -1.0  # right
        worst = confidence.max(axis=1)
        wrong = np.flatnonzero(worst >= 0)
        ranked = wrong[np.argsort(-worst[wrong], kind="stable")]
        return [
            Misprediction(
                int(i),
                self.prediction_to_target(predicted[i]),
                float(worst[i]),
                float(1 - worst[i]),
            )
            for i in ranked
        ]

    def best_constant_prediction(self, targets: Targets) -> tuple[NDArray[np.bool_], str]:
        """Return all labels that occur: predicted without reading, each has an F1 of 2 p / (1 + p).

        p is the share of texts with the label. Others would add an F1 of 0 to the mean.
        """
        return np.asarray((targets > 0).any(axis=0, keepdims=True)), "every label"

    def report(
        self, logits: Logits, targets: Targets, calibration: Calibration | None = None
    ) -> dict[str, Any]:
        """Return the metrics of the labels above their thresholds.

        `accuracy` is the share of texts with exactly the right labels; `map` the mean average
        precision of the labels that occur. `macro_f1` is the mean over the labels that occur among
        true or predicted ones.
        """
        finite = bool(np.isfinite(logits).all())
        if calibration is None:
            calibration = self.calibrate(logits if finite else np.zeros_like(logits), targets)
        scores = expit(self.calibrated_logits(logits, calibration))
        truth, predicted = targets > 0, scores >= np.array(calibration.thresholds)
        # By hand: scikit-learn takes one column for two classes.
        correct, positive = (truth & predicted).sum(axis=0), predicted.sum(axis=0)
        support = truth.sum(axis=0)
        f1, occurring = _ratio(2 * correct, positive + support), support > 0
        precision, recall = _ratio(correct, positive), _ratio(correct, support)
        average_precision = (
            average_precision_score(truth[:, occurring], scores[:, occurring], average=None)
            if finite and occurring.any()
            else np.full(int(occurring.sum()), np.nan)
        )
        return {
            "loss": binary_cross_entropy(np.asarray(logits, np.float64), targets),
            "accuracy": float((truth == predicted).all(axis=1).mean()),
            "micro_f1": float(_ratio(2 * correct.sum(), positive.sum() + support.sum())),
            "macro_f1": _mean(f1[positive + support > 0]),
            "map": _mean(np.atleast_1d(average_precision)),
            "hamming_loss": float((truth != predicted).mean()),
            "per_class": {
                label: {
                    "precision": float(precision[i]),
                    "recall": float(recall[i]),
                    "f1": float(f1[i]),
                    "support": int(support[i]),
                    "threshold": calibration.thresholds[i],
                }
                for i, label in enumerate(self.labels)
            },
        }

    def evaluate_calibration(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> dict[str, Any]:
        """Return `loss` and `brier`, the mean squared distance to 0 or 1, of all labels."""
        z = require_finite_as_float64(logits)
        return {
            "texts": len(z),
            "before": _calibration_metrics(z, targets),
            "after": _calibration_metrics(self.calibrated_logits(z, calibration), targets),
        }


def fit_platt(z: NDArray[np.float64], targets: NDArray[Any]) -> tuple[float, float]:
    """Return scale and offset that give the logits of one label the best likelihood (Platt 1999).

    A penalty keeps the scale of a label without an error finite. The scale is never negative. At
    its limits the offset is the best one for that scale: the mean score is the share of the label.
    """
    spread = float(z.std()) or 1.0
    model = LogisticRegression(C=1.0, max_iter=1000)
    model.fit((z / spread)[:, None], targets > 0)
    fitted_scale = float(model.coef_[0, 0]) / spread
    scale = clip_inverse_temperature(fitted_scale)
    if scale == fitted_scale:
        return scale, float(model.intercept_[0])
    scaled, share = scale * z, float((targets > 0).mean())

    def excess(offset: float) -> float:
        return float(expit(scaled + offset).mean()) - share

    low, high = logit(share) - scaled.max(), logit(share) - scaled.min()
    return scale, float(brentq(excess, low - 1, high + 1))  # 1: they may be equal


def best_threshold(scores: NDArray[np.float64], targets: NDArray[Any]) -> float:
    """Return the threshold of one label with the highest F1, in the middle between two scores.

    On a tie the one nearest to `DEFAULT_THRESHOLD`.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], (targets[order] > 0).cumsum()
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + hits[-1])
    below = np.append(ranked[1:], 0.0)
    cuts = (ranked + below) / 2
    f1 = np.where(ranked > below, f1, -1.0)  # equal scores cannot be separated
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(cuts[best[np.abs(cuts[best] - DEFAULT_THRESHOLD).argmin()]])


def binary_cross_entropy(z: NDArray[np.float64], targets: NDArray[Any]) -> float:
    """Return the mean over texts and labels; logits z and targets are (texts, labels)."""
    with np.errstate(invalid="ignore", over="ignore"):  # a NaN loss ends the run
        return float((np.logaddexp(0.0, z) - targets * z).mean())


def _calibration_metrics(z: NDArray[np.float64], targets: Targets) -> dict[str, float]:
    return {
        "loss": binary_cross_entropy(z, targets),
        "brier": float(((expit(z) - targets) ** 2).mean()),
    }


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Return part / whole; 0 where whole is."""
    ratio: NDArray[np.float64] = np.where(whole > 0, part / np.maximum(1, whole), 0.0)
    return ratio


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else 0.0
