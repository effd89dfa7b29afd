"""Winner of a sweep, trials within noise of it, and the cheapest of them."""

import time
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from app.jobs.results.comparison import PairedAccuracyComparison
from app.sweeps.repository import signed_objective_score
from app.sweeps.snapshot import TrialSnapshot, select_winner_and_cheapest
from tests.sweep_snapshots import grid_snapshot, make_correctness, make_snapshot, make_trial

TEXT_COUNT = 400


def correct_texts(count: int, start: int = 0) -> NDArray[np.bool_]:
    """`count` of 400 texts are classified correctly, beginning with the text `start`."""
    correct = np.zeros(TEXT_COUNT, dtype=bool)
    correct[start : start + count] = True
    return correct


def test_winner_and_cheapest_within_noise() -> None:
    selection = select_winner_and_cheapest(
        make_snapshot(
            make_trial(
                1, validation=correct_texts(300), test=correct_texts(200), trainable_parameters=10
            ),
            make_trial(
                2, validation=correct_texts(360), test=correct_texts(340), trainable_parameters=900
            ),
            make_trial(
                3, validation=correct_texts(357), test=correct_texts(350), trainable_parameters=100
            ),
            make_trial(
                4, validation=correct_texts(358), test=correct_texts(350), trainable_parameters=100
            ),
            make_trial(
                5, validation=correct_texts(350), test=correct_texts(350), trainable_parameters=50
            ),
        )
    )
    assert selection is not None
    assert (selection.winner, selection.within_noise, selection.cheapest, selection.compared) == (
        2,
        (2, 3, 4),
        4,
        5,
    )
    assert isinstance(selection.validation, PairedAccuracyComparison)
    assert (selection.validation.only_a, selection.validation.only_b) == (2, 0)
    assert selection.test is not None
    assert selection.test.difference == pytest.approx(-10 / TEXT_COUNT)


def test_the_accuracy_interval_is_a_wilson_interval() -> None:
    selection = select_winner_and_cheapest(
        make_snapshot(
            make_trial(
                1,
                validation=correct_texts(300),
                test=correct_texts(340),
                metrics={"test": {"loss": 0.4}},
            )
        )
    )
    assert selection is not None
    assert selection.winner_test is not None
    # Wilson's formula by hand, z = 1.959964.
    p, n, z2 = 0.85, TEXT_COUNT, 1.959964**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    margin = (z2 * (p * (1 - p) / n + z2 / (4 * n**2))) ** 0.5 / (1 + z2 / n)
    assert selection.winner_test.low == pytest.approx(centre - margin, abs=1e-7)
    assert selection.winner_test.high == pytest.approx(centre + margin, abs=1e-7)
    assert (selection.winner_test.value, selection.winner_test.texts) == (0.85, TEXT_COUNT)
    assert selection.winner_test.objective == 0.85


def test_the_objective_ranks_and_is_reported_on_test() -> None:
    losses = [{part: {"loss": loss} for part in ("validation", "test")} for loss in (0.5, 0.3)]
    trials = [
        make_trial(number, validation=right, test=right, metrics=metrics)
        for number, right, metrics in zip(
            (1, 2), (correct_texts(390), correct_texts(380)), losses, strict=True
        )
    ]
    by_loss, by_accuracy = (
        select_winner_and_cheapest(make_snapshot(*trials, objective="loss")),
        select_winner_and_cheapest(make_snapshot(*trials)),
    )
    assert by_loss is not None
    assert by_accuracy is not None
    assert (by_loss.winner, by_accuracy.winner) == (2, 1)
    assert by_loss.winner_test is not None
    assert by_loss.winner_test.objective == 0.3
    # Trial 1 is correct on ten texts more: not within noise, although its loss is worse.
    assert by_loss.within_noise == (2,)
    assert select_winner_and_cheapest(make_snapshot(*trials, objective="macro_f1")) is None


def test_ties_go_to_the_smaller_then_to_the_lower_number() -> None:
    trials = [
        make_trial(number, validation=correct_texts(300), trainable_parameters=size)
        for number, size in ((1, 30), (2, 20), (4, 10), (3, 10))
    ]
    selection = select_winner_and_cheapest(make_snapshot(*trials))
    assert selection is not None
    assert (selection.winner, selection.cheapest, selection.within_noise) == (3, 3, (1, 2, 3, 4))
    assert (selection.validation, selection.test) == (None, None)


