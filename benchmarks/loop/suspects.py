"""Flipped labels among the most suspect ones, by the linear model as the service does it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from threadpoolctl import threadpool_limits

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import FLIPPED_SHARE, TOP_SUSPECTS, Cell
from lora_core.data.linear_baseline import SPEC
from lora_core.linear import model as linear
from lora_core.specs.method import NUM_FOLDS
from lora_core.suspect_labels import SuspectLabelFinding, find_suspect_labels


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """Precision among the first suspects, and the share of flipped labels that are suspect."""
    data, size = sets.load(cell.data, quick=quick), plan.size(quick=quick)
    rows = data.texts.pool[: size.suspect_texts]
    rng = np.random.default_rng(0)
    texts = [row.text for row in rows]
    labels = data.labels[: len(rows)]
    top = min(TOP_SUSPECTS, len(rows) // 10)
    if data.task == "multi_label":
        truth = data.multi_hot(labels).astype(np.int64)
        flipped = rng.random(truth.shape) < FLIPPED_SHARE  # each label of each text
        given = truth ^ flipped
        found = find_suspect_labels(_probabilities(texts, given, truth.shape[1]), given)
        hits = [bool(flipped[each.row, each.label or 0]) for each in found]
    else:
        names, truth = np.unique([str(each) for each in labels], return_inverse=True)
        flipped = np.zeros(len(rows), dtype=bool)
        flipped[rng.permutation(len(rows))[: round(FLIPPED_SHARE * len(rows))]] = True
        shift = rng.integers(1, len(names), size=len(rows))
        given = np.where(flipped, (truth + shift) % len(names), truth)
        found = find_suspect_labels(_probabilities(texts, given, len(names)), given)
        hits = [bool(flipped[each.row]) for each in found]
    return {
        "texts": len(rows),
        "flipped": int(flipped.sum()),
        "suspects": len(found),
        "precision": float(np.mean(hits[:top])) if hits else 0.0,
        "recall": sum(hits) / int(flipped.sum()),
        "right_proposals": _right_proposals(found[:top], truth),
    }


def _right_proposals(found: list[SuspectLabelFinding], truth: NDArray[np.int64]) -> float:
    """Share of proposed labels that are the true ones."""
    right = [
        each.proposed == (truth[each.row] if each.label is None else truth[each.row, each.label])
        for each in found
    ]
    return float(np.mean(right)) if right else 0.0


def _probabilities(texts: list[str], given: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """(texts, labels) out of fold."""
    fold = np.random.default_rng(0).permutation(len(texts)) % NUM_FOLDS
    logits = np.empty((len(texts), labels))
    for held_out in (fold == each for each in range(NUM_FOLDS)):
        train = [texts[i] for i in np.flatnonzero(~held_out)]
        with threadpool_limits(1, user_api="blas"):
            if given.ndim == 2:
                model = linear.fit_multi_label(train, given[~held_out], SPEC)
            else:
                model = linear.fit_single_label(train, given[~held_out], SPEC, classes=labels)
        logits[held_out] = model.logits([texts[i] for i in np.flatnonzero(held_out)])
    return np.asarray(expit(logits) if given.ndim == 2 else softmax(logits, axis=1))
