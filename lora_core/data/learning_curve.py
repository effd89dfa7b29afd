"""Learning curve: the metric by number of labeled texts, measured on subsets and extrapolated.

Each of several folds is held out in turn. Models are trained on nested, stratified subsets of the
rest and scored on the fold. All curves

    error(n) = a + b n^-c      c > 0    a power law with an asymptote
    error(n) = a - b log n     c = 0
    error(n) = a - b n^-c      c < 0    not yet flattening, as with few texts of many labels

are averaged, weighted by their fit, so that a noisy curve gives a wide interval. How often the true
value is in the interval: docs/decisions/0042. The error is 1 - accuracy or 1 - macro F1; of numbers
it is the RMSE divided by that of always predicting the mean, so that it is 0 to 1 as well.
"""

import hashlib
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.sparse import vstack
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from lora_core.atomic_files import atomic_path
from lora_core.cache import FOLDER_LIMITS, cache_dir, evict_least_recently_used
from lora_core.data.data_report import DataReport
from lora_core.data.duplicates import group_duplicates
from lora_core.data.file_inspection import FileContents
from lora_core.data.more_labels_estimate import (
    MIN_TEXTS,
    MIN_TEXTS_PER_LABEL,
    Basis,
    ExpectedGain,
    ExpectedMetric,
    MeasuredMetric,
    MoreLabelsEstimate,
    describe_gains,
    estimate_if_curve_impossible,
)
from lora_core.data.rows import TextRow
from lora_core.data.split import project_rows_to_target
from lora_core.linear.files import count_weight_rows
from lora_core.linear.model import combine_pair_features, split_text_pairs
from lora_core.specs.data import Split
from lora_core.specs.encoded_labels import decode_label_set, infer_target_tasks
from lora_core.specs.task import TaskType
from lora_core.specs.text_input import text_or_pair
from lora_core.tasks.base import Task
from lora_core.tasks.metric_info import METRICS
from lora_core.tasks.multi_label import DEFAULT_THRESHOLD, MultiLabel, best_threshold
from lora_core.tasks.primary_metric import Predictions
from lora_core.tasks.regression import Regression
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.targets import Targets, multi_hot

CACHE_VERSION = 1  # increment if the same texts would give another curve
TRAIN_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the texts that are not held out
NUM_FOLDS = 5
MAX_RUNS = 20  # held-out folds over all repetitions
MAX_WORK = 40_000  # texts x rows of weights, over all runs
MAX_TEXTS = 4_000
MAX_FITTED_LABELS = 40_000  # texts x labels of a multi-label task, which has a fit for each label
MAX_CHARACTERS = 3_000_000  # of the texts of a linear model
# C of each model. With a small C, accuracy stays at the majority baseline and then jumps; such a
# curve cannot be extrapolated.
INVERSE_REGULARIZATION: Mapping[Basis, float] = {"linear": 30.0, "probe": 10.0}
RIDGE_ALPHA = 0.25  # with 1.0, curves bend later, and fewer ranges hold
MAX_ITER, TOLERANCE = 1000, 1e-3

_EXPONENTS = np.arange(-3, 11) / 10  # c; uniform prior
# Subsets with fewer texts per label are not used to extrapolate, except for the last `_MIN_SHARES`.
MIN_EXTRAPOLATION_TEXTS_PER_LABEL = 2
_MIN_SHARES = 3
# The standard deviation of accuracies around a smooth curve: a share of the standard error for that
# many texts, and a constant. Chosen on datasets that are not in the reported results.
SAMPLING_NOISE, MODEL_NOISE = 0.35, 0.005
SAMPLES_PER_EXPONENT = 400
LOW, MIDDLE, HIGH = 0.1, 0.5, 0.9  # quantiles
_GROWTH_FACTORS = (1, 2, 4)  # multiples of the available texts
_DIGITS = 4

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
# Trains on some texts and predicts others: (train indices, held-out indices) -> predictions.
Learner = Callable[[Indices, Indices], Predictions]


