"""A cell for accuracy: which texts of its part it answers rightly."""

import hashlib
import json
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.contenders import Cell
from benchmarks.quiet import quiet_progress
from benchmarks.train.ours import ready, trainer_of
from lora_core import compatibility
from lora_core.data import linear_baseline
from lora_core.data.load import load_splits
from lora_core.data.records import Splits
from lora_core.defaults import resolve_defaults
from lora_core.encoders.load import resolve_base
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.train import TrainSpec
from lora_core.training import evaluate


def run(cell: Cell) -> dict[str, Any]:
    """The figures of a cell: a 1 or 0 for each text, and what it was computed from."""
    told = {"settings": settings(cell)}
    if isinstance(cell.spec, DataSpec):
        return told | _fit(cell.spec, cell.judged_on)
    return told | _train(cell.spec, cell.judged_on)


def settings(cell: Cell) -> str:
    """sha256 of what the cell is told to do, today's defaults filled in.

    Of where and how it is computed the seed alone counts; the cell tells the rest.
    """
    if isinstance(cell.spec, DataSpec):
        told = {
            "data": cell.spec.model_dump(mode="json"),
            "linear": linear_baseline.SPEC.model_dump(mode="json"),
        }
    else:
        told = resolve_defaults(cell.spec, _shape(cell.spec.base))[0].model_dump(mode="json")
        told["runtime"] = {"seed": cell.spec.runtime.seed}
        del told["result"], told["trial"]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@cache
def _shape(base: str) -> compatibility.EncoderShape:
    return compatibility.read_shape(resolve_base(base).config, base=base)


def _fit(data: DataSpec, judged_on: Split) -> dict[str, Any]:
    splits = load_splits(data)
    (answers,) = linear_baseline.predict(splits.train, [splits.examples(judged_on)])
    return _judged(answers, splits, judged_on)


def _train(spec: TrainSpec, judged_on: Split) -> dict[str, Any]:
    prepared = ready(spec)
    trained = trainer_of(prepared, quiet_progress()).train()
    logits = trained.validation_logits
    if judged_on is Split.TEST:
        part, budget = prepared.tokenized[Split.TEST], prepared.spec.optim.micro_batch_tokens
        logits = evaluate.logits(prepared.forward, part, budget=budget, progress=quiet_progress())
    return {
        **_judged(logits.argmax(axis=1), prepared.splits, judged_on),
        "steps": trained.steps,
        "best_step": trained.best_step,
        "train_seconds": trained.throughput.seconds,
        "device": prepared.runtime.device,
        "precision": prepared.runtime.precision,
        "threads": prepared.runtime.threads,
    }


def _judged(answers: NDArray[np.int64], splits: Splits, part: Split) -> dict[str, Any]:
    right = answers == np.array([each.label for each in splits.examples(part)])
    return {
        "judged_on": part.value,
        "data": splits.digest,
        "accuracy": float(right.mean()),
        "correct": "".join(str(int(each)) for each in right),
    }
