"""A cell: a contender is trained on each draw and evaluated on the test split."""

import hashlib
import json
from importlib import import_module
from typing import Any

from sklearn.metrics import accuracy_score, f1_score

from benchmarks.small import sets
from benchmarks.small.plan import MAX_LENGTH, Cell

Metrics = dict[str, Any]


def run(cell: Cell) -> Metrics:
    """Of each draw accuracy and macro F1 on test, from 0 to 1."""
    # Imported only now: the process of a cheap contender loads no torch.
    contender = import_module(f"benchmarks.small.{cell.definition.module}")
    texts = sets.load(cell.data, quick=cell.quick)
    truth = [row.label for row in texts.test]
    metrics: Metrics = {"accuracy": [], "macro_f1": []}
    for number in cell.draws:
        train = texts.drawn(cell.size, number)
        answers = contender.answers(cell.definition.spec, texts, train, seed=number)
        f1 = f1_score(truth, answers, average="macro", zero_division=0.0)
        metrics["accuracy"].append(round(float(accuracy_score(truth, answers)), 5))
        metrics["macro_f1"].append(round(float(f1), 5))
    return {
        "settings": settings(cell), "draws": cell.draws, "test_texts": len(texts.test), **metrics
    }  # fmt: skip


def settings(cell: Cell) -> str:
    """SHA-256 of texts and settings; a changed hash means that the cell is recomputed."""
    facts = sets.facts(cell.data, quick=cell.quick)
    described: Metrics = {
        "data": facts.digest,
        "draws": cell.draws,
        "max_length": MAX_LENGTH,
        "module": cell.definition.module,
        "spec": dict(cell.definition.spec),
    }
    if cell.definition.module == "ours":
        from benchmarks.small import ours

        described["spec"] = ours.settings(cell.definition.spec, cell.size, facts)
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
