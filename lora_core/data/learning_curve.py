"""Learning curve: accuracy by number of labeled texts, measured on subsets and extrapolated.

Each of several folds is held out in turn. Models are trained on nested, stratified subsets of the
rest and scored on the fold. All curves

    error(n) = a + b n^-c      c > 0    a power law with an asymptote
    error(n) = a - b log n     c = 0
    error(n) = a - b n^-c      c < 0    not yet flattening, as with few texts of many labels

are averaged, weighted by their fit, so that a noisy curve gives a wide interval. How often the true
value is in the interval: docs/decisions/0042.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.sparse import vstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from lora_core.atomic_files import atomic_entry
from lora_core.cache import cache_dir
from lora_core.data.contents import FileContents
from lora_core.data.duplicates import group_duplicates
from lora_core.data.findings import DataReport
from lora_core.data.more_labels import (
    MIN_TEXTS_PER_LABEL,
    Basis,
    ExpectedAccuracy,
    ExpectedGain,
    MeasuredAccuracy,
    MoreLabelsEstimate,
    describe_gains,
    estimate_without_curve,
)
from lora_core.data.rows import TextRow
from lora_core.linear.files import weight_rows
from lora_core.linear.model import combine_sides, split_sides
from lora_core.specs.data import Split
from lora_core.specs.text_input import text_input

CACHE_VERSION = 1  # increment if the same texts would give another curve
TRAIN_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the texts that are not held out
NUM_FOLDS = 5
MAX_RUNS = 20  # held-out folds over all repetitions
MAX_WORK = 40_000  # texts x rows of weights, over all runs
MAX_TEXTS = 4_000
MAX_CHARACTERS = 3_000_000  # of the texts of a linear model
# C of each model. With a small C, accuracy stays at the majority baseline and then jumps; such a
# curve cannot be extrapolated.
INVERSE_REGULARIZATION: Mapping[Basis, float] = {"linear": 30.0, "probe": 10.0}
MAX_ITER, TOLERANCE = 1000, 1e-3

EXPONENTS = np.arange(-3, 11) / 10  # c; uniform prior
# Subsets with fewer texts per label are not used to extrapolate, except for the last `MIN_SHARES`.
MIN_EXTRAPOLATION_TEXTS_PER_LABEL = 2
MIN_SHARES = 3
# The standard deviation of accuracies around a smooth curve: a share of the standard error for that
# many texts, and a constant. Chosen on datasets that are not in the reported results.
SAMPLING_NOISE, MODEL_NOISE = 0.35, 0.005
SAMPLES_PER_EXPONENT = 400
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9  # quantiles
GROWTH_FACTORS = (1, 2, 4)  # multiples of the available texts
DIGITS = 4

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
# Trains on some texts and predicts others: (train indices, held-out indices) -> predicted labels.
Learner = Callable[[Indices, Indices], Indices]


@dataclass(frozen=True)
class CurveScores:
    """Predictions for held-out texts."""

    train_sizes: Indices  # (shares,) number of training texts
    correct: Floats  # (shares, texts) share of correct predictions, 0 to 1
    labels: int  # number of distinct labels
    most_frequent: NDArray[np.bool_]  # (texts,) whether the text has the majority label

    @property
    def above_majority(self) -> bool:
        """Whether the largest subset beats the majority label by more than chance."""
        lead = self.correct[-1] - self.most_frequent
        return bool(lead.mean() > lead.std() / len(lead) ** 0.5)


def estimate_from_rows(rows: Iterable[TextRow]) -> MoreLabelsEstimate:
    """Return the estimate for labeled rows, with the linear model."""
    distinct = group_duplicates(rows)[0]
    without_curve = estimate_without_curve([row.label for row in distinct])
    if without_curve is not None:
        return without_curve
    used = limit_texts(distinct, MAX_TEXTS, characters=MAX_CHARACTERS)
    truth = encode_labels(used)
    return estimate(linear_learner(used, truth), truth, texts=len(distinct), basis="linear")


def add_learning_curve(report: DataReport, contents: FileContents) -> DataReport:
    """Return the report with the learning curve of the train split, if each text has one label."""
    if contents.columns.label_format.task != "single_label":
        return report
    return report.model_copy(
        update={"more_labels": estimate_from_rows(contents.splits[Split.TRAIN])}
    )


def cached_estimate(
    facts: Mapping[str, object], compute: Callable[[], MoreLabelsEstimate]
) -> MoreLabelsEstimate:
    """Return the cached estimate for these facts, or compute and cache it. Raises `DiskFull`."""
    settings = repr([CACHE_VERSION, sklearn.__version__, *sorted(facts.items())])
    name = hashlib.sha256(settings.encode()).hexdigest()
    path = cache_dir() / "learning-curves" / f"{name}.json"
    try:
        return MoreLabelsEstimate.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        result = compute()
    with atomic_entry(path) as unfinished:
        unfinished.write_text(result.model_dump_json(), encoding="utf-8")
    return result


def limit_texts(
    distinct: Sequence[TextRow], max_texts: int, *, characters: int | None = None
) -> list[TextRow]:
    """Return at most `max_texts` texts, stratified and in order, without rare labels."""
    counts = Counter(row.label for row in distinct)
    rows = [row for row in distinct if counts[row.label] >= MIN_TEXTS_PER_LABEL]
    if characters is not None:
        total = sum(row.characters for row in rows)
        max_texts = min(max_texts, len(rows) * characters // max(1, total))
    if len(rows) <= max_texts:
        return rows
    order = _stratified_order(encode_labels(rows), np.random.default_rng(0))
    return [rows[i] for i in sorted(order[:max_texts])]


def encode_labels(rows: Sequence[TextRow]) -> Indices:
    """Return the label of each text as an integer."""
    numbers: Indices = np.unique([row.label for row in rows], return_inverse=True)[1]
    return numbers


def linear_learner(rows: Sequence[TextRow], truth: Indices) -> Learner:
    """Return a learner with TF-IDF of all words and logistic regression."""
    sides = split_sides([text_input(row.text, row.pair) for row in rows])
    try:
        by_side = CountVectorizer().fit_transform(chain(*sides)).tocsr()
    except ValueError:  # no text contains a word
        return lambda train, held_out: _most_frequent(truth[train], len(held_out))

    counts = [by_side[i * len(rows) :][: len(rows)] for i in range(len(sides))]

    def learn(train: Indices, held_out: Indices) -> Indices:
        seen = vstack([side[train] for side in counts], format="csr")
        terms = np.unique(seen.indices)
        weighting = TfidfTransformer(sublinear_tf=True).fit(seen[:, terms])
        x, x_test = (
            combine_sides([weighting.transform(side[part][:, terms]) for side in counts])
            for part in (train, held_out)
        )
        return _fit_and_predict(x, truth[train], INVERSE_REGULARIZATION["linear"], x_test)

    return learn


def probe_learner(vectors: NDArray[np.float32], truth: Indices) -> Learner:
    """Return a learner with logistic regression on vectors (texts, width) of mean norm 1."""

    def learn(train: Indices, held_out: Indices) -> Indices:
        return _fit_and_predict(
            vectors[train], truth[train], INVERSE_REGULARIZATION["probe"], vectors[held_out]
        )

    return learn


def _fit_and_predict(x_train: Any, labels: Indices, strength: float, x_test: Any) -> Indices:
    """Fit a logistic regression on `x_train` and predict the labels of `x_test`."""
    if len(np.unique(labels)) == 1 or x_train.shape[1] == 0:
        return _most_frequent(labels, x_test.shape[0])
    model = LogisticRegression(C=strength, max_iter=MAX_ITER, tol=TOLERANCE)
    with warnings.catch_warnings():
        # A fit that hits the iteration limit still predicts; the other warning is about few texts
        # of many labels.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        model.fit(x_train, labels)
    answers: Indices = model.predict(x_test)
    return answers


def _most_frequent(labels: Indices, count: int) -> Indices:
    return np.full(count, np.bincount(labels).argmax())


def estimate(learner: Learner, truth: Indices, *, texts: int, basis: Basis) -> MoreLabelsEstimate:
    """Measure the curve for texts with these labels, and extrapolate it to `texts` and more."""
    with threadpool_limits(1, user_api="blas"):  # a single thread is faster than several
        scores = measure_curve(learner, truth)
    accuracies = scores.correct.mean(axis=1)
    result = MoreLabelsEstimate(
        code="not_above_majority",
        message="So far the model of the learning curve is no better than always predicting the "
        f"most frequent label ({scores.most_frequent.mean():.1%}), so the effect of more labels "
        "cannot be estimated.",
        texts=texts,
        basis=basis,
        used=len(truth),
        measured=tuple(
            MeasuredAccuracy(texts=int(size), accuracy=round(float(accuracy), DIGITS))
            for size, accuracy in zip(scores.train_sizes, accuracies, strict=True)
        ),
    )
    if not scores.above_majority:
        return result
    counts = [times * texts for times in GROWTH_FACTORS]
    errors, weights = _extrapolate(scores, np.array(counts, dtype=float))
    gains = [
        ExpectedGain(texts=count, low=low, high=high)
        for count, after in zip(counts[1:], errors.T[1:], strict=True)
        for low, _, high in [_weighted_quantiles(errors[:, 0] - after, weights)]
    ]
    expected = [
        ExpectedAccuracy(texts=count, accuracy=middle, low=low, high=high)
        for count, error in zip(counts, errors.T, strict=True)
        for low, middle, high in [_weighted_quantiles(1 - error, weights)]
    ]
    return result.model_copy(
        update={
            "code": "measured",
            "message": describe_gains(gains),
            "expected": tuple(expected),
            "gains": tuple(gains),
        }
    )


def measure_curve(learner: Learner, truth: Indices) -> CurveScores:
    """Train on nested subsets of all folds but one, and predict that fold; repeat."""
    rng = np.random.default_rng(0)
    count = len(truth)
    runs = MAX_WORK // (count * weight_rows(len(np.unique(truth))))
    smallest = count - -(-count // NUM_FOLDS)  # training texts that remain without the largest fold
    train_sizes = np.array([max(2, round(share * smallest)) for share in TRAIN_SHARES])
    correct, times_predicted = np.zeros((len(train_sizes), count)), np.zeros(count)
    fold = np.empty(count, dtype=np.int64)
    for run in range(min(MAX_RUNS, max(1, runs))):
        if run % NUM_FOLDS == 0:
            fold[_stratified_order(truth, rng)] = np.arange(count) % NUM_FOLDS
        is_held_out = fold == run % NUM_FOLDS
        held_out, rest = np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out)
        train = rest[_stratified_order(truth[rest], rng)]
        times_predicted[held_out] += 1
        for share, size in enumerate(train_sizes):
            correct[share, held_out] += learner(train[:size], held_out) == truth[held_out]
    was_predicted = times_predicted > 0
    return CurveScores(
        train_sizes,
        correct[:, was_predicted] / times_predicted[was_predicted],
        len(np.unique(truth)),
        (truth == np.bincount(truth).argmax())[was_predicted],
    )


def _stratified_order(labels: Indices, rng: np.random.Generator) -> Indices:
    """Return a random order in which every prefix has the labels in the same proportions."""
    positions = np.empty(len(labels))
    for label in np.unique(labels):
        of_label = rng.permutation(np.flatnonzero(labels == label))
        positions[of_label] = (np.arange(len(of_label)) + rng.random(len(of_label))) / len(of_label)
    return np.argsort(positions)


def _extrapolate(scores: CurveScores, texts: Floats) -> tuple[Floats, Floats]:
    """Return possible errors (samples, len(texts)) for these numbers of texts, and sample weights.

    For each exponent the other two parameters are normally distributed, by weighted least squares.
    Rising curves are treated as flat; negative errors are impossible.
    """
    rng = np.random.default_rng(0)
    usable = scores.train_sizes >= MIN_EXTRAPOLATION_TEXTS_PER_LABEL * scores.labels
    usable[-MIN_SHARES:] = True
    train_sizes, wrong = scores.train_sizes[usable].astype(float), 1 - scores.correct[usable]
    errors = wrong.mean(axis=1)
    variance = (SAMPLING_NOISE * _standard_error(errors, train_sizes)) ** 2 + MODEL_NOISE**2
    precision = np.linalg.inv(np.cov(wrong) / wrong.shape[1] + np.diag(variance))
    last = train_sizes[-1]
    samples, log_likelihoods = [], []
    for exponent in EXPONENTS:
        x = _design_matrix(train_sizes / last, exponent)
        covariance = np.linalg.inv(x.T @ precision @ x)
        center = covariance @ x.T @ precision @ errors
        residual = errors - x @ center
        fit = (np.linalg.slogdet(covariance)[1] - residual @ precision @ residual) / 2
        parameters = rng.multivariate_normal(center, covariance, size=SAMPLES_PER_EXPONENT)
        parameters[:, 1] = np.maximum(parameters[:, 1], 0)
        samples.append(parameters @ _design_matrix(texts / last, exponent).T)
        log_likelihoods.append(np.full(SAMPLES_PER_EXPONENT, fit))
    predicted, log = np.concatenate(samples), np.concatenate(log_likelihoods)
    weights = np.exp(log - log.max())
    possible = predicted.min(axis=1) >= 0
    if possible.any():
        weights *= possible
    noise = (
        SAMPLING_NOISE * _standard_error(predicted, texts) * rng.standard_normal(predicted.shape)
    )
    return np.clip(predicted + noise, 0, 1), weights


def _design_matrix(n: Floats, exponent: float) -> Floats:
    """Return the regressors (sizes, 2) of intercept and slope; the intercept is at n = 1."""
    falling = -np.log(n) if exponent == 0 else (n**-exponent - 1) / exponent
    return np.stack([np.ones_like(n), falling], axis=1)


def _standard_error(errors: Floats, texts: Floats) -> Floats:
    """Return the standard error of an error rate that is measured on this many texts."""
    share = np.clip(errors, 0.02, 0.98)
    deviation: Floats = np.sqrt(share * (1 - share) / texts)
    return deviation


def _weighted_quantiles(values: Floats, weights: Floats) -> tuple[float, float, float]:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    positions = np.searchsorted(cumulative, np.array([LOW, MIDDLE, HIGH]) * cumulative[-1])
    low, middle, high = (round(float(value), DIGITS) for value in values[order][positions])
    return low, middle, high
