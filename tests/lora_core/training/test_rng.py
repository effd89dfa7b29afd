"""Every generator goes on as it would have."""

import random

import numpy as np
import pytest
import torch

from lora_core.training import rng


def draws() -> list[float]:
    """From every generator, normal numbers too: of those, each second one comes from a store."""
    return [
        random.random(), random.gauss(), np.random.random(), np.random.normal(),
        torch.rand(()).item(), torch.randn(()).item(),
    ]  # fmt: skip


@pytest.mark.parametrize("odd", [0, 1])
def test_after_a_put_the_same_numbers_come(odd: int) -> None:
    for _ in range(odd):
        draws()
    states = {name: state.clone() for name, state in rng.get_rng_states("cpu").items()}
    expected = [draws() for _ in range(3)]
    rng.set_rng_states(states, "cpu")
    assert [draws() for _ in range(3)] == expected


@pytest.mark.parametrize("left_out", ["python", "numpy", "torch"])
def test_each_generator_is_needed(left_out: str) -> None:
    states = rng.get_rng_states("cpu")
    expected = draws()
    later = rng.get_rng_states("cpu")
    rng.set_rng_states({**states, left_out: later[left_out]}, "cpu")
    assert draws() != expected


def test_a_state_of_a_gpu_is_nothing_to_a_cpu() -> None:
    states = rng.get_rng_states("cpu")
    expected = draws()
    rng.set_rng_states({**states, "device": torch.zeros(16, dtype=torch.uint8)}, "cpu")
    assert draws() == expected


def test_what_is_drawn_inside_is_not_missed_outside() -> None:
    states = rng.get_rng_states("cpu")
    expected = draws()
    rng.set_rng_states(states, "cpu")
    with rng.preserve_rng_states("cpu"):
        draws()
    assert draws() == expected


def test_every_process_draws_its_own_numbers_and_the_first_goes_on() -> None:
    def drawn(rank: int, step: int) -> float:
        rng.seed_update(3, rank, step)
        return torch.rand(()).item()

    states = rng.get_rng_states("cpu")
    expected = [torch.rand(()).item() for _ in range(2)]
    rng.set_rng_states(states, "cpu")
    assert [drawn(0, step) for step in (1, 2)] == expected
    others = [drawn(rank, step) for rank in (1, 2) for step in (1, 2)]
    assert len({*expected, *others}) == 6
    assert [drawn(rank, step) for rank in (1, 2) for step in (1, 2)] == others