@dataclass(frozen=True)
class CurveScores:
    """Scores of held-out texts, whose mean is 1 - error."""

    train_sizes: Indices  # (shares,) number of training texts
    scores: Floats  # (shares, texts); for accuracy the share of correct predictions, 0 to 1
    uninformed: Floats  # (texts,) those of the best predictions for texts that are not read
    labels: int  # number of distinct labels
    # The standard error of the metric as a multiple of that of an accuracy with the same error.
    # A macro F1 with rare labels varies much more.
    dispersion: float = 1.0

    @property
    def informed(self) -> bool:
        """Whether the largest subset beats predictions without reading by more than chance."""
        lead = self.scores[-1] - self.uninformed
        return bool(lead.mean() > lead.std() / len(lead) ** 0.5)


def estimate_gain_of_more_labels(
    rows: Iterable[TextRow], task_type: TaskType = "single_label", max_texts: int = MAX_TEXTS
) -> MoreLabelsEstimate:
    """Return the estimate for labeled rows, with the linear model.

    Several targets have a curve each, and share `max_texts`.
    """
    distinct = group_duplicates(rows)[0]
    without_curve = estimate_if_curve_impossible([row.label for row in distinct], task_type)
    if without_curve is not None:
        return without_curve
    if task_type == "several_targets":
        tasks = infer_target_tasks(distinct[0].label)
        share = max(MIN_TEXTS, max_texts // len(tasks))
        return MoreLabelsEstimate.of_targets(
            {
                name: estimate_gain_of_more_labels(
                    project_rows_to_target(distinct, name), task, share
                )
                for name, task in tasks.items()
            }
        )
    used = subsample_for_curve(distinct, task_type, max_texts, characters=MAX_CHARACTERS)
    task, targets = build_task_and_targets(used, task_type)
    learner = linear_learner(used, task, targets)
    return measure_and_extrapolate_curve(
        learner, task, targets, texts=len(distinct), basis="linear"
    )


def add_learning_curve_to_report(report: DataReport, contents: FileContents) -> DataReport:
    """Return the report with the learning curve of the train split."""
    estimate = estimate_gain_of_more_labels(
        contents.splits[Split.TRAIN], contents.columns.label_format.task
    )
    return report.model_copy(update={"more_labels": estimate})


def load_or_compute_estimate(
    facts: Mapping[str, object], compute: Callable[[], MoreLabelsEstimate]
) -> MoreLabelsEstimate:
    """Return the cached estimate for these facts, or compute and cache it. Raises `DiskFull`."""
    settings = repr([CACHE_VERSION, sklearn.__version__, *sorted(facts.items())])
    name = hashlib.sha256(settings.encode()).hexdigest()
    path = cache_dir() / "learning-curves" / f"{name}.json"
    try:
        result = MoreLabelsEstimate.model_validate_json(path.read_bytes())
        os.utime(path)  # mark it as used
    except (FileNotFoundError, ValidationError):
        result = compute()
        with atomic_path(path) as unfinished:
            unfinished.write_text(result.model_dump_json(), encoding="utf-8")
        evict_least_recently_used(path.parent, FOLDER_LIMITS[path.parent.name])
    return result


def subsample_for_curve(
    distinct: Sequence[TextRow],
    task_type: TaskType,
    max_texts: int = MAX_TEXTS,
    *,
    characters: int | None = None,
) -> list[TextRow]:
    """Return at most `max_texts` texts, stratified and in order, without rare labels.

    With `characters`, their sum is at most about that many. Texts are cut if it is the sum of
    fewer than `MIN_TEXTS`.
    """
    rows = list(distinct)
    if task_type == "single_label":
        counts = Counter(row.label for row in distinct)
        rows = [row for row in distinct if counts[row.label] >= MIN_TEXTS_PER_LABEL]
    task, targets = build_task_and_targets(rows, task_type)
    if isinstance(task, MultiLabel):
        max_texts = min(max_texts, max(MIN_TEXTS, MAX_FITTED_LABELS // len(task.labels)))
    if characters is not None:
        longest = characters // MIN_TEXTS
        if sum(row.characters for row in rows) > len(rows) * longest:
            rows = [_cut(row, longest) for row in rows]
        total = sum(row.characters for row in rows)
        max_texts = min(max_texts, len(rows) * characters // max(1, total))
    if len(rows) <= max_texts:
        return rows
    order = _stratified_order(task.strata(targets), np.random.default_rng(0))
    return [rows[i] for i in sorted(order[:max_texts])]


def _cut(row: TextRow, characters: int) -> TextRow:
    """Return the beginning of a text, or of both texts of a pair."""
    if row.pair is None:
        return replace(row, text=row.text[:characters])
    each = characters // 2
    return replace(row, text=row.text[:each], pair=row.pair[:each])


def build_task_and_targets(rows: Sequence[TextRow], task_type: TaskType) -> tuple[Task, Targets]:
    """Return the task of these rows, and their targets. Of several labels, rare ones are left out.

    A sample of the rows may be another task: of fewer labels, or with another deviation.
    """
    labels = [row.label for row in rows]
    match task_type:
        case "single_label":
            names, indices = np.unique(labels, return_inverse=True)
            return SingleLabel(names.tolist()), indices
        case "multi_label":
            sets = [decode_label_set(label) for label in labels]
            counts = Counter(chain.from_iterable(sets))
            frequent = sorted(name for name in counts if counts[name] >= MIN_TEXTS_PER_LABEL)
            position = {name: i for i, name in enumerate(frequent)}
            found = [tuple(position[name] for name in each if name in position) for each in sets]
            return MultiLabel(frequent), multi_hot(found, len(frequent))
        case "regression":
            regression = Regression.of_training_targets([float(label) for label in labels])
            return regression, regression.targets([float(label) for label in labels])
        case "several_targets":
            raise TypeError("several targets have a learning curve each")


def linear_learner(rows: Sequence[TextRow], task: Task, targets: Targets) -> Learner:
    """Return a learner with TF-IDF of all words and a regression."""
    sides = split_text_pairs([text_or_pair(row.text, row.pair) for row in rows])
    try:
        by_side = CountVectorizer().fit_transform(chain(*sides)).tocsr()
    except ValueError:  # no text contains a word
        return lambda train, held_out: _constant(task, targets[train], len(held_out))

    counts = [by_side[i * len(rows) :][: len(rows)] for i in range(len(sides))]

    def learn(train: Indices, held_out: Indices) -> Predictions:
        seen = vstack([side[train] for side in counts], format="csr")
        terms = np.unique(seen.indices)
        weighting = TfidfTransformer(sublinear_tf=True).fit(seen[:, terms])
        x, x_test = (
            combine_pair_features([weighting.transform(side[part][:, terms]) for side in counts])
            for part in (train, held_out)
        )
        return _fit_and_predict(task, "linear", x, targets[train], x_test, targets[held_out])

    return learn


def probe_learner(vectors: NDArray[np.float32], task: Task, targets: Targets) -> Learner:
    """Return a learner with a regression on vectors (texts, width) of mean norm 1."""

    def learn(train: Indices, held_out: Indices) -> Predictions:
        x, x_test = vectors[train], vectors[held_out]
        return _fit_and_predict(task, "probe", x, targets[train], x_test, targets[held_out])

    return learn


def _fit_and_predict(
    task: Task, basis: Basis, x: Any, targets: Targets, x_test: Any, truth: Targets
) -> Predictions:
    """Fit the regression of a task on `x` (texts, features) and return predictions for `x_test`.

    Several labels are predicted at the thresholds that are the best for their `truth`.
    """
    texts, strength = x_test.shape[0], INVERSE_REGULARIZATION[basis]
    if x.shape[1] == 0:
        return _constant(task, targets, texts)
    if isinstance(task, Regression):
        ridge = Ridge(alpha=RIDGE_ALPHA).fit(x, task.standardize(targets))
        return task.predict(ridge.predict(x_test)[:, None])
    if isinstance(task, MultiLabel):
        one = LogisticRegression(C=strength, solver="liblinear")
        columns = [
            one.fit(x, has_label).predict_proba(x_test)[:, 1]
            if len(np.unique(has_label)) > 1
            else np.full(texts, float(has_label[0]))
            for has_label in targets.T > 0
        ]
        return _at_best_thresholds(np.stack(columns, axis=1), truth)
    if len(np.unique(targets)) == 1:
        return _constant(task, targets, texts)
    model = LogisticRegression(C=strength, max_iter=MAX_ITER, tol=TOLERANCE)
    with warnings.catch_warnings():
        # A fit that hits the iteration limit still predicts; the other warning is about few texts
        # of many labels.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        predicted: Predictions = model.fit(x, targets).predict(x_test)
    return predicted


def _at_best_thresholds(scores: Floats, truth: Targets) -> Predictions:
    """Return whether each label (texts, labels) is predicted, at its threshold with the best F1.

    The curve is then one of how well the labels are ranked, which held-out texts are enough for.
    Thresholds that do not depend on them would be those of a handful of texts with a label.
    """
    columns = zip(scores.T, truth.T, strict=True)
    thresholds = [best_threshold(*each) if each[1].any() else DEFAULT_THRESHOLD for each in columns]
    return np.asarray(scores >= np.array(thresholds))


def _uninformed(task: Task, targets: Targets) -> Predictions:
    """Return predictions for texts that are not read: a constant or, of several labels, any."""
    if not isinstance(task, MultiLabel):
        return _constant(task, targets, len(targets))
    scores, predicted = np.random.default_rng(0).random(targets.shape), np.empty_like(targets)
    for part in (np.arange(len(targets)) % NUM_FOLDS == fold for fold in range(NUM_FOLDS)):
        predicted[part] = _at_best_thresholds(scores[part], targets[part])
    return predicted


def _constant(task: Task, targets: Targets, count: int) -> Predictions:
    """Return the best prediction for texts that are not read, for each of `count` texts."""
    return np.repeat(task.best_constant_prediction(targets)[0], count, axis=0)


def measure_and_extrapolate_curve(
    learner: Learner, task: Task, targets: Targets, *, texts: int, basis: Basis
) -> MoreLabelsEstimate:
    """Measure the curve for texts with these targets, and extrapolate it to `texts` and more."""
    if isinstance(task, MultiLabel) and not task.labels:  # of many labels only few texts are used
        return MoreLabelsEstimate(
            code="too_few",
            texts=texts,
            message=f"Because of the number of labels a curve is measured on {len(targets):,} of "
            f"the {texts:,} labeled texts. None of the labels has {MIN_TEXTS_PER_LABEL} texts "
            "there, which is too few to estimate the effect of more labels.",
        )
    with threadpool_limits(1, user_api="blas"):  # a single thread is faster than several
        curve = measure_curve(learner, task, targets)
    metric, scale = task.metric.name, _error_scale(task)
    digits = _DIGITS - math.floor(math.log10(scale))
    field = "accuracy" if metric == "accuracy" else "value"

    def from_error(error: Any) -> Any:
        return scale * error if task.metric.lower_is_better else 1 - error

    def quantiles(values: Floats) -> list[float]:
        return [round(value, digits) for value in _weighted_quantiles(values, weights)]

    uninformed = from_error(1 - curve.uninformed.mean())
    name = task.best_constant_prediction(targets)[1]  # the mean, if the targets are numbers
    if isinstance(task, SingleLabel):
        name = "the most frequent label"
    elif isinstance(task, MultiLabel):
        name = "any labels"
    result = MoreLabelsEstimate(
        code="not_above_majority",
        message="So far the model of the learning curve is no better than always predicting "
        f"{name} ({f'{uninformed:.1%}' if METRICS[metric].is_share else f'{uninformed:.4g}'}), so "
        "the effect of more labels cannot be estimated.",
        texts=texts,
        metric=metric,
        basis=basis,
        used=len(targets),
        measured=tuple(
            MeasuredMetric.model_validate(
                {"texts": int(size), field: round(float(from_error(1 - score)), digits)}
            )
            for size, score in zip(curve.train_sizes, curve.scores.mean(axis=1), strict=True)
        ),
    )
    if not curve.informed:
        return result
    counts = [times * texts for times in _GROWTH_FACTORS]
    errors, weights = _extrapolate(curve, np.array(counts, dtype=float))
    values = from_error(errors)
    gains = [
        ExpectedGain(texts=count, low=low, high=high)
        for count, after in zip(counts[1:], values.T[1:], strict=True)
        for low, _, high in [quantiles(after - values[:, 0])]
    ]
    expected = [
        ExpectedMetric.model_validate({"texts": count, field: middle, "low": low, "high": high})
        for count, value in zip(counts, values.T, strict=True)
        for low, middle, high in [quantiles(value)]
    ]
    return result.model_copy(
        update={
            "code": "measured",
            "message": describe_gains(gains, metric, scale),
            "expected": tuple(expected),
            "gains": tuple(gains),
        }
    )


def measure_curve(learner: Learner, task: Task, targets: Targets) -> CurveScores:
    """Train on nested subsets of all folds but one, and predict that fold; repeat."""
    rng = np.random.default_rng(0)
    count, strata, metric = len(targets), task.strata(targets), task.metric
    rows = (
        count_weight_rows(len(task.labels)) if isinstance(task, SingleLabel) else len(task.labels)
    )
    runs = MAX_WORK // (count * rows)
    smallest = count - -(-count // NUM_FOLDS)  # training texts that remain without the largest fold
    train_sizes = np.array([max(2, round(share * smallest)) for share in TRAIN_SHARES])
    constant = metric.per_text_statistics(targets, _uninformed(task, targets))
    statistics = np.zeros((len(train_sizes), *constant.shape))  # sums over the runs
    times_predicted = np.zeros(count)
    fold = np.empty(count, dtype=np.int64)
    for run in range(min(MAX_RUNS, max(1, runs))):
        if run % NUM_FOLDS == 0:
            fold[_stratified_order(strata, rng)] = np.arange(count) % NUM_FOLDS
        is_held_out = fold == run % NUM_FOLDS
        held_out, rest = np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out)
        train = rest[_stratified_order(strata[rest], rng)]
        times_predicted[held_out] += 1
        for share, size in enumerate(train_sizes):
            predicted = learner(train[:size], held_out)
            statistics[share, held_out] += metric.per_text_statistics(targets[held_out], predicted)
    was_predicted = times_predicted > 0
    means = statistics[:, was_predicted] / times_predicted[was_predicted, None]

    def scores(of_texts: Floats) -> Floats:
        linearized = metric.linearized(of_texts)
        return 1 - linearized / _error_scale(task) if metric.lower_is_better else linearized

    curve = CurveScores(
        train_sizes,
        np.stack([scores(each) for each in means]),
        scores(constant[was_predicted]),
        len(task.labels),
    )
    if isinstance(task, SingleLabel):
        return curve
    last = curve.scores[-1]
    of_accuracy = _standard_error(1 - last.mean(), np.ones(1))
    return replace(curve, dispersion=float(last.std() / of_accuracy[0]))


def _error_scale(task: Task) -> float:
    """Return the error that counts as 1: of numbers, the RMSE of always predicting the mean."""
    return task.std if isinstance(task, Regression) else 1.0


def _stratified_order(labels: Indices, rng: np.random.Generator) -> Indices:
    """Return a random order in which every prefix has the labels in the same proportions."""
    positions = np.empty(len(labels))
    for label in np.unique(labels):
        of_label = rng.permutation(np.flatnonzero(labels == label))
        positions[of_label] = (np.arange(len(of_label)) + rng.random(len(of_label))) / len(of_label)
    return np.argsort(positions)


def _extrapolate(curve: CurveScores, texts: Floats) -> tuple[Floats, Floats]:
    """Return possible errors (samples, len(texts)) for these numbers of texts, and sample weights.

    For each exponent the other two parameters are normally distributed, by weighted least squares.
    Rising curves are treated as flat; negative errors are impossible.
    """
    rng = np.random.default_rng(0)
    usable = curve.train_sizes >= MIN_EXTRAPOLATION_TEXTS_PER_LABEL * curve.labels
    usable[-_MIN_SHARES:] = True
    train_sizes, wrong = curve.train_sizes[usable].astype(float), 1 - curve.scores[usable]
    errors = wrong.mean(axis=1)
    noise = SAMPLING_NOISE * curve.dispersion
    variance = (noise * _standard_error(errors, train_sizes)) ** 2 + MODEL_NOISE**2
    precision = np.linalg.inv(np.cov(wrong) / wrong.shape[1] + np.diag(variance))
    last = train_sizes[-1]
    samples, log_likelihoods = [], []
    for exponent in _EXPONENTS:
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
    predicted = predicted + (
        noise * _standard_error(predicted, texts) * rng.standard_normal(predicted.shape)
    )
    return np.clip(predicted, 0, 1), weights


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
    low, middle, high = map(float, values[order][positions])
    return low, middle, high
