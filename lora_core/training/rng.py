"""Save and restore the states of all random generators that a run may use, as tensors."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

# Python and NumPy draw normal numbers in pairs and may hold the second one; NaN: they do not.
_NO_GAUSS = float("nan")


def get_rng_states(device: str) -> dict[str, Tensor]:
    """Return the states of Python, NumPy, torch, and of the GPU if the run uses one."""
    version, integers, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    states = {
        "python": torch.tensor([version, *integers], dtype=torch.int64),
        "python_gauss": torch.tensor(_NO_GAUSS if gauss is None else gauss, dtype=torch.float64),
        "numpy": torch.tensor(
            [*numpy["state"]["key"].tolist(), numpy["state"]["pos"], numpy["has_gauss"]],
            dtype=torch.int64,
        ),
        "numpy_gauss": torch.tensor(numpy["gauss"], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device != "cpu":
        states["device"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_states(states: Mapping[str, Tensor], device: str) -> None:
    """Restore the states of `get_rng_states`. A run on a CPU ignores the state of a GPU."""
    version, *integers = states["python"].tolist()
    gauss = states["python_gauss"].item()
    random.setstate((version, tuple(integers), None if gauss != gauss else gauss))
    *key, position, has_gauss = states["numpy"].tolist()
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": np.array(key, dtype=np.uint32), "pos": position},
            "has_gauss": has_gauss,
            "gauss": states["numpy_gauss"].item(),
        }
    )
    torch.set_rng_state(states["torch"])
    if device != "cpu" and "device" in states:
        torch.cuda.set_rng_state(states["device"], device)


def reseed_torch_on_nonzero_rank(seed: int, rank: int, step: int) -> None:
    """Make every process of a run draw different numbers in this update.

    Rank 0 continues its stream, whose state goes into checkpoints. The others are seeded with
    (seed, rank, step), so that their states need not be saved.
    """
    if rank > 0:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank, step]).generate_state(1)[0]))


@contextmanager
def preserve_rng_states(device: str) -> Iterator[None]:
    """Restore all generators at the end, so that what is drawn inside does not affect training."""
    before = get_rng_states(device)
    try:
        yield
    finally:
        set_rng_states(before, device)
