"""A cell: a run or a fit of the linear model, and its accuracy on each split."""

import base64
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import benchmarks.settings
from benchmarks.reproduce import imdb
from benchmarks.reproduce.plan import LINEAR, Cell
from benchmarks.silent import NeverStop
from lora_core import manifest
from lora_core.data import linear_baseline
from lora_core.data.load import load_splits
from lora_core.events import NullObserver
from lora_core.specs.data import Split
from lora_core.tasks.single_label import SingleLabel
from lora_core.training.correctness import EncodedCorrectness
from lora_core.training.encoder import train_encoder as train


def run(cell: Cell) -> dict[str, Any]:
    """Metrics of a cell: accuracies from 0 to 1, and 1 or 0 for each test text."""
    metrics = _fit(cell) if cell.row == LINEAR else _train(cell)
    return {"settings": settings(cell), **metrics}


def settings(cell: Cell) -> dict[str, Any]:
    """All settings of a cell as JSON."""
    return benchmarks.settings.settings(cell.size.data if cell.row == LINEAR else cell.spec)


def _fit(cell: Cell) -> dict[str, Any]:
    splits = load_splits(imdb.here(cell.size.data))
    began = time.monotonic()
    parts = [splits.examples_of(split) for split in Split]
    logits = linear_baseline.fit_and_predict_logits(splits.train, parts, SingleLabel(splits.labels))
    answers = [each.argmax(axis=1) for each in logits]
    right = {
        split: answer == [each.label for each in splits.examples_of(split)]
        for split, answer in zip(Split, answers, strict=True)
    }
    return {
        "data": splits.digest,
        **{split.value: float(each.mean()) for split, each in right.items()},
        "train_seconds": round(time.monotonic() - began, 2),
        "device": "cpu",
        "correct": "".join(str(int(each)) for each in right[Split.TEST]),
    }


def _train(cell: Cell) -> dict[str, Any]:
    spec = cell.spec.model_copy(update={"data": imdb.here(cell.size.data)})
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        summary = train(spec, out_dir=Path(folder), observer=NullObserver(), stop=NeverStop())
        made = manifest.read(Path(folder))
    runtime = made["spec"]["runtime"]
    device = runtime["device"]
    return {
        "data": made["data_sha256"],
        "parameters": summary["trainable_parameters"],
        **{split.value: summary[split]["accuracy"] for split in Split},
        "train_seconds": summary["train_seconds"],
        "steps": summary["steps"],
        "best_step": summary["best_step"],
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "precision": runtime["precision"],
        "threads": runtime["threads"],
        "correct": _bits(made["correctness"][Split.TEST]),
    }


def _bits(correctness: EncodedCorrectness) -> str:
    packed = np.frombuffer(base64.b64decode(correctness["correct"]), np.uint8)
    return "".join(map(str, np.unpackbits(packed, count=correctness["count"])))
