"""How often a retraining without a real gain would be promoted, and one with a real gain."""

from typing import Any

import numpy as np

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import LEVEL, Cell
from lora_core.paired_test import one_sided_paired_test
from lora_core.tasks.primary_metric import Accuracy, MacroF1, MetricFromMeans

MODELS = 40  # trained on different draws of the same number of labels


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """Promotions of a model that is not better on all test texts, by a sample of them.

    `equal`: of two models of the same number of labels, the new one is the one that is worse on all
    test texts, or as good. `better`: the new one has four times as many labels.
    """
    data, size = sets.load(cell.data, quick=quick), plan.size(quick=quick)
    budget, models = plan.budget(cell.data, quick=quick), 4 if quick else MODELS
    rng = np.random.default_rng(0)
    metric: MetricFromMeans = MacroF1() if data.task == "multi_label" else Accuracy()

    def trained(labels: int) -> Any:
        """The statistics of the predictions of a new model for all test texts."""
        model = data.fit(rng.permutation(len(data.labels))[:labels])
        assert model is not None
        predicted = model.predict(data.test_vectors)
        if isinstance(metric, MacroF1):
            return metric.per_text_statistics(
                data.multi_hot(data.test_labels), data.multi_hot(predicted)
            )
        right = [a == b for a, b in zip(data.test_labels, predicted, strict=True)]
        return np.array(right, dtype=float)[:, None]

    current = [trained(budget) for _ in range(models)]
    larger = [trained(min(4 * budget, len(data.labels))) for _ in range(max(2, models // 4))]
    values = [metric.value(each) for each in current]
    promoted = {"equal": 0, "better": 0}
    for retraining in range(size.retrainings):
        texts = rng.integers(len(data.test_labels), size=size.paired_texts)
        a, b = rng.choice(models, size=2, replace=False)
        worse, better = (a, b) if values[a] <= values[b] else (b, a)
        found = one_sided_paired_test(
            metric, current[worse][texts], current[better][texts], retraining
        )
        promoted["equal"] += int(found.p_value <= LEVEL)
        new = larger[int(rng.integers(len(larger)))]
        found = one_sided_paired_test(metric, new[texts], current[a][texts], retraining)
        promoted["better"] += int(found.p_value <= LEVEL)
    return {
        "retrainings": size.retrainings,
        "texts": size.paired_texts,
        "promoted_wrong": promoted["equal"],
        "promoted_right": promoted["better"],
        "gain": float(np.mean([metric.value(each) for each in larger]) - np.mean(values)),
    }
