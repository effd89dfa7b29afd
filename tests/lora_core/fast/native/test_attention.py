"""Tests of native attention: output and gradients against float64, on every variant."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lora_core.fast import unfused_attention
from lora_core.fast.native.attention import NativeAttention
from lora_core.fast.native.library import (
    AttentionStruct,
    InvalidArguments,
    Library,
    StridedTensorStruct,
)
from tests.lora_core.fast.native.libraries import libraries

LENGTHS = (48, 1, 17, 0, 33)
HEADS = 3


def _draw(lengths: Sequence[int], size: int, layout: str) -> list[Tensor]:
    """Return query, key and value in float64, rounded to bf16: (batch, heads, tokens, size)."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(lengths), max(lengths), 3, HEADS, size)
    together = torch.randn(shape, generator=generator, dtype=torch.float64) * 1.5
    together = together.bfloat16().double()
    parts = [part.transpose(1, 2) for part in together.unbind(2)]  # of one fused layer
    return parts if layout == "fused" else [part.contiguous() for part in parts]


def _visible(lengths: Sequence[int], window: int | None) -> Tensor:
    """Return which keys a query sees: (batch, 1, tokens, tokens)."""
    tokens = max(lengths)
    positions = torch.arange(tokens)
    inside = positions < torch.tensor(lengths)[:, None]
    near = (positions[:, None] - positions).abs() <= (tokens if window is None else window)
    return (inside[:, :, None] & inside[:, None] & near | torch.eye(tokens, dtype=torch.bool))[
        :, None
    ]


