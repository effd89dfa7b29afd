"""Attention unfused by torch and by the native engine are measured apart."""

from typing import Any

import pytest
import torch

from benchmarks import attention, techniques
from lora_core.fast import unfused_attention
from lora_core.fast.native.attention import NativeAttention
from lora_core.fast.native.library import best_library


def test_each_way_is_timed_by_its_own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def watch(name: str, kernel: Any) -> None:
        apply = kernel.apply

        def watched(*words: Any) -> Any:
            used.append(name)
            return apply(*words)

        monkeypatch.setattr(kernel, "apply", watched)

    watch("unfused", unfused_attention._UnfusedAttention)
    watch("native", NativeAttention)
    monkeypatch.setattr(attention, "TURNS", 1)
    found = attention.gains(512, torch.bfloat16, seconds=0.0)
    expected = {"unfused"} | ({"native"} if best_library() else set())
    assert found.keys() == set(used) == expected
    assert min(found.values()) > 0
    assert attention.ways(512, torch.float32).keys() == {"fused", "unfused"}


def test_native_engine_is_a_technique_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfused_attention, "best_library", best_library)  # put back afterwards
    techniques.IN_BF16["native attention"]()
    assert vars(unfused_attention)["best_library"]() is None
