"""Outputs and gradients against the `peft` library on the same weights."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lora_core.layers import VARIANTS
from lora_core.specs.method import LoraVariant

SETTINGS = {
    LoraVariant.LORA: {},
    LoraVariant.RSLORA: {"use_rslora": True},
    LoraVariant.UNSCALED: {},  # PEFT has no such scale: alpha * r there is alpha here
    LoraVariant.DORA: {"use_dora": True},
    LoraVariant.LORA_FA: {},  # in PEFT an optimizer that freezes A
}
R, ALPHA = 4, 6.0


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x)
        return y


@pytest.mark.parametrize("variant", list(LoraVariant))
def test_outputs_and_gradients_match_peft(variant: LoraVariant) -> None:
    torch.manual_seed(1)
    plain = Plain()
    ours = VARIANTS[variant](nn.Linear(16, 10), r=R, alpha=ALPHA)
    ours.base.load_state_dict(plain.linear.state_dict())
    for _, parameter in ours.named_adapter_parameters():
        nn.init.normal_(parameter, std=0.5)

    alpha = ALPHA * R if variant is LoraVariant.UNSCALED else ALPHA
    config = LoraConfig(r=R, lora_alpha=alpha, target_modules=["linear"], **SETTINGS[variant])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_peft_model(plain, config)
    layer = theirs.base_model.model.linear
    tensors = {"A": layer.lora_A["default"].weight, "B": layer.lora_B["default"].weight}
    if variant is LoraVariant.DORA:
        tensors["magnitude"] = layer.lora_magnitude_vector["default"].weight
    with torch.no_grad():
        for name, parameter in ours.named_adapter_parameters():
            tensors[name].copy_(parameter)
            tensors[name].requires_grad_(parameter.requires_grad)

    x = torch.randn(7, 16)
    y_ours, y_theirs = ours(x), theirs(x)
    torch.testing.assert_close(y_ours, y_theirs, rtol=1e-5, atol=1e-5)
    weights = torch.randn(7, 10)
    (y_ours * weights).sum().backward()
    (y_theirs * weights).sum().backward()
    for name, parameter in ours.named_adapter_parameters():
        if name in variant.trained_parameter_names:
            torch.testing.assert_close(parameter.grad, tensors[name].grad, rtol=1e-4, atol=1e-5)
        else:
            assert parameter.grad is tensors[name].grad is None
    assert len(tensors) == len(list(ours.named_adapter_parameters()))
