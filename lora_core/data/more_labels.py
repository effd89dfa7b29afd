"""Estimate whether more labels would help, as a sentence and as numbers.

For the method see `lora_core.data.learning_curve`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from lora_core.specs.fields import FrozenModel

MIN_TEXTS = 250  # with fewer labeled texts a learning curve is too noisy to extrapolate
MIN_TEXTS_PER_LABEL = 5  # with fewer, held-out texts have labels that were hardly trained on
NEGLIGIBLE_GAIN = 0.01  # of accuracy, with four times as many labels

# Mean error of a measured accuracy in points (docs/explanation/more-labels.md), by labeled texts:
# (measured on a tenth of them held out, measured by five times five folds).
ACCURACY_ERRORS = {16: (28, 10), 32: (22, 7), 64: (17, 5), 128: (9, 5)}

EstimateCode = Literal[
    "measured", "too_few", "no_labels", "one_label", "not_above_majority", "other_task"
]
Basis = Literal["linear", "probe"]


class MeasuredAccuracy(FrozenModel):
    """Held-out accuracy of models that were trained on part of the texts."""

    texts: int
    accuracy: float


class ExpectedAccuracy(FrozenModel):
    """Expected accuracy for a number of texts: the median and an 80 % interval."""

    texts: int
    accuracy: float
    low: float
    high: float


class ExpectedGain(FrozenModel):
    """Expected gain in accuracy for a number of texts; 0.01 is one point."""

    texts: int
    low: float
    high: float


class MoreLabelsEstimate(FrozenModel):
    """Whether more labels would help. `code` is stable and meant for programs."""

    code: EstimateCode
    message: str
    texts: int  # labeled texts
    basis: Basis | None = None  # the model of the curve; None: no curve
    used: int | None = None  # texts that the curve was measured on
    measured: tuple[MeasuredAccuracy, ...] = ()  # by number of texts
    expected: tuple[ExpectedAccuracy, ...] = ()  # for the available texts and for more
    gains: tuple[ExpectedGain, ...] = ()  # for twice and for four times as many texts


def estimate_without_curve(labels: Sequence[str]) -> MoreLabelsEstimate | None:
    """Return the answer if no curve can be measured, else None.

    `labels`: the label of each text.
    """
    counts = Counter(labels)
    texts = len(labels)
    if not texts:
        return MoreLabelsEstimate(
            code="no_labels",
            texts=0,
            message="There are no labels yet, so there is nothing to learn from.",
        )
    if len(counts) == 1:
        return MoreLabelsEstimate(
            code="one_label",
            texts=texts,
            message="All texts have the same label. A model needs at least two labels.",
        )
    usable = sum(count for count in counts.values() if count >= MIN_TEXTS_PER_LABEL)
    if usable >= MIN_TEXTS and sum(count >= MIN_TEXTS_PER_LABEL for count in counts.values()) > 1:
        return None
    if texts < MIN_TEXTS:
        which = f"{texts} labeled texts are"
    else:
        which = (
            f"Of the {texts:,} labeled texts {usable:,} have a label that at least "
            f"{MIN_TEXTS_PER_LABEL} texts have, which is"
        )
    return MoreLabelsEstimate(
        code="too_few",
        texts=texts,
        message=f"{which} too few to estimate the effect of more labels, which takes {MIN_TEXTS}. "
        "On six datasets each doubling from 16 to 256 texts gained a linear model 0 to 14 points "
        "of accuracy, with a median of 5.",
    )


def estimate_for_other_task(texts: int) -> MoreLabelsEstimate:
    """Return the answer for a task that is not single-label."""
    return MoreLabelsEstimate(
        code="other_task",
        texts=texts,
        message="The effect of more labels is estimated for tasks with a single label only: train "
        "on half of the texts (data.train_size) and compare.",
    )


def describe_gains(gains: Sequence[ExpectedGain]) -> str:
    """Return the answer as a sentence, for gains with twice and four times as many texts."""
    twice, four_times = gains
    if four_times.high < NEGLIGIBLE_GAIN:
        return (
            f"More labels of this kind would hardly help: with twice as many ({twice.texts:,}) "
            f"expect {_points(twice)} points of accuracy, with four times as many "
            f"({four_times.texts:,}) {_points(four_times)}."
        )
    return (
        f"With twice as many labels ({twice.texts:,}) expect {_points(twice)} points of accuracy, "
        f"with four times as many ({four_times.texts:,}) {_points(four_times)}."
    )


def _points(gain: ExpectedGain) -> str:
    """Return a range such as `+0.5 to +2.0`."""
    return f"{_signed(gain.low)} to {_signed(gain.high)}"


def _signed(share: float) -> str:
    points = round(100 * share, 1)
    return "0" if points == 0 else f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


def describe_basis(estimate: MoreLabelsEstimate) -> str | None:
    """Return a sentence that names the model of the curve; None if there is no curve."""
    if estimate.basis is None or estimate.used is None:
        return None
    model = {
        "linear": "a linear model (TF-IDF + logistic regression)",
        "probe": "a probe (logistic regression on the frozen base model)",
    }[estimate.basis]
    scope = (
        f", measured on {estimate.used:,} of the texts" if estimate.used < estimate.texts else ""
    )
    return f"This is the curve of {model}{scope}; a fine-tuned model usually lies above it."
