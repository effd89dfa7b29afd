"""Are recent texts like those of training? The classifier two-sample test.

A classifier that distinguishes held-out recent texts from training texts shows that they differ
(Lopez-Paz and Oquab 2017, arXiv 1610.06545). The classifier is ridge regression, cross-validated.
The p value is that of a permutation test: the sides of the texts are shuffled, and the classifier
is fitted again each time. So the test holds its level, whatever the vectors are, if the texts of
both sides are independent draws.

A text that is on both sides says nothing of a difference. It stays on both in all permutations:
apart in the observed sides, together in some shuffled ones, it would hide that others differ. It is
in the same fold as its twin, which would otherwise predict the wrong side for it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse, vstack
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from lora_core.specs.drift import MAX_TEXTS, MIN_TEXTS

Vectors = Any  # (texts, width): an array, or a sparse matrix in CSR format
Floats = NDArray[np.float64]

NUM_FOLDS = 5
PERMUTATIONS = 499
RIDGE = 0.1  # penalty per text, for vectors of mean norm 1


@dataclass(frozen=True)
class TwoSampleResult:
    """Whether two samples of texts differ."""

    p_value: float
    auc: float  # of recent against reference texts; 0.5: they cannot be distinguished
    most_different: tuple[int, ...]  # rows of `recent` alone, the most different first
    reference_texts: int  # that were used
    recent_texts: int


def classifier_two_sample_test(
    reference: Vectors,
    recent: Vectors,
    seed: int = 0,
    *,
    twins: NDArray[np.int64] | None = None,
    rows: int = 10,
) -> TwoSampleResult | None:
    """Return the result of the test, or None with fewer than `MIN_TEXTS` texts on a side.

    Args:
        reference: (texts, width) of training texts.
        recent: (texts, width) of recent texts.
        seed: of samples, folds and permutations.
        twins: (recent texts,) the row of `reference` that is the same text, or -1.
        rows: how many of the most different texts to return.
    """
    if min(reference.shape[0], recent.shape[0]) < MIN_TEXTS:
        return None
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.permutation(side.shape[0])[:MAX_TEXTS]) for side in (reference, recent)]
    kernel = _centered_kernel(reference[drawn[0]], recent[drawn[1]])
    n = len(kernel)
    is_recent = np.arange(n) >= len(drawn[0])
    pairs = _pairs(drawn[0], drawn[1], twins)
    is_free = np.ones(n, dtype=bool)
    is_free[pairs] = False
    free = np.flatnonzero(is_free)
    # (texts, 1 + permutations): the true sides first
    sides = np.repeat(is_recent[:, None].astype(np.float64), 1 + PERMUTATIONS, axis=1)
    for i in range(PERMUTATIONS):
        sides[free, 1 + i] = is_recent[free[rng.permutation(len(free))]]
    fold = rng.permutation(n) % NUM_FOLDS
    fold[pairs[1]] = fold[pairs[0]]
    scores = _out_of_fold(kernel, sides, fold)
    aucs = _auc(scores, sides)
    as_high = int((aucs[1:] >= aucs[0] - 1e-12).sum())
    order = np.argsort(-scores[is_recent, 0], kind="stable")
    order = order[is_free[is_recent][order]]
    return TwoSampleResult(
        p_value=(as_high + 1) / (PERMUTATIONS + 1),
        auc=float(aucs[0]),
        most_different=tuple(drawn[1][order[:rows]].tolist()),
        reference_texts=len(drawn[0]),
        recent_texts=len(drawn[1]),
    )


def _pairs(
    reference: NDArray[np.int64], recent: NDArray[np.int64], twins: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Return the places (2, pairs) of drawn texts that are the same, all recent ones being last."""
    if twins is None:
        return np.empty((2, 0), dtype=np.int64)
    wanted = twins[recent]
    place = np.searchsorted(reference, wanted).clip(max=len(reference) - 1)
    found = np.flatnonzero(reference[place] == wanted)
    return np.stack([place[found], len(reference) + found])


def _centered_kernel(reference: Vectors, recent: Vectors) -> Floats:
    """Return the inner products (texts, texts) of the vectors, centered and of mean norm 1.

    Centering the products, not the vectors, keeps sparse vectors sparse.
    """
    if issparse(reference):
        x = vstack([reference, recent], format="csr").astype(np.float64)
        kernel = (x @ x.T).toarray()
    else:
        x = np.concatenate([reference, recent]).astype(np.float64)
        with threadpool_limits(1, user_api="blas"):
            kernel = x @ x.T
    means = kernel.mean(axis=0)
    kernel += means.mean() - means[:, None] - means
    norm = np.sqrt(np.maximum(kernel.diagonal(), 0)).mean()
    return np.asarray(kernel / (norm**2 or 1.0))


def _out_of_fold(kernel: Floats, sides: Floats, fold: NDArray[np.int64]) -> Floats:
    """Return the scores (texts, columns) of ridge regressions to each column of `sides`.

    They are rounded, so that equal texts have equal scores, whatever the order of the sums.
    """
    scores = np.empty_like(sides)
    for each in range(NUM_FOLDS):
        test, train = fold == each, fold != each
        inner = kernel[np.ix_(train, train)] + RIDGE * train.sum() * np.eye(int(train.sum()))
        targets = sides[train] - sides[train].mean(axis=0)
        with threadpool_limits(1, user_api="blas"):
            solution = np.linalg.solve(inner, targets)
            scores[test] = kernel[np.ix_(test, train)] @ solution
    return scores.round(12)


def _auc(scores: Floats, sides: Floats) -> Floats:
    """Return the area under the ROC curve (columns,) of scores of the texts with side 1."""
    recent = sides.sum(axis=0)
    rank_sums = (rankdata(scores, axis=0) * sides).sum(axis=0)
    return np.asarray((rank_sums - recent * (recent + 1) / 2) / (recent * (len(scores) - recent)))
