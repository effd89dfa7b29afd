"""Batches of texts of like length, under a budget of padded tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POOL = 50  # batches that are sorted by length together: little padding, still random


@dataclass(frozen=True)
class Batch:
    """Texts padded to one length."""

    input_ids: Tensor  # (texts, length) int64
    attention_mask: Tensor  # (texts, length) int64, 0 at padding

    def to(self, device: str) -> "Batch":
        return Batch(self.input_ids.to(device), self.attention_mask.to(device))


def micro_batches(lengths: NDArray[np.int64], order: Sequence[int], budget: int) -> list[list[int]]:
    """Cut `order` into runs whose longest text times their number stays within `budget` tokens.

    A text longer than the budget stands alone.
    """
    batches: list[list[int]] = []
    current: list[int] = []
    longest = 0
    for i in order:
        longest = max(longest, int(lengths[i]))
        if current and longest * (len(current) + 1) > budget:
            batches.append(current)
            current, longest = [], int(lengths[i])
        current.append(i)
    return [*batches, current] if current else batches


def by_length(lengths: NDArray[np.int64], budget: int) -> list[list[int]]:
    """All texts, sorted by length: for evaluation, where the order does not matter."""
    return micro_batches(lengths, np.argsort(lengths, kind="stable").tolist(), budget)


def epoch_updates(
    lengths: NDArray[np.int64], *, batch_size: int, seed: int, epoch: int
) -> Iterator[list[int]]:
    """One epoch: for each update its texts, by length.

    The order is a function of (seed, epoch) alone. Texts are shuffled, sorted by length within
    pools of `POOL` updates, cut into updates of `batch_size`, and the updates shuffled again.
    """
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(lengths))
    updates: list[list[int]] = []
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        updates += [pool[i : i + batch_size].tolist() for i in range(0, len(pool), batch_size)]
    for i in draw.permutation(len(updates)):
        yield updates[i]


def padded_length(length: int, multiple: int) -> int:
    """The next multiple.

    oneDNN compiles and caches a kernel for each shape, so hundreds of lengths cost time and memory
    (docs/decisions/0018).
    """
    return -(-length // multiple) * multiple


def collate(
    ids: Sequence[Sequence[int] | NDArray[np.int32]], pad: int, length: int | None = None
) -> Batch:
    """Pad to `length`, or to the longest."""
    length = length or max(len(row) for row in ids)
    input_ids = np.full((len(ids), length), pad, dtype=np.int64)
    mask = np.zeros((len(ids), length), dtype=np.int64)
    for i, row in enumerate(ids):
        input_ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(mask))
