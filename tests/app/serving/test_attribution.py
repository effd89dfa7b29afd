"""Tests of Shapley values on games whose values are known."""

from collections.abc import Callable
from math import factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.explanation import (
    MAX_EXHAUSTIVE_WORDS,
    MAX_PERMUTATION_PAIRS,
    Coalition,
    collect_needed_coalitions,
    sample_permutations,
    shapley_values,
)

Game = Callable[[Coalition], float]
WORD_COUNTS = st.integers(1, 12)


def values(game: Game, words: int, tokens: int = 10) -> list[float]:
    permutations = sample_permutations(words, tokens)
    return shapley_values(
        {
            coalition: game(coalition)
            for coalition in collect_needed_coalitions(words, permutations)
        },
        permutations,
    )


def additive(coalition: Coalition) -> float:
    return sum(0.1 * (number - 2) for number, present in enumerate(coalition) if present)


@given(words=WORD_COUNTS)
def test_values_of_additive_game_are_its_summands(words: int) -> None:
    expected = [0.1 * (number - 2) for number in range(words)]
    assert values(additive, words) == pytest.approx(expected, abs=1e-6)


@given(words=WORD_COUNTS, seed=st.integers())
def test_values_add_up_to_full_score_minus_empty_score(words: int, seed: int) -> None:
    def game(coalition: Coalition) -> float:
        return hash((seed, coalition)) % 1000 / 1000

    full, empty = game((True,) * words), game((False,) * words)
    assert sum(values(game, words)) == pytest.approx(full - empty, abs=1e-5)


def test_two_words_share_their_joint_effect() -> None:
    def game(coalition: Coalition) -> float:
        return float(coalition[0] and coalition[2])

    assert values(game, 4) == pytest.approx([0.5, 0, 0.5, 0], abs=1e-6)
    assert values(game, 9) == pytest.approx(
        [0.5, 0, 0.5, *[0] * 6], abs=1e-6
    )  # thanks to the reverses


def test_repeated_words_get_equal_values() -> None:
    def game(coalition: Coalition) -> float:
        return float(coalition[0] or coalition[1])

    assert values(game, 3) == pytest.approx([0.5, 0.5, 0], abs=1e-6)


def test_few_words_use_all_permutations() -> None:
    for words in range(1, MAX_EXHAUSTIVE_WORDS + 1):
        permutations = sample_permutations(words, 100)
        assert len(permutations) == factorial(words)
        assert len(collect_needed_coalitions(words, permutations)) == 2**words


def test_many_words_use_deterministic_antithetic_pairs() -> None:
    permutations = sample_permutations(20, 22)
    assert permutations == sample_permutations(20, 22)
    assert len(permutations) == 2 * MAX_PERMUTATION_PAIRS
    assert len(collect_needed_coalitions(20, permutations)) <= 2 * MAX_PERMUTATION_PAIRS * 19 + 2
    for permutation, reverse in zip(permutations[::2], permutations[1::2], strict=True):
        assert sorted(permutation) == list(range(20))
        assert reverse == permutation[::-1]


def test_long_texts_use_fewer_permutations() -> None:
    assert len(sample_permutations(32, 128)) == 4
    assert len(sample_permutations(32, 512)) == 2


def test_full_and_empty_coalitions_come_first() -> None:
    assert collect_needed_coalitions(2, sample_permutations(2, 4)) == [
        (True, True),
        (False, False),
        (True, False),
        (False, True),
    ]
    assert collect_needed_coalitions(0, sample_permutations(0, 2)) == [()]
