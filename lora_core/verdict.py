"""What a model is worth: against guessing, and against the methods that cost less. Needs no torch.

All of it is measured on texts that no model has learned from, text by text: on the test part, or
where there are few texts on all of them by cross-validation.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lora_core.confidence_intervals import paired, wilson
from lora_core.data.records import Example
from lora_core.specs.frozen import Float, Frozen, Int

FEW_TEXTS = 200  # below it, figures come from cross-validation
WIDE = 0.1  # an interval from which hardly anything follows
CHANCE = 0.05  # p value below which agreement with the labels is hardly chance

Answers = NDArray[np.int64]  # a label for each text


class Rival(NamedTuple):
    """Answers of another method to some of the texts."""

    texts: NDArray[np.int64]  # their numbers
    answers: Answers


class Beside(Frozen):
    """The model beside another one, on the same texts."""

    texts: Int
    accuracy: Float  # of the other one
    difference: Float  # accuracy of the model less that of the other one
    low: Float  # of its 95 % interval
    high: Float


class Verdict(Frozen):
    """Shares are from 0 to 1; intervals are of 95 %."""

    measured_on: Literal["test", "cross_validation"]
    texts: Int
    accuracy: Float
    low: Float
    high: Float
    majority_label: str  # the most frequent one among the training texts
    majority: Beside  # always answering that
    rivals: dict[str, Beside]  # "linear", "probe"
    learned: bool  # false: its answers agree with the labels no more often than chance would
    never_answered: tuple[str, ...]  # labels that have texts, and that it gave to none
    headline: str
    sentences: tuple[str, ...]


def majority(examples: Sequence[Example]) -> int:
    """The most frequent label, the first of those that are as frequent."""
    return int(np.bincount([example.label for example in examples]).argmax())


def judge(
    truth: Answers,
    answers: Answers,
    rivals: Mapping[str, Rival],
    *,
    labels: Sequence[str],
    majority: int,
    measured_on: Literal["test", "cross_validation"] = "test",
) -> Verdict:
    """The verdict on `answers`. `majority` is the most frequent label of the training texts."""
    right = answers == truth
    low, high = wilson(float(right.mean()), len(truth))
    every = np.arange(len(truth))
    found = Verdict(
        measured_on=measured_on,
        texts=len(truth),
        accuracy=float(right.mean()),
        low=low,
        high=high,
        majority_label=labels[majority],
        majority=_beside(truth, answers, Rival(every, np.full(len(truth), majority))),
        rivals={name: _beside(truth, answers, each) for name, each in rivals.items()},
        learned=_agrees(truth, answers, len(labels)),
        never_answered=tuple(labels[i] for i in np.setdiff1d(truth, answers)),
        headline="",
        sentences=(),
    )
    headline = _headline(found)
    sentences = _sentences(found)
    return found.model_copy(update={"headline": headline, "sentences": sentences})


def _beside(truth: Answers, answers: Answers, rival: Rival) -> Beside:
    ours = answers[rival.texts] == truth[rival.texts]
    theirs = rival.answers == truth[rival.texts]
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    low, high = paired(only_ours, only_theirs, len(ours))
    return Beside(
        texts=len(ours),
        accuracy=float(theirs.mean()),
        difference=(only_ours - only_theirs) / len(ours),
        low=low,
        high=high,
    )


def _agrees(truth: Answers, answers: Answers, classes: int) -> bool:
    """Whether answers agree with labels more often than answers that know nothing of the texts.

    Those would give each label as often, and be right in a share Σ p(label) p(answer) of the texts
    (as in Cohen's kappa): the chance of so many right answers is that of a binomial distribution.
    """
    from scipy.special import bdtrc  # loads slowly, and few who read verdicts make one

    shares = [np.bincount(each, minlength=classes) / len(truth) for each in (truth, answers)]
    by_chance = float(shares[0] @ shares[1])
    right = int((truth == answers).sum())
    return right > 0 and float(bdtrc(right - 1, len(truth), by_chance)) < CHANCE


def _headline(found: Verdict) -> str:
    of = f"{found.texts:,} {_whose(found)}"
    if not found.learned:
        return (
            f"This model has learned nothing: its answers to {of} agree with the labels no more "
            "often than chance would."
        )
    right = (
        f"{found.accuracy:.1%} of {of} are answered rightly ({found.low:.1%} to {found.high:.1%})"
    )
    gain = found.majority
    if gain.low > 0:
        always = f"always answering {found.majority_label}"
        return f"{right}, {_points(gain.difference)} more than by {always}."
    return (
        f"{right}, no better than always answering {found.majority_label} "
        f"({gain.accuracy:.1%}; difference {_range(gain)})."
    )


def _sentences(found: Verdict) -> tuple[str, ...]:
    told = []
    for name, rival in found.rivals.items():
        if rival.low > 0:
            told.append(f"{_points(rival.difference)} better than {name} ({_range(rival)}).")
        elif rival.high < 0:
            told.append(
                f"{_points(-rival.difference)} worse than {name} ({_range(rival)}), which costs "
                f"less: train with the method {name}."
            )
        else:
            told.append(
                f"As good as {name}, as far as {rival.texts:,} texts can tell ({_range(rival)})."
            )
    if found.never_answered:
        names = ", ".join(found.never_answered[:5])
        more = len(found.never_answered) - 5
        told.append(f"Never answered: {names}{f' and {more} more' if more > 0 else ''}.")
    if found.high - found.low > WIDE:
        told.append(
            f"So few texts say little: label more, so that the figure is surer than "
            f"± {50 * (found.high - found.low):.0f} points."
        )
    return tuple(told)


def _whose(found: Verdict) -> str:
    return "test texts" if found.measured_on == "test" else "texts, each held out once,"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _range(beside: Beside) -> str:
    return f"{100 * beside.low:+.1f} to {100 * beside.high:+.1f}"
