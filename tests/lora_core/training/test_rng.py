"""Random number generators are saved and restored."""

import random

import numpy as np
import pytest
import torch

from lora_core.training import rng


def draws() -> list[float]:
    """Draw from every generator, including normal numbers, of which every second one is cached."""
    return [
        random.random(), random.gauss(), np.random.random(), np.random.normal(),
        torch.rand(()).item(), torch.randn(()).item(),
    ]  # fmt: skip


@pytest.mark.parametrize("odd", [0, 1])
def test_restored_state_repeats_the_same_numbers(odd: int) -> None:
    for _ in range(odd):
        draws()
    states = {name: state.clone() for name, state in rng.get_rng_states("cpu").items()}
    expected = [draws() for _ in range(3)]
    rng.set_rng_states(states, "cpu")
    assert [draws() for _ in range(3)] == expected


@pytest.mark.parametrize("left_out", ["python", "numpy", "torch"])
def test_each_generator_is_saved(left_out: str) -> None:
    states = rng.get_rng_states("cpu")
    expected = draws()
    later = rng.get_rng_states("cpu")
    rng.set_rng_states({**states, left_out: later[left_out]}, "cpu")
    assert draws() != expected


def test_cuda_state_is_ignored_on_a_cpu() -> None:
    states = rng.get_rng_states("cpu")
    expected = draws()
    rng.set_rng_states({**states, "device": torch.zeros(16, dtype=torch.uint8)}, "cpu")
    assert draws() == expected


def test_isolated_draws_do_not_affect_the_outer_state() -> None:
    states = rng.get_rng_states("cpu")
    expected = draws()
    rng.set_rng_states(states, "cpu")
    with rng.preserve_rng_states("cpu"):
        draws()
    assert draws() == expected


def test_processes_draw_different_numbers_and_the_first_is_unchanged() -> None:
    def drawn(rank: int, step: int) -> float:
        rng.reseed_torch_on_nonzero_rank(3, rank, step)
        return torch.rand(()).item()

    states = rng.get_rng_states("cpu")
    expected = [torch.rand(()).item() for _ in range(2)]
    rng.set_rng_states(states, "cpu")
    assert [drawn(0, step) for step in (1, 2)] == expected
    others = [drawn(rank, step) for rank in (1, 2) for step in (1, 2)]
    assert len({*expected, *others}) == 6
    assert [drawn(rank, step) for rank in (1, 2) for step in (1, 2)] == others
