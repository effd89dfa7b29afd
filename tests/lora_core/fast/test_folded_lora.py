"""The folded product equals the plain one: same outputs, same gradients."""

import pytest
import torch
from torch import Tensor, nn

from lora_core.fast.folded_lora import TOKENS_PER_RANK, folded_forward, is_faster
from lora_core.layers.lora import LoraLinear


def trained(*, d_in: int = 96, d_out: int = 64, bias: bool = True) -> LoraLinear:
    torch.manual_seed(0)
    layer = LoraLinear(nn.Linear(d_in, d_out, bias=bias), r=4, alpha=8.0)
    nn.init.normal_(layer.B, std=0.1)
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_match_numerical_gradients(bias: bool) -> None:
    layer = trained(d_in=6, d_out=5, bias=bias).double()
    x = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: folded_forward(layer, x), (x, layer.A, layer.B))


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 1e-2)])
def test_folded_forward_matches_plain_lora(bf16: bool, tolerance: float) -> None:
    layer, x, dy = trained(), torch.randn(7, 50, 96), torch.randn(7, 50, 64)
    results: list[list[Tensor]] = []
    for fast in (False, True):
        free = (x.clone().requires_grad_(), layer.A, layer.B)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            y = (
                folded_forward(layer, free[0])
                if fast
                else layer.base(free[0]) + layer.compute_adapter_output(free[0])
            )
        results.append([y, *torch.autograd.grad(y, free, dy.to(y.dtype))])
    for plain, fast in zip(*results, strict=True):
        assert fast.dtype == plain.dtype
        assert torch.linalg.vector_norm(fast - plain) <= tolerance * torch.linalg.vector_norm(plain)


def test_lowest_layer_computes_no_input_gradient() -> None:
    layer, x = trained(), torch.randn(7, 96)
    torch.autograd.backward(folded_forward(layer, x).sum())
    assert x.grad is None
    assert layer.A.grad is not None


def test_frozen_parameters_get_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = trained(), torch.randn(7, 96, requires_grad=True)
    layer.A.requires_grad_(False)
    products: list[torch.Size] = []
    multiply = Tensor.__matmul__

    def watched(a: Tensor, b: Tensor) -> Tensor:
        products.append((c := multiply(a, b)).shape)
        return c

    monkeypatch.setattr(Tensor, "__matmul__", watched)
    torch.autograd.backward(folded_forward(layer, x).sum())
    assert products == [(7, 96), (7, 4), (64, 4)]  # dX, x Aᵀ, dB
    assert layer.A.grad is None


def test_few_tokens_and_dropout_are_not_folded() -> None:
    layer = trained()
    enough = TOKENS_PER_RANK * layer.r
    assert is_faster(layer, torch.randn(2, enough // 2, 96))
    assert not is_faster(layer, torch.randn(enough - 1, 96))
    layer.dropout.p = 0.1
    assert not is_faster(layer, torch.randn(enough, 96))
    assert is_faster(layer.eval(), torch.randn(enough, 96))
