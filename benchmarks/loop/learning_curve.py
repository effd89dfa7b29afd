"""What the learning curve says for twice as many labels, and what comes with them."""

from typing import Any

import numpy as np

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import Cell
from lora_core.data import learning_curve as curve


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """For each size and draw: labels, said, low, high, what came, in shares."""
    data, size = sets.load(cell.data, quick=quick), plan.size(quick=quick)
    points = []
    for labels in size.curve_sizes:
        for draw in range(size.curve_draws):
            order = np.random.default_rng(draw).permutation(len(data.texts.pool))
            if 2 * labels > len(order):
                continue
            rows = [data.texts.pool[i] for i in order[: 2 * labels]]
            estimate = curve.estimate_gain_of_more_labels(rows[:labels], data.task)
            said = [each for each in estimate.expected if each.texts == 2 * labels]
            if not said:
                continue
            task, targets = curve.build_task_and_targets([*rows, *data.texts.test], data.task)
            texts = np.arange(len(targets))
            learner = curve.linear_learner([*rows, *data.texts.test], task, targets)
            predicted = learner(texts[: len(rows)], texts[len(rows) :])
            came = task.metric.value(
                task.metric.per_text_statistics(targets[len(rows) :], predicted)
            )
            value = said[0].accuracy if said[0].accuracy is not None else said[0].value
            points.append([2 * labels, value, said[0].low, said[0].high, came])
    return {"points": points}
