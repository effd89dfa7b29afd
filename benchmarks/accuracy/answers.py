"""Computes a cell: which texts of its split are predicted correctly."""

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

import benchmarks.settings
from benchmarks.accuracy.contenders import Cell
from benchmarks.silent import silent_progress
from benchmarks.train.ours import ready, trainer_of
from lora_core.data import linear_baseline
from lora_core.data.load import load_splits
from lora_core.data.split import Splits
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.train import TrainSpec
from lora_core.tasks.single_label import SingleLabel
from lora_core.training import model_outputs


def run(cell: Cell) -> dict[str, Any]:
    """Metrics of a cell: 1 or 0 for each text, and how it was computed."""
    metrics = {"settings": settings(cell)}
    if isinstance(cell.spec, DataSpec):
        return metrics | _fit(cell.spec, cell.evaluated_on)
    return metrics | _train(cell.spec, cell.evaluated_on)


def settings(cell: Cell) -> str:
    """SHA-256 of all settings of the cell."""
    described = json.dumps(benchmarks.settings.settings(cell.spec), sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def _fit(data: DataSpec, evaluated_on: Split) -> dict[str, Any]:
    splits = load_splits(data)
    task = SingleLabel(splits.labels)
    (logits,) = linear_baseline.fit_and_predict_logits(
        splits.train, [splits.examples_of(evaluated_on)], task
    )
    return _score(logits.argmax(axis=1), splits, evaluated_on)


def _train(spec: TrainSpec, evaluated_on: Split) -> dict[str, Any]:
    prepared = ready(spec)
    trained = trainer_of(prepared, silent_progress()).train()
    logits = trained.validation_logits
    if evaluated_on is Split.TEST:
        part, budget = prepared.tokenized[Split.TEST], prepared.spec.optim.micro_batch_tokens
        logits = model_outputs.compute_logits(
            prepared.forward, part, budget=budget, progress=silent_progress()
        )
    return {
        **_score(logits.argmax(axis=1), prepared.splits, evaluated_on),
        "steps": trained.steps,
        "best_step": trained.best_step,
        "train_seconds": trained.throughput.seconds,
        "device": prepared.runtime.device,
        "precision": prepared.runtime.precision,
        "threads": prepared.runtime.threads,
    }


def _score(answers: NDArray[np.int64], splits: Splits, part: Split) -> dict[str, Any]:
    right = answers == np.array([each.label for each in splits.examples_of(part)])
    return {
        "evaluated_on": part.value,
        "data": splits.digest,
        "accuracy": float(right.mean()),
        "correct": "".join(str(int(each)) for each in right),
    }
