"""Which texts are labeled next: random ones at their positions, the others spread or uncertain."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics.pairwise import cosine_similarity

from lora_core.active_learning.selection import (
    SPREAD_CANDIDATES,
    UNCERTAIN_CANDIDATES,
    FacilityLocationSelector,
    SelectedText,
    SelectionReason,
    choose_next,
    random_evaluation_rows,
)

TEXTS = 400


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(TEXTS, 8)).astype(np.float32)


def label_all(
    vectors: NDArray[np.float32] | None,
    *,
    uncertainty: NDArray[np.float64] | None = None,
    share: float = 0.2,
    seed: int = 0,
    limit: int = TEXTS,
    count: int = 7,
) -> list[SelectedText]:
    """What a project chooses in batches of `count`, until `limit` texts are labeled."""
    available = np.ones(TEXTS, dtype=bool)
    made: list[SelectedText] = []
    while len(made) < limit:
        choices = choose_next(
            count,
            available=available,
            vectors=vectors,
            uncertainty=uncertainty,
            random_share=share,
            seed=seed,
            position=len(made),
        )
        if not choices:
            break
        available[[choice.row for choice in choices]] = False
        made += choices
    return made[:limit]


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.29, 1.0])
def test_every_text_is_chosen_once_and_the_random_share_is_exact(
    vectors: NDArray[np.float32], share: float, with_model: bool
) -> None:
    uncertainty = np.linspace(0, 1, TEXTS) if with_model else None
    made = label_all(vectors, uncertainty=uncertainty, share=share)
    assert sorted(choice.row for choice in made) == list(range(TEXTS))
    is_random = [choice.reason is SelectionReason.RANDOM for choice in made]
    for texts in (5, 100, 200, TEXTS):
        assert sum(is_random[:texts]) == int(round(texts * share, 6))


def test_random_texts_are_a_uniform_sample_whatever_else_is_chosen(
    vectors: NDArray[np.float32],
) -> None:
    # The uncertain texts come first. If random texts were drawn among those that are left, they
    # would have few uncertain ones.
    uncertainty = np.linspace(1, 0, TEXTS)
    rows = [
        choice.row
        for seed in range(20)
        for choice in label_all(vectors, uncertainty=uncertainty, seed=seed, limit=300, count=60)
        if choice.reason is SelectionReason.RANDOM
    ]
    assert len(rows) == 20 * 60
    # mean of uniform rows: 199.5 with a standard error of 115 / sqrt(1200)
    assert abs(np.mean(rows) - (TEXTS - 1) / 2) < 3 * TEXTS / 12**0.5 / len(rows) ** 0.5


@pytest.mark.parametrize("with_model", [False, True])
def test_other_texts_are_not_chosen_where_the_random_ones_are_not(
    vectors: NDArray[np.float32], with_model: bool
) -> None:
    """Otherwise a random text would be harder than others, once its own label is left out."""
    reserve = random_evaluation_rows(TEXTS, 0.2, 0)
    uncertainty = np.random.default_rng(1).random(TEXTS) if with_model else None
    chosen = []
    for labeled in (reserve[:40], reserve[40:]):
        available = np.ones(TEXTS, dtype=bool)
        available[labeled] = False
        made = choose_next(
            30, available=available, vectors=vectors, uncertainty=uncertainty, seed=0, position=40
        )
        chosen.append([each for each in made if each.reason is not SelectionReason.RANDOM])
    assert len(chosen[0]) == 24
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("with_model", [False, True])
def test_random_texts_beyond_the_reserved_ones_cover_nothing_either(
    vectors: NDArray[np.float32], with_model: bool
) -> None:
    uncertainty = np.random.default_rng(1).random(TEXTS) if with_model else None
    early = [each.row for each in label_all(None, limit=TEXTS // 4)]  # before there are vectors
    random = np.zeros(TEXTS, dtype=bool)
    random[early] = True
    elsewhere = vectors.copy()
    elsewhere[early] = -vectors[early]
    made = [
        choose_next(
            30,
            available=~random,
            random=random,
            vectors=given,
            uncertainty=uncertainty,
            seed=0,
            position=len(early),
        )
        for given in (vectors, elsewhere)
    ]
    assert len(made[0]) == 30
    assert made[0] == made[1]


def test_choices_do_not_depend_on_how_many_are_asked_for_at_once() -> None:
    alone = [choice.row for choice in label_all(None, count=1, limit=30)]
    assert alone == [choice.row for choice in label_all(None, count=13, limit=30)]


def test_without_vectors_texts_come_in_random_order() -> None:
    made = label_all(None, limit=TEXTS)
    assert {choice.reason for choice in made} == {SelectionReason.RANDOM}
    rows = [choice.row for choice in made]
    assert sorted(rows) == list(range(TEXTS))
    assert rows != sorted(rows)


def test_random_order_after_other_choices_is_not_a_random_sample(
    vectors: NDArray[np.float32],
) -> None:
    made = label_all(vectors, limit=10)
    available = np.ones(TEXTS, dtype=bool)
    available[[choice.row for choice in made]] = False
    reserved = set(random_evaluation_rows(TEXTS, 0.2, 0).tolist())
    rest = choose_next(
        TEXTS, available=available, vectors=None, uncertainty=None, seed=0, position=10
    )
    assert all(
        (choice.reason is SelectionReason.RANDOM) == (choice.row in reserved)
        for choice in rest[:80]
    )


def test_leased_and_skipped_texts_are_not_chosen(vectors: NDArray[np.float32]) -> None:
    available = np.zeros(TEXTS, dtype=bool)
    available[:3] = True
    for given in (vectors, None):
        made = choose_next(
            20, available=available, vectors=given, uncertainty=None, seed=3, position=0
        )
        assert sorted(choice.row for choice in made) == [0, 1, 2]


def test_nothing_is_left() -> None:
    none = np.zeros(TEXTS, dtype=bool)
    assert (
        choose_next(3, available=none, vectors=None, uncertainty=None, seed=0, position=TEXTS) == []
    )


def test_coverage_is_that_of_max_herding(vectors: NDArray[np.float32]) -> None:
    similarity = cosine_similarity(vectors)
    labeled, candidates = np.arange(10), np.arange(10, TEXTS)
    coverage = FacilityLocationSelector(vectors, candidates, labeled)
    chosen = [*labeled]
    for _ in range(12):  # by hand
        covered = similarity[10:, chosen].max(axis=1)
        gains = [np.maximum(similarity[10:, each] - covered, 0).mean() for each in candidates]
        place = coverage.best()
        assert gains[place] == pytest.approx(max(gains), rel=1e-4)
        coverage.add(place)
        chosen.append(int(candidates[place]))
    assert len(set(chosen)) == 22


def test_first_text_is_the_one_that_is_most_similar_to_all(vectors: NDArray[np.float32]) -> None:
    coverage = FacilityLocationSelector(vectors, np.arange(TEXTS), np.arange(0))
    assert coverage.best() == int(cosine_similarity(vectors).sum(axis=1).argmax())


def test_spread_leaves_no_cluster_out() -> None:
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(12, 16)) * 4
    cluster = rng.permutation(np.arange(TEXTS) % 12)
    near = (centers[cluster] + rng.normal(size=(TEXTS, 16)) * 0.2).astype(np.float32)
    made = choose_next(
        12,
        available=np.ones(TEXTS, dtype=bool),
        vectors=near,
        uncertainty=None,
        random_share=0.0,
        seed=0,
        position=0,
    )
    assert {choice.reason for choice in made} == {SelectionReason.SPREAD}
    assert len({int(cluster[choice.row]) for choice in made}) == 12


def test_uncertain_and_diverse_texts_take_turns(vectors: NDArray[np.float32]) -> None:
    uncertainty = np.random.default_rng(2).random(TEXTS)
    available = np.ones(TEXTS, dtype=bool)
    available[:50] = False
    made = choose_next(
        10,
        available=available,
        vectors=vectors,
        uncertainty=uncertainty,
        random_share=0.0,
        seed=0,
        position=0,
    )
    counts = Counter(choice.reason for choice in made)
    assert counts == {SelectionReason.UNCERTAIN: 5, SelectionReason.DIVERSE: 5}
    order = [row for row in np.argsort(-uncertainty).tolist() if row >= 50]
    assert made[0].row == order[0]
    assert {choice.row for choice in made} <= set(order[:UNCERTAIN_CANDIDATES])
    # the second is the one of the most uncertain ones that adds most to what is covered
    similarity = cosine_similarity(vectors[order[:UNCERTAIN_CANDIDATES]], vectors)
    covered = similarity[:, [*range(50), made[0].row]].max(axis=1, keepdims=True)
    gains = np.maximum(similarity - covered, 0).sum(axis=0)
    rest = [row for row in order[:UNCERTAIN_CANDIDATES] if row != made[0].row]
    assert gains[made[1].row] == pytest.approx(gains[rest].max(), rel=1e-4)


@pytest.mark.parametrize(("share", "random"), [(0.2, 4), (0.5, 10)])
def test_single_choices_take_turns_as_well(
    vectors: NDArray[np.float32], share: float, random: int
) -> None:
    made = label_all(vectors, uncertainty=np.linspace(0, 1, TEXTS), limit=20, count=1, share=share)
    counts = Counter(choice.reason for choice in made)
    each = (20 - random) // 2
    assert counts == {
        SelectionReason.UNCERTAIN: each,
        SelectionReason.DIVERSE: each,
        SelectionReason.RANDOM: random,
    }


def test_large_pools_are_sampled_reproducibly() -> None:
    many = np.random.default_rng(0).normal(size=(4 * SPREAD_CANDIDATES, 4)).astype(np.float32)

    def choose(position: int) -> list[SelectedText]:
        asked: dict[str, Any] = {"vectors": many, "uncertainty": None, "seed": 5}
        available = np.ones(len(many), dtype=bool)
        return choose_next(6, available=available, position=position, **asked)

    assert choose(0) == choose(0)
    assert choose(0) != choose(60)
