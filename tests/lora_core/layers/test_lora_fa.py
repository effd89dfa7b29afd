"""LoRA-FA against PEFT's LoRA whose A is frozen: the same losses over several updates."""

import copy
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from lora_core.adapters import adapter_layers
from lora_core.encoders import FAMILIES
from lora_core.fast import folded_lora
from lora_core.fast.folded_lora import TOKENS_PER_RANK
from lora_core.fine_tuning_methods import LoraMethod
from lora_core.specs.method import HeadMode, LayerRole, LoraSpec, LoraVariant
from tests import tiny_base

R, ALPHA = 2, 3.0
LABELS = torch.tensor([0, 1, 1, 0])


def losses(model: nn.Module, ids: torch.Tensor) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.2)
    found = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids).logits, LABELS)
        torch.autograd.backward(loss)
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("folds", [True, False])
def test_losses_match_peft_with_a_frozen_a(folds: bool) -> None:
    torch.manual_seed(0)
    ours = tiny_base.distilbert()
    theirs: Any = copy.deepcopy(ours)
    ids = torch.randint(5, 60, (4, 12 if folds else 6))
    assert (ids.numel() >= TOKENS_PER_RANK * R) == folds

    targets = (LayerRole.QUERY, LayerRole.VALUE)
    spec = LoraSpec(variant=LoraVariant.LORA_FA, r=R, alpha=ALPHA, targets=targets,
                    head=HeadMode.FROZEN)  # fmt: skip
    LoraMethod(spec).prepare(ours, FAMILIES["distilbert"])
    folded_lora.patch_lora_layers(ours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["q_lin", "v_lin"])
        theirs = get_peft_model(theirs, config)
    drawn = {}
    for name, adapter in adapter_layers(ours).items():
        frozen = theirs.base_model.model.get_submodule(name).lora_A["default"].weight
        frozen.requires_grad_(False).copy_(adapter.A)
        drawn[name] = adapter.A.clone()

    found = losses(ours, ids)
    assert found == pytest.approx(losses(theirs, ids), rel=1e-4)
    assert found[-1] < 0.9 * found[0]
    for name, adapter in adapter_layers(ours).items():
        assert torch.equal(adapter.A, drawn[name])
        assert adapter.A.grad is None
        assert adapter.B.abs().sum() > 0
