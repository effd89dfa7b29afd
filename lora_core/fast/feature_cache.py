"""The outputs of the frozen part of an encoder for each text: computed once, cached on disk.

Jobs on the same base and texts share them. The key of an entry covers everything that its bits
depend on, so it does not matter which run computed it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from lora_core.artifact_base_sharing import split_classifier_config
from lora_core.atomic_files import atomic_path
from lora_core.cache import FOLDER_LIMITS, cache_dir, evict_least_recently_used
from lora_core.data.tokens import TokenizedSplit

FORMAT_VERSION = "2"  # raise it when the same facts would give other features
MAX_BYTES = FOLDER_LIMITS["features"]


class CachedFeatures:
    """States (rows, width) in float32. Text i has `counts[i]` consecutive rows."""

    def __init__(self, rows: Tensor, counts: NDArray[np.int64], *, cache_hit: bool) -> None:
        self.cache_hit = cache_hit  # whether the rows were read from disk, not computed
        self._rows = rows
        self._ends = np.cumsum(counts)
        self._counts = counts

    def get(self, indices: Sequence[int]) -> list[Tensor]:
        """Return the rows of each text."""
        return [self._rows[self._ends[i] - self._counts[i] : self._ends[i]] for i in indices]


def hash_encoder(facts: Iterable[str], weights: Iterable[Tensor]) -> "hashlib._Hash":
    """Hash how features are computed, and the frozen weights: the same for every split of a run."""
    digest = hashlib.sha256("\0".join([FORMAT_VERSION, *facts]).encode())
    for weight in weights:
        digest.update(weight.detach().cpu().contiguous().numpy().data)
    return digest


def serialize_encoder_config(model: PreTrainedModel) -> str:
    """Return as JSON those fields of the config of a model that its encoder depends on."""
    return json.dumps(split_classifier_config(model.config.to_diff_dict())[0], sort_keys=True)


def entry_key(encoder_hash: "hashlib._Hash", data: TokenizedSplit) -> str:
    """Return the key of an entry: a hash of the encoder and of the texts."""
    digest = encoder_hash.copy()
    if data.windows is not None and data.window_counts is not None:
        digest.update(b"windows" + data.window_counts.tobytes())
        data = data.windows
    for ids in data.ids:
        digest.update(len(ids).to_bytes(8, "big"))
        digest.update(ids.tobytes())
    if data.segment_starts is not None:
        digest.update(data.segment_starts.tobytes())
    return digest.hexdigest()


def load_or_compute(
    key: str,
    counts: NDArray[np.int64],
    width: int,
    compute: Callable[[], Iterable[tuple[int, Tensor]]],
) -> CachedFeatures:
    """Return the entry with this key, or compute and store it. Raises `DiskFull`.

    `compute` yields the index and the rows of each text.
    """
    path = cache_dir() / "features" / f"{key}.npy"
    shape = (int(counts.sum()), width)
    rows = _read(path, shape)
    cache_hit = rows is not None
    if rows is None:
        with atomic_path(path) as temporary:
            _write(temporary, shape, np.cumsum(counts) - counts, compute())
            rows = _map(temporary)
        evict_least_recently_used(path.parent, MAX_BYTES)
    return CachedFeatures(rows, counts, cache_hit=cache_hit)


def _write(
    path: Path,
    shape: tuple[int, int],
    starts: NDArray[np.int64],
    features: Iterable[tuple[int, Tensor]],
) -> None:
    """Write an entry, the rows of text i from row `starts[i]` on.

    With `write`, since a full disk ends a process that writes to mapped memory by SIGBUS.
    """
    row_bytes = shape[1] * 4  # float32
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        first = file.tell()
        for i, rows in features:
            file.seek(first + int(starts[i]) * row_bytes)
            file.write(rows.float().cpu().numpy().astype("<f4", copy=False).tobytes())


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Read an entry and mark it as used; return None if it is missing or damaged."""
    try:
        rows = _map(path)
        os.utime(path)
    except (FileNotFoundError, EOFError, ValueError):
        return None
    return rows if rows.shape == shape else None


def _map(path: Path) -> Tensor:
    """Map an entry into memory, so that only the rows in use are loaded. Changes stay in memory."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
