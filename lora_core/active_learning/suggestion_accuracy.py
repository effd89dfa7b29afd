"""How good a model of the labels so far is, measured on texts that were chosen at random."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lora_core.active_learning.label_suggestions import (
    Label,
    SuggestionModel,
    require_label_set,
    require_number,
)
from lora_core.active_learning.selection import Rows, Vectors
from lora_core.results import MetricName
from lora_core.specs.task import TaskTypeOfTarget
from lora_core.tasks.primary_metric import (
    Accuracy,
    MacroF1,
    Predictions,
    PrimaryMetric,
    RootMeanSquaredError,
)

NUM_FOLDS = 5
MIN_RANDOM_TEXTS = 20  # with fewer, the interval is too wide to be of use
_METRICS: dict[TaskTypeOfTarget, PrimaryMetric] = {
    "single_label": Accuracy(),
    "multi_label": MacroF1(),
    "regression": RootMeanSquaredError(),
}


@dataclass(frozen=True)
class MetricEstimate:
    """A metric with its 95% interval."""

    metric: MetricName
    value: float
    low: float
    high: float
    texts: int  # that it was measured on


def estimate_suggestion_accuracy(
    vectors: Vectors,
    labels: Sequence[Label],
    random_rows: Iterable[int],
    task: TaskTypeOfTarget,
    seed: int = 0,
) -> MetricEstimate | None:
    """Return how good suggestions for texts without a label are; None while it cannot be said.

    Each fold of the random texts is predicted by a model of all other labeled texts, so that no
    text is predicted by a model that has seen its label. The texts that were chosen for another
    reason only train: they are harder than others.

    Args:
        vectors: (texts, width) of the labeled texts.
        labels: theirs.
        random_rows: which of them were chosen at random: positions in `labels`.
        task: what a label is.
        seed: of the folds.
    """
    evaluated: Rows = np.unique(np.fromiter(random_rows, dtype=np.int64))
    if len(evaluated) < MIN_RANDOM_TEXTS:
        return None
    fold = np.random.default_rng(seed).permutation(len(evaluated)) % NUM_FOLDS
    predicted: list[Label | None] = [None] * len(labels)
    for held_out in (evaluated[fold == each] for each in range(NUM_FOLDS)):
        train = np.setdiff1d(np.arange(len(labels)), held_out)
        model = SuggestionModel.fit(vectors[train], [labels[i] for i in train], task)
        if model is None:
            return None
        for row, label in zip(held_out, model.predict(vectors[held_out]), strict=True):
            predicted[row] = label
    truth = [labels[i] for i in evaluated]
    found = [each for each in (predicted[i] for i in evaluated) if each is not None]
    pair = _encoded(truth, found, task)
    if not pair[0].size:
        return None  # no label is true or suggested for any text: macro F1 is not defined
    metric = _METRICS[task]
    statistics = metric.per_text_statistics(*pair)
    low, high = metric.interval(statistics)
    return MetricEstimate(metric.name, metric.value(statistics), low, high, len(evaluated))


def _encoded(
    truth: Sequence[Label], predicted: Sequence[Label], task: TaskTypeOfTarget
) -> tuple[Predictions, Predictions]:
    """Return both as arrays of indices, of 0 and 1 (texts, labels), or of numbers."""
    match task:
        case "single_label":
            names = {name: i for i, name in enumerate(sorted({*map(str, (*truth, *predicted))}))}
            indices, others = (
                np.array([names[str(each)] for each in part]) for part in (truth, predicted)
            )
            return indices, others
        case "multi_label":
            sets = [[require_label_set(each) for each in part] for part in (truth, predicted)]
            every = sorted(frozenset[str]().union(*sets[0], *sets[1]))
            first, second = (
                np.array([[name in each for name in every] for each in part], dtype=np.uint8)
                for part in sets
            )
            return first, second
        case "regression":
            return (
                np.array([require_number(each) for each in truth]),
                np.array([require_number(each) for each in predicted]),
            )
