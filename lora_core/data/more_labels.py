"""Would more labels help? The answer, in one sentence and in numbers.

How it is measured: `lora_core.data.learning_curve`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from lora_core.specs.frozen import Frozen

FEW = 250  # labeled texts below which a learning curve is too noisy to extrapolate
LEAST_OF_A_LABEL = 5  # texts: with fewer, held-out ones have a label that was hardly trained on
HARDLY = 0.01  # of accuracy: a gain of less by four times as many labels is hardly one

# Points by which accuracy is off on average (docs/explanation/more-labels.md), by labeled texts:
# measured on a tenth of them held out, and by five times five folds.
ERRORS = {16: (28, 10), 32: (22, 7), 64: (17, 5), 128: (9, 5)}

Code = Literal["measured", "too_few", "no_labels", "one_label", "not_above_majority"]
Basis = Literal["linear", "probe"]


class Measured(Frozen):
    """Accuracy of models that were trained on part of the texts, on texts held out from them."""

    texts: int
    accuracy: float


class Expected(Frozen):
    """What to expect of so many texts: the middle, and the range that holds in 80 % of cases."""

    texts: int
    accuracy: float
    low: float
    high: float


class Gain(Frozen):
    """By how much accuracy is expected to rise with so many texts; 0.01 is one point."""

    texts: int
    low: float
    high: float


class MoreLabels(Frozen):
    """Whether more labels would help. Programs go by `code`."""

    code: Code
    message: str
    texts: int  # that are labeled
    basis: Basis | None = None  # whose curve it is; None: there is none
    used: int | None = None  # texts that the curve was measured on
    measured: tuple[Measured, ...] = ()  # by number of texts
    expected: tuple[Expected, ...] = ()  # of the texts that are there, and of more
    gains: tuple[Gain, ...] = ()  # of twice and of four times as many texts


def without_curve(labels: Sequence[str]) -> MoreLabels | None:
    """The answer where no curve can be measured; None: one can. `labels`: that of each text."""
    counts = Counter(labels)
    texts = len(labels)
    if not texts:
        return MoreLabels(
            code="no_labels", texts=0, message="There are no labels yet, so nothing to learn from."
        )
    if len(counts) == 1:
        return MoreLabels(
            code="one_label",
            texts=texts,
            message="All texts have the same label. A model needs texts of at least two.",
        )
    usable = sum(count for count in counts.values() if count >= LEAST_OF_A_LABEL)
    if usable >= FEW and sum(count >= LEAST_OF_A_LABEL for count in counts.values()) > 1:
        return None
    if texts < FEW:
        which = f"{texts} labeled texts are"
    else:
        which = (
            f"Of the {texts:,} labeled texts {usable:,} have a label that at least "
            f"{LEAST_OF_A_LABEL} texts have, which is"
        )
    return MoreLabels(
        code="too_few",
        texts=texts,
        message=f"{which} too few to tell what more labels would bring: that takes {FEW}. On six "
        "data sets each doubling from 16 to 256 texts brought a linear model 0 to 14 points of "
        "accuracy, 5 in the middle.",
    )


def in_words(gains: Sequence[Gain]) -> str:
    """The answer as a sentence, for gains of twice and four times as many texts."""
    twice, four_times = gains
    if four_times.high < HARDLY:
        return (
            f"More labels of this kind would hardly help: with twice as many ({twice.texts:,}) "
            f"expect {_points(twice)} points of accuracy, with four times as many "
            f"({four_times.texts:,}) {_points(four_times)}."
        )
    return (
        f"With twice as many labels ({twice.texts:,}) expect {_points(twice)} points of accuracy, "
        f"with four times as many ({four_times.texts:,}) {_points(four_times)}."
    )


def _points(gain: Gain) -> str:
    """`+0.5 to +2.0`."""
    return f"{_signed(gain.low)} to {_signed(gain.high)}"


def _signed(share: float) -> str:
    points = round(100 * share, 1)
    return "0" if points == 0 else f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


def basis_in_words(found: MoreLabels) -> str | None:
    """Whose curve it is, as a sentence; None: there is none."""
    if found.basis is None or found.used is None:
        return None
    model = {
        "linear": "a linear model (TF-IDF + logistic regression)",
        "probe": "a probe (logistic regression on the frozen base)",
    }[found.basis]
    part = f", measured on {found.used:,} of the texts" if found.used < found.texts else ""
    return f"This is the curve of {model}{part}; a fine-tuned model usually lies above it."
