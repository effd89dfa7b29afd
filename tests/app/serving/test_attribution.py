"""Shapley values of games whose values are known."""

from collections.abc import Callable
from math import factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.attribution import FEW, PAIRS, Kept, orders, shapley, steps

Game = Callable[[Kept], float]
COUNTS = st.integers(1, 12)


def values(game: Game, words: int, tokens: int = 10) -> list[float]:
    tried = orders(words, tokens)
    return shapley({kept: game(kept) for kept in steps(words, tried)}, tried)


def additive(kept: Kept) -> float:
    return sum(0.1 * (number - 2) for number, there in enumerate(kept) if there)


@given(words=COUNTS)
def test_words_that_only_add_up_are_worth_what_they_add(words: int) -> None:
    expected = [0.1 * (number - 2) for number in range(words)]
    assert values(additive, words) == pytest.approx(expected, abs=1e-6)


@given(words=COUNTS, seed=st.integers())
def test_values_add_up_to_the_score_of_all_words_less_that_of_none(words: int, seed: int) -> None:
    def game(kept: Kept) -> float:
        return hash((seed, kept)) % 1000 / 1000

    whole, none = game((True,) * words), game((False,) * words)
    assert sum(values(game, words)) == pytest.approx(whole - none, abs=1e-5)


def test_pairs_share_what_they_do_together() -> None:
    def game(kept: Kept) -> float:
        return float(kept[0] and kept[2])

    assert values(game, 4) == pytest.approx([0.5, 0, 0.5, 0], abs=1e-6)
    assert values(game, 9) == pytest.approx([0.5, 0, 0.5, *[0] * 6], abs=1e-6)  # by the reverse


def test_a_word_said_twice_is_worth_as_much_both_times() -> None:
    def game(kept: Kept) -> float:
        return float(kept[0] or kept[1])

    assert values(game, 3) == pytest.approx([0.5, 0.5, 0], abs=1e-6)


def test_few_words_join_in_every_order() -> None:
    for words in range(1, FEW + 1):
        tried = orders(words, 100)
        assert len(tried) == factorial(words)
        assert len(steps(words, tried)) == 2**words


def test_many_words_join_in_some_orders_which_are_always_the_same() -> None:
    tried = orders(20, 22)
    assert tried == orders(20, 22)
    assert len(tried) == 2 * PAIRS
    assert len(steps(20, tried)) <= 2 * PAIRS * 19 + 2
    for order, reverse in zip(tried[::2], tried[1::2], strict=True):
        assert sorted(order) == list(range(20))
        assert reverse == order[::-1]


def test_long_texts_are_read_less_often() -> None:
    assert len(orders(32, 128)) == 4
    assert len(orders(32, 512)) == 2


def test_all_words_and_none_come_first() -> None:
    assert steps(2, orders(2, 4)) == [(True, True), (False, False), (True, False), (False, True)]
    assert steps(0, orders(0, 2)) == [()]
