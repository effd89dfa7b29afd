"""Temperature scaling (Guo et al. 2017, arXiv 1706.04599): one number that makes confidence honest.

Trained models are surer of themselves than they are right. Dividing all logits by a temperature
T > 1 softens the probabilities, T < 1 sharpens them; the order of the labels stays. T is fitted on
validation and measured on test.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from lora_core.errors.training import NonFiniteLogits

COLDEST, HOTTEST = 0.05, 20.0
LEAST_TEXTS = 100  # to fit on: from ten, a model at 55 % was given a temperature of 0.23
BINS = 15  # of equal width, as in the paper

Logits = NDArray[np.float32]  # (texts, classes)
Labels = NDArray[np.int64]  # (texts,)
Probabilities = NDArray[np.float64]  # (texts, classes)


def fit(logits: Logits, labels: Labels) -> float:
    """The temperature from `COLDEST` to `HOTTEST` of the smallest mean negative log-likelihood.

    1 if no answer is wrong: then colder is always better, and no error tells how sure to be.
    Raises `NonFiniteLogits`.
    """
    z = _checked(logits)
    z -= z.max(axis=1, keepdims=True)
    true = z[np.arange(len(z)), labels]
    if not true.any():
        return 1.0

    def slope(inverse: float) -> float:
        """Derivative of the mean negative log-likelihood by 1 / T, in which it is convex."""
        expected = (softmax(inverse * z, axis=1) * z).sum(axis=1)
        return float((expected - true).mean())

    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    if slope(1 / COLDEST) <= 0:
        return COLDEST
    return float(1 / brentq(slope, 1 / HOTTEST, 1 / COLDEST))


def fitted(logits: Logits, labels: Labels) -> dict[str, Any]:
    """The `temperature` by these texts: 1, and `fitted` false, with fewer than `LEAST_TEXTS`."""
    enough = len(labels) >= LEAST_TEXTS
    return {"temperature": fit(logits, labels) if enough else 1.0, "fitted": enough}


def compare(logits: Logits, labels: Labels, temperature: float) -> dict[str, Any]:
    """`loss`, `ece` and `brier` of one part, `before` the temperature and `after` it.

    Raises `NonFiniteLogits`.
    """
    z = _checked(logits)
    return {
        "texts": len(z),
        "before": _figures(z, labels),
        "after": _figures(z / temperature, labels),
    }


def calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Expected calibration error: how far confidence is from accuracy, on average over the texts.

    Texts are put into `BINS` by their highest probability; within one, accuracy and mean
    confidence are compared.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, BINS + 1), right=True)
    return float(np.abs(np.bincount(bins, right - confidence)).sum() / len(labels))


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Mean squared distance from the truth, over all classes: 0 to 2."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def _figures(z: NDArray[np.float64], labels: Labels) -> dict[str, float]:
    log_probabilities = log_softmax(z, axis=1)
    probabilities = np.exp(log_probabilities)
    return {
        "loss": float(-log_probabilities[np.arange(len(z)), labels].mean()),
        "ece": calibration_error(probabilities, labels),
        "brier": brier_score(probabilities, labels),
    }


def _checked(logits: Logits) -> NDArray[np.float64]:
    """A copy in float64."""
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise NonFiniteLogits(texts=int((~finite).sum()), of=len(logits))
    return logits.astype(np.float64)
