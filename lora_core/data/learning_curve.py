"""Accuracy by the number of labeled texts, measured on shares of them and extrapolated to more.

Each of several folds is held out in turn; models are trained on nested, stratified shares of the
rest and scored on the fold. All curves

    error(n) = a + b n^-c      c > 0    a power law, which levels off
    error(n) = a - b log n     c = 0
    error(n) = a - b n^-c      c < 0    not level yet: few texts of many labels begin like this

are averaged by how well they fit, so that a curve that is measured loosely gives a wide range. How
often the truth lies in the range: docs/decisions/0042.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from lora_core.atomic_files import new_entry
from lora_core.cache import cache_dir
from lora_core.data.contents import Contents
from lora_core.data.duplicates import grouped
from lora_core.data.findings import Diagnosis
from lora_core.data.more_labels import (
    LEAST_OF_A_LABEL,
    Basis,
    Expected,
    Gain,
    Measured,
    MoreLabels,
    in_words,
    without_curve,
)
from lora_core.data.rows import Row
from lora_core.linear.limits import rows_of
from lora_core.specs.data import Split

VERSION = 1  # raise it when the same texts would give another curve
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the texts that are not held out
FOLDS = 5
MOST_RUNS = 20  # folds that are held out, over all repetitions
WORK = 40_000  # texts x rows of weights, over all runs
MAX_TEXTS = 4_000
MAX_CHARACTERS = 3_000_000  # of the texts of a linear model
# C of each model. With a small one accuracy stays at that of the most frequent label, then leaps:
# such a curve cannot be extrapolated.
STRENGTHS: Mapping[Basis, float] = {"linear": 30.0, "probe": 10.0}
MAX_ITER, TOLERANCE = 1000, 1e-3

EXPONENTS = np.arange(-3, 11) / 10  # c: all of them equally likely beforehand
PER_LABEL = 2  # texts: smaller shares are not extrapolated from, but for the last `LEAST_SHARES`
LEAST_SHARES = 3
# How far accuracies lie from a smooth curve, as a standard deviation: a share of the error of a
# figure from as many texts, and a constant. Chosen on data sets of which no results are reported.
LUCK, UNEVENNESS = 0.35, 0.005
SAMPLES = 400  # of each exponent
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9  # quantiles
TIMES = (1, 2, 4)  # as many texts as there are
DIGITS = 4

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
# Trains on some texts and labels others: (train, held out) to the labels of those held out.
Learner = Callable[[Indices, Indices], Indices]


@dataclass(frozen=True)
class Scores:
    """How the texts were answered that were held out."""

    sizes: Indices  # (shares,) texts that a model was trained on
    right: Floats  # (shares, texts) how often each was answered rightly, 0 to 1
    labels: int  # different ones
    most_frequent: NDArray[np.bool_]  # (texts,) whether it has the most frequent label

    @property
    def above_majority(self) -> bool:
        """Whether the largest share beats the most frequent label by more than chance."""
        lead = self.right[-1] - self.most_frequent
        return bool(lead.mean() > lead.std() / len(lead) ** 0.5)


def of_rows(rows: Iterable[Row]) -> MoreLabels:
    """Of labeled texts, by the linear model."""
    distinct = grouped(rows)[0]
    answer = without_curve([row.label for row in distinct])
    if answer is not None:
        return answer
    used = pool(distinct, MAX_TEXTS, characters=MAX_CHARACTERS)
    truth = labels_of(used)
    return estimate(linear(used, truth), truth, texts=len(distinct), basis="linear")


def complete(diagnosis: Diagnosis, contents: Contents) -> Diagnosis:
    """The same with the curve of the training part."""
    return diagnosis.model_copy(update={"more_labels": of_rows(contents.parts[Split.TRAIN])})


def cached(facts: Mapping[str, object], compute: Callable[[], MoreLabels]) -> MoreLabels:
    """From the cache if the curve of these facts has been measured. Raises `DiskFull`."""
    settings = repr([VERSION, sklearn.__version__, *sorted(facts.items())])
    name = hashlib.sha256(settings.encode()).hexdigest()
    path = cache_dir() / "learning-curves" / f"{name}.json"
    try:
        return MoreLabels.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        found = compute()
    with new_entry(path) as unfinished:
        unfinished.write_text(found.model_dump_json(), encoding="utf-8")
    return found


def pool(distinct: Sequence[Row], most: int, *, characters: int | None = None) -> list[Row]:
    """The texts to measure on, in their order: at most so many, in balance, no rare labels."""
    counts = Counter(row.label for row in distinct)
    rows = [row for row in distinct if counts[row.label] >= LEAST_OF_A_LABEL]
    if characters is not None:
        total = sum(len(row.text) for row in rows)
        most = min(most, len(rows) * characters // max(1, total))
    if len(rows) <= most:
        return rows
    order = _balanced_order(labels_of(rows), np.random.default_rng(0))
    return [rows[i] for i in sorted(order[:most])]


def labels_of(rows: Sequence[Row]) -> Indices:
    """The label of each text as a number."""
    numbers: Indices = np.unique([row.label for row in rows], return_inverse=True)[1]
    return numbers


def linear(rows: Sequence[Row], truth: Indices) -> Learner:
    """TF-IDF of words, all of them, and logistic regression."""
    try:
        counts = CountVectorizer().fit_transform([row.text for row in rows]).tocsr()
    except ValueError:  # there is no word
        return lambda train, held_out: _most_frequent(truth[train], len(held_out))

    def learn(train: Indices, held_out: Indices) -> Indices:
        seen = counts[train]
        terms = np.unique(seen.indices)
        weighting = TfidfTransformer(sublinear_tf=True)
        x = weighting.fit_transform(seen[:, terms])
        others = weighting.transform(counts[held_out][:, terms])
        return _regression(x, truth[train], STRENGTHS["linear"], others)

    return learn


def probe(vectors: NDArray[np.float32], truth: Indices) -> Learner:
    """Logistic regression on vectors (texts, width), of a mean norm of 1."""

    def learn(train: Indices, held_out: Indices) -> Indices:
        return _regression(vectors[train], truth[train], STRENGTHS["probe"], vectors[held_out])

    return learn


def _regression(x: Any, labels: Indices, strength: float, others: Any) -> Indices:
    """Labels of `others` by a regression that is fitted on `x`, matrices or arrays."""
    if len(np.unique(labels)) == 1 or x.shape[1] == 0:
        return _most_frequent(labels, others.shape[0])
    model = LogisticRegression(C=strength, max_iter=MAX_ITER, tol=TOLERANCE)
    with warnings.catch_warnings():
        # One that is stopped still answers; the other is about few texts of many labels.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        model.fit(x, labels)
    answers: Indices = model.predict(others)
    return answers


def _most_frequent(labels: Indices, count: int) -> Indices:
    return np.full(count, np.bincount(labels).argmax())


def estimate(learner: Learner, truth: Indices, *, texts: int, basis: Basis) -> MoreLabels:
    """Measure the curve of texts with these labels, and extrapolate it to `texts` and more."""
    with threadpool_limits(1, user_api="blas"):  # several threads get in each other's way
        scores = measure(learner, truth)
    accuracies = scores.right.mean(axis=1)
    found = MoreLabels(
        code="not_above_majority",
        message="So far the model that this is measured with does no better than always giving "
        f"the most frequent label ({scores.most_frequent.mean():.1%}), so it cannot tell what "
        "more labels would bring.",
        texts=texts,
        basis=basis,
        used=len(truth),
        measured=tuple(
            Measured(texts=int(size), accuracy=round(float(accuracy), DIGITS))
            for size, accuracy in zip(scores.sizes, accuracies, strict=True)
        ),
    )
    if not scores.above_majority:
        return found
    counts = [times * texts for times in TIMES]
    errors, weights = _extrapolate(scores, np.array(counts, dtype=float))
    gains = [
        Gain(texts=count, low=low, high=high)
        for count, after in zip(counts[1:], errors.T[1:], strict=True)
        for low, _, high in [_quantiles(errors[:, 0] - after, weights)]
    ]
    expected = [
        Expected(texts=count, accuracy=middle, low=low, high=high)
        for count, error in zip(counts, errors.T, strict=True)
        for low, middle, high in [_quantiles(1 - error, weights)]
    ]
    return found.model_copy(
        update={
            "code": "measured",
            "message": in_words(gains),
            "expected": tuple(expected),
            "gains": tuple(gains),
        }
    )


def measure(learner: Learner, truth: Indices) -> Scores:
    """Train on nested shares of all folds but one, and answer that one; several times."""
    rng = np.random.default_rng(0)
    count = len(truth)
    runs = WORK // (count * rows_of(len(np.unique(truth))))
    least = count - -(-count // FOLDS)  # texts that are left of the largest fold
    sizes = np.array([max(2, round(share * least)) for share in SHARES])
    right, asked = np.zeros((len(sizes), count)), np.zeros(count)
    fold = np.empty(count, dtype=np.int64)
    for run in range(min(MOST_RUNS, max(1, runs))):
        if run % FOLDS == 0:
            fold[_balanced_order(truth, rng)] = np.arange(count) % FOLDS
        held_out, others = np.flatnonzero(fold == run % FOLDS), np.flatnonzero(fold != run % FOLDS)
        train = others[_balanced_order(truth[others], rng)]
        asked[held_out] += 1
        for share, size in enumerate(sizes):
            right[share, held_out] += learner(train[:size], held_out) == truth[held_out]
    answered = asked > 0
    return Scores(
        sizes,
        right[:, answered] / asked[answered],
        len(np.unique(truth)),
        (truth == np.bincount(truth).argmax())[answered],
    )


def _balanced_order(labels: Indices, rng: np.random.Generator) -> Indices:
    """A random order of which each beginning has the labels in the same proportions."""
    places = np.empty(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        places[own] = (np.arange(len(own)) + rng.random(len(own))) / len(own)
    return np.argsort(places)


def _extrapolate(scores: Scores, texts: Floats) -> tuple[Floats, Floats]:
    """Possible errors (samples, len(texts)) with so many texts, and the weight of each sample.

    For each exponent the other two parameters are normally distributed, by weighted least squares.
    A rising error counts as a level one; one below 0 is impossible.
    """
    rng = np.random.default_rng(0)
    wide = scores.sizes >= PER_LABEL * scores.labels
    wide[-LEAST_SHARES:] = True
    sizes, missed = scores.sizes[wide].astype(float), 1 - scores.right[wide]
    errors = missed.mean(axis=1)
    uneven = (LUCK * _deviation(errors, sizes)) ** 2 + UNEVENNESS**2
    precision = np.linalg.inv(np.cov(missed) / missed.shape[1] + np.diag(uneven))
    last = sizes[-1]
    samples, logs = [], []
    for exponent in EXPONENTS:
        x = _terms(sizes / last, exponent)
        covariance = np.linalg.inv(x.T @ precision @ x)
        center = covariance @ x.T @ precision @ errors
        residual = errors - x @ center
        fit = (np.linalg.slogdet(covariance)[1] - residual @ precision @ residual) / 2
        drawn = rng.multivariate_normal(center, covariance, size=SAMPLES)
        drawn[:, 1] = np.maximum(drawn[:, 1], 0)
        samples.append(drawn @ _terms(texts / last, exponent).T)
        logs.append(np.full(SAMPLES, fit))
    future, log = np.concatenate(samples), np.concatenate(logs)
    weights = np.exp(log - log.max())
    possible = future.min(axis=1) >= 0
    if possible.any():
        weights *= possible
    luck = LUCK * _deviation(future, texts) * rng.standard_normal(future.shape)
    return np.clip(future + luck, 0, 1), weights


def _terms(n: Floats, exponent: float) -> Floats:
    """(sizes, 2) what an intercept and a slope are multiplied with; n = 1 is the intercept."""
    falling = -np.log(n) if exponent == 0 else (n**-exponent - 1) / exponent
    return np.stack([np.ones_like(n), falling], axis=1)


def _deviation(errors: Floats, texts: Floats) -> Floats:
    """Standard deviation of an error that is measured on so many texts."""
    share = np.clip(errors, 0.02, 0.98)
    deviation: Floats = np.sqrt(share * (1 - share) / texts)
    return deviation


def _quantiles(values: Floats, weights: Floats) -> tuple[float, float, float]:
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    places = np.searchsorted(passed, np.array([LOW, MIDDLE, HIGH]) * passed[-1])
    low, middle, high = (round(float(value), DIGITS) for value in values[order][places])
    return low, middle, high
