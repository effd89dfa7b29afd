"""The shortened last block against the full block."""

import copy
from typing import Any

import pytest
import torch

from lora_core import fine_tuning_methods
from lora_core.encoders import FAMILIES
from lora_core.fast import first_token
from lora_core.specs.method import FullFineTuningSpec, LayerRole, LoraSpec
from tests import tiny_base

every_family = pytest.mark.parametrize("family", tiny_base.each_family())
IDS = torch.tensor([[2, 7, 9, 30, 3], [2, 8, 3, 0, 0]])
MASKS = [torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]), torch.ones_like(IDS), None]


@every_family
@pytest.mark.parametrize("method", [FullFineTuningSpec(), LoraSpec(r=2, targets=tuple(LayerRole))])
@pytest.mark.parametrize("mask", MASKS, ids=["padded", "full", "none"])
def test_logits_and_gradients_match_the_full_block(
    family: str, method: FullFineTuningSpec | LoraSpec, mask: torch.Tensor | None
) -> None:
    torch.manual_seed(0)
    full = tiny_base.FAMILIES[family](labels=3)
    fine_tuning_methods.build_method(method).prepare(full, FAMILIES[family])
    for name, parameter in full.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    short = copy.deepcopy(full)
    first_token.patch_last_block(short, FAMILIES[family])

    gradients = []
    for model in (full, short):
        logits = model(IDS, attention_mask=mask).logits
        logits.square().sum().backward()
        # The bias of the last keys has no effect: its gradient is rounding error or absent.
        gradients.append(
            {
                name: torch.zeros_like(p) if p.grad is None else p.grad
                for name, p in model.named_parameters()
                if p.requires_grad
            }
        )
    torch.testing.assert_close(
        short(IDS, attention_mask=mask).logits, full(IDS, attention_mask=mask).logits
    )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


@every_family
@pytest.mark.parametrize("role", [LayerRole.KEY, LayerRole.VALUE])
def test_adapter_dropout_is_drawn_for_every_token(family: str, role: LayerRole) -> None:
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family]()
    targets = tiny_base.whole_layers(family, role)
    spec = LoraSpec(r=2, dropout=0.5, targets=targets, layers=(1,))
    fine_tuning_methods.build_method(spec).prepare(model, FAMILIES[family])
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    first_token.patch_last_block(model, FAMILIES[family])
    model.eval()
    assert torch.equal(model(IDS).logits, model(IDS).logits)
    model.train()
    assert not torch.equal(model(IDS).logits, model(IDS).logits)


@every_family
def test_last_block_returns_one_token_and_keeps_parameter_names(family: str) -> None:
    model = tiny_base.FAMILIES[family]()
    names = set(model.state_dict())
    first_token.patch_last_block(model, FAMILIES[family])
    assert model.base_model(IDS).last_hidden_state.shape == (2, 1, 32)
    assert set(model.state_dict()) == names


@every_family
def test_dropout_is_active_in_training(family: str) -> None:
    rates: dict[str, Any] = dict.fromkeys(FAMILIES[family].dropouts, 0.5)
    model = tiny_base.FAMILIES[family](**rates)
    first_token.patch_last_block(model, FAMILIES[family])
    assert torch.equal(model(IDS).logits, model(IDS).logits)
    model.train()
    assert not torch.equal(model(IDS).logits, model(IDS).logits)
