"""Labels that are probably wrong: they contradict out-of-fold predictions confidently.

Confident learning (Northcutt, Jiang and Chuang 2021, Journal of Artificial Intelligence Research
70, 1373-1411): a text is confidently of a label if the probability of this label is at least the
mean that it has over the texts with this label. A text that is confidently of another label than
its own is suspect. Thresholds of their own are fair to labels that are predicted with little
confidence.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class SuspectLabelFinding:
    """A label that is probably wrong."""

    row: int
    given: int  # index of the label that it has; of several labels: 1 if it has this one, else 0
    proposed: int
    confidence: float  # probability of the proposed label
    score: float  # that ranks suspects: largest probability of another label minus that of `given`
    label: int | None = None  # of several labels: the one that is in doubt


def find_suspect_labels(probabilities: ArrayLike, given: ArrayLike) -> list[SuspectLabelFinding]:
    """Return suspect labels, the most suspect first.

    Args:
        probabilities: (texts, labels) out of fold: the model has not seen the label of the text.
        given: (texts,) indices of labels; or of several labels (texts, labels) of 0 and 1, each of
            which is checked apart from the others.
    """
    p, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(given)
    if p.ndim != 2 or len(p) != len(labels) or (labels.ndim == 2 and labels.shape != p.shape):
        raise ValueError("one row of probabilities is needed for each text")
    if labels.ndim == 1:
        found = _suspects(p, labels.astype(np.int64), None)
    else:
        found = [
            suspect
            for label in range(p.shape[1])
            for suspect in _suspects(
                np.stack([1 - p[:, label], p[:, label]], axis=1),
                (labels[:, label] > 0).astype(np.int64),
                label,
            )
        ]
    return sorted(found, key=lambda each: (-each.score, each.row))


def _suspects(
    p: NDArray[Any], given: NDArray[np.int64], label: int | None
) -> list[SuspectLabelFinding]:
    thresholds = np.full(p.shape[1], np.inf)  # a label that no text has is never proposed
    for each in np.unique(given):
        thresholds[each] = p[given == each, each].mean()
    confident = p >= thresholds - 1e-9
    proposed = np.where(confident, p, -1.0).argmax(axis=1)
    rows = np.arange(len(p))
    own = p[rows, given]
    others = p.copy()
    others[rows, given] = -np.inf
    score = others.max(axis=1) - own
    # A text whose own label is the most probable one is not suspect, however low the threshold of
    # another label is.
    suspect = confident.any(axis=1) & (proposed != given) & (score > 0)
    return [
        SuspectLabelFinding(
            row=int(row),
            given=int(given[row]),
            proposed=int(proposed[row]),
            confidence=float(p[row, proposed[row]]),
            score=float(score[row]),
            label=label,
        )
        for row in np.flatnonzero(suspect)
    ]
