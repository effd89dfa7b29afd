"""A cell: a run of the project, or a fit of the linear rival, and how right each part is."""

import base64
import json
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quiet import NoEnd
from benchmarks.reproduce import imdb
from benchmarks.reproduce.plan import LINEAR, Cell
from lora_core import compatibility, manifest
from lora_core.data import linear_baseline
from lora_core.data.load import load_splits
from lora_core.defaults import resolve_defaults
from lora_core.encoders.load import resolve_base
from lora_core.events import NullObserver
from lora_core.specs.data import Split
from lora_core.training.correctness import Correctness
from lora_core.training.run import run as train


def run(cell: Cell) -> dict[str, Any]:
    """The figures of a cell: accuracies from 0 to 1, and a 1 or 0 for each test text."""
    figures = _fit(cell) if cell.row == LINEAR else _train(cell)
    return {"settings": settings(cell), **figures}


def settings(cell: Cell) -> dict[str, Any]:
    """All that a cell is told, today's defaults filled in, as JSON has it.

    Of where and how it is computed the seed alone: the figures tell the rest.
    """
    if cell.row == LINEAR:
        data = cell.size.data.model_dump(mode="json")
        told = {"data": data, "linear": linear_baseline.SPEC.model_dump(mode="json")}
    else:
        told = resolve_defaults(cell.spec, _shape(cell.size.base))[0].model_dump(
            mode="json", exclude={"result", "trial"}
        )
        told["runtime"] = {"seed": cell.seed}
    found: dict[str, Any] = json.loads(json.dumps(told))
    return found


@cache
def _shape(base: str) -> compatibility.EncoderShape:
    return compatibility.read_shape(resolve_base(base).config, base=base)


def _fit(cell: Cell) -> dict[str, Any]:
    splits = load_splits(imdb.here(cell.size.data))
    began = time.monotonic()
    answers = linear_baseline.predict(splits.train, [splits.examples(split) for split in Split])
    right = {
        split: answer == [each.label for each in splits.examples(split)]
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
        summary = train(spec, out_dir=Path(folder), observer=NullObserver(), stop=NoEnd())
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
        "correct": _bits(made["graded"][Split.TEST]),
    }


def _bits(graded: Correctness) -> str:
    packed = np.frombuffer(base64.b64decode(graded["correct"]), np.uint8)
    return "".join(map(str, np.unpackbits(packed, count=graded["count"])))
