"""Estimate whether more labels would help, as a sentence and as numbers.

For the method see `lora_core.data.learning_curve`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from lora_core.data.label_readers import decode_label_names
from lora_core.results import MetricName, MetricValue
from lora_core.specs.encoded_labels import extract_target_label, infer_target_tasks
from lora_core.specs.fields import FrozenModel
from lora_core.specs.task import TaskType
from lora_core.tasks.metric_info import METRICS

MIN_TEXTS = 250  # with fewer labeled texts a learning curve is too noisy to extrapolate
MIN_TEXTS_PER_LABEL = 5  # with fewer, held-out texts have labels that were hardly trained on
# With four times as many labels; of the RMSE, as a share of the deviation of the numbers.
NEGLIGIBLE_GAIN = 0.01

# Mean error of a measured accuracy in points (docs/explanation/more-labels.md), by labeled texts:
# (measured on a tenth of them held out, measured by five times five folds).
ACCURACY_ERRORS = {16: (28, 10), 32: (22, 7), 64: (17, 5), 128: (9, 5)}

EstimateCode = Literal[
    "measured",
    "too_few",
    "no_labels",
    "one_label",
    "not_above_majority",
    "by_target",  # several targets, each with an estimate of its own
    "other_task",  # older results
]
Basis = Literal["linear", "probe"]


class MeasuredMetric(MetricValue):
    """The metric on held-out texts of models that were trained on part of the texts."""

    texts: int


class ExpectedMetric(MetricValue):
    """The expected metric for a number of texts: the median and an 80% interval."""

    texts: int
    low: float
    high: float


class ExpectedGain(FrozenModel):
    """Expected change of the metric for a number of texts; of a share, 0.01 is one point.

    An RMSE that falls changes by a negative number, and `low` is the larger improvement.
    """

    texts: int
    low: float
    high: float


class MoreLabelsEstimate(FrozenModel):
    """Whether more labels would help. `code` is stable and meant for programs."""

    code: EstimateCode
    message: str
    texts: int  # labeled texts
    metric: MetricName = "accuracy"
    basis: Basis | None = None  # the model of the curve; None: no curve
    used: int | None = None  # texts that the curve was measured on
    measured: tuple[MeasuredMetric, ...] = ()  # by number of texts
    expected: tuple[ExpectedMetric, ...] = ()  # for the available texts and for more
    gains: tuple[ExpectedGain, ...] = ()  # for twice and for four times as many texts
    targets: dict[str, "MoreLabelsEstimate"] = Field(
        default={}, exclude_if=lambda value: not value
    )  # of several targets, the estimate of each

    @classmethod
    def of_targets(cls, targets: Mapping[str, "MoreLabelsEstimate"]) -> "MoreLabelsEstimate":
        """Return the estimates of several targets as one."""
        return cls(
            code="by_target",
            texts=next(iter(targets.values())).texts,
            message=" ".join(f"{name}: {each.message}" for name, each in targets.items()),
            targets=dict(targets),
        )


def estimate_if_curve_impossible(
    labels: Sequence[str], task: TaskType
) -> MoreLabelsEstimate | None:
    """Return the answer if no curve can be measured, else None.

    `labels`: the label of each text, as in rows.
    """
    texts = len(labels)
    if not texts:
        return MoreLabelsEstimate(
            code="no_labels",
            texts=0,
            message="There are no labels yet, so there is nothing to learn from.",
        )
    if task == "several_targets":
        found = {
            name: estimate_if_curve_impossible(
                [extract_target_label(label, name) for label in labels], each
            )
            for name, each in infer_target_tasks(labels[0]).items()
        }
        known = {name: each for name, each in found.items() if each is not None}
        return MoreLabelsEstimate.of_targets(known) if len(known) == len(found) else None
    if len(set(labels)) == 1:
        return MoreLabelsEstimate(
            code="one_label",
            texts=texts,
            message="All texts have the same number, so there is nothing to predict."
            if task == "regression"
            else "All texts have the same label. A model needs at least two labels.",
        )
    frequent, usable = _usable_texts(labels, task)
    if usable >= MIN_TEXTS and frequent:
        return None
    if usable >= MIN_TEXTS:
        return MoreLabelsEstimate(
            code="too_few",
            texts=texts,
            message=f"Only one label has at least {MIN_TEXTS_PER_LABEL} texts. The effect of more "
            "labels can be estimated when two have.",
        )
    if texts < MIN_TEXTS:
        which = f"{texts} labeled texts are"
    else:
        which = (
            f"Of the {texts:,} labeled texts {usable:,} have a label that at least "
            f"{MIN_TEXTS_PER_LABEL} texts have, which is"
        )
    message = f"{which} too few to estimate the effect of more labels, which takes {MIN_TEXTS}."
    if task == "single_label":
        message += (
            " On six datasets each doubling from 16 to 256 texts gained a linear model 0 to 14 "
            "points of accuracy, with a median of 5."
        )
    return MoreLabelsEstimate(code="too_few", texts=texts, message=message)


def _usable_texts(labels: Sequence[str], task: TaskType) -> tuple[bool, int]:
    """Return whether enough labels are frequent, and the number of texts for a curve.

    Of several labels, texts with only rare ones count as those without a label do.
    """
    if task == "regression":
        return True, len(labels)
    counts = Counter(name for label in labels for name in decode_label_names(label, task))
    frequent = [count for count in counts.values() if count >= MIN_TEXTS_PER_LABEL]
    if task == "multi_label":
        return bool(frequent), len(labels) if frequent else 0
    return len(frequent) > 1, sum(frequent)


def describe_gains(
    gains: Sequence[ExpectedGain], metric: MetricName = "accuracy", scale: float = 1.0
) -> str:
    """Return the answer as a sentence, for gains with twice and four times as many texts.

    A gain below `NEGLIGIBLE_GAIN` of `scale` is hardly one.
    """
    twice, four_times = gains
    known = METRICS[metric]
    if known.is_share:
        expect, to = f"expect {_points(twice)} points of {known.label}", _points(four_times)
    else:
        expect = f"expect the {known.label} to change by {_range(twice)}"
        to = f"by {_range(four_times)}"
    largest = four_times.high if known.sign() > 0 else -four_times.low
    if largest < NEGLIGIBLE_GAIN * scale:
        return (
            f"More labels of this kind would hardly help: with twice as many ({twice.texts:,}) "
            f"{expect}, with four times as many ({four_times.texts:,}) {to}."
        )
    return (
        f"With twice as many labels ({twice.texts:,}) {expect}, "
        f"with four times as many ({four_times.texts:,}) {to}."
    )


def _points(gain: ExpectedGain) -> str:
    """Return a range such as `+0.5 to +2.0`."""
    return " to ".join(
        _signed(f"{round(100 * share, 1) + 0.0:+.1f}") for share in (gain.low, gain.high)
    )


def _range(gain: ExpectedGain) -> str:
    """Return a range in the unit of the metric, such as `-0.05 to -0.012`."""
    return " to ".join(_signed(f"{value:+.2g}") for value in (gain.low, gain.high))


def _signed(number: str) -> str:
    """Return a number with its sign as people write it; 0 has none."""
    return "0" if float(number) == 0 else number.replace("-", "\N{MINUS SIGN}", 1)


def describe_curve_model(estimate: MoreLabelsEstimate) -> str | None:
    """Return a sentence that names the model of the curve; None if there is no curve."""
    if estimate.basis is None or estimate.used is None:
        return None
    regression = "ridge regression" if estimate.metric == "rmse" else "logistic regression"
    model = {
        "linear": f"a linear model (TF-IDF + {regression})",
        "probe": f"a probe ({regression} on the frozen base model)",
    }[estimate.basis]
    scope = (
        f", measured on {estimate.used:,} of the texts" if estimate.used < estimate.texts else ""
    )
    return f"This is the curve of {model}{scope}; a fine-tuned model usually lies above it."
