"""The verdict on a model: compared with the best constant and with methods that cost less.

Everything is measured on texts that the model was not trained on, text by text: on the test split
or, with few texts, on all of them by cross-validation. It is measured by the metric of the task.
Needs no torch.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_core.results import LabelPredictionCounts, ReferenceComparison, Verdict
from lora_core.tasks.base import Task
from lora_core.tasks.primary_metric import Predictions, PrimaryMetric
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.targets import Targets

CROSS_VALIDATION_MAX_TEXTS = 200  # with fewer texts, the metrics come from cross-validation
WIDE_INTERVAL = 0.1  # width of a confidence interval that is too wide to conclude much
WIDE_RMSE_INTERVAL = 0.3  # the same, as a share of the RMSE
_RARE = 1 / 3  # of the mean number of texts of a label: with fewer, a label is rare
_MAX_NAMED = 5  # labels in a sentence
_NOT_TESTABLE = (
    "These texts cannot show whether the model has learned anything: there are too few of them, or "
    "too few with another label or value than the rest."
)


class ReferencePredictions(NamedTuple):
    """Predictions of another method for some of the texts."""

    texts: NDArray[np.int64]  # indices
    answers: Predictions


def build_verdict(
    task: Task,
    targets: Targets,
    predicted: Predictions,
    references: Mapping[str, ReferencePredictions],
    *,
    training_targets: Targets,
    measured_on: Literal["test", "cross_validation"] = "test",
) -> Verdict:
    """Return the verdict on the predictions of a model, in the form of `Task.predict`."""
    metric = task.metric
    statistics = metric.per_text_statistics(targets, predicted)
    low, high = metric.interval(statistics)
    constant, constant_name = task.best_constant_prediction(training_targets)
    every = np.arange(len(targets))
    always_constant = ReferencePredictions(every, np.repeat(constant, len(targets), axis=0))
    value = metric.value(statistics)
    counts = _count_labels(task, targets, predicted)
    learned = metric.beats_chance(targets, predicted)
    verdict = Verdict(
        measured_on=measured_on,
        texts=len(targets),
        metric=metric.name,
        value=value,
        accuracy=value if metric.name == "accuracy" else None,
        low=low,
        high=high,
        majority_label=constant_name,
        majority=_compare(metric, targets, predicted, always_constant),
        references={
            name: _compare(metric, targets, predicted, each) for name, each in references.items()
        },
        learned=learned,
        testable=learned or metric.beats_chance(targets, targets),
        never_predicted=tuple(each.label for each in counts if each.texts and not each.predicted),
        rare_labels=_rare_labels(counts),
        targets=_verdicts_by_target(
            task, targets, predicted, references, training_targets, measured_on
        ),
        headline="",
        sentences=(),
    )
    sentences = _sentences(verdict)
    if isinstance(task, SingleLabel) and task.ordered:
        sentences = (_ordered_labels_sentence(task, targets, predicted), *sentences)
    return verdict.model_copy(update={"headline": _headline(verdict), "sentences": sentences})


def _verdicts_by_target(
    task: Task,
    targets: Targets,
    predicted: Predictions,
    references: Mapping[str, ReferencePredictions],
    training_targets: Targets,
    measured_on: Literal["test", "cross_validation"],
) -> dict[str, Verdict]:
    """Return the verdict on each of several targets."""
    if not isinstance(task, SeveralTargets):
        return {}
    return {
        name: build_verdict(
            each,
            task.values_of(targets, name),
            task.values_of(predicted, name),
            {
                method: reference._replace(answers=task.values_of(reference.answers, name))
                for method, reference in references.items()
            },
            training_targets=task.values_of(training_targets, name),
            measured_on=measured_on,
        )
        for name, each in task.tasks.items()
    }


def _compare(
    metric: PrimaryMetric,
    targets: Targets,
    predicted: Predictions,
    reference: ReferencePredictions,
) -> ReferenceComparison:
    truth = targets[reference.texts]
    ours = metric.per_text_statistics(truth, predicted[reference.texts])
    theirs = metric.per_text_statistics(truth, reference.answers)
    difference, (low, high) = metric.difference(ours, theirs)
    value = metric.value(theirs)
    return ReferenceComparison(
        texts=len(truth),
        value=value,
        accuracy=value if metric.name == "accuracy" else None,
        difference=difference,
        low=low,
        high=high,
    )


def _count_labels(
    task: Task, targets: Targets, predicted: Predictions
) -> list[LabelPredictionCounts]:
    """Return the number of texts of each label, and of predictions; [] if it has no labels.

    Several targets have them in their own verdicts.
    """
    if isinstance(task, Regression | SeveralTargets):
        return []
    if isinstance(task, SingleLabel):
        size = len(task.labels)
        correct = np.bincount(targets[targets == predicted], minlength=size)
        true, positive = (np.bincount(each, minlength=size) for each in (targets, predicted))
    else:
        true, positive = (targets > 0).sum(axis=0), predicted.sum(axis=0)
        correct = ((targets > 0) & predicted).sum(axis=0)
    return [
        LabelPredictionCounts(label=label, texts=int(n), predicted=int(p), correct=int(c))
        for label, n, p, c in zip(task.labels, true, positive, correct, strict=True)
    ]


def _rare_labels(counts: list[LabelPredictionCounts]) -> tuple[LabelPredictionCounts, ...]:
    """Return the labels with few of these texts, the rarest first."""
    limit = _RARE * sum(each.texts for each in counts) / max(1, len(counts))
    rare = [each for each in counts if 0 < each.texts < limit]
    return tuple(sorted(rare, key=lambda each: each.texts))


# -- Sentences ------------------------------------------------------------------------------------


class _Gain(NamedTuple):
    """How much better a model is than a reference, with the interval: positive is better."""

    points: float  # of accuracy, macro F1 or skill, or in the unit of the numbers
    low: float
    high: float
    percent: bool

    @classmethod
    def of(cls, verdict: Verdict, comparison: ReferenceComparison) -> "_Gain":
        found = comparison.difference, comparison.low, comparison.high
        if verdict.metric == "rmse":
            difference, low, high = (0.0 - each for each in found)
            return cls(difference, high, low, percent=False)
        difference, low, high = (100 * each for each in found)
        return cls(difference, low, high, percent=True)

    def format_interval(self) -> str:
        if self.percent:
            return f"{self.low:+.1f} to {self.high:+.1f}"
        return f"{self.low:+.3g} to {self.high:+.3g}"

    def amount(self) -> str:
        return f"{abs(self.points):.1f} points" if self.percent else f"{abs(self.points):.3g}"


def _headline(verdict: Verdict) -> str:
    kind = "test texts" if verdict.measured_on == "test" else "texts, each held out once,"
    texts = f"{verdict.texts:,} {kind}"
    if verdict.learned_nothing:
        if verdict.metric == "accuracy":
            agree = f"its predictions for {texts} agree with the labels no more often than chance"
        else:
            agree = f"its predictions for {texts} fit them no better than they fit other texts"
        return f"This model has learned nothing: {agree}."
    interval = f"({_value(verdict, verdict.low)} to {_value(verdict, verdict.high)})"
    value = _value(verdict, verdict.value)
    result = {
        "accuracy": f"{value} of {texts} are classified correctly {interval}",
        "macro_f1": f"Macro F1 is {value} on {texts.rstrip(',')} {interval}",
        "skill": f"The mean skill of the targets is {value} on {texts.rstrip(',')} {interval}",
        "rmse": f"The root mean squared error is {value} on {texts.rstrip(',')} {interval}",
    }[verdict.metric]
    gain = _Gain.of(verdict, verdict.majority)
    if verdict.targets:
        learned = sum(_Gain.of(each, each.majority).low > 0 for each in verdict.targets.values())
        shown = (
            f"{learned} of {len(verdict.targets)} targets are shown to beat a constant prediction"
        )
        return f"{result}. {shown}."
    always = f"always predicting {verdict.majority_label}"
    if gain.low > 0:
        more = "less" if verdict.metric == "rmse" else "more"
        return f"{result}, {gain.amount()} {more} than by {always}."
    return (
        f"{result}, not shown to be better than {always} "
        f"({_value(verdict, verdict.majority.value)}; difference {gain.format_interval()})."
    )


def _sentences(verdict: Verdict) -> tuple[str, ...]:
    sentences = [] if verdict.testable else [_NOT_TESTABLE]
    sentences += [f"{name}: {each.headline}" for name, each in verdict.targets.items()]
    for name, reference in verdict.references.items():
        gain = _Gain.of(verdict, reference)
        if gain.low > 0:
            sentences.append(f"{gain.amount()} better than {name} ({gain.format_interval()}).")
        elif gain.high < 0:
            sentences.append(
                f"{gain.amount()} worse than {name} ({gain.format_interval()}), which costs less: "
                f"train with the method {name}."
            )
        else:
            sentences.append(
                f"Within noise of {name} on {reference.texts:,} texts ({gain.format_interval()})."
            )
    if verdict.never_predicted:
        sentences.append(f"Never predicted: {_list(verdict.never_predicted)}.")
    if rare := [each for each in verdict.rare_labels if each.predicted]:
        found = [
            f"{each.label} ({each.correct} of its {each.texts} texts found, {each.correct} of "
            f"{each.predicted} predictions right)"
            for each in rare
        ]
        sentences.append(f"Rare labels: {_list(found)}.")
    width = verdict.high - verdict.low
    if verdict.metric == "rmse":
        if width > WIDE_RMSE_INTERVAL * verdict.value:
            sentences.append(
                f"With so few texts the error is uncertain by ± {width / 2:.2g}: label more texts."
            )
    elif width > WIDE_INTERVAL:
        name = {"accuracy": "accuracy", "macro_f1": "macro F1"}.get(verdict.metric, "mean skill")
        sentences.append(
            f"With so few texts the {name} is uncertain by ± {50 * width:.0f} points: label more "
            "texts."
        )
    return tuple(sentences)


def _ordered_labels_sentence(task: SingleLabel, targets: Targets, predicted: Predictions) -> str:
    agreement = task.quadratic_kappa_and_mae(targets, predicted)
    return (
        f"The predicted rank is off by {agreement['mae']:.2f} on average; quadratic kappa is "
        f"{agreement['kappa']:.2f}."
    )


def _list(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _value(verdict: Verdict, value: float) -> str:
    return f"{value:.3g}" if verdict.metric == "rmse" else f"{value:.1%}"
