"""Single-label classification: one of two or more labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.metrics import cohen_kappa_score

from lora_core.tasks import temperature_scaling
from lora_core.tasks.base import Calibration, Logits, Task
from lora_core.tasks.mispredictions import Misprediction, most_confident_errors
from lora_core.tasks.primary_metric import Accuracy
from lora_core.tasks.single_label_metrics import CURVE_METRICS, classification_report
from lora_core.tasks.targets import Target, Targets

MIN_POSITIVES = 10  # texts with a label to tune its threshold on
MIN_THRESHOLD = 1e-12
MAX_TUNING_TEXTS = 10_000
MAX_PASSES = 10  # over all labels


class SingleLabel(Task):
    """Two or more labels, of which each text has one. `ordered`: they are ranks, lowest first.

    `tune_thresholds`: the predicted label has the highest probability / threshold, with thresholds
    tuned for macro F1.
    """

    type = "single_label"
    problem_type = "single_label_classification"
    score_function = "softmax"
    curve_metrics = CURVE_METRICS
    metric = Accuracy()

    def __init__(
        self, labels: Sequence[str], *, ordered: bool = False, tune_thresholds: bool = False
    ) -> None:
        super().__init__(labels)
        self.ordered, self.has_thresholds = ordered, tune_thresholds

    def scale_and_offset(
        self, calibration: Calibration
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        size = len(self.labels)
        return np.full(size, 1 / (calibration.temperature or 1.0)), np.zeros(size)

    def targets(self, values: Sequence[Target]) -> NDArray[np.int64]:
        return np.array(values, dtype=np.int64)

    def calibrate(self, logits: Logits, targets: Targets) -> Calibration:
        calibration = Calibration(
            **temperature_scaling.fit_temperature_if_enough_texts(logits, targets)
        )
        if not self.has_thresholds:
            return calibration
        log_probabilities = log_softmax(self.calibrated_logits(logits, calibration), axis=1)
        enough = calibration.fitted
        thresholds = tune_thresholds(log_probabilities, targets) if enough else _even(self.labels)
        return calibration.model_copy(update={"thresholds": tuple(thresholds.tolist())})

    def decision_function(
        self, logits: Logits, calibration: Calibration | None
    ) -> NDArray[np.float64]:
        """Return what the highest of (texts, labels) is predicted by: ln of score / threshold."""
        if calibration is None or not calibration.thresholds:
            return np.asarray(logits, np.float64)
        thresholds = np.maximum(calibration.thresholds, MIN_THRESHOLD)
        ranking: NDArray[np.float64] = self.calibrated_logits(logits, calibration) - np.log(
            thresholds
        )
        return ranking

    def predict(self, logits: Logits, calibration: Calibration | None = None) -> NDArray[np.int64]:
        """Return the index (texts,) of the label with the highest logit or score / threshold."""
        return np.asarray(
            self.decision_function(logits, calibration).argmax(axis=1), dtype=np.int64
        )

    def strata(self, targets: Targets) -> NDArray[np.int64]:
        return targets

    def prediction_to_target(self, prediction: Any) -> int:
        return int(prediction)

    def target_to_label(self, target: Target) -> str:
        return self.labels[target]

    def mispredictions(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> list[Misprediction]:
        return most_confident_errors(
            logits,
            targets,
            temperature=calibration.temperature or 1.0,
            limit=len(targets),
            predicted=self.predict(logits, calibration),
        )

    def best_constant_prediction(self, targets: Targets) -> tuple[NDArray[np.int64], str]:
        """Return the most frequent label, the first of several."""
        majority = np.bincount(targets).argmax()
        return np.array([majority], dtype=np.int64), self.labels[majority]

    def report(
        self, logits: Logits, targets: Targets, calibration: Calibration | None = None
    ) -> dict[str, Any]:
        """Return all metrics of `classification_report`; of ranks also `kappa` and `mae`.

        `kappa` is Cohen's, with quadratic weights; `mae` is the mean distance of ranks.
        """
        if self.has_thresholds and calibration is None and np.isfinite(logits).all():
            calibration = self.calibrate(logits, targets)
        predicted = self.predict(logits, calibration)
        report = classification_report(logits, targets, self.labels, predicted)
        if self.ordered:
            report |= self.quadratic_kappa_and_mae(targets, predicted)
        return report

    def quadratic_kappa_and_mae(
        self, targets: NDArray[np.int64], predicted: NDArray[np.int64]
    ) -> dict[str, float]:
        """Return `kappa` and `mae` of predicted ranks. If all texts have one label, kappa is 0."""
        kappa = 0.0
        if len(np.union1d(targets, predicted)) > 1:
            kappa = cohen_kappa_score(
                targets, predicted, labels=range(len(self.labels)), weights="quadratic"
            )
        return {"kappa": float(kappa), "mae": float(np.abs(predicted - targets).mean())}

    def evaluate_calibration(
        self, logits: Logits, targets: Targets, calibration: Calibration
    ) -> dict[str, Any]:
        return temperature_scaling.compare_calibration(
            logits, targets, calibration.temperature or 1.0
        )


def tune_thresholds(
    log_probabilities: NDArray[np.float64], targets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the thresholds (labels,) of argmax(probability / threshold) with the best macro F1.

    They add up to 1. One label at a time gets the best one (coordinate ascent), until none gets a
    better one. A label of fewer than `MIN_POSITIVES` texts is left as it is.
    """
    if len(targets) > MAX_TUNING_TEXTS:
        drawn = np.random.default_rng(0).permutation(len(targets))[:MAX_TUNING_TEXTS]
        log_probabilities, targets = log_probabilities[drawn], targets[drawn]
    labels = log_probabilities.shape[1]
    tuned = np.flatnonzero(np.bincount(targets, minlength=labels) >= MIN_POSITIVES)
    bias = np.zeros(labels)  # -ln of the threshold
    best = -np.inf
    for _ in range(MAX_PASSES):
        before = best
        for label in tuned.tolist():
            bias[label], best = _best_bias(log_probabilities + bias, targets, label, bias[label])
        if best <= before + 1e-12:
            break
    thresholds: NDArray[np.float64] = softmax(-bias)
    return thresholds


