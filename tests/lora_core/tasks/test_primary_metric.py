"""The metric of each task and its intervals match scikit-learn and SciPy."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm
from sklearn.metrics import f1_score, root_mean_squared_error

from lora_core.confidence_intervals import wilson_interval
from lora_core.tasks import primary_metric
from lora_core.tasks.primary_metric import (
    Accuracy,
    MacroF1,
    MeanSkill,
    PrimaryMetric,
    RootMeanSquaredError,
)
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.random((400, 4)) < [0.5, 0.3, 0.1, 0.02]
BETTER = TRUTH ^ (RANDOM.random(TRUTH.shape) < 0.08)
WORSE = TRUTH ^ (RANDOM.random(TRUTH.shape) < 0.25)
NUMBERS = RANDOM.normal(size=300)
PREDICTED = NUMBERS + RANDOM.normal(scale=0.5, size=300)


def macro_f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    return float(f1_score(truth, predicted, average="macro"))


def test_values_match_scikit_learn() -> None:
    metric = MacroF1()
    assert metric.value(metric.per_text_statistics(TRUTH, BETTER)) == pytest.approx(
        macro_f1(TRUTH, BETTER)
    )
    rmse = RootMeanSquaredError()
    found = rmse.value(rmse.per_text_statistics(NUMBERS, PREDICTED))
    assert found == pytest.approx(root_mean_squared_error(NUMBERS, PREDICTED))


def test_macro_f1_leaves_out_labels_that_do_not_occur() -> None:
    metric, truth = MacroF1(), np.array([[1, 0, 0], [0, 0, 0]])
    assert metric.value(metric.per_text_statistics(truth, truth)) == 1.0
    nothing = np.zeros((2, 3))
    statistics = metric.per_text_statistics(nothing, nothing)
    assert metric.value(statistics) == 0.0
    assert metric.scores(statistics).tolist() == [0.0, 0.0]
    assert metric.interval(statistics) == wilson_interval(0.0, 2)


def test_interval_of_rmse_matches_the_bootstrap_of_scipy() -> None:
    metric = RootMeanSquaredError()
    low, high = metric.interval(metric.per_text_statistics(NUMBERS, PREDICTED))
    expected = bootstrap(
        (NUMBERS, PREDICTED), root_mean_squared_error, paired=True, vectorized=False,
        method="percentile", n_resamples=2000, rng=1,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


@pytest.mark.slow  # computes 500 samples one by one
def test_interval_of_macro_f1_matches_the_bootstrap_of_scipy() -> None:
    metric = MacroF1()
    low, high = metric.interval(metric.per_text_statistics(TRUTH, BETTER))

    def of_rows(rows: NDArray[np.int64]) -> float:
        truth, predicted = TRUTH[rows], BETTER[rows]
        occurring = (truth | predicted).any(axis=0)
        return macro_f1(truth[:, occurring], predicted[:, occurring])

    expected = bootstrap(
        (np.arange(400),), of_rows, vectorized=False, method="percentile", n_resamples=500, rng=1
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


@pytest.mark.parametrize("right", [True, False])
def test_few_texts_without_an_error_do_not_prove_a_perfect_model(right: bool) -> None:
    truth = np.tile([[1, 0], [0, 1]], (30, 1))
    statistics = MacroF1().per_text_statistics(truth, truth if right else 1 - truth)
    low, high = MacroF1().interval(statistics)
    assert (low, high) == wilson_interval(float(right), 60)
    assert high - low == pytest.approx(0.06, abs=0.01)


def test_few_texts_without_an_error_do_not_prove_a_perfect_skill() -> None:
    task = SeveralTargets(
        {"stars": Regression(0.0, 1.0), "topic": SingleLabel(("a", "b"))},
        {"stars": 1.0, "topic": 1.0},
    )
    truth = np.array([[i / 2, i % 2] for i in range(8)])
    right = task.metric.per_text_statistics(truth, truth)
    assert task.metric.value(right) == 1.0
    assert task.metric.interval(right) == wilson_interval(1.0, 8)
    wrong = task.metric.per_text_statistics(truth, truth[::-1])
    assert task.metric.interval(wrong)[1] < 0  # as the bootstrap has it


@pytest.mark.parametrize("each", [Accuracy(), RootMeanSquaredError()], ids=lambda each: each.name)
@pytest.mark.parametrize(("wrong", "value"), [(0, 1.0), (1, 0.0), (3, 0.0)])
def test_mean_score_is_the_skill_where_a_constant_is_without_error(
    each: PrimaryMetric, wrong: int, value: float
) -> None:
    metric, truth = MeanSkill([(each, 1)]), np.zeros(50)
    predicted = np.where(np.arange(50) < wrong, 10.0, 0.0)
    statistics = metric.join([each.per_text_statistics(truth, predicted)], [0.0])
    assert metric.value(statistics) == value
    scores = metric.scores(statistics)
    assert scores.mean() == pytest.approx(value)
    assert (scores < scores.max()).sum() == wrong  # the wrong texts alone have a lower score


def test_difference_is_paired_and_narrower_than_the_intervals() -> None:
    metric = MacroF1()
    ours, theirs = (
        metric.per_text_statistics(TRUTH, BETTER),
        metric.per_text_statistics(TRUTH, WORSE),
    )
    difference, (low, high) = metric.difference(ours, theirs)
    assert difference == pytest.approx(macro_f1(TRUTH, BETTER) - macro_f1(TRUTH, WORSE))
    assert 0 < low < difference < high
    assert metric.difference(ours, ours) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize(("texts", "low"), [(3, 0.0), (19, 0.0), (20, 0.5)])
def test_few_texts_do_not_prove_a_difference(texts: int, low: float) -> None:
    metric, errors = RootMeanSquaredError(), np.ones(texts)
    ours, theirs = (metric.per_text_statistics(0 * errors, each) for each in (errors, 0.5 * errors))
    assert metric.difference(ours, theirs) == (0.5, (low, 0.5))
    assert metric.difference(theirs, ours) == (-0.5, (-0.5, -low))


def test_scores_of_texts_have_mean_and_error_of_macro_f1() -> None:
    """The delta method: their mean is the metric, their standard error that of the bootstrap."""
    metric = MacroF1()
    statistics = metric.per_text_statistics(TRUTH[:, :3], BETTER[:, :3])
    scores = metric.scores(statistics)
    assert scores.mean() == pytest.approx(metric.value(statistics))
    low, high = metric.interval(statistics)
    half_width = norm.ppf(0.975) * scores.std() / len(scores) ** 0.5
    assert half_width == pytest.approx((high - low) / 2, rel=0.1)


def test_macro_f1_of_many_texts_and_labels_takes_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Statistics are bytes, and scores of a part of the texts are those of all."""
    random = np.random.default_rng(0)
    truth = random.random((500, 40)) < 0.1
    statistics = MacroF1().per_text_statistics(truth, truth ^ (random.random(truth.shape) < 0.05))
    assert statistics.nbytes == 2 * truth.size
    scores = MacroF1().scores(statistics)
    monkeypatch.setattr(primary_metric, "TEXTS_AT_ONCE", 64)
    np.testing.assert_array_equal(MacroF1().scores(statistics), scores)
    np.testing.assert_array_equal(MacroF1().scores(statistics.astype(np.float64)), scores)