def _gradients(
    attend: Callable[..., Tensor], inputs: list[Tensor], d_out: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """Return output (batch, tokens, heads, size) and gradients, in float64."""
    leaves = [each.to(dtype).detach().requires_grad_() for each in inputs]
    out = attend(*leaves)
    torch.autograd.backward([out], [d_out.to(dtype)])
    return [each.double() for each in (out.detach(), *(leaf.grad for leaf in leaves))]  # type: ignore[union-attr]


LONG = [  # lengths, size, window, layout
    pytest.param((2000,), 64, None, "fused", marks=pytest.mark.slow),
    pytest.param((1990, 2000), 64, 64, "fused", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(
    ("lengths", "size", "window", "layout"),
    [*product([LENGTHS], [32, 64, 128], [None, 5, 40], ["fused", "apart"]), *LONG],
)
def test_output_and_gradients_are_nearer_to_float64_than_those_of_torch(
    lengths: Sequence[int],
    size: int,
    window: int | None,
    layout: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unfused_attention, "best_library", lambda: None)
    tokens, scale = max(lengths), size**-0.5
    inputs = _draw(lengths, size, layout)
    inside = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    d_out = torch.randn(len(lengths), tokens, HEADS, size, dtype=torch.float64)
    d_out = d_out.bfloat16().double() * inside[:, :, None, None]

    def exact(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores: Tensor = scale * query @ key.transpose(2, 3)
        hidden = ~_visible(lengths, window)
        out: Tensor = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value
        return out.transpose(1, 2) * inside[:, :, None, None]

    def by_torch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mask = inside[:, None, None]
        out, _ = unfused_attention.attention_forward(
            torch.nn.Module(), query, key, value, mask, window=window
        )
        return out

    expected = _gradients(exact, inputs, d_out, torch.float64)
    ours = _gradients(by_torch, inputs, d_out, torch.bfloat16)
    bounds = [(a - b).norm() for a, b in zip(ours, expected, strict=True)]
    for variant, library in libraries().items():

        def native(*leaves: Tensor, library: Library = library) -> Tensor:
            out: Tensor = NativeAttention.apply(  # type: ignore[no-untyped-call]
                *leaves, lengths, scale, window, library
            )
            return out

        results = _gradients(native, inputs, d_out, torch.bfloat16)
        for i, (result, reference, bound) in enumerate(zip(results, expected, bounds, strict=True)):
            assert (result - reference).norm() <= bound, (variant, i)
            padding = result.transpose(1, 2) if i else result
            assert (padding[~inside] == 0).all(), (variant, i)


def test_threads_change_no_bit() -> None:
    inputs = _draw(LENGTHS, 64, "fused")
    d_out = torch.randn(len(LENGTHS), 48, HEADS, 64, dtype=torch.float64)
    for variant, library in libraries().items():
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)

            def native(*leaves: Tensor, library: Library = library) -> Tensor:
                out: Tensor = NativeAttention.apply(  # type: ignore[no-untyped-call]
                    *leaves, LENGTHS, 0.125, None, library
                )
                return out

            results.append(_gradients(native, inputs, d_out, torch.bfloat16))
        torch.set_num_threads(1)
        for others in results[1:]:
            assert all(map(torch.equal, results[0], others)), variant


def test_evaluation_uses_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (each.bfloat16() for each in _draw(LENGTHS, 32, "fused"))
    mask = (torch.arange(48) < torch.tensor(LENGTHS)[:, None])[:, None, None]
    for variant, library in libraries().items():
        monkeypatch.setattr(unfused_attention, "best_library", lambda found=library: found)
        with torch.no_grad():
            out, _ = unfused_attention.attention_forward(torch.nn.Module(), query, key, value, mask)
            expected = NativeAttention.apply(  # type: ignore[no-untyped-call]
                query, key, value, LENGTHS, 32**-0.5, None, library
            )
        assert torch.equal(out, expected), variant


class ReusesMemory:
    """A library that is called after others have taken what memory was free."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def attention_forward(self, call: Any, *, threads: int) -> None:
        taken = [np.zeros(2, np.int32) for _ in range(16)]
        self._library.attention_forward(call, threads=threads)
        del taken


def test_lengths_stay_in_memory_during_the_call() -> None:
    query = torch.ones(2, 1, 16, 32, dtype=torch.bfloat16)
    for variant, library in libraries().items():
        out = NativeAttention.apply(  # type: ignore[no-untyped-call]
            query, query, query, (16, 3), 1.0, None, ReusesMemory(library)
        )
        assert out[..., 0].sum(dim=(1, 2)).tolist() == [16, 3], variant


@pytest.mark.parametrize(
    "arguments",
    [
        {"lengths": (-1, 1)},
        {"lengths": (17, 1)},
        {"size": 16},
        {"window": -2},
        {"window": -(2**31)},
    ],
)
def test_wrong_bounds_are_refused(arguments: dict[str, Any]) -> None:
    settings = {"lengths": (16, 1), "size": 32, "window": None, **arguments}
    query = torch.zeros(2, 1, 16, settings["size"], dtype=torch.bfloat16)
    for library in libraries().values():
        with pytest.raises(InvalidArguments, match="refused to compute lw_attention_forward"):
            NativeAttention.apply(  # type: ignore[no-untyped-call]
                query, query, query, settings["lengths"], 1.0, settings["window"], library
            )


def test_a_number_that_is_not_finite_stays_visible() -> None:
    query = torch.zeros(1, 1, 16, 32, dtype=torch.bfloat16)
    query[0, 0, 3] = torch.nan
    for variant, library in libraries().items():
        out = NativeAttention.apply(  # type: ignore[no-untyped-call]
            query, query, query, (16,), 1.0, None, library
        )
        assert out.isnan().all(), variant


@pytest.mark.parametrize(
    ("function", "missing"),
    [
        ("attention_forward", "lengths"), ("attention_forward", "log_sums"),
        *(("attention_forward", name) for name in ("query", "key", "value", "out")),
        *(("attention_backward", name) for name in ("d_out", "d_query", "d_key", "d_value")),
    ],
)  # fmt: skip
def test_missing_numbers_are_refused(function: str, missing: str) -> None:
    numbers, lengths = torch.zeros(4, 32, dtype=torch.bfloat16), np.array([4], np.int32)
    rows = StridedTensorStruct(numbers.data_ptr(), 0, 0, 32)
    log_sums = torch.zeros(4)
    for library in libraries().values():
        call = AttentionStruct(
            1, 1, 32, 4, -1, 1.0, lengths.ctypes.data, log_sums.data_ptr(), *[rows] * 8
        )
        getattr(library, function)(call, threads=1)
        none: Any = None if missing in ("lengths", "log_sums") else StridedTensorStruct()
        setattr(call, missing, none)
        with pytest.raises(InvalidArguments, match=function):
            getattr(library, function)(call, threads=1)


@pytest.mark.parametrize("window", [2**31 - 1, 2**40])
def test_a_window_beyond_all_texts_hides_nothing(window: int) -> None:
    inputs = [each.bfloat16() for each in _draw(LENGTHS, 32, "fused")]
    for variant, library in libraries().items():
        far, whole = (
            NativeAttention.apply(*inputs, LENGTHS, 1.0, each, library)  # type: ignore[no-untyped-call]
            for each in (window, None)
        )
        assert torch.equal(far, whole), variant
