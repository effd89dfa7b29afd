"""The verdict on a model: compared with the majority class and with methods that cost less.

Everything is measured on texts that the model was not trained on, text by text: on the test split
or, with few texts, on all of them by cross-validation. Needs no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_core.confidence_intervals import paired_difference_interval, wilson_interval
from lora_core.data.split import Example, label_indices
from lora_core.results import ReferenceComparison, Verdict

CROSS_VALIDATION_MAX_TEXTS = 200  # with fewer texts, the metrics come from cross-validation
WIDE_INTERVAL = 0.1  # width of a confidence interval that is too wide to conclude much
SIGNIFICANCE_LEVEL = 0.05  # p value below which agreement with the labels is not chance

Labels = NDArray[np.int64]  # one per text


class ReferencePredictions(NamedTuple):
    """Predictions of another method for some of the texts."""

    texts: NDArray[np.int64]  # indices
    answers: Labels


def most_frequent_label(examples: Sequence[Example]) -> int:
    """Return the most frequent label, the first of several."""
    return int(np.bincount(label_indices(examples)).argmax())


def build_verdict(
    true_labels: Labels,
    predicted: Labels,
    references: Mapping[str, ReferencePredictions],
    *,
    labels: Sequence[str],
    majority: int,
    measured_on: Literal["test", "cross_validation"] = "test",
) -> Verdict:
    """Return the verdict on the predictions of a model.

    `majority` is the most frequent label of the training texts.
    """
    correct = predicted == true_labels
    low, high = wilson_interval(float(correct.mean()), len(true_labels))
    always_majority = ReferencePredictions(
        np.arange(len(true_labels)), np.full(len(true_labels), majority)
    )
    verdict = Verdict(
        measured_on=measured_on,
        texts=len(true_labels),
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        majority_label=labels[majority],
        majority=_compare(true_labels, predicted, always_majority),
        references={
            name: _compare(true_labels, predicted, each) for name, each in references.items()
        },
        learned=_beats_chance(true_labels, predicted, len(labels)),
        never_predicted=tuple(labels[i] for i in np.setdiff1d(true_labels, predicted)),
        headline="",
        sentences=(),
    )
    return verdict.model_copy(
        update={"headline": _headline(verdict), "sentences": _sentences(verdict)}
    )


def _compare(
    true_labels: Labels, predicted: Labels, reference: ReferencePredictions
) -> ReferenceComparison:
    truth = true_labels[reference.texts]
    ours, theirs = predicted[reference.texts] == truth, reference.answers == truth
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    low, high = paired_difference_interval(only_ours, only_theirs, len(ours))
    return ReferenceComparison(
        texts=len(ours),
        accuracy=float(theirs.mean()),
        difference=(only_ours - only_theirs) / len(ours),
        low=low,
        high=high,
    )


def _beats_chance(true_labels: Labels, predicted: Labels, classes: int) -> bool:
    """Return whether predictions agree with labels more often than independent ones would.

    Independent predictions with the same label frequencies are correct in a share
    Σ p(true label) p(predicted label) of the texts (as in Cohen's kappa). The number of correct
    ones then has a binomial distribution.
    """
    from scipy.special import bdtrc  # slow to import, and not needed to read a verdict

    frequencies = [
        np.bincount(each, minlength=classes) / len(true_labels) for each in (true_labels, predicted)
    ]
    by_chance = float(frequencies[0] @ frequencies[1])
    correct = int((true_labels == predicted).sum())
    return (
        correct > 0 and float(bdtrc(correct - 1, len(true_labels), by_chance)) < SIGNIFICANCE_LEVEL
    )


def _headline(verdict: Verdict) -> str:
    kind = "test texts" if verdict.measured_on == "test" else "texts, each held out once,"
    texts = f"{verdict.texts:,} {kind}"
    if not verdict.learned:
        return (
            f"This model has learned nothing: its predictions for {texts} agree with the labels no "
            "more often than chance."
        )
    accuracy = (
        f"{verdict.accuracy:.1%} of {texts} are classified correctly "
        f"({verdict.low:.1%} to {verdict.high:.1%})"
    )
    gain = verdict.majority
    always = f"always predicting {verdict.majority_label}"
    if gain.low > 0:
        return f"{accuracy}, {_points(gain.difference)} more than by {always}."
    return (
        f"{accuracy}, no better than {always} ({gain.accuracy:.1%}; difference {_interval(gain)})."
    )


def _sentences(verdict: Verdict) -> tuple[str, ...]:
    sentences = []
    for name, reference in verdict.references.items():
        if reference.low > 0:
            sentences.append(
                f"{_points(reference.difference)} better than {name} ({_interval(reference)})."
            )
        elif reference.high < 0:
            sentences.append(
                f"{_points(-reference.difference)} worse than {name} ({_interval(reference)}), "
                f"which costs less: train with the method {name}."
            )
        else:
            sentences.append(
                f"Within noise of {name} on {reference.texts:,} texts ({_interval(reference)})."
            )
    if verdict.never_predicted:
        names = ", ".join(verdict.never_predicted[:5])
        more = len(verdict.never_predicted) - 5
        sentences.append(f"Never predicted: {names}{f' and {more} more' if more > 0 else ''}.")
    if verdict.high - verdict.low > WIDE_INTERVAL:
        sentences.append(
            f"With so few texts the accuracy is uncertain by ± "
            f"{50 * (verdict.high - verdict.low):.0f} points: label more texts."
        )
    return tuple(sentences)


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _interval(comparison: ReferenceComparison) -> str:
    return f"{100 * comparison.low:+.1f} to {100 * comparison.high:+.1f}"
