"""What the frozen part of an encoder makes of each text: computed once, kept on disk.

Jobs on the same base and texts share it. An entry is known by all that its bits depend on, so a run
gives the same numbers whoever computed it.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_core.atomic_files import new_entry
from lora_core.cache import cache_dir, keep_below
from lora_core.data.tokenized_split import Part

FORMAT = "2"  # raise it when the same facts would give other features
LIMIT = 8 * 2**30  # bytes of all entries


class Features:
    """Rows (rows, width) in float32. A text has `counts` of them, one after the other."""

    def __init__(self, rows: Tensor, counts: NDArray[np.int64], *, found: bool) -> None:
        self.found = found  # on the disk: nothing was computed
        self._rows = rows
        self._ends = np.cumsum(counts)
        self._counts = counts

    def of(self, indices: Sequence[int]) -> list[Tensor]:
        """The rows of each text."""
        return [self._rows[self._ends[i] - self._counts[i] : self._ends[i]] for i in indices]


def origin(facts: Iterable[str], weights: Iterable[Tensor]) -> "hashlib._Hash":
    """How features are computed, and with which weights: the same for every part of a run."""
    digest = hashlib.sha256("\0".join([FORMAT, *facts]).encode())
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().numpy().data)
    return digest


def key(origin: "hashlib._Hash", part: Part) -> str:
    """The name of an entry: its origin, and the texts it is of."""
    digest = origin.copy()
    for ids in part.ids:
        digest.update(len(ids).to_bytes(8, "big"))
        digest.update(ids.tobytes())
    return digest.hexdigest()


def kept(
    name: str,
    counts: NDArray[np.int64],
    width: int,
    compute: Callable[[], Iterable[tuple[int, Tensor]]],
) -> Features:
    """The entry of this name, else made of what `compute` gives: each text's number and rows.

    Raises `DiskFull`.
    """
    path = cache_dir() / "features" / f"{name}.npy"
    shape = (int(counts.sum()), width)
    rows = _read(path, shape)
    found = rows is not None
    if rows is None:
        with new_entry(path) as unfinished:
            made = np.lib.format.open_memmap(unfinished, "w+", dtype=np.float32, shape=shape)
            ends = np.cumsum(counts)
            for i, states in compute():
                made[ends[i] - counts[i] : ends[i]] = states.float().cpu().numpy()
            made.flush()
        keep_below(path.parent, LIMIT)
        rows = torch.from_numpy(made)
    return Features(rows, counts, found=found)


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """An entry, its time of use renewed; None if it is not there or damaged."""
    try:
        # Mapped: only what is read comes into memory. Private: nobody changes the file.
        rows = np.load(path, mmap_mode="c", allow_pickle=False)
        os.utime(path)
    except (FileNotFoundError, EOFError, ValueError):
        return None
    return torch.from_numpy(rows) if rows.shape == shape else None