def test_accuracy_has_the_wilson_interval() -> None:
    metric = Accuracy()
    statistics = metric.per_text_statistics(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    assert metric.value(statistics) == 0.75
    assert metric.interval(statistics) == wilson_interval(0.75, 4)


@pytest.mark.parametrize("metric", [MacroF1(), RootMeanSquaredError()], ids=["macro_f1", "rmse"])
def test_permutations_tell_a_fit_from_chance(metric: MacroF1 | RootMeanSquaredError) -> None:
    truth, predicted = (TRUTH, BETTER) if isinstance(metric, MacroF1) else (NUMBERS, PREDICTED)
    assert metric.beats_chance(truth, predicted)
    shuffled = np.random.default_rng(5).permutation(len(truth))
    assert not metric.beats_chance(truth, predicted[shuffled])
    constant = np.repeat(predicted[:1], len(truth), axis=0)
    assert not metric.beats_chance(truth, constant)


def test_unit_of_numbers_does_not_matter_to_a_permutation_test() -> None:
    metric, unit = RootMeanSquaredError(), 2.0**-60
    assert metric.beats_chance(unit * NUMBERS, unit * PREDICTED)
    assert not metric.beats_chance(unit * NUMBERS, unit * np.repeat(PREDICTED[:1], len(NUMBERS)))
