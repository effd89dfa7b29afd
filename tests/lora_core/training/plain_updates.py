"""Compare the losses of a training with those of a plain loop over the same batches."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.train import TrainSpec
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.training.resume import build_or_resume_trainer
from tests.recording_observer import RecordingObserver

RATE = 1e-3
# No schedule, no decay, no clipping, no dropout: what a plain loop does.
PLAIN_UPDATES: dict[str, Any] = {
    "method": {"type": "full"},
    "head_init": "random",
    "optim": {
        "epochs": 1,
        "learning_rate": RATE,
        "warmup": 0.0,
        "decay": "none",
        "weight_decay": 0.0,
        "max_grad_norm": 1e6,
        "head_dropout": 0.0,
    },
    "runtime": {"precision": "fp32"},
}


def check_losses(
    spec: TrainSpec, plain_losses: Callable[[PreparedRun, float], list[float]]
) -> PreparedRun:
    """Assert that each update has the loss of the plain loop. Return the run."""
    observer = RecordingObserver()
    progress = ProgressReporter(observer, observer)
    prepared = prepare_run(spec, observer, progress)
    expected = plain_losses(copy.deepcopy(prepared), RATE)
    build_or_resume_trainer(
        prepared, observer=observer, progress=progress, checkpoint_settings=None, saved=None
    ).train()
    found = [step.loss for step in observer.all("step")]
    assert len(found) == len(expected)
    assert found == pytest.approx(expected, rel=1e-3)
    return prepared
