"""States that are computed again instead of kept: the same numbers, in less memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec
from lora_core.training.prepare import prepare_run
from tests.listener import Listener

Make = Callable[..., TrainSpec]
Train = Callable[..., tuple[Listener, Path]]

METHODS: list[dict[str, Any]] = [
    {"type": "lora", "r": 2, "dropout": 0.1},
    {"type": "baseline", "blocks": 2},
    {"type": "full"},
]


def again(*, wanted: bool) -> dict[str, Any]:
    return {"runtime": {"gradient_checkpointing": wanted}}


@pytest.mark.parametrize("method", METHODS, ids=["lora", "blocks", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_curve_is_the_same_to_the_last_bit(
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


def test_frozen_blocks_stay_as_they_are(spec: Make) -> None:
    """With dropout they are computed at every step, and keep nothing for the backward pass."""
    changes = {"method": {"type": "lora", "layers": [1]}, "optim": {"encoder_dropout": 0.1}}
    assert kept(spec(**changes, **again(wanted=True))) == kept(spec(**changes))


@pytest.mark.parametrize("method", METHODS, ids=["lora", "blocks", "full"])
def test_less_is_kept_for_the_backward_pass(spec: Make, method: dict[str, Any]) -> None:
    assert kept(spec(method=method, **again(wanted=True))) < 0.6 * kept(spec(method=method))


def kept(run: TrainSpec) -> int:
    """Elements that one forward pass of a training leaves for the backward one."""
    listener = Listener(None)
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
