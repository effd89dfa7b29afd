"""The metric that models of a task are compared by, its intervals, and those of a difference.

Each metric is a function of means over texts: for accuracy of 0 or 1, for the root mean squared
error of the squared error, and for macro F1, label by label, of 2 TP and 2 TP + FP + FN. So a
resample of the texts is a weighted mean of the same statistics. Needs no scikit-learn.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lora_core.confidence_intervals import (
    Interval,
    paired_accuracy_difference_interval,
    wilson_interval,
)
from lora_core.results import MetricName

# (texts,) indices of labels, (texts, labels) of 0 and 1, or (texts,) numbers
Predictions = NDArray[Any]
Floats = NDArray[np.float64]
Statistics = NDArray[Any]  # (texts, k) numbers

RESAMPLES = 1000  # of the bootstrap
RESAMPLES_AT_ONCE = 50
MIN_RESAMPLED_TEXTS = 20  # with fewer, percentiles of the bootstrap are too narrow
TEXTS_AT_ONCE = 2000  # of which scores are computed
PERMUTATIONS = 199
RELATIVE_ROUNDING_ERROR = 1e-12
MAX_PERMUTED_TARGETS = 1_000_000  # texts · columns
SIGNIFICANCE_LEVEL = 0.05  # p value below which agreement with the targets is not chance


class MetricFromMeans(ABC):
    """A function of means: `statistics` are (texts, k); `means` are (…, k), over texts."""

    name: ClassVar[MetricName]
    lower_is_better: ClassVar[bool] = False

    @abstractmethod
    def value_from_means(self, means: Floats) -> Floats:
        """Return the metric (…) of means."""

    @abstractmethod
    def linearized(self, statistics: Statistics) -> Floats:
        """Return the metric plus the influence of each text (texts,) on it (delta method).

        Their mean is the metric, and their standard error that of the metric.
        """

    def scores(self, statistics: Statistics) -> Floats:
        """Return a score (texts,) of each text, higher is better, to compare methods by its mean.

        The standard error of a difference of metrics is that of the mean difference.
        """
        return self.linearized(statistics)

    def width(self, columns: int) -> int:  # noqa: ARG002 - it depends on the number of labels
        """Return k, the statistics of a text, for predictions with this number of columns."""
        return 1

    def error_from_means(self, means: Floats) -> Floats:
        """Return the error (…) of which skill is a share: 0 for perfect predictions."""
        return 1 - self.value_from_means(means)

    def errors(self, statistics: Statistics) -> Floats:
        """Return the error (texts,) of each text, whose mean is that of the metric (delta)."""
        return 1 - self.linearized(statistics)

    def rounding_error(self, value: float) -> float:  # noqa: ARG002 - see `RootMeanSquaredError`
        """Return how far apart values of this size may be that are equal but for rounding."""
        return RELATIVE_ROUNDING_ERROR

    def value(self, statistics: Statistics) -> float:
        """Return the metric of these texts."""
        return float(self.value_from_means(statistics.mean(axis=0)))

    def interval(self, statistics: Statistics) -> Interval:
        """Return the 95% interval: percentiles of the bootstrap over texts (Efron 1979)."""
        return self.interval_from_resamples(self.resampled(statistics), len(statistics))

    def interval_from_resamples(self, resampled: Floats, texts: int) -> Interval:  # noqa: ARG002 - see `MacroF1`
        """Return the 95% interval of the metric (resamples,) of this number of texts."""
        return percentile_interval(resampled)

    def resampled(self, statistics: Statistics) -> Floats:
        """Return the metric (resamples,) of texts drawn with replacement.

        The draws are the same for all statistics of as many texts, so the differences of two
        models are those of a paired bootstrap.
        """
        return np.concatenate(
            [self.value_from_means(means) for means in _resampled_means(statistics)]
        )

    def difference(self, ours: Statistics, theirs: Statistics) -> tuple[float, Interval]:
        """Return the metric of `ours` minus that of `theirs`, and its 95% interval.

        Both are statistics of the same texts, which are resampled together (paired bootstrap).
        """
        differences = self.resampled(ours) - self.resampled(theirs)
        return self.value(ours) - self.value(theirs), difference_interval(differences, len(ours))


class PrimaryMetric(MetricFromMeans):
    """A metric of predictions."""

    @abstractmethod
    def per_text_statistics(self, truth: Predictions, predicted: Predictions) -> Statistics:
        """Return what the metric averages over texts."""

    def beats_chance(self, truth: Predictions, predicted: Predictions) -> bool:
        """Return whether the predictions fit better than those of other texts.

        By a permutation test: they are shuffled among the texts. Of more than
        `MAX_PERMUTED_TARGETS` targets, texts with that many are drawn at random.
        """
        sign, rng = -1 if self.lower_is_better else 1, np.random.default_rng(0)
        if truth.size > MAX_PERMUTED_TARGETS:
            drawn = rng.permutation(len(truth))[: MAX_PERMUTED_TARGETS * len(truth) // truth.size]
            truth, predicted = truth[drawn], predicted[drawn]
        value = self.value(self.per_text_statistics(truth, predicted))
        least = sign * value - self.rounding_error(value)
        as_good = sum(
            sign
            * self.value(self.per_text_statistics(truth, predicted[rng.permutation(len(truth))]))
            >= least
            for _ in range(PERMUTATIONS)
        )
        return bool((as_good + 1) / (PERMUTATIONS + 1) < SIGNIFICANCE_LEVEL)


class Accuracy(PrimaryMetric):
    """The share of texts with the right label. Its intervals hold for few texts, too."""

    name = "accuracy"

    def per_text_statistics(self, truth: Predictions, predicted: Predictions) -> Statistics:
        return np.asarray(truth == predicted, dtype=np.float64)[:, None]

    def value(self, statistics: Statistics) -> float:
        return float(statistics[:, 0].mean())

    def value_from_means(self, means: Floats) -> Floats:
        accuracy: Floats = means[..., 0]
        return accuracy

    def linearized(self, statistics: Statistics) -> Floats:
        return statistics[:, 0]

    def interval(self, statistics: Statistics) -> Interval:
        """Return the Wilson interval."""
        return wilson_interval(self.value(statistics), len(statistics))

    def difference(self, ours: Statistics, theirs: Statistics) -> tuple[float, Interval]:
        """Return the difference and its interval by Agresti and Min."""
        only_ours, only_theirs = int((ours > theirs).sum()), int((theirs > ours).sum())
        interval = paired_accuracy_difference_interval(only_ours, only_theirs, len(ours))
        return (only_ours - only_theirs) / len(ours), interval


class MacroF1(PrimaryMetric):
    """The mean F1, 2 TP / (2 TP + FP + FN), of the labels that are true or predicted for a text."""

    name = "macro_f1"

    def width(self, columns: int) -> int:
        return 2 * columns

    def per_text_statistics(self, truth: Predictions, predicted: Predictions) -> Statistics:
        true, positive = (np.asarray(each > 0, dtype=np.uint8) for each in (truth, predicted))
        # One byte each, as there may be 100,000 texts of 1,000 labels.
        return np.concatenate([2 * (true & positive), true + positive], axis=1)

    def interval_from_resamples(self, resampled: Floats, texts: int) -> Interval:
        """Return the percentiles of the bootstrap; those of Wilson if all resamples are equal.

        They are if no prediction is wrong, or none is right, which few texts do not guarantee.
        """
        low, high = super().interval_from_resamples(resampled, texts)
        return wilson_interval(high, texts) if low == high else (low, high)

    def value_from_means(self, means: Floats) -> Floats:
        both, either = np.split(means, 2, axis=-1)
        f1 = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
        occurring = (either > 0).sum(axis=-1)
        return np.asarray(f1.sum(axis=-1) / np.maximum(1, occurring))

    def linearized(self, statistics: Statistics) -> Floats:
        both, either = np.split(statistics, 2, axis=1)
        share = either.mean(axis=0)
        occurring = share > 0
        both, either, share = both[:, occurring], either[:, occurring], share[occurring]
        if not occurring.any():
            return np.zeros(len(statistics))
        f1 = both.mean(axis=0) / share
        return np.concatenate(
            [
                (f1 + (both[part] - f1 * either[part]) / share).mean(axis=1)
                for first in range(0, len(both), TEXTS_AT_ONCE)
                for part in [slice(first, first + TEXTS_AT_ONCE)]
            ]
        )


class MeanSkill(MetricFromMeans):
    """The mean over targets of 1 - e / e_c, with e the error of a model, e_c that of a constant.

    The error is 1 - accuracy, 1 - macro F1, or the mean squared error, for which this is R². The
    constant is the best one for the texts that are evaluated, so two models on the same texts are
    measured on the same scale, and resampling does not change it. Where a constant is without
    error, the skill is 1 for a model without error, else 0.
    """

    name = "skill"

    def __init__(self, targets: Sequence[tuple[MetricFromMeans, int]]) -> None:
        """`targets`: the metric of each, and the width of its statistics."""
        self._targets = tuple(targets)

    @staticmethod
    def join(statistics: Sequence[Statistics], constant_errors: Sequence[float]) -> Floats:
        """Return the statistics: those of each target, then a column with the error of its
        constant."""
        columns = []
        for own, error in zip(statistics, constant_errors, strict=True):
            columns += [own, np.full((len(own), 1), error)]
        return np.concatenate(columns, axis=1)

    def value_from_means(self, means: Floats) -> Floats:
        skills = []
        for metric, own, constant in self._parts(means):
            error, positive = metric.error_from_means(own), constant > 0
            relative = np.where(positive, error / np.where(positive, constant, 1.0), error > 0)
            skills.append(1 - relative)
        return np.asarray(np.mean(skills, axis=0))

    def interval_from_resamples(self, resampled: Floats, texts: int) -> Interval:
        """Return the percentiles of the bootstrap, if all predictions are right those of Wilson."""
        low, high = super().interval_from_resamples(resampled, texts)
        return wilson_interval(1.0, texts) if low == 1 else (low, high)

    def linearized(self, statistics: Statistics) -> Floats:
        """Return 1 - the error of each text / e_c, the mean over targets.

        Where a constant is without error, the mean error of the model takes its place, so that the
        mean of the scores is 0 there, as the skill is.
        """
        scores = []
        for metric, own, constant in self._parts(statistics):
            scale = np.where(constant > 0, constant, metric.error_from_means(own.mean(axis=0)))
            scores.append(1 - metric.errors(own) / np.where(scale > 0, scale, 1.0))
        return np.asarray(np.mean(scores, axis=0))

    def _parts(self, values: Floats) -> Iterator[tuple[MetricFromMeans, Floats, Floats]]:
        """Yield the metric of each target, its values (…, k), and the error (…) of the constant."""
        start = 0
        for metric, width in self._targets:
            end = start + width
            yield metric, values[..., start:end], values[..., end]
            start = end + 1


class RootMeanSquaredError(PrimaryMetric):
    """The root of the mean squared error, in the unit of the numbers."""

    name = "rmse"
    lower_is_better = True

    def per_text_statistics(self, truth: Predictions, predicted: Predictions) -> Statistics:
        errors = predicted.astype(np.float64) - truth
        return (errors**2)[:, None]

    def value_from_means(self, means: Floats) -> Floats:
        return np.sqrt(means[..., 0])

    def error_from_means(self, means: Floats) -> Floats:
        """Return the mean squared error."""
        return means[..., 0]

    def rounding_error(self, value: float) -> float:
        return RELATIVE_ROUNDING_ERROR * value  # the unit may be tiny

    def errors(self, statistics: Statistics) -> Floats:
        return np.asarray(statistics[:, 0], np.float64)

    def linearized(self, statistics: Statistics) -> Floats:
        rmse = self.value(statistics)
        linearized: Floats = (rmse + statistics[:, 0] / (rmse or 1.0)) / 2
        return linearized

    def scores(self, statistics: Statistics) -> Floats:
        """Return the negative squared errors: the method with the best mean has the best RMSE."""
        return -statistics[:, 0]


def _resampled_means(statistics: Statistics) -> Iterator[Floats]:
    """Yield means (resamples, k) over texts that are drawn with replacement, the same each time."""
    from scipy.sparse import csr_array  # slow to import, and not needed to read a metric

    rng, texts = np.random.default_rng(0), len(statistics)
    by_statistic = csr_array(statistics.T)  # of several labels, most are zero
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        counts = [
            np.bincount(rng.integers(texts, size=texts), minlength=texts)
            for _ in range(RESAMPLES_AT_ONCE)
        ]
        yield (by_statistic @ np.stack(counts, axis=1)).T / texts


def percentile_interval(resampled: Floats) -> Interval:
    """Return the 95% interval of resampled values."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def difference_interval(resampled: Floats, texts: int) -> Interval:
    """Return the 95% interval of a resampled difference; with few texts it includes 0."""
    low, high = percentile_interval(resampled)
    return (low, high) if texts >= MIN_RESAMPLED_TEXTS else (min(low, 0.0), max(high, 0.0))
