"""Who wins a sweep, who is as good, and who is cheap."""

import time
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from app.sweeps.snapshot import Cell
from app.sweeps.winner import judge
from tests.boards import board, cell, graded, grid

TEXTS = 400


def first(share: int, wrong: int = 0) -> NDArray[np.bool_]:
    """So many right answers of 400, from the text `wrong` on."""
    right = np.zeros(TEXTS, dtype=bool)
    right[wrong : wrong + share] = True
    return right


def test_the_best_on_validation_wins_and_the_cheapest_as_good_is_named() -> None:
    found = judge(
        board(
            cell(1, validation=first(300), test=first(200), trainable_parameters=10),
            cell(2, validation=first(360), test=first(340), trainable_parameters=900),
            cell(3, validation=first(357), test=first(350), trainable_parameters=100),
            cell(4, validation=first(358), test=first(350), trainable_parameters=100),
            cell(5, validation=first(350), test=first(350), trainable_parameters=50),
        )
    )
    assert found is not None
    assert (found.winner, found.near, found.cheapest, found.compared) == (2, (2, 3, 4), 4, 5)
    assert found.validation is not None
    assert (found.validation.only_a, found.validation.only_b) == (2, 0)
    assert found.test is not None
    assert found.test.difference == pytest.approx(-10 / TEXTS)


def test_a_test_interval_is_wilson_s() -> None:
    found = judge(
        board(cell(1, validation=first(300), test=first(340), figures={"test": {"loss": 0.4}}))
    )
    assert found is not None
    assert found.winner_test is not None
    # Wilson's formula by hand, z = 1.959964.
    p, n, z2 = 0.85, TEXTS, 1.959964**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    margin = (z2 * (p * (1 - p) / n + z2 / (4 * n**2))) ** 0.5 / (1 + z2 / n)
    assert found.winner_test.low == pytest.approx(centre - margin, abs=1e-7)
    assert found.winner_test.high == pytest.approx(centre + margin, abs=1e-7)
    assert (found.winner_test.accuracy, found.winner_test.texts) == (0.85, TEXTS)
    assert found.winner_test.objective == 0.85


def test_the_objective_decides_and_is_told_of_the_test_part() -> None:
    losses = [{part: {"loss": loss} for part in ("validation", "test")} for loss in (0.5, 0.3)]
    cells = [
        cell(number, validation=right, test=right, figures=figures)
        for number, right, figures in zip((1, 2), (first(390), first(380)), losses, strict=True)
    ]
    by_loss, by_accuracy = judge(board(*cells, objective="loss")), judge(board(*cells))
    assert by_loss is not None
    assert by_accuracy is not None
    assert (by_loss.winner, by_accuracy.winner) == (2, 1)
    assert by_loss.winner_test is not None
    assert by_loss.winner_test.objective == 0.3
    # Cell 1 answers ten texts more, which is no noise though its loss is worse.
    assert by_loss.near == (2,)
    assert judge(board(*cells, objective="macro_f1")) is None


def test_ties_go_to_the_smaller_then_to_the_earlier() -> None:
    cells = [
        cell(number, validation=first(300), trainable_parameters=size)
        for number, size in ((1, 30), (2, 20), (4, 10), (3, 10))
    ]
    found = judge(board(*cells))
    assert found is not None
    assert (found.winner, found.cheapest, found.near) == (3, 3, (1, 2, 3, 4))
    assert (found.validation, found.test) == (None, None)


@pytest.mark.parametrize(
    "state",
    [
        {"state": "running"},
        {"state": "failed"},
        {"share": 0.5},
        {"figures": {"validation": {"accuracy": float("nan")}}},
    ],
)
def test_only_what_ran_whole_is_judged(state: dict[str, Any]) -> None:
    best = cell(1, validation=first(400), **state)
    assert judge(board(best)) is None
    found = judge(board(best, cell(2, validation=first(100))))
    assert found is not None
    assert (found.winner, found.compared) == (2, 1)


def test_other_texts_are_not_compared() -> None:
    stranger = cell(2, validation=first(359), trainable_parameters=1)
    stranger = replaced(stranger, "other texts", first(359))
    found = judge(board(cell(1, validation=first(360)), stranger))
    assert found is not None
    assert (found.near, found.compared) == ((1,), 1)


def test_a_winner_whose_answers_are_unknown_stands_alone() -> None:
    alone = cell(1, figures={"validation": {"accuracy": 0.99}, "test": {"accuracy": 0.9}})
    found = judge(board(alone, cell(2, validation=first(300), trainable_parameters=1)))
    assert found is not None
    assert (found.winner, found.cheapest, found.near) == (1, 1, (1,))
    assert (found.winner_validation, found.winner_test) == (None, None)


def test_different_test_texts_have_no_difference() -> None:
    cheap = cell(2, validation=first(360), test=first(300), trainable_parameters=1)
    other = {**cheap.graded, "test": graded(first(300), "other")}
    winner = cell(1, validation=first(361), test=first(300))
    found = judge(board(winner, Cell(**{**vars(cheap), "graded": other})))
    assert found is not None
    assert found.cheapest == 2
    assert found.validation is not None
    assert found.test is None
    assert found.cheapest_test is not None


def test_noise_is_where_the_binomial_test_says_so() -> None:
    whole = [each for each in grid().cells if each.whole]
    found = judge(grid())
    assert found is not None
    right = {each.number: unpacked(each) for each in whole}
    winner = max(whole, key=lambda each: right[each.number].mean()).number
    near = []
    for number, each in right.items():
        only_a, only_b = int((right[winner] & ~each).sum()), int((each & ~right[winner]).sum())
        if only_a + only_b == 0 or binomtest(only_a, only_a + only_b).pvalue >= 0.05:
            near.append(number)
    assert 1 < len(near) < len(whole)
    assert (found.winner, found.near) == (winner, tuple(near))


def test_many_cells_are_judged_at_once() -> None:
    random = np.random.default_rng(0)
    cells = [
        cell(number, validation=random.random(5000) < 0.9, test=random.random(5000) < 0.9)
        for number in range(576)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge(board(*cells))
        began = time.process_time()
        assert judge(board(*cells)) is not None
    assert time.process_time() - began < 1


def unpacked(each: Cell) -> NDArray[np.bool_]:
    part = each.graded["validation"]
    bits = np.unpackbits(np.frombuffer(part.correct, dtype=np.uint8))
    return bits[: part.count].astype(bool)


def replaced(each: Cell, texts: str, right: NDArray[np.bool_]) -> Cell:
    return Cell(**{**vars(each), "graded": {"validation": graded(right, texts)}})
