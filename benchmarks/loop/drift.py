"""Alarms of drift checks: without drift, and when half of the traffic is another topic.

Texts are compared as the product does (`lora_core.data.drift`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.loop import plan, sets
from benchmarks.loop.plan import LEVEL, Cell
from lora_core.data.drift import measure_text_drift
from lora_core.data.rows import TextRow
from lora_core.specs.drift import MIN_TEXTS

REFERENCE_TEXTS, RECENT_TEXTS = 300, 150
GROWTH = (50, 75, 100, 150, 200, 300, 400, 600)  # recent texts when traffic is checked
# Training never had this label; of sentences about films, the other topic is any question.
NEW_TOPIC = "NUM"


def run(cell: Cell, *, quick: bool) -> dict[str, Any]:
    """False alarms of weeks, and the recent texts at the first alarm of each drift."""
    data, size = sets.load(cell.data, quick=quick), plan.size(quick=quick)
    rng = np.random.default_rng(0)
    texts = _different(data.texts.pool, data.texts.test)
    weeks = max(1, size.weeks // 2)  # of two sets
    reference = min(REFERENCE_TEXTS, len(texts) // 2)
    recent = max(MIN_TEXTS, min(RECENT_TEXTS, len(texts) // 4))
    alarms = 0
    for week in range(weeks):
        drawn = [texts[i] for i in rng.permutation(len(texts))[: reference + recent]]
        alarms += _is_alarm(drawn[:reference], drawn[reference:], seed=week)
    usual, new = _topics(cell.data, quick=quick)
    needed = []
    for number in range(size.drifts):
        drawn = [usual[i] for i in rng.permutation(len(usual))]
        of_new = [new[i] for i in rng.permutation(len(new))]
        first = min(REFERENCE_TEXTS, len(usual) // 2)
        alarm = None
        for count in GROWTH:
            if count // 2 > min(len(new), len(usual) - first):
                break
            traffic = drawn[first:][: count - count // 2] + of_new[: count // 2]
            if _is_alarm(drawn[:first], traffic, seed=number):
                alarm = count
                break
        needed.append(alarm)
    return {"weeks": weeks, "false_alarms": alarms, "texts_to_alarm": needed}


def _is_alarm(training: Sequence[str], recent: Sequence[str], *, seed: int) -> bool:
    found = measure_text_drift(training, recent, seed)
    return found.p_value is not None and found.p_value <= LEVEL


def _different(*parts: Sequence[TextRow]) -> list[str]:
    """The texts of these rows, each once, so that none is on both sides."""
    return list(dict.fromkeys(row.text for part in parts for row in part))


def _topics(name: str, *, quick: bool) -> tuple[list[str], list[str]]:
    """Texts of what training knows, and of the other topic."""
    data = sets.load(name, quick=quick)
    rows = data.texts.pool
    if name != "questions" and not quick:
        return _different(rows), _different(sets.load("questions").texts.pool)
    new_label = NEW_TOPIC if name == "questions" else "positive"  # questions are downloaded
    labels = zip(rows, data.labels, strict=True)
    new = _different([row for row, label in labels if label == new_label])
    return [text for text in _different(rows) if text not in set(new)], new
