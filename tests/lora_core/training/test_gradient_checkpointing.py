"""Gradient checkpointing: the same numbers in less memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training.prepare import prepare_run
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[RecordingObserver, Path]]

METHODS: list[dict[str, Any]] = [
    {"type": "lora", "r": 2, "dropout": 0.1},
    {"type": "baseline", "blocks": 2},
    {"type": "full"},
]


def again(*, wanted: bool) -> dict[str, Any]:
    return {"runtime": {"gradient_checkpointing": wanted}}


@pytest.mark.parametrize("method", slow_but(METHODS, METHODS[0]), ids=["lora", "blocks", "full"])
@pytest.mark.parametrize("dropout", slow_but([0.0, 0.1], 0.1))
def test_losses_are_bitwise_equal(
    spec: Make, train: Train, method: dict[str, Any], dropout: float
) -> None:
    optim = {"epochs": 1, "encoder_dropout": dropout}
    curves = [
        [
            (event.loss, event.grad_norm)
            for event in train(spec(method=method, optim=optim, **again(wanted=wanted)))[0].all(
                "step"
            )
        ]
        for wanted in (False, True)
    ]
    assert curves[0] == curves[1]


def test_frozen_blocks_are_not_checkpointed(spec: Make) -> None:
    """With dropout they are computed at every step and save nothing for the backward pass."""
    changes = {"method": {"type": "lora", "layers": [1]}, "optim": {"encoder_dropout": 0.1}}
    assert kept(spec(**changes, **again(wanted=True))) == kept(spec(**changes))


@pytest.mark.parametrize("method", METHODS, ids=["lora", "blocks", "full"])
def test_less_memory_is_kept_for_the_backward_pass(spec: Make, method: dict[str, Any]) -> None:
    assert kept(spec(method=method, **again(wanted=True))) < 0.6 * kept(spec(method=method))


def kept(run: TrainSpec) -> int:
    """Number of elements that a forward pass saves for the backward pass."""
    listener = RecordingObserver(None)
    prepared = prepare_run(run, listener, ProgressReporter(listener, listener))
    prepared.model.train()
    elements = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal elements
        elements += tensor.numel() * (not tensor.is_leaf)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prepared.forward(prepared.tokenized[Split.TRAIN], range(8))
    return elements
