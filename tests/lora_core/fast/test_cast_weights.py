"""Cast weights compute the same as autocast."""

import copy

import pytest
import torch
from torch import Tensor

from lora_core import fine_tuning_methods
from lora_core.adapters import merge_adapters
from lora_core.encoders import FAMILIES
from lora_core.encoders.encoder_parts import blocks
from lora_core.fast import cast_weights
from lora_core.specs.method import LayerRole, LoraSpec
from tests import tiny_base

IDS = torch.tensor([[2, 7, 9, 30, 3], [2, 8, 3, 30, 3]])

every_family = pytest.mark.parametrize("family", tiny_base.each_family())


def lora(family: str, *targets: LayerRole) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = tiny_base.FAMILIES[family]()
    spec = LoraSpec(r=2, targets=tiny_base.whole_layers(family, *targets))
    fine_tuning_methods.build_method(spec).prepare(model, FAMILIES[family])
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def answers(model: torch.nn.Module, *, autocast: bool) -> list[Tensor]:
    """Logits and gradients."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits: Tensor = model(IDS).logits
    trained = [p for p in model.parameters() if p.requires_grad]
    return [logits.detach(), *torch.autograd.grad(logits.square().sum(), trained)]


@every_family
@pytest.mark.parametrize("autocast", [True, False])
def test_logits_and_gradients_are_bitwise_equal(family: str, autocast: bool) -> None:
    model = lora(family, LayerRole.QUERY, LayerRole.VALUE)
    cast = copy.deepcopy(model)
    cast_weights.patch_frozen_linears(blocks(cast, FAMILIES[family]), torch.bfloat16)
    pairs = zip(answers(model, autocast=autocast), answers(cast, autocast=autocast), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_cast_weights_are_not_cast_again() -> None:
    model = lora("bert", LayerRole.QUERY, LayerRole.VALUE)

    def casts() -> int:
        bf16 = torch.autocast("cpu", dtype=torch.bfloat16)
        with torch.profiler.profile() as profile, torch.no_grad(), bf16:
            model(IDS)
        return sum(event.name == "aten::_to_copy" for event in profile.events())

    before = casts()
    cast_weights.patch_frozen_linears(blocks(model, FAMILIES["bert"]), torch.bfloat16)
    # Weight and bias of key, attention output and both feed-forward layers, of two blocks.
    assert before - casts() == 2 * 4 * 2


@every_family
def test_merge_updates_cast_weights(family: str) -> None:
    model = lora(family, *LayerRole)
    cast_weights.patch_frozen_linears(blocks(model, FAMILIES[family]), torch.bfloat16)
    expected = answers(model, autocast=False)[0]
    merge_adapters(model)
    for autocast, tolerance in ((False, 1e-5), (True, 0.05)):
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            found = model(IDS).logits
        torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
