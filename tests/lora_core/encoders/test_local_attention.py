"""Attention within a window, compared with the square and a mask."""

import pytest
import torch
from torch import Tensor

from lora_core.encoders import local_attention

HEADS, SIZE = 2, 8


def reference(query: Tensor, key: Tensor, value: Tensor, near: Tensor) -> Tensor:
    scores = query @ key.transpose(2, 3) / SIZE**0.5
    y: Tensor = scores.masked_fill(~near, -torch.inf).softmax(-1) @ value
    return y


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("window", [1, 4, 7])
@pytest.mark.parametrize("length", [1, 5, 6, 12, 13, 17, 40])
def test_outputs_and_gradients_match_the_square(length: int, window: int, padded: bool) -> None:
    torch.manual_seed(0)
    heads = torch.randn(3, 3, HEADS, length, SIZE, dtype=torch.float64).requires_grad_()
    positions = torch.arange(length)
    distance = (positions - positions[:, None]).abs()
    mask = None
    near = (distance <= window)[None, None].expand(3, 1, -1, -1)
    if padded:
        ends = torch.tensor([length, max(1, length - 3), 1])[:, None]
        mask = (positions < ends)[:, None, None]
        near = near & (mask | (distance == 0))  # padding sees itself
    real = torch.ones(3, length) if mask is None else mask[:, 0, 0].double()
    weights = torch.randn(3, HEADS, length, SIZE) * real[:, None, :, None]

    query, key, value = heads
    found = local_attention.attend(query, key, value, mask, window)
    expected = reference(query, key, value, near)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), heads),
        torch.autograd.grad((expected * weights).sum(), heads),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    visible = real[:, None, :, None]
    torch.testing.assert_close(found * visible, expected * visible)
    first = local_attention.attend(query[:, :, :1], key, value, mask, window)
    torch.testing.assert_close(first, expected[:, :, :1])


def test_long_texts_make_no_square() -> None:
    states = torch.randn(1, 1, 8192, 4)
    with torch.profiler.profile(profile_memory=True) as profile:
        local_attention.attend(states, states, states, None, 64)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 8192 * 8192 / 8  # bytes; the square of truth values alone is 8192² bytes