def _best_bias(
    scores: NDArray[np.float64], targets: NDArray[np.int64], label: int, bias: float
) -> tuple[float, float]:
    """Return the bias of one label with the best macro F1, and that. Changes `scores`.

    Scores include `bias`. As it rises, the texts come to this label one by one, from the label that
    they have without it, so that each changes the F1 of two labels. On a tie it is the bias nearest
    to `bias`.
    """
    texts, labels = scores.shape
    own = scores[:, label].copy()
    scores[:, label] = -np.inf
    runner_up = scores.argmax(axis=1)
    margins = scores[np.arange(texts), runner_up] - own  # to be exceeded by the change of the bias
    order = np.argsort(margins, kind="stable")
    margins, runner_up, truth = margins[order], runner_up[order], targets[order]
    true, hit = np.bincount(targets, minlength=labels), truth == runner_up
    # By the label that they leave, in the order in which they do
    by_label = np.argsort(runner_up, kind="stable")
    left, hit = runner_up[by_label], hit[by_label]
    predicted = np.bincount(left, minlength=labels)
    correct = np.bincount(left, hit, minlength=labels)
    f1, occurring = _f1(correct, predicted + true), predicted + true > 0
    first = predicted.cumsum() - predicted
    remaining = (predicted + first)[left] - np.arange(1, texts + 1)  # when a text has left
    remaining_correct = correct.cumsum()[left] - hit.cumsum()
    either = remaining + true[left]
    after = _f1(remaining_correct, either)
    before = np.where(remaining + 1 == predicted[left], f1[left], np.roll(after, 1))
    change, vanished = np.zeros((2, texts + 1))
    change[1 + by_label], vanished[1 + by_label] = after - before, either == 0
    either = np.arange(texts + 1) + true[label]
    of_label = _f1(np.append(0, (truth == label).cumsum()), either)
    others = np.arange(labels) != label
    # (texts + 1,): after each text has come to `label`
    sum_f1 = f1[others].sum() + change.cumsum() + of_label
    count = occurring[others].sum() - vanished.cumsum() + (either > 0)
    macro_f1 = sum_f1 / np.maximum(1, count)
    cuts = np.concatenate([
        [margins[0] - 1.0], (margins[1:] + margins[:-1]) / 2, [margins[-1] + 1.0]
    ])  # fmt: skip
    separate = np.append(True, np.append(np.diff(margins) > 0, True))
    macro_f1[~separate] = -np.inf
    best = np.flatnonzero(macro_f1 >= macro_f1.max() - 1e-12)
    chosen = best[np.abs(cuts[best]).argmin()]
    return bias + float(cuts[chosen]), float(macro_f1[chosen])


def _f1(correct: NDArray[Any], either: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the F1 of labels, 2 TP / (predicted + true texts); 0 for a label without either."""
    return np.divide(2.0 * correct, either, out=np.zeros(len(either)), where=either > 0)


def _even(labels: Sequence[str]) -> NDArray[np.float64]:
    """Return thresholds that change no prediction."""
    return np.full(len(labels), 1 / len(labels))