@pytest.mark.parametrize(
    "state",
    [
        {"state": "running"},
        {"state": "failed"},
        {"budget": 0.5},
        {"metrics": {"validation": {"accuracy": float("nan")}}},
    ],
)
def test_only_complete_trials_are_compared(state: dict[str, Any]) -> None:
    best = make_trial(1, validation=correct_texts(400), **state)
    assert select_winner_and_cheapest(make_snapshot(best)) is None
    selection = select_winner_and_cheapest(
        make_snapshot(best, make_trial(2, validation=correct_texts(100)))
    )
    assert selection is not None
    assert (selection.winner, selection.compared) == (2, 1)


def test_trials_with_other_texts_are_not_compared() -> None:
    other = make_trial(2, validation=correct_texts(359), trainable_parameters=1)
    other = with_correctness(other, "other texts", correct_texts(359))
    selection = select_winner_and_cheapest(
        make_snapshot(make_trial(1, validation=correct_texts(360)), other)
    )
    assert selection is not None
    assert (selection.within_noise, selection.compared) == ((1,), 1)


def test_a_winner_with_unknown_correctness_is_compared_with_nothing() -> None:
    alone = make_trial(1, metrics={"validation": {"accuracy": 0.99}, "test": {"accuracy": 0.9}})
    selection = select_winner_and_cheapest(
        make_snapshot(alone, make_trial(2, validation=correct_texts(300), trainable_parameters=1))
    )
    assert selection is not None
    assert (selection.winner, selection.cheapest, selection.within_noise) == (1, 1, (1,))
    assert (selection.winner_validation, selection.winner_test) == (None, None)


def test_different_test_texts_are_not_compared() -> None:
    cheap = make_trial(
        2, validation=correct_texts(360), test=correct_texts(300), trainable_parameters=1
    )
    other = {**cheap.correctness, "test": make_correctness(correct_texts(300), "other")}
    winner = make_trial(1, validation=correct_texts(361), test=correct_texts(300))
    selection = select_winner_and_cheapest(
        make_snapshot(winner, TrialSnapshot(**{**vars(cheap), "correctness": other}))
    )
    assert selection is not None
    assert selection.cheapest == 2
    assert selection.validation is not None
    assert selection.test is None
    assert selection.cheapest_test is not None


def test_within_noise_agrees_with_the_binomial_test() -> None:
    complete = [each for each in grid_snapshot().trials if each.succeeded_at_full_budget]
    selection = select_winner_and_cheapest(grid_snapshot())
    assert selection is not None
    right = {each.number: unpack_correctness(each) for each in complete}
    winner = max(complete, key=lambda each: right[each.number].mean()).number
    within_noise = []
    for number, each in right.items():
        only_a, only_b = int((right[winner] & ~each).sum()), int((each & ~right[winner]).sum())
        if only_a + only_b == 0 or binomtest(only_a, only_a + only_b).pvalue >= 0.05:
            within_noise.append(number)
    assert 1 < len(within_noise) < len(complete)
    assert (selection.winner, selection.within_noise) == (winner, tuple(within_noise))


def test_the_winner_of_many_trials_is_found_in_a_second() -> None:
    random = np.random.default_rng(0)
    trials = [
        make_trial(number, validation=random.random(5000) < 0.9, test=random.random(5000) < 0.9)
        for number in range(576)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select_winner_and_cheapest(make_snapshot(*trials))
        began = time.process_time()
        assert select_winner_and_cheapest(make_snapshot(*trials)) is not None
    assert time.process_time() - began < 1


def unpack_correctness(each: TrialSnapshot) -> NDArray[np.bool_]:
    packed = each.correctness["validation"]
    bits = np.unpackbits(np.frombuffer(packed.correct or b"", dtype=np.uint8))
    return bits[: packed.count].astype(bool)


def with_correctness(each: TrialSnapshot, texts: str, right: NDArray[np.bool_]) -> TrialSnapshot:
    return TrialSnapshot(
        **{**vars(each), "correctness": {"validation": make_correctness(right, texts)}}
    )


@pytest.mark.parametrize(
    ("objective", "best"),
    [("rmse", 1), ("mae", 1), ("hamming_loss", 1), ("r2", 3), ("kappa", 3), ("map", 3)],
)
def test_every_objective_is_ranked_in_its_direction(objective: str, best: int) -> None:
    trials = [
        make_trial(number, metrics={"validation": {objective: number / 10}}) for number in (2, 3, 1)
    ]
    snapshot = make_snapshot(*trials, objective=objective)
    assert [trial.number for trial in snapshot.ranked] == [best, 2, 4 - best]
    scores = {
        trial.number: signed_objective_score({"validation": trial.metrics["validation"]}, objective)
        for trial in trials
    }
    assert max(scores, key=lambda number: scores[number] or 0) == best
