"""Paired comparisons, checked against the tests and intervals of scipy."""

import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, multinomial
from sklearn.metrics import f1_score

from app.jobs.results.comparison import PairedAccuracyComparison, SplitCorrectness
from app.jobs.results.comparison import compare_paired as compare
from tests.sweep_snapshots import make_correctness

Bits = NDArray[np.bool_]


def compare_paired(a: SplitCorrectness, b: SplitCorrectness) -> PairedAccuracyComparison:
    found = compare(a, b)
    assert isinstance(found, PairedAccuracyComparison)
    return found


def right(only_a: int, only_b: int, both: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * only_a + [False] * only_b + [True] * both + [False] * neither
    b = [False] * only_a + [True] * only_b + [True] * both + [False] * neither
    return a, b


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_p_equals_the_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    only_a = sum(a and not b for a, b in pairs)
    only_b = sum(b and not a for a, b in pairs)
    found = compare_paired(
        make_correctness([a for a, _ in pairs]), make_correctness([b for _, b in pairs])
    )
    assert (found.only_a, found.only_b, found.texts) == (only_a, only_b, len(pairs))
    assert found.difference == pytest.approx((only_a - only_b) / len(pairs))
    tossed = only_a + only_b
    assert found.p == pytest.approx(binomtest(only_a, tossed).pvalue if tossed else 1.0)
    assert -1 <= found.low <= found.difference <= found.high <= 1


def test_the_interval_is_close_to_the_bootstrap() -> None:
    a, b = right(60, 35, 380, 25)
    found = compare_paired(make_correctness(a), make_correctness(b))
    drawn = bootstrap(
        (a, b), lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        paired=True, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert found.low == pytest.approx(drawn.low, abs=0.003)
    assert found.high == pytest.approx(drawn.high, abs=0.003)


@pytest.mark.parametrize(("only_a", "only_b"), [(0.02, 0.02), (0.1, 0.04), (0.15, 0.15)])
def test_the_interval_covers_the_true_difference_95_percent_of_the_time(
    only_a: float, only_b: float
) -> None:
    """Sum over all tables of 60 texts, weighted by probability."""
    covered = 0.0
    for first in range(61):
        for second in range(61 - first):
            counts = (first, second, 60 - first - second)
            a, b = right(*counts, neither=0)
            found = compare_paired(make_correctness(a), make_correctness(b))
            if found.low <= only_a - only_b <= found.high:
                covered += multinomial.pmf(counts, 60, [only_a, only_b, 1 - only_a - only_b])
    assert 0.94 < covered < 1


@pytest.mark.parametrize("counts", [(0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 0), (0, 0, 5000, 0)])
def test_the_interval_exists_for_few_discordant_texts(counts: tuple[int, int, int, int]) -> None:
    a, b = right(*counts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare_paired(make_correctness(a), make_correctness(b))
    assert -1 <= found.low < found.high <= 1
    assert found.low <= found.difference <= found.high
    assert found.p == 1
    if counts == (0, 0, 5000, 0):
        assert -0.001 < found.low < 0 < found.high < 0.001


def test_swapping_the_models_negates_the_difference() -> None:
    a, b = (make_correctness(each) for each in right(9, 2, 30, 4))
    ours, theirs = compare_paired(a, b), compare_paired(b, a)
    assert (ours.low, ours.high, ours.p) == (-theirs.high, -theirs.low, theirs.p)
    assert ours.difference > 0


@pytest.mark.parametrize(
    "other",
    [
        make_correctness([True] * 3, "others"),
        make_correctness([True] * 4),
        make_correctness([], "texts"),
    ],
)
def test_different_texts_are_rejected(other: object) -> None:
    with pytest.raises(ValueError, match="different texts"):
        compare_paired(make_correctness([True] * 3), other)  # type: ignore[arg-type]


def test_empty_splits_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="different texts"):
        compare_paired(make_correctness([]), make_correctness([]))


@pytest.mark.parametrize(("right", "texts"), [(0, 7), (7, 7), (1, 1), (340, 400), (24_999, 25_000)])
def test_the_accuracy_interval_equals_scipy(right: int, texts: int) -> None:
    found = make_correctness([True] * right + [False] * (texts - right))
    expected = binomtest(right, texts).proportion_ci(method="wilson")
    assert found.value == right / texts
    assert found.interval == pytest.approx((expected.low, expected.high))


def make_label_sets(truth: Bits, predicted: Bits, texts: str = "texts") -> SplitCorrectness:
    """Pack the true and the predicted labels of texts, (texts, labels)."""
    true_labels, predicted_labels = (
        zlib.compress(np.packbits(each, axis=1).tobytes()) for each in (truth, predicted)
    )
    exact = make_correctness((truth == predicted).all(axis=1), texts)
    return replace(exact, true_labels=true_labels, predicted_labels=predicted_labels)


def make_errors(errors: NDArray[np.float64], texts: str = "texts") -> SplitCorrectness:
    numbers = make_correctness([True] * len(errors), texts)
    return replace(numbers, correct=None, errors=errors.astype("<f4").tobytes())


@pytest.mark.parametrize("texts", [3, 200])
@pytest.mark.parametrize("labels", [2, 5, 9])
def test_several_labels_are_compared_by_macro_f1(texts: int, labels: int) -> None:
    random = np.random.default_rng(labels)
    truth = random.random((texts, labels)) < 0.5
    truth[0] = True
    good, bad = (truth ^ (random.random(truth.shape) < error) for error in (0.1, 0.4))
    a, b = (make_label_sets(truth, predicted) for predicted in (good, bad))
    scores = [f1_score(truth, each, average="macro", zero_division=0.0) for each in (good, bad)]
    assert [a.value, b.value] == pytest.approx(scores)
    found = compare(a, b)
    assert found.difference == pytest.approx(scores[0] - scores[1])
    assert found.low <= found.difference <= found.high or texts == 3
    assert found.significant or texts == 3
    assert not compare(a, a).significant


def test_few_texts_without_an_error_do_not_prove_a_perfect_model() -> None:
    truth = np.tile([[True, False], [False, True]], (4, 1))
    flags = replace(make_label_sets(truth, truth), constant_error=0.5)
    topic = replace(make_correctness([True] * 8), constant_error=0.5)
    both = replace(topic, targets={"flags": flags, "topic": topic})
    expected = binomtest(8, 8).proportion_ci(method="wilson")
    for each in (flags, topic, both):
        assert each.interval == pytest.approx((expected.low, expected.high))


def test_numbers_are_compared_by_rmse_with_a_paired_bootstrap() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=400)
    ours, theirs = noise + random.normal(scale=0.1, size=400), noise * 1.2
    a, b = make_errors(ours), make_errors(theirs)
    assert a.value == pytest.approx(np.sqrt((ours**2).mean()), rel=1e-6)
    drawn = bootstrap(
        (ours, theirs), lambda a, b, axis: np.sqrt((a**2).mean(axis)) - np.sqrt((b**2).mean(axis)),
        paired=True, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    found = compare(a, b)
    assert (found.low, found.high) == pytest.approx((drawn.low, drawn.high), abs=0.01)
    assert found.significant
    assert found.difference < 0  # lower is better


def test_metrics_of_different_tasks_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different texts"):
        compare(make_errors(np.ones(3)), make_correctness([True] * 3))
