"""Our side: a run of `python -m lora_core train`, and its stored predictions."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.silent import NeverStop
from benchmarks.tasks import answers, sets
from benchmarks.tasks.plan import BASE, BATCH, EPOCHS, MAX_LENGTH, METHOD, TASKS, Kind, Size
from lora_core.events import NullObserver
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.tasks.regression import Regression
from lora_core.training.encoder import train_encoder


def accuracy(kind: Kind, seed: int, size: Size) -> dict[str, Any]:
    """The answers to the test texts, and the seconds of the training."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        summary = train_encoder(
            spec(kind, seed, str(sets.write(kind, size, Path(folder)))),
            out_dir=out,
            observer=NullObserver(),
            stop=NeverStop(),
        )
        validation, test = (_logits(out, split) for split in (Split.VALIDATION, Split.TEST))
    if kind == "regression":
        scale = Regression.of_training_targets(answers.truth(kind, size, Split.TRAIN).tolist())
        test = scale.predict(test)[:, None]
    found = answers.decide(kind, size, validation, test)
    return {"answers": found, "train_seconds": summary["train_seconds"]}


def spec(kind: Kind, seed: int, source: str) -> TrainSpec:
    """A run with our defaults, epochs and batch those of the Trainer."""
    data: dict[str, Any] = {"source": source, "max_length": MAX_LENGTH}
    if kind == "pairs":
        data["text_pair_column"] = "pair"
    return TrainSpec.model_validate(
        {
            "method": METHOD.model_dump(),
            "base": BASE,
            "data": data,
            "task": TASKS[kind],
            "optim": {"epochs": EPOCHS, "batch_size": BATCH},
            "runtime": {"seed": seed},
            "result": {"cross_validation": False},
        }
    )


def _logits(artifact: Path, split: Split) -> np.ndarray[Any, Any]:
    lines = (artifact / "predictions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return np.array([json.loads(line)["logits"] for line in lines])
