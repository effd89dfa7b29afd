"""Which texts to label next.

A fixed share of the texts of a project is reserved at random: they are labeled in random order, one
at every fifth position by default, and are never chosen for another reason. So they are a uniform
sample of all texts, and only they may estimate accuracy. The other texts are chosen

- before there is a model, to cover the space of vectors: each is the one that is similar to the
  most texts that no text chosen before is as similar to (MaxHerding: Bae, Noh and Sutherland 2024,
  arXiv 2407.12212, with cosine similarity);
- with a model, alternately as the most uncertain one, and as the one that covers the most uncertain
  ones in the same way.

Which random texts are labeled, and how, does not matter for the choice of others: they cover
nothing, and uncertainty is that of `score_uncertainty_excluding_random_labels`.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (texts, width); rows of any length
Rows = NDArray[np.int64]

RANDOM_SHARE = 0.2
SPREAD_CANDIDATES = (
    1000  # texts of a sample of the pool, which stand for it while there is no model
)
UNCERTAIN_CANDIDATES = 100  # the most uncertain texts, among which diverse ones are chosen
_ROWS_AT_ONCE = 1024  # to which similarities are computed


class SelectionReason(StrEnum):
    """Why a text was chosen."""

    RANDOM = "random"
    SPREAD = "spread"
    UNCERTAIN = "uncertain"
    DIVERSE = "diverse"


@dataclass(frozen=True)
class SelectedText:
    """A text to label."""

    row: int
    reason: SelectionReason


def choose_next(  # noqa: PLR0913
    count: int,
    *,
    available: NDArray[np.bool_],
    random: NDArray[np.bool_] | None = None,
    vectors: Vectors | None,
    uncertainty: NDArray[np.floating[Any]] | None,
    random_share: float = RANDOM_SHARE,
    seed: int,
    position: int,
) -> list[SelectedText]:
    """Return at most `count` texts to label next, fewer only if no more are available.

    Args:
        count: how many to choose.
        available: (texts,) whether a text may be chosen: it is neither labeled, nor skipped, nor in
            someone's hands. Its length is the number of texts of the project, which never changes.
        random: (texts,) whether a text was chosen as a random one. Before there are vectors, these
            may be more than the reserved ones.
        vectors: (texts, width); None: not computed yet, so all texts are random ones.
        uncertainty: (texts,) of `score_uncertainty_excluding_random_labels`, higher is more
            uncertain; None: there is no model yet.
        random_share: share of the positions, and of all texts, that is chosen at random.
        seed: of the project.
        position: how many texts were chosen before in this project. It decides which of the next
            ones are random, and makes choices reproducible.
    """
    reserve = random_evaluation_rows(len(available), random_share, seed)
    free = np.array(available, dtype=bool)
    is_reserved = np.zeros(len(free), dtype=bool)
    is_reserved[reserve] = True
    slots = [_is_random_slot(position + i, random_share) for i in range(count)]
    if vectors is None:
        return _without_vectors(count, free, seed, len(reserve))

    random_rows = iter(reserve[free[reserve]].tolist())
    occupied = ~free
    # Random texts cover nothing. If others were chosen where these are not, a random text would
    # have fewer labels around it than an unlabeled one, and accuracy measured on it would be too
    # low.
    occupied[reserve] = False
    if random is not None:
        occupied[random] = False
    candidates = np.flatnonzero(free & ~is_reserved)
    active = _ActiveChoices(
        _narrow_down(candidates, uncertainty, count, np.random.default_rng([seed, position])),
        np.flatnonzero(occupied),
        vectors,
        has_model=uncertainty is not None,
        taken=position - _random_slots_before(position, random_share),
    )
    choices: list[SelectedText] = []
    for is_random in slots:
        row = next(random_rows, None) if is_random else None
        choice = active.take_next() if row is None else SelectedText(row, SelectionReason.RANDOM)
        if choice is None and (row := next(random_rows, None)) is not None:
            choice = SelectedText(row, SelectionReason.RANDOM)
        if choice is not None:
            choices.append(choice)
    return choices


def random_evaluation_rows(texts: int, random_share: float, seed: int) -> Rows:
    """Return the rows that are only chosen at random, in the order in which they are chosen."""
    return _random_order(texts, seed)[: math.ceil(round(random_share * texts, 6))]


def _random_order(texts: int, seed: int) -> Rows:
    return np.random.default_rng(seed).permutation(texts)


def _is_random_slot(position: int, share: float) -> bool:
    """Return whether the text at a position is a random one: of n positions, floor(n share) are."""
    return _random_slots_before(position + 1, share) > _random_slots_before(position, share)


def _random_slots_before(position: int, share: float) -> int:
    return math.floor(round(position * share, 6))


def _without_vectors(
    count: int, free: NDArray[np.bool_], seed: int, reserved: int
) -> list[SelectedText]:
    """Return the next texts in random order, the reserved ones first.

    Behind those, a text is a random one only if none was chosen for another reason before: all that
    are gone precede it in the order.
    """
    order = _random_order(len(free), seed)
    places = np.flatnonzero(free[order])
    choices = []
    for place in places[:count].tolist():
        untouched = place < reserved or bool(free[order[place:]].all())
        choices.append(
            SelectedText(
                int(order[place]), SelectionReason.RANDOM if untouched else SelectionReason.SPREAD
            )
        )
    return choices


def _narrow_down(
    candidates: Rows,
    uncertainty: NDArray[np.floating[Any]] | None,
    count: int,
    rng: np.random.Generator,
) -> Rows:
    """Return the most uncertain candidates, in this order; without a model a sample of them."""
    if uncertainty is not None:
        order = np.argsort(-uncertainty[candidates], kind="stable")
        return candidates[order[: max(UNCERTAIN_CANDIDATES, count)]]
    limit = max(SPREAD_CANDIDATES, count)
    if len(candidates) <= limit:
        return candidates
    return np.sort(rng.choice(candidates, limit, replace=False))


class _ActiveChoices:
    """Choices that are not random ones, one at a time."""

    def __init__(
        self, candidates: Rows, occupied: Rows, vectors: Vectors, *, has_model: bool, taken: int
    ) -> None:
        """`occupied`: rows that were chosen before; `taken`: how many of them were not random."""
        self._candidates, self._has_model, self._taken = candidates, has_model, taken
        self._coverage = FacilityLocationSelector(vectors, candidates, occupied)

    def take_next(self) -> SelectedText | None:
        """Return the next text; None if no candidate is left."""
        coverage = self._coverage
        if not coverage.left.any():
            return None
        if self._has_model and self._taken % 2 == 0:
            place, reason = (
                int(coverage.left.argmax()),
                SelectionReason.UNCERTAIN,
            )  # the most uncertain one
        else:
            place = coverage.best()
            reason = SelectionReason.DIVERSE if self._has_model else SelectionReason.SPREAD
        coverage.add(place)
        self._taken += 1
        return SelectedText(int(self._candidates[place]), reason)


class FacilityLocationSelector:
    """How well chosen rows cover candidates: by the similarity to the most similar one of them."""

    def __init__(self, vectors: Vectors, candidates: Rows, occupied: Rows) -> None:
        """`occupied`: rows that were chosen before."""
        x = _unit_length(vectors[candidates])
        self._similarity = x @ x.T  # (candidates, candidates)
        self._covered = np.full(len(candidates), -1, dtype=np.float32)  # -1: not at all
        self.left = np.ones(len(candidates), dtype=bool)  # those that are not chosen
        for first in range(0, len(occupied), _ROWS_AT_ONCE):
            rows = _unit_length(vectors[occupied[first : first + _ROWS_AT_ONCE]])
            self._covered = np.maximum(self._covered, (x @ rows.T).max(axis=1))

    def best(self) -> int:
        """Return the place of the candidate that is left and adds most to the coverage of all."""
        gain = np.maximum(self._similarity - self._covered, 0).sum(axis=1)
        return int(np.where(self.left, gain, -1).argmax())

    def add(self, place: int) -> None:
        """Choose a candidate."""
        self.left[place] = False
        self._covered = np.maximum(self._covered, self._similarity[place])


def _unit_length(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
