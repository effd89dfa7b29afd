"""Which evaluation's weights are kept, and when patience runs out."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_core import manifest
from lora_core.specs.train import CheckpointSelectionAndStopSpec, SelectBy, TrainSpec
from lora_core.training.best_weights import BestWeights, BestWeightsState
from tests.recording_observer import RecordingObserver

NO_LOGITS = np.zeros((1, 2), np.float32)


def evaluate(best: BestWeights, *evaluations: tuple[float, float]) -> None:
    """Report accuracy and loss of several evaluations, as the training loop does."""
    for step, (accuracy, loss) in enumerate(evaluations, start=1):
        metrics = {"accuracy": accuracy, "loss": loss}
        if best.is_better(metrics):
            best.keep(step, metrics, {}, NO_LOGITS)
        else:
            best.count_evaluation()


@pytest.mark.parametrize(
    ("evaluations", "kept"),
    [
        ([(0.9, 0.3), (0.8, 0.1)], 1),  # the chosen metric decides, whatever the loss
        ([(0.9, 0.3), (0.9, 0.2)], 2),  # ties: the lower loss
        ([(0.9, 0.2), (0.9, 0.3)], 1),  # even if earlier
        ([(0.9, 0.2), (0.9, 0.2), (0.9, 0.3)], 2),  # equal in both: the later step
        ([(0.9, 0.2), (math.nan, 0.1)], 1),
        ([(0.9, 0.2), (1.0, math.nan), (1.0, math.inf)], 1),  # not with such a loss
    ],
)
def test_ties_prefer_the_lower_loss_then_the_later_step(
    evaluations: list[tuple[float, float]], kept: int
) -> None:
    best = BestWeights(CheckpointSelectionAndStopSpec(select_by=SelectBy.ACCURACY))
    evaluate(best, *evaluations)
    assert best.step == kept


def test_tie_does_not_reset_patience() -> None:
    best = BestWeights(CheckpointSelectionAndStopSpec(select_by=SelectBy.ACCURACY, patience=2))
    evaluate(best, (0.9, 0.3), (0.9, 0.2))
    assert (best.step, best.evaluations_since, best.out_of_patience()) == (2, 1, False)
    evaluate(best, (0.9, 0.1))
    assert best.out_of_patience()


def test_ties_are_broken_the_same_after_a_resume() -> None:
    before, after = (
        BestWeights(CheckpointSelectionAndStopSpec(select_by=SelectBy.ACCURACY)) for _ in range(2)
    )
    evaluate(before, (0.9, 0.2))
    after.load_state(before.state(), {}, None)
    assert not after.is_better({"accuracy": 0.9, "loss": 0.3})
    assert after.is_better({"accuracy": 0.9, "loss": 0.1})


def test_checkpoint_without_the_best_loss_round_trips() -> None:
    old = BestWeightsState(step=7, score=0.9, evaluations_since=1)  # as training version 1 wrote it
    best = BestWeights(CheckpointSelectionAndStopSpec(select_by=SelectBy.ACCURACY))
    best.load_state(old, {}, torch.zeros(3, 2))
    assert best.state() == old


def test_run_with_tied_accuracy_keeps_the_later_weights(
    spec: Callable[..., TrainSpec], train: Callable[..., tuple[RecordingObserver, Path]]
) -> None:
    """Accuracy stays 1 on easy reviews while the loss keeps falling."""
    observer, out = train(spec(optim={"epochs": 6}, stop={"select_by": "accuracy"}))
    seen = [e for e in observer.all("evaluated") if e.split == "validation"]
    tied = [e for e in seen if e.metrics["accuracy"] == max(s.metrics["accuracy"] for s in seen)]
    assert len(tied) > 1
    best = min(tied, key=lambda e: (e.metrics["loss"], -e.step))
    assert best.step > tied[0].step
    assert manifest.read(out)["metrics"]["best_step"] == best.step
