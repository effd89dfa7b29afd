"""The first update of a run against plain transformers.

The reference computes the texts of the update one by one, unpadded, with the plain model.
"""

import copy
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from lora_core.data.batching import epoch_batches
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.training.resume import build_or_resume_trainer
from tests.recording_observer import RecordingObserver

Make = Callable[..., TrainSpec]

EQUAL = [5] * 40
MIXED = [1, 60, 2, 59, 3, 30, 1, 60] * 5  # words, from the shortest text to the longest that fits
WORDS = "the a film movie plot cast it and of to in".split()  # noqa: SIM905


def reviews(file: Path, lengths: list[int]) -> Path:
    rows = ["text,label"]
    for number, length in enumerate(lengths):
        label = ("bad", "good")[number % 2]
        filler = [WORDS[(number + i * i) % len(WORDS)] for i in range(length - 1)]
        rows.append(f"{' '.join([label, *filler])},{label}")
    file.write_text("\n".join(rows) + "\n")
    return file


def reference(prepared: PreparedRun) -> tuple[float, float]:
    """Mean loss of the first update and the norm of its gradient, of all parameters."""
    model = AutoModelForSequenceClassification.from_config(prepared.model.config)
    model.load_state_dict(prepared.model.state_dict())
    part, spec = prepared.tokenized[Split.TRAIN], prepared.spec
    size, seed = spec.optim.batch_size or 0, spec.runtime.seed
    updates = epoch_batches(part.lengths, batch_size=size, seed=seed, epoch=0)
    losses = [
        F.cross_entropy(
            model(torch.from_numpy(part.ids[i]).long()[None]).logits,
            torch.tensor([part.targets[i]]),
        )
        for i in next(updates)
    ]
    loss = torch.stack(losses).mean()
    torch.autograd.backward(loss)
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.item(), torch.linalg.vector_norm(torch.cat(gradients)).item()


# Fast: all values with one thread, in a few combinations, and two threads once.
QUICK = {
    (1, 16, 1, "equal"),
    (1, 4096, 8, "equal"),
    (1, 16, 8, "mixed"),
    (1, 4096, 1, "mixed"),
    (2, 4096, 8, "mixed"),
}
SHAPES = {"equal": EQUAL, "mixed": MIXED}
CASES = [
    pytest.param(
        *(*case[:3], SHAPES[case[3]]),
        marks=() if case in QUICK else pytest.mark.slow,
        id="-".join(map(str, case)),
    )
    for case in product((1, 2), (16, 4096), (1, 8), SHAPES)
]


@pytest.mark.parametrize(("threads", "budget", "batch_size", "lengths"), CASES)
def test_first_update_does_not_depend_on_lengths_batching_or_threads(
    spec: Make, tmp_path: Path, lengths: list[int], batch_size: int, budget: int, threads: int
) -> None:
    described = spec(
        method={"type": "full"},
        data={"source": str(reviews(tmp_path / "shaped.csv", lengths))},
        optim={
            "epochs": 1,
            "batch_size": batch_size,
            "micro_batch_tokens": budget,
            "head_dropout": 0.0,
        },
        runtime={"threads": threads, "precision": "fp32"},
    )
    observer = RecordingObserver()
    progress = ProgressReporter(observer, observer)
    prepared = prepare_run(described, observer, progress)
    trainer = build_or_resume_trainer(
        prepared, observer=observer, progress=progress, checkpoint_settings=None, saved=None
    )
    loss, norm = reference(copy.deepcopy(prepared))
    trainer.train()
    first = observer.all("step")[0]
    assert first.step == 1
    assert first.loss == pytest.approx(loss, rel=1e-5)
    assert first.grad_norm == pytest.approx(norm, rel=1e-4)
    assert observer.all("evaluated")[-1].step == -(
        -len(prepared.tokenized[Split.TRAIN]) // batch_size
    )
