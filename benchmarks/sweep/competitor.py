"""One trial of the grid as a script of PEFT and the Trainer runs it, from its start to its end."""

import tempfile
import time
from typing import Any

import numpy as np
import torch

from benchmarks.sweep.age import age
from benchmarks.sweep.limit import Limit
from benchmarks.sweep.plan import EVALUATION_BATCH, LEARNING_RATE, Size, method
from benchmarks.train.competitor import build_model, dataset, initial_head, start
from benchmarks.train.plan import BASE, BATCH
from benchmarks.train.reviews import read
from benchmarks.train.trainer import Ending, Side, arguments, build_trainer, precision
from lora_core.encoders.load import resolve_base
from lora_core.specs.data import Split

SORTED_TOGETHER = 50  # batches, by the sampler of the tuned Trainer


def measure(side: Side, kind: str, rank: int, size: Size) -> dict[str, Any]:
    """Seconds of each part, and both accuracies.

    A loop in one process has imports and data once; `trial_seconds` is what each trial adds: model,
    training, `evaluate` on validation and `predict` on test, as the Trainer does them.
    """
    import_seconds = age()
    began = time.monotonic()
    machine, base = start(), resolve_base(BASE)
    splits, parts = read(size.data, base)
    texts = {split: dataset(part) for split, part in parts.items()}
    took = {"import_seconds": import_seconds, "data_seconds": time.monotonic() - began}
    head = initial_head(base)  # no script would load ours to begin with the same

    began = time.monotonic()
    limit = limit_of(side, size)
    ending = Ending(limit)
    with tempfile.TemporaryDirectory(prefix="bench-sweep-") as folder:
        more = {"per_device_eval_batch_size": EVALUATION_BATCH} if side == "tuned" else {}
        settings = arguments(LEARNING_RATE, side, machine, epochs=1, output_dir=folder, **more)
        model = build_model(base, method(kind, rank), tuned=side == "tuned", head=head)
        trainer = build_trainer(
            model, texts[Split.TRAIN], base, settings, ending, compute_metrics=_metrics
        )
        trainer.train()
    left_out = limit.rest(ending.steps, ending.seconds)
    took["train_seconds"] = time.monotonic() - began + left_out

    began = time.monotonic()
    validation = trainer.evaluate(texts[Split.VALIDATION])["eval_accuracy"]
    took["validation_seconds"] = time.monotonic() - began
    began = time.monotonic()
    test = trainer.predict(texts[Split.TEST]).metrics["test_accuracy"]
    took["test_seconds"] = time.monotonic() - began

    metrics: dict[str, Any] = took | {
        "trial_seconds": sum(took[f"{each}_seconds"] for each in ("train", "validation", "test")),
        "steps": ending.steps,
        "steps_seconds": ending.seconds,
        "computed_seconds": left_out,
        "precision": precision(side, machine),
        "threads": torch.get_num_threads(),
        "data": splits.digest,
    }
    if left_out:  # it has no predictions
        return metrics
    return metrics | {"validation_accuracy": validation, "test_accuracy": test}


def limit_of(side: Side, size: Size) -> Limit:
    """The tuned Trainer sorts many batches by length, and only all of them together are alike."""
    steps = -(-size.train_texts // BATCH)
    return Limit(steps, size.longest, size.window, SORTED_TOGETHER if side == "tuned" else 1)


def _metrics(answers: Any) -> dict[str, float]:
    right = np.asarray(answers.predictions).argmax(axis=1) == answers.label_ids
    return {"accuracy": float(right.mean())}
