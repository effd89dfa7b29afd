"""Suggested labels: a regression on the vectors of the texts that are labeled so far."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from lora_core.active_learning.selection import Rows, Vectors
from lora_core.specs.task import TaskTypeOfTarget

Floats = NDArray[np.float64]
Label = str | frozenset[str] | float  # of a single-label, multi-label or regression task

MIN_TEXTS_PER_LABEL = 5
MIN_NUMBERS = 10  # texts with a number, for a regression
INVERSE_REGULARIZATION = 10.0  # C, for vectors of mean norm 1
RIDGE_ALPHA = 0.25
MAX_ITERATIONS, TOLERANCE = 1000, 1e-4
BLOCK_TEXTS = 4096  # whose uncertainty is computed at once: those of a pool take gigabytes
# Of the probability of each of several labels. The F1 of calibrated probabilities is the highest at
# half the F1 that can be reached (Lipton, Elkan and Naryanaswamy 2014, arXiv 1402.1892).
THRESHOLD = 0.3


@dataclass(frozen=True)
class SuggestionModel:
    """Logistic regression (one-vs-rest for several labels, ridge regression for numbers).

    Only labels that a labeled text has are known. Ordered labels are fitted as unordered ones.
    """

    task: TaskTypeOfTarget
    labels: tuple[str, ...]  # sorted; () of a regression
    scale: float  # vectors are divided by it: their mean norm
    weight: Floats  # (outputs, width)
    bias: Floats  # (outputs,)
    precision: Floats | None = None  # (width, width) of a regression: inverse of its covariance
    center: Floats | None = None  # (width,) of a regression

    @classmethod
    def fit(cls, vectors: Vectors, labels: Sequence[Label], task: TaskTypeOfTarget) -> Self | None:
        """Return the model of labeled texts, or None while there are too few of them.

        A single-label task needs two labels with five texts each, several labels need one that
        five texts have and five do not, numbers need ten texts and two different numbers.

        Args:
            vectors: (texts, width) of the labeled texts.
            labels: of each a name, a set of names (which may be empty), or a number.
        """
        scale = float(np.linalg.norm(vectors, axis=1).mean()) if len(vectors) else 0.0
        x = np.asarray(vectors, dtype=np.float64) / (scale or 1.0)
        with threadpool_limits(1, user_api="blas"):  # several threads only wait for each other
            match task:
                case "single_label":
                    fitted = _fit_single_label(x, [str(each) for each in labels])
                case "multi_label":
                    fitted = _fit_multi_label(x, [require_label_set(each) for each in labels])
                case "regression":
                    numbers = np.array([require_number(each) for each in labels], dtype=np.float64)
                    return cls._fit_numbers(x, numbers, scale or 1.0)
        if fitted is None:
            return None
        names, weight, bias = fitted
        return cls(task, names, scale or 1.0, weight, bias)

    @classmethod
    def _fit_numbers(cls, x: Floats, numbers: Floats, scale: float) -> Self | None:
        if len(numbers) < MIN_NUMBERS or len(set(numbers.tolist())) < 2:
            return None
        center = x.mean(axis=0)
        centered = x - center
        precision = centered.T @ centered + RIDGE_ALPHA * np.eye(x.shape[1])
        weight = np.linalg.solve(precision, centered.T @ (numbers - numbers.mean()))
        bias = numbers.mean() - center @ weight
        return cls("regression", (), scale, weight[None], np.array([bias]), precision, center)

    def scores(self, vectors: Vectors) -> Floats:
        """Return the probability of each of `labels` (texts, labels), or the number (texts, 1)."""
        x = np.asarray(vectors, dtype=np.float32)
        logits = (x @ (self.weight / self.scale).astype(np.float32).T).astype(np.float64)
        logits += self.bias
        match self.task:
            case "single_label":
                return np.asarray(softmax(logits, axis=1))
            case "multi_label":
                return np.asarray(expit(logits))
            case "regression":
                return logits

    def predict(self, vectors: Vectors) -> list[Label]:
        """Return the label, the set of labels, or the number of each text."""
        scores = self.scores(vectors)
        match self.task:
            case "single_label":
                return [self.labels[i] for i in scores.argmax(axis=1)]
            case "multi_label":
                return [
                    frozenset(self.labels[i] for i in np.flatnonzero(row >= THRESHOLD))
                    for row in scores
                ]
            case "regression":
                return [float(each) for each in scores[:, 0]]

    def uncertainty(self, vectors: Vectors) -> Floats:
        """Return how uncertain the prediction of each text (texts,) is, from 0 to 1.

        One label: 1 - the difference of the two highest probabilities. Several labels: the mean
        entropy of their probabilities, in bits. Numbers: the variance that comes from having few
        texts like this one, as a share of that without any text.
        """
        lower = None
        if self.precision is not None:
            lower = np.linalg.cholesky(np.linalg.inv(self.precision))
        starts = range(0, max(len(vectors), 1), BLOCK_TEXTS)
        blocks = (vectors[start : start + BLOCK_TEXTS] for start in starts)
        return np.concatenate([self._block_uncertainty(block, lower) for block in blocks])

    def _block_uncertainty(self, vectors: Vectors, lower: Floats | None) -> Floats:
        if lower is not None:
            return self._relative_variance(vectors, lower)
        scores = self.scores(vectors)
        if self.task == "single_label":
            second, first = np.partition(scores, -2, axis=1)[:, -2:].T
            return np.asarray(1 - (first - second))
        p = np.clip(scores, 1e-12, 1 - 1e-12)
        return np.asarray(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean(axis=1))

    def _relative_variance(self, vectors: Vectors, lower: Floats) -> Floats:
        assert self.center is not None  # noqa: S101
        x = np.asarray(vectors, dtype=np.float64) / self.scale - self.center
        # alpha x^T (X^T X + alpha)^-1 x / x^T x
        variance = RIDGE_ALPHA * ((x @ lower) ** 2).sum(axis=1)
        return np.asarray(variance / np.maximum((x**2).sum(axis=1), 1e-12))


def score_uncertainty_excluding_random_labels(
    vectors: Vectors,
    labeled: Rows,
    labels: Sequence[Label],
    random_rows: Iterable[int],
    task: TaskTypeOfTarget,
) -> Floats | None:
    """Return the uncertainty of all texts (texts,) by which the next ones are chosen.

    It is that of a model which has not seen the texts that were chosen at random. A model that has
    is certain around them, so others would be chosen elsewhere; held out, a random text would then
    be harder than an unlabeled one, and accuracy measured on it too low. None: too few other texts.

    Args:
        vectors: (texts, width) of the whole pool.
        labeled: rows of the labeled texts.
        labels: theirs.
        random_rows: which of them were chosen at random: positions in `labels`.
        task: what a label is.
    """
    others = np.setdiff1d(np.arange(len(labels)), np.fromiter(random_rows, dtype=np.int64))
    model = SuggestionModel.fit(vectors[labeled[others]], [labels[i] for i in others], task)
    return None if model is None else model.uncertainty(vectors)


def find_k_nearest_labeled_rows(
    vectors: Vectors, row: int, labeled: Sequence[int], k: int = 3
) -> list[int]:
    """Return the labeled rows whose vectors are most similar to that of `row`, nearest first.

    By the cosine of the angle between them; `row` itself is left out.
    """
    rows: Rows = np.array([each for each in labeled if each != row], dtype=np.int64)
    if not len(rows):
        return []
    x = np.asarray(vectors[rows], dtype=np.float32)
    cosine = x @ vectors[row] / np.maximum(np.linalg.norm(x, axis=1), 1e-12)
    found: list[int] = rows[np.argsort(-cosine, kind="stable")[:k]].tolist()
    return found


def require_label_set(label: Label) -> frozenset[str]:
    """Return the label of a multi-label task. Raises `TypeError`."""
    if isinstance(label, str | float):
        raise TypeError(f"a label of a multi-label task is a set of names, not {label!r}")
    return label


def require_number(label: Label) -> float:
    """Return the label of a regression. Raises `TypeError`."""
    if isinstance(label, str | frozenset):
        raise TypeError(f"a label of a regression is a number, not {label!r}")
    return float(label)


_Fitted = tuple[tuple[str, ...], Floats, Floats]  # labels, weight (labels, width), bias (labels,)


def _fit_single_label(x: Floats, labels: list[str]) -> _Fitted | None:
    names, targets, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if (counts >= MIN_TEXTS_PER_LABEL).sum() < 2:
        return None
    model = _logistic_regression().fit(x, targets)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two labels
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return tuple(names.tolist()), weight, bias


def _fit_multi_label(x: Floats, labels: list[frozenset[str]]) -> _Fitted | None:
    names = sorted(frozenset[str]().union(*labels))
    has_label = np.array([[name in each for name in names] for each in labels], dtype=bool)
    counts = has_label.sum(axis=0) if len(names) else np.zeros(0)
    if not ((counts >= MIN_TEXTS_PER_LABEL) & (counts <= len(x) - MIN_TEXTS_PER_LABEL)).any():
        return None
    weight, bias = np.zeros((len(names), x.shape[1])), np.empty(len(names))
    for i, column in enumerate(has_label.T):
        if column.all():
            bias[i] = np.log(len(x) + 1.0)  # odds of (n + 1) : 1
        else:
            model = _logistic_regression().fit(x, column)
            weight[i], bias[i] = model.coef_[0], model.intercept_[0]
    return tuple(names), weight, bias


def _logistic_regression() -> Any:
    return LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
