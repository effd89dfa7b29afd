"""Computes a cell: which texts of its split are predicted correctly."""

import hashlib
import json
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.contenders import Cell
from benchmarks.silent import silent_progress
from benchmarks.train.ours import ready, trainer_of
from lora_core import compatibility
from lora_core.data import linear_baseline
from lora_core.data.load import load_splits
from lora_core.data.split import Splits
from lora_core.encoders.load import resolve_base
from lora_core.resolve_defaults import resolve_defaults
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
    """SHA-256 of the cell's settings, with today's defaults filled in.

    Of the runtime settings only the seed counts; the cell stores the rest.
    """
    if isinstance(cell.spec, DataSpec):
        described = {
            "data": cell.spec.model_dump(mode="json"),
            "linear": linear_baseline.SPEC.model_dump(mode="json"),
        }
    else:
        described = resolve_defaults(cell.spec, _shape(cell.spec.base))[0].model_dump(mode="json")
        described["runtime"] = {"seed": cell.spec.runtime.seed}
        described["spec_version"] = 1  # of the kept cells; version 2 means the same
        del described["result"], described["trial"]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@cache
def _shape(base: str) -> compatibility.EncoderShape:
    return compatibility.read_encoder_shape(resolve_base(base).config, base=base)


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
