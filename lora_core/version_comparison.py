"""Compare a new version of a model with the current one, by what both predict for the same texts.

The metric is that of the task: accuracy, macro F1, root mean squared error, or of several targets
their mean skill. The texts come in parts, such as the test part of the data and texts of live
traffic; each is compared by itself, and all of them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_core.paired_test import one_sided_paired_test
from lora_core.results import MetricName
from lora_core.specs.encoded_labels import LabelValue
from lora_core.specs.task import TaskTypeOfTarget
from lora_core.tasks.primary_metric import (
    Accuracy,
    MacroF1,
    MeanSkill,
    MetricFromMeans,
    Predictions,
    PrimaryMetric,
    RootMeanSquaredError,
    Statistics,
)

Labels = Mapping[str, LabelValue]  # of a text, by target; the only target of a model is ""


@dataclass(frozen=True)
class MetricWithInterval:
    """The metric of one version, with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class VersionComparison:
    """Two versions on the same texts."""

    texts: int
    current: MetricWithInterval
    new: MetricWithInterval
    difference: float  # of the metric; positive: the new version is better
    better: int  # texts that the new version predicts better
    worse: int
    p_better: float  # one-sided: the probability of such a lead if the versions were equally good
    p_worse: float  # the same of such a deficit


@dataclass(frozen=True)
class PairedPrediction:
    """A text with its labels, and what both versions predict for it."""

    truth: Labels
    current: Labels
    new: Labels


def primary_metric_name(tasks: Mapping[str, TaskTypeOfTarget]) -> MetricName:
    """Return the metric that models of these targets are compared by."""
    return MeanSkill.name if len(tasks) > 1 else _METRICS[next(iter(tasks.values()))].name


def compare_versions(
    texts: Sequence[PairedPrediction], tasks: Mapping[str, TaskTypeOfTarget]
) -> VersionComparison:
    """Compare two versions. `tasks`: the type of each target. Raises `ValueError` without texts."""
    metric, current, new = _statistics(texts, tasks)
    found = one_sided_paired_test(metric, new, current)
    return VersionComparison(
        texts=len(texts),
        current=_score(metric, current),
        new=_score(metric, new),
        difference=found.difference,
        better=found.better,
        worse=found.worse,
        p_better=found.p_value,
        p_worse=found.p_worse,
    )


def _score(metric: MetricFromMeans, statistics: Statistics) -> MetricWithInterval:
    return MetricWithInterval(metric.value(statistics), *metric.interval(statistics))


def _statistics(
    texts: Sequence[PairedPrediction], tasks: Mapping[str, TaskTypeOfTarget]
) -> tuple[MetricFromMeans, Statistics, Statistics]:
    """Return the metric, and its statistics (texts, k) of the current and of the new version."""
    if not texts:
        raise ValueError("there are no texts to compare versions on")
    metrics, current, new, constant_errors = [], [], [], []
    for target, task in tasks.items():
        metric = _METRICS[task]
        truth, *predicted = _arrays(
            task,
            [each.truth[target] for each in texts],
            [each.current[target] for each in texts],
            [each.new[target] for each in texts],
        )
        of_current, of_new = (metric.per_text_statistics(truth, each) for each in predicted)
        constant = metric.per_text_statistics(truth, _best_constant(task, truth))
        metrics.append(metric)
        current.append(of_current)
        new.append(of_new)
        constant_errors.append(float(metric.error_from_means(constant.mean(axis=0))))
    if len(metrics) == 1:
        return metrics[0], current[0], new[0]
    return (
        MeanSkill([(each, part.shape[1]) for each, part in zip(metrics, current, strict=True)]),
        MeanSkill.join(current, constant_errors),
        MeanSkill.join(new, constant_errors),
    )


_METRICS: Mapping[TaskTypeOfTarget, PrimaryMetric] = {
    "single_label": Accuracy(),
    "multi_label": MacroF1(),
    "regression": RootMeanSquaredError(),
}


def _arrays(task: TaskTypeOfTarget, *columns: Sequence[LabelValue]) -> list[Predictions]:
    """Return labels as the metric takes them: (texts,) indices or numbers, (texts, labels) bits."""
    if task == "regression":
        return [np.array(each, dtype=np.float64) for each in columns]
    named = [[_names(label) for label in column] for column in columns]
    distinct = {name for column in named for names in column for name in names}
    index = {name: i for i, name in enumerate(sorted(distinct))}
    if task == "single_label":
        return [np.array([index[name] for (name,) in column]) for column in named]
    arrays = []
    for column in named:
        bits = np.zeros((len(column), len(index)), dtype=np.uint8)
        for row, names in zip(bits, column, strict=True):
            row[[index[name] for name in names]] = 1
        arrays.append(bits)
    return arrays


def _names(label: LabelValue) -> tuple[str, ...]:
    """Return the names in the label of a task with labels."""
    if isinstance(label, float):
        raise TypeError("a number is no label")
    return (label,) if isinstance(label, str) else label


def _best_constant(task: TaskTypeOfTarget, truth: Predictions) -> Predictions:
    """Return the best prediction that is the same for all texts, to which skill refers."""
    match task:
        case "single_label":
            return np.full_like(truth, np.bincount(truth).argmax())
        case "multi_label":
            return np.broadcast_to(truth.any(axis=0), truth.shape)  # each label that occurs
        case "regression":
            return np.full_like(truth, truth.mean())
