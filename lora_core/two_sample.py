"""Are recent texts like those of training? The classifier two-sample test.

A classifier that distinguishes held-out recent texts from training texts shows that they differ
(Lopez-Paz and Oquab 2017, arXiv 1610.06545). The classifier is ridge regression, cross-validated.
The p value is that of a permutation test: the sides of the texts are shuffled, and the classifier
is fitted again each time. So the test holds its level whatever the vectors are, if the texts of
both sides are independent draws.
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
    most_different: tuple[int, ...]  # rows of `recent`, the most different first
    reference_texts: int  # that were used
    recent_texts: int


def classifier_two_sample_test(
    reference: Vectors, recent: Vectors, seed: int = 0, *, rows: int = 10
) -> TwoSampleResult | None:
    """Return the result of the test, or None with fewer than `MIN_TEXTS` texts on a side.

    Args:
        reference: (texts, width) of training texts.
        recent: (texts, width) of recent texts.
        seed: of samples, folds and permutations.
        rows: how many of the most different texts to return.
    """
    if min(reference.shape[0], recent.shape[0]) < MIN_TEXTS:
        return None
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.permutation(side.shape[0])[:MAX_TEXTS]) for side in (reference, recent)]
    kernel = _centered_kernel(reference[drawn[0]], recent[drawn[1]])
    n = len(kernel)
    is_recent = np.arange(n) >= len(drawn[0])
    # (texts, 1 + permutations): the true sides first
    sides = np.empty((n, 1 + PERMUTATIONS))
    sides[:, 0] = is_recent
    for i in range(PERMUTATIONS):
        sides[:, 1 + i] = is_recent[rng.permutation(n)]
    scores = _out_of_fold(kernel, sides, rng.permutation(n) % NUM_FOLDS)
    aucs = _auc(scores, sides)
    as_high = int((aucs[1:] >= aucs[0] - 1e-12).sum())
    order = np.argsort(-scores[is_recent, 0], kind="stable")
    return TwoSampleResult(
        p_value=(as_high + 1) / (PERMUTATIONS + 1),
        auc=float(aucs[0]),
        most_different=tuple(drawn[1][order[:rows]].tolist()),
        reference_texts=len(drawn[0]),
        recent_texts=len(drawn[1]),
    )


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
    """Return the scores (texts, columns) of ridge regressions to each column of `sides`."""
    scores = np.empty_like(sides)
    for each in range(NUM_FOLDS):
        test, train = fold == each, fold != each
        inner = kernel[np.ix_(train, train)] + RIDGE * train.sum() * np.eye(int(train.sum()))
        targets = sides[train] - sides[train].mean(axis=0)
        with threadpool_limits(1, user_api="blas"):
            solution = np.linalg.solve(inner, targets)
            scores[test] = kernel[np.ix_(test, train)] @ solution
    return scores


def _auc(scores: Floats, sides: Floats) -> Floats:
    """Return the area under the ROC curve (columns,) of scores of the texts with side 1."""
    recent = sides.sum(axis=0)
    rank_sums = (rankdata(scores, axis=0) * sides).sum(axis=0)
    return np.asarray((rank_sums - recent * (recent + 1) / 2) / (recent * (len(scores) - recent)))
