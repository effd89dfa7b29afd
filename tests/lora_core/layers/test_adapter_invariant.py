"""Invariants of adapter layers, for every variant."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lora_core.errors.training import NonFiniteMergedWeights
from lora_core.layers import VARIANTS
from lora_core.layers.base import AdapterLinear
from lora_core.specs.method import LoraVariant

shapes = st.fixed_dictionaries(
    {
        "d_in": st.integers(1, 24),
        "d_out": st.integers(1, 24),
        "r": st.integers(1, 8),
        "alpha": st.floats(0.1, 64),
        "bias": st.booleans(),
        "seed": st.integers(0, 2**16),
    }
)
every_variant = pytest.mark.parametrize("variant", list(VARIANTS))


def make(
    variant: LoraVariant, *, trained: bool, d_in: int = 12, d_out: int = 7, r: int = 3,
    alpha: float = 4.0, bias: bool = True, seed: int = 0, dropout: float = 0.0,
) -> tuple[AdapterLinear, torch.Tensor]:  # fmt: skip
    torch.manual_seed(seed)
    layer = VARIANTS[variant](nn.Linear(d_in, d_out, bias=bias), r=r, alpha=alpha, dropout=dropout)
    if trained:
        for _, parameter in layer.named_adapter_parameters():
            nn.init.normal_(parameter, std=0.3)
    return layer.eval(), torch.randn(5, d_in)


@every_variant
@given(shape=shapes)
@settings(max_examples=40, deadline=None)
def test_forward_equals_a_linear_layer_with_the_effective_weight(
    variant: LoraVariant, shape: dict[str, Any]
) -> None:
    layer, x = make(variant, trained=True, **shape)
    expected = F.linear(x, layer.effective_weight(), layer.base.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


@every_variant
@given(shape=shapes)
@settings(max_examples=40, deadline=None)
def test_initial_forward_equals_the_base(variant: LoraVariant, shape: dict[str, Any]) -> None:
    layer, x = make(variant, trained=False, **shape)
    torch.testing.assert_close(layer(x), layer.base(x), rtol=1e-6, atol=1e-6)


@every_variant
@given(shape=shapes)
@settings(max_examples=40, deadline=None)
def test_merge_keeps_outputs_and_unmerge_is_bitwise(
    variant: LoraVariant, shape: dict[str, Any]
) -> None:
    layer, x = make(variant, trained=True, **shape)
    before, weight = layer(x), layer.base.weight.detach().clone()
    layer.merge()
    layer.merge()
    torch.testing.assert_close(layer(x), before, rtol=1e-4, atol=1e-4)
    assert not torch.equal(layer.base.weight, weight)
    layer.unmerge()
    layer.unmerge()
    assert torch.equal(layer.base.weight, weight)
    assert torch.equal(layer(x), before)


@every_variant
def test_only_declared_parameters_receive_gradients(variant: LoraVariant) -> None:
    layer, x = make(variant, trained=True)
    layer.train()(x).square().sum().backward()
    parts = dict(layer.named_adapter_parameters())
    declared = {name for name, part in parts.items() if part.requires_grad}
    with_gradient = {name for name, p in layer.named_parameters() if p.grad is not None}
    assert with_gradient == declared
    assert declared == variant.trained_parameter_names
    assert parts.keys() == variant.trained_parameter_names | {"A", "B"}
    for name in declared:
        gradient = parts[name].grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


@every_variant
def test_low_precision_base_is_merged_in_float32_and_cast_once(variant: LoraVariant) -> None:
    layer, _ = make(variant, trained=True)
    exact = layer.merged_weight()
    layer.base.to(torch.bfloat16)
    expected = layer.merged_weight()
    layer.merge()
    assert layer.base.weight.dtype is torch.bfloat16
    assert torch.equal(layer.base.weight, expected.to(torch.bfloat16))
    torch.testing.assert_close(expected, exact, rtol=0.02, atol=0.02)


@every_variant
def test_nonfinite_weights_are_not_merged(variant: LoraVariant) -> None:
    layer, _ = make(variant, trained=True)
    weight = layer.base.weight.detach().clone()
    with torch.no_grad():
        layer.B[0, 0] = float("inf")
    with pytest.raises(NonFiniteMergedWeights):
        layer.merge()
    assert torch.equal(layer.base.weight, weight)
    assert not layer.merged


@every_variant
def test_dropout_is_active_in_training_only(variant: LoraVariant) -> None:
    layer, x = make(variant, trained=True, dropout=0.5)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("variant", "scale"),
    [
        (LoraVariant.LORA, 16 / 4),
        (LoraVariant.RSLORA, 16 / 2),
        (LoraVariant.UNSCALED, 16),
        (LoraVariant.DORA, 4),
        (LoraVariant.LORA_FA, 4),
    ],
)
def test_scales_match_the_papers(variant: LoraVariant, scale: float) -> None:
    layer, _ = make(variant, trained=False, r=4, alpha=16)
    assert layer.scale == scale


def test_unscaled_init_has_variance_one_over_r() -> None:
    layer, _ = make(LoraVariant.UNSCALED, trained=False, d_in=4000, r=4)
    assert layer.A.var().item() == pytest.approx(1 / 4, rel=0.05)


@pytest.mark.parametrize("variant", [LoraVariant.LORA, LoraVariant.RSLORA, LoraVariant.DORA])
def test_a_starts_uniform_below_one_over_the_root_of_its_inputs(variant: LoraVariant) -> None:
    layer, _ = make(variant, trained=False, d_in=400, d_out=4, r=8)
    limit = 400**-0.5
    assert layer.A.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert layer.A.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)
