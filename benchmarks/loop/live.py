"""How often the interval of a live accuracy holds the truth, with scores and without."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import Cell
from benchmarks.loop.sets import LoopSet
from lora_core.active_learning.label_suggestions import Label
from lora_core.prediction_powered_inference import estimate_mean
from lora_core.tasks.primary_metric import MacroF1

OTHER_TEXTS = 1000  # of the traffic, with a score and without a label


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """Coverage over repetitions, and the width of intervals with scores over that without."""
    data, size = sets.load(cell.data, quick=quick), plan.size(quick=quick)
    rng = np.random.default_rng(0)
    train = rng.permutation(len(data.labels))[: plan.budget(cell.data, quick=quick)]
    x, truth = traffic(data, train)
    model = data.fit(train)
    assert model is not None
    predicted = model.predict(x)
    if data.task == "multi_label":
        hot = data.multi_hot(truth), data.multi_hot(predicted)
        return _macro_f1(
            MacroF1().per_text_statistics(*hot), size.repetitions, size.live_texts, rng
        )
    right = np.array([a == b for a, b in zip(truth, predicted, strict=True)], dtype=float)
    confidence = model.scores(x).max(axis=1)
    useless = rng.permutation(confidence)
    held = {"plain": 0, "powered": 0, "useless": 0}
    ratios: dict[str, list[float]] = {"powered": [], "useless": []}
    for _ in range(size.repetitions):
        labeled = rng.integers(len(x), size=size.live_texts)  # traffic without end
        others = rng.integers(len(x), size=OTHER_TEXTS)
        for name, scores in (("powered", confidence), ("useless", useless)):
            found = estimate_mean(right[labeled], scores[labeled], scores[others])
            held[name] += int(found.low <= right.mean() <= found.high)
            ratios[name].append((found.high - found.low) / (found.plain_high - found.plain_low))
        held["plain"] += int(found.plain_low <= right.mean() <= found.plain_high)
    return {
        "repetitions": size.repetitions,
        "labeled": size.live_texts,
        "accuracy": float(right.mean()),
        "coverage": held["plain"] / size.repetitions,
        "powered_coverage": held["powered"] / size.repetitions,
        "useless_coverage": held["useless"] / size.repetitions,
        "powered_width": float(np.mean(ratios["powered"])),
        "useless_width": float(np.mean(ratios["useless"])),
    }


def traffic(data: LoopSet, train: NDArray[np.int64]) -> tuple[NDArray[np.float32], list[Label]]:
    """Vectors and hidden labels of all texts that the model was not trained on."""
    rest = np.setdiff1d(np.arange(len(data.labels)), train)
    x = np.concatenate([data.vectors[rest], data.test_vectors])
    return x, [*(data.labels[i] for i in rest), *data.test_labels]


def _macro_f1(
    statistics: NDArray[Any], repetitions: int, labeled: int, rng: np.random.Generator
) -> dict[str, Any]:
    metric, held = MacroF1(), 0
    value = metric.value(statistics)
    for _ in range(repetitions):
        low, high = metric.interval(statistics[rng.integers(len(statistics), size=labeled)])
        held += int(low <= value <= high)
    return {
        "repetitions": repetitions,
        "labeled": labeled,
        "macro_f1": value,
        "coverage": held / repetitions,
    }
