"""The states of every random generator that a run may draw from, as tensors."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

NO_GAUSS = float("nan")  # Python and NumPy may keep the second of two normal numbers; or not


def take(device: str) -> dict[str, Tensor]:
    """The states of Python, NumPy, torch, and of the GPU that the run computes on."""
    version, integers, gauss = random.getstate()
    numpy = np.random.get_state(legacy=False)
    states = {
        "python": torch.tensor([version, *integers], dtype=torch.int64),
        "python_gauss": torch.tensor(NO_GAUSS if gauss is None else gauss, dtype=torch.float64),
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


def put(states: Mapping[str, Tensor], device: str) -> None:
    """Set every generator to such a state. A state of a GPU means nothing to a CPU."""
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


def begin_update(seed: int, rank: int, step: int) -> None:
    """Every process of a run draws other numbers. Those of the first go on, and are kept.

    The others draw theirs from (seed, rank, step), so that nothing of them has to be kept.
    """
    if rank > 0:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank, step]).generate_state(1)[0]))


@contextmanager
def untouched(device: str) -> Iterator[None]:
    """Whatever is drawn inside, training goes on with the numbers it would have drawn without."""
    before = take(device)
    try:
        yield
    finally:
        put(before, device)
