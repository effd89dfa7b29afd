"""Which texts to label next.

A fixed share of the texts of a project is reserved at random: they are labeled in random order, one
at every fifth position by default, and are never chosen for another reason. So they are a uniform
sample of all texts, and only they may estimate accuracy. The other texts are chosen

- before there is a model, to cover the space of vectors: each is the one that is farthest from all
  texts labeled so far (k-center; Sener and Savarese 2018, arXiv 1708.00489);
- with a model, alternately as the most uncertain one, and as the one of the most uncertain ones
  that is farthest from all texts labeled so far.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (texts, width); rows of any length
Rows = NDArray[np.int64]

RANDOM_SHARE = 0.2
# Texts whose distance to all labeled ones is computed for each choice. K-center takes outliers, and
# the more texts it may choose from, the stranger they are.
SPREAD_CANDIDATES = 1000
UNCERTAIN_CANDIDATES = 100  # the most uncertain texts, among which diverse ones are chosen


class Reason(StrEnum):
    """Why a text was chosen."""

    RANDOM = "random"
    SPREAD = "spread"
    UNCERTAIN = "uncertain"
    DIVERSE = "diverse"


@dataclass(frozen=True)
class Choice:
    """A text to label."""

    row: int
    reason: Reason


def choose_next(  # noqa: PLR0913
    count: int,
    *,
    available: NDArray[np.bool_],
    labeled: Iterable[int] = (),
    vectors: Vectors | None,
    uncertainty: NDArray[np.floating[Any]] | None,
    random_share: float = RANDOM_SHARE,
    seed: int,
    position: int,
) -> list[Choice]:
    """Return at most `count` texts to label next, fewer only if no more are available.

    Args:
        count: how many to choose.
        available: (texts,) whether a text may be chosen: it is neither labeled, nor skipped, nor in
            someone's hands. Its length is the number of texts of the project, which never changes.
        labeled: rows that are labeled and may nevertheless be available, as for a second annotator.
        vectors: (texts, width); None: not computed yet, so all texts are random ones.
        uncertainty: (texts,) by the model, higher is more uncertain; None: there is no model yet.
        random_share: share of the positions, and of all texts, that is chosen at random.
        seed: of the project.
        position: how many texts were chosen before in this project. It decides which of the next
            ones are random, and makes choices reproducible.
    """
    reserve = reserved_rows(len(available), random_share, seed)
    free = np.array(available, dtype=bool)
    is_reserved = np.zeros(len(free), dtype=bool)
    is_reserved[reserve] = True
    slots = [_is_random_slot(position + i, random_share) for i in range(count)]
    if vectors is None:
        return _without_vectors(count, free, seed, len(reserve))

    random_rows = iter(reserve[free[reserve]].tolist())
    occupied = ~free
    occupied[np.fromiter(labeled, dtype=np.int64)] = True
    wanted = slots.count(False)
    active = iter(
        _choose_active(
            wanted + count,  # more, for positions that find no reserved text
            np.flatnonzero(free & ~is_reserved),
            np.flatnonzero(occupied),
            vectors,
            uncertainty,
            np.random.default_rng([seed, position]),
        )
    )
    choices: list[Choice] = []
    for is_random in slots:
        row = next(random_rows, None) if is_random else None
        choice = next(active, None) if row is None else Choice(row, Reason.RANDOM)
        if choice is None and (row := next(random_rows, None)) is not None:
            choice = Choice(row, Reason.RANDOM)
        if choice is not None:
            choices.append(choice)
    return choices


def reserved_rows(texts: int, random_share: float, seed: int) -> Rows:
    """Return the rows that are only chosen at random, in the order in which they are chosen."""
    return _random_order(texts, seed)[: math.ceil(round(random_share * texts, 6))]


def _random_order(texts: int, seed: int) -> Rows:
    return np.random.default_rng(seed).permutation(texts)


def _is_random_slot(position: int, share: float) -> bool:
    """Return whether the text at a position is a random one: of n positions, floor(n share) are."""
    before, after = (math.floor(round(each * share, 6)) for each in (position, position + 1))
    return after > before


def _without_vectors(count: int, free: NDArray[np.bool_], seed: int, reserved: int) -> list[Choice]:
    """Return the next texts in random order, the reserved ones first.

    Behind those, a text is a random one only if none was chosen for another reason before: all that
    are gone precede it in the order.
    """
    order = _random_order(len(free), seed)
    places = np.flatnonzero(free[order])
    choices = []
    for place in places[:count].tolist():
        untouched = place < reserved or bool(free[order[place:]].all())
        choices.append(Choice(int(order[place]), Reason.RANDOM if untouched else Reason.SPREAD))
    return choices


def _choose_active(
    count: int,
    candidates: Rows,
    occupied: Rows,
    vectors: Vectors,
    uncertainty: NDArray[np.floating[Any]] | None,
    rng: np.random.Generator,
) -> list[Choice]:
    """Return the texts that are not random ones. `occupied`: rows to be far from."""
    if not len(candidates) or not count:
        return []
    if uncertainty is None:
        if len(candidates) > SPREAD_CANDIDATES:
            candidates = np.sort(rng.choice(candidates, SPREAD_CANDIDATES, replace=False))
        rows = k_center(count, candidates, occupied, vectors)
        return [Choice(row, Reason.SPREAD) for row in rows]
    by_uncertainty = candidates[np.argsort(-uncertainty[candidates], kind="stable")]
    pool = by_uncertainty[: max(UNCERTAIN_CANDIDATES, count)]
    distances = _Distances(vectors, pool, occupied)
    left = np.ones(len(pool), dtype=bool)
    choices = []
    for i in range(min(count, len(pool))):
        if i % 2 == 0:
            place, reason = int(left.argmax()), Reason.UNCERTAIN  # the first that is left
        else:
            place = int(np.where(left, distances.nearest, -1).argmax())
            reason = Reason.DIVERSE
        left[place] = False
        distances.add(place)
        choices.append(Choice(int(pool[place]), reason))
    return choices


def k_center(count: int, candidates: Rows, occupied: Rows, vectors: Vectors) -> list[int]:
    """Return candidates, each the farthest from all `occupied` rows and those before it.

    If nothing is occupied, the first is the most central one.
    """
    distances = _Distances(vectors, candidates, occupied)
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        if not len(occupied) and not chosen:
            place = distances.central()
        else:
            place = int(distances.nearest.argmax())
        chosen.append(int(candidates[place]))
        distances.add(place)
        distances.nearest[place] = -1
    return chosen


class _Distances:
    """Squared Euclidean distances of candidates to the nearest of some rows."""

    def __init__(self, vectors: Vectors, candidates: Rows, rows: Rows) -> None:
        self._x = np.asarray(vectors[candidates], dtype=np.float32)  # (candidates, width)
        self._norms = (self._x**2).sum(axis=1)
        self.nearest = np.full(len(candidates), np.inf)  # (candidates,)
        for first in range(0, len(rows), 1024):
            self._shorten(np.asarray(vectors[rows[first : first + 1024]], dtype=np.float32))

    def add(self, place: int) -> None:
        """Take a candidate into account as a row."""
        chosen = self.nearest < 0  # stays chosen
        self._shorten(self._x[[place]])
        self.nearest[chosen] = -1

    def central(self) -> int:
        """Return the place of the candidate that is nearest to the mean."""
        return int(((self._x - self._x.mean(axis=0)) ** 2).sum(axis=1).argmin())

    def _shorten(self, to: Vectors) -> None:
        squared = self._norms[:, None] - 2 * self._x @ to.T + (to**2).sum(axis=1)
        self.nearest = np.minimum(self.nearest, np.maximum(squared.min(axis=1), 0))
