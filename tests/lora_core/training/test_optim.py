"""Schedule, groups and default rates."""

from typing import Literal

import pytest
import torch
from torch import nn

from lora_core.specs.train import OptimSpec
from lora_core.training.optim import build_lr_scheduler, build_optimizer


def rates(
    decay: Literal["linear", "cosine", "none"], warmup: float, steps: int = 100
) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    spec = OptimSpec(decay=decay, warmup=warmup)
    schedule = build_lr_scheduler(optimizer, spec, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_linear_schedule_with_warmup() -> None:
    seen = rates("linear", 0.1)
    assert seen[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert max(seen) == pytest.approx(1.0)
    assert seen[55] == pytest.approx(0.5)
    assert 0 < seen[-1] < 0.02


def test_cosine_and_constant_schedules() -> None:
    assert rates("cosine", 0.0)[50] == pytest.approx(0.5)
    assert rates("none", 0.0) == [1.0] * 100


def test_warmup_is_at_most_the_run() -> None:
    assert rates("linear", 0.06, steps=1) == [1.0]


def test_weight_decay_excludes_biases_and_norms() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    optimizer = build_optimizer(model, OptimSpec(weight_decay=0.1), rate=0.5)
    decays = {
        tuple(p.shape): group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert decays == {(3, 3): 0.1, (3,): 0.0}
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(("head_rate", "groups"), [(None, 2), (0.5, 2), (0.1, 4)])
def test_head_has_its_own_learning_rate(head_rate: float | None, groups: int) -> None:
    model = nn.ModuleDict({"body": nn.Linear(3, 3), "last": nn.Linear(3, 2)})
    spec = OptimSpec(head_learning_rate=head_rate, weight_decay=0.1)
    optimizer = build_optimizer(model, spec, rate=0.5, head=("last",))
    found = {
        tuple(p.shape): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    of_head = head_rate or 0.5
    assert found == {
        (3, 3): (0.5, 0.1),
        (3,): (0.5, 0.0),
        (2, 3): (of_head, 0.1),
        (2,): (of_head, 0.0),
    }
    assert len(optimizer.param_groups) == groups
    assert optimizer.param_groups[0]["lr"] == 0.5
