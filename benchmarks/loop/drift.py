"""Alarms of the two-sample test: without drift, and when half of the traffic is another topic."""

from typing import Any

import numpy as np

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import LEVEL, Cell
from lora_core.two_sample import MIN_TEXTS, classifier_two_sample_test

REFERENCE_TEXTS, RECENT_TEXTS = 300, 150
GROWTH = (50, 75, 100, 150, 200, 300, 400, 600)  # recent texts when traffic is tested
# Training never had this label; of sentences about films, the other topic is any question.
NEW_TOPIC = "NUM"


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """False alarms of weeks, and the recent texts at the first alarm of each drift."""
    data, size = sets.load(cell.data, quick=quick), plan.size(quick=quick)
    rng = np.random.default_rng(0)
    x = np.concatenate([data.vectors, data.test_vectors])
    weeks = max(1, size.weeks // 2)  # of two sets
    reference = min(REFERENCE_TEXTS, len(x) // 2)
    recent = max(MIN_TEXTS, min(RECENT_TEXTS, len(x) // 4))
    alarms = 0
    for week in range(weeks):
        drawn = rng.permutation(len(x))
        found = classifier_two_sample_test(
            x[drawn[:reference]], x[drawn[reference:][:recent]], seed=week
        )
        assert found is not None
        alarms += int(found.p_value <= LEVEL)
    usual, new = _topics(cell.data, quick=quick)
    needed = []
    for number in range(size.drifts):
        drawn, of_new = rng.permutation(len(usual)), rng.permutation(len(new))
        first = min(REFERENCE_TEXTS, len(usual) // 2)
        alarm = None
        for texts in GROWTH:
            if texts // 2 > min(len(new), len(usual) - first):
                break
            traffic = np.concatenate(
                [usual[drawn[first:][: texts - texts // 2]], new[of_new[: texts // 2]]]
            )
            result = classifier_two_sample_test(usual[drawn[:first]], traffic, seed=number)
            if result is not None and result.p_value <= LEVEL:
                alarm = texts
                break
        needed.append(alarm)
    return {"weeks": weeks, "false_alarms": alarms, "texts_to_alarm": needed}


def _topics(name: str, *, quick: bool) -> tuple[Any, Any]:
    """Vectors of what training knows, and of the other topic."""
    data = sets.load(name, quick=quick)
    if name == "questions":
        is_new = np.array([label == NEW_TOPIC for label in data.labels])
        return data.vectors[~is_new], data.vectors[is_new]
    if quick:  # questions have to be downloaded
        is_new = np.array([label == "positive" for label in data.labels])
        return data.vectors[~is_new], data.vectors[is_new]
    return data.vectors, sets.load("questions").vectors
