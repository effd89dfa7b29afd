"""Simulated projects: an annotator knows the hidden labels, and a model chooses what to label."""

from typing import Any, Literal

import numpy as np

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import Cell
from benchmarks.loop.sets import LoopSet
from lora_core.active_learning.label_suggestions import score_uncertainty_excluding_random_labels
from lora_core.active_learning.selection import SelectionReason, choose_next
from lora_core.active_learning.suggestion_accuracy import estimate_suggestion_accuracy

BATCH = 10  # labels after which the model is fitted again, as the service does
SO_FAR_EVERY = 100  # labels between estimates of the accuracy so far


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """Scores on test by number of labels, of our choice and of random choice."""
    data, budget = sets.load(cell.data, quick=quick), plan.budget(cell.data, quick=quick)
    longest = min(round(plan.size(quick=quick).longest * budget), len(data.labels))
    # A little more than the budget: curves are smoothed.
    ours = simulate(data, "ours", longest, cell.seed)
    random = simulate(data, "random", min(budget + 2 * BATCH, len(data.labels)), cell.seed)
    return {"budget": budget, "step": BATCH, "ours": ours, "random": random}


def simulate(
    data: LoopSet, choice: Literal["ours", "random"], labels: int, seed: int
) -> dict[str, Any]:
    """Label texts in batches. `scores`: on test after each batch, 0 while there is no model.

    `so_far`: for some numbers of labels the accuracy so far, its interval, and that on test.
    """
    available = np.ones(len(data.labels), dtype=bool)
    random_order = np.random.default_rng(1000 + seed).permutation(len(available))
    labeled: list[int] = []
    random_rows: list[int] = []  # places in `labeled`
    uncertainty, scores, so_far = None, [], []
    while len(labeled) < labels:
        if choice == "random":
            rows = random_order[len(labeled) :][:BATCH].tolist()
        else:
            choices = choose_next(
                BATCH,
                available=available,
                vectors=data.vectors,
                uncertainty=uncertainty,
                seed=seed,
                position=len(labeled),
            )
            rows = [each.row for each in choices]
            random_rows += [
                len(labeled) + i
                for i, each in enumerate(choices)
                if each.reason is SelectionReason.RANDOM
            ]
        labeled += rows
        available[rows] = False
        model = data.fit(labeled)
        scores.append(
            0.0
            if model is None
            else round(sets.score(data.test_labels, model.predict(data.test_vectors)), 5)
        )
        if choice == "random":
            continue
        labels_so_far = [data.labels[i] for i in labeled]
        uncertainty = score_uncertainty_excluding_random_labels(
            data.vectors, np.array(labeled), labels_so_far, random_rows, data.task
        )
        if len(labeled) % SO_FAR_EVERY == 0:
            found = estimate_suggestion_accuracy(
                data.vectors[labeled], labels_so_far, random_rows, data.task
            )
            if found is not None:
                so_far.append([len(labeled), found.value, found.low, found.high, scores[-1]])
    return {"scores": scores, "so_far": so_far}
