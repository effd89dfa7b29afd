"""Attention of one text at a time against torch's own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lora_core import fine_tuning_methods
from lora_core.encoders import FAMILIES
from lora_core.fast import unfused_attention
from lora_core.specs.method import LayerRole, LoraSpec, LoraVariant
from tests import tiny_base
from tests.slow import slow_but

TOKENS, HEADS, SIZE = 48, 3, 32
LENGTHS = [48, 1, 31, 48]


def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K, V as an encoder makes them: (batch, heads, length, size), heads contiguous."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, TOKENS, HEADS, SIZE, dtype=dtype).transpose(2, 3)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def mask(lengths: list[int]) -> Tensor:
    return (torch.arange(TOKENS) < torch.tensor(lengths)[:, None])[:, None, None]


def reference(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
def test_outputs_and_gradients_match_the_fused_kernel(
    lengths: list[int] | None, dtype: torch.dtype, tolerance: float
) -> None:
    heads = drawn(dtype)
    seen = None if lengths is None else mask(lengths)
    counted = torch.ones(4, TOKENS) if lengths is None else mask(lengths)[:, 0, 0].float()
    dy = torch.randn(4, TOKENS, HEADS, SIZE) * counted[..., None, None]  # padding is ignored
    dy = dy.to(dtype)
    ours, _ = unfused_attention.attention_forward(nn.Identity(), *heads, seen)
    q, k, v = (t.double() for t in heads)
    theirs = reference(q, k, v, seen)
    results = ([ours, *torch.autograd.grad(ours, heads, dy)],
               [theirs, *torch.autograd.grad(theirs, heads, dy.double())])  # fmt: skip
    for a, b in zip(*results, strict=True):
        a, b = a.double(), b.double()
        if a.shape == dy.shape:
            a, b = (t * counted[..., None, None] for t in (a, b))
        assert torch.linalg.vector_norm(a - b) <= tolerance * torch.linalg.vector_norm(b)


@pytest.mark.parametrize("window", [1, 5, 12, 30, 47])
def test_windows_match_a_square_with_a_mask(window: int) -> None:
    heads = drawn(torch.float64)
    seen = mask(LENGTHS)
    dy = torch.randn(4, TOKENS, HEADS, SIZE).double() * seen[:, 0, 0, :, None, None]
    ours, _ = unfused_attention.attention_forward(nn.Identity(), *heads, seen, window=window)
    positions = torch.arange(TOKENS)
    near = (positions[:, None] - positions).abs() <= window
    square = (near & seen) | torch.eye(TOKENS, dtype=torch.bool)  # padding sees itself
    theirs = reference(*heads, square)
    for a, b in zip(
        [ours * (dy != 0), *torch.autograd.grad(ours, heads, dy)],
        [theirs * (dy != 0), *torch.autograd.grad(theirs, heads, dy)],
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_masked_tokens_are_ignored_and_padding_is_trimmed() -> None:
    heads = drawn(torch.float32)
    y, _ = unfused_attention.attention_forward(nn.Identity(), *heads, mask(LENGTHS))
    torch.autograd.backward(y.sum())
    for i, n in enumerate(LENGTHS):
        computed = -(-n // unfused_attention.LENGTH_STEP) * unfused_attention.LENGTH_STEP
        assert (y[i, computed:] == 0).all()
        for tensor, beyond in zip(heads, (computed, n, n), strict=True):
            assert tensor.grad is not None
            assert (tensor.grad[i, :, beyond:] == 0).all()


def answers_and_gradients(model: PreTrainedModel, ids: Tensor, seen: Tensor) -> list[Tensor]:
    """Of texts of several lengths, and of equal ones."""
    found = []
    for mask in (seen, torch.ones_like(seen)):
        logits = model(ids, attention_mask=mask).logits
        found += [logits, *torch.autograd.grad(logits.square().sum(), [*model.parameters()])]
    return found


@pytest.mark.parametrize("family", slow_but(tiny_base.FAMILIES, "bert", "modernbert"))
def test_model_logits_match_without_warnings(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    make: Callable[..., PreTrainedModel] = tiny_base.FAMILIES[family]
    model = make()
    ids = torch.randint(5, 60, (4, TOKENS))
    seen = mask(LENGTHS)[:, 0, 0].long()
    expected = answers_and_gradients(model, ids, seen)

    calls: list[int] = []
    monkeypatch.setattr(
        unfused_attention._UnfusedAttention,
        "apply",
        _counted(unfused_attention._UnfusedAttention.apply, calls),
    )
    unfused_attention.patch_attention(model)
    found = answers_and_gradients(model, ids, seen)
    # Two blocks, twice. In ModernBERT the window of the second is in the mask.
    assert len(calls) == (2 if family == "modernbert" else 4)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert unfused_attention.ATTENTION_NAME not in json.dumps(
        json.loads((tmp_path / "config.json").read_text())
    )


@pytest.mark.parametrize("family", tiny_base.each_family())
def test_autocast_error_is_no_larger_than_fused(family: str) -> None:
    """DoRA computes in float32 there, a layer without an adapter in bf16."""
    torch.manual_seed(0)
    model = tiny_base.FAMILIES[family]()
    targets = tiny_base.whole_layers(family, LayerRole.QUERY, LayerRole.VALUE)
    spec = LoraSpec(variant=LoraVariant.DORA, r=2, targets=targets, layers=(0,))
    fine_tuning_methods.build_method(spec).prepare(model, FAMILIES[family])
    ids, seen = torch.randint(5, 60, (4, TOKENS)), mask(LENGTHS)[:, 0, 0].long()
    exact = model(ids, attention_mask=seen).logits
    errors = []
    for way in ("sdpa", unfused_attention.ATTENTION_NAME):
        model.set_attn_implementation(way)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids, attention_mask=seen).logits
        torch.autograd.backward(logits.float().square().sum())
        errors.append(torch.linalg.vector_norm(logits - exact).item())
    assert errors[1] < 2 * errors[0]


def _counted(apply: Callable[..., Tensor], calls: list[int]) -> Callable[..., Tensor]:
    def counting(*arguments: object) -> Tensor:
        calls.append(1)
        return apply(*arguments)

    return counting


def test_unfused_attention_is_used_for_bf16_on_cpu() -> None:
    assert unfused_attention.is_faster("cpu", "bf16")
    assert not unfused_attention.is_faster("cpu", "fp32")
    assert not unfused_attention.is_faster("cuda:0", "bf16")


def test_fused_attention_is_used_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    query, _, _ = drawn(torch.float32)
    calls: list[int] = []
    monkeypatch.setattr(
        unfused_attention._UnfusedAttention,
        "apply",
        _counted(unfused_attention._UnfusedAttention.apply, calls),
    )

    def attend(dropout: float = 0.0) -> Tensor:
        y, _ = unfused_attention.attention_forward(
            nn.Identity(), query, query, query, None, dropout, is_causal=False
        )
        return y

    expected = reference(query, query, query, None)
    torch.testing.assert_close(attend(), expected)
    assert len(calls) == 1
    with torch.no_grad():  # an evaluation needs no probabilities
        torch.testing.assert_close(attend(), expected)
    assert not torch.allclose(attend(dropout=0.5), expected)
    monkeypatch.setattr(unfused_attention, "MAX_PROBABILITY_BYTES", 4 * HEADS * TOKENS**2 * 4 - 1)
    torch.testing.assert_close(attend(), expected)
    assert len(calls) == 1
