"""Batches of texts of similar length, limited by tokens including padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

POOL_BATCHES = 50  # batches sorted by length together: little padding, but still random


@dataclass(frozen=True)
class TokenBatch:
    """Texts padded to the same length."""

    input_ids: Tensor  # (texts, length) int64
    attention_mask: Tensor  # (texts, length) int64, 0 at padding
    # (texts, length) int64, 1 in the second segment; None: there are no pairs, or no segments
    token_type_ids: Tensor | None = None

    @property
    def embedding_inputs(self) -> dict[str, Tensor]:
        """The arguments of the embeddings: `input_ids`, and `token_type_ids` if there are any."""
        if self.token_type_ids is None:
            return {"input_ids": self.input_ids}
        return {"input_ids": self.input_ids, "token_type_ids": self.token_type_ids}

    def to(self, device: str) -> "TokenBatch":
        types = None if self.token_type_ids is None else self.token_type_ids.to(device)
        return TokenBatch(self.input_ids.to(device), self.attention_mask.to(device), types)


def micro_batches(
    lengths: NDArray[np.int64], order: Sequence[int], max_tokens: int
) -> list[list[int]]:
    """Cut `order` into batches whose longest text times their size is at most `max_tokens`.

    A text longer than `max_tokens` gets a batch of its own.
    """
    batches: list[list[int]] = []
    current: list[int] = []
    longest = 0
    for i in order:
        longest = max(longest, int(lengths[i]))
        if current and longest * (len(current) + 1) > max_tokens:
            batches.append(current)
            current, longest = [], int(lengths[i])
        current.append(i)
    return [*batches, current] if current else batches


def length_sorted_batches(lengths: NDArray[np.int64], max_tokens: int) -> list[list[int]]:
    """Return batches of all texts, sorted by length, for evaluation."""
    return micro_batches(lengths, np.argsort(lengths, kind="stable").tolist(), max_tokens)


def epoch_batches(
    lengths: NDArray[np.int64], *, batch_size: int, seed: int, epoch: int
) -> Iterator[list[int]]:
    """Yield the batches of one epoch: the texts of each update, sorted by length.

    The order is a function of (seed, epoch) alone. Texts are shuffled, sorted by length within
    pools of `POOL_BATCHES` batches, cut into batches of `batch_size`, and the batches are shuffled
    again.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches: list[list[int]] = []
    for start in range(0, len(order), POOL_BATCHES * batch_size):
        pool = order[start : start + POOL_BATCHES * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size].tolist() for i in range(0, len(pool), batch_size)]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def padded_length(length: int, multiple: int) -> int:
    """Return the length rounded up to a multiple.

    oneDNN compiles and caches a kernel for each shape, so hundreds of lengths cost time and memory
    (docs/decisions/0018).
    """
    return -(-length // multiple) * multiple


def collate(
    ids: Sequence[Sequence[int] | NDArray[np.int32]],
    pad_id: int,
    length: int | None = None,
    segment_starts: NDArray[np.int64] | None = None,
) -> TokenBatch:
    """Pad texts to `length`, or to the longest.

    `segment_starts`: index of the first token of the second segment of each text.
    """
    length = length or max(len(row) for row in ids)
    input_ids = np.full((len(ids), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(ids), length), dtype=np.int64)
    for i, row in enumerate(ids):
        input_ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    types = None
    if segment_starts is not None:
        types = torch.from_numpy(mask * (np.arange(length) >= segment_starts[:, None]))
    return TokenBatch(torch.from_numpy(input_ids), torch.from_numpy(mask), types)


def mean_of_windows(rows: Tensor, counts: list[int]) -> Tensor:
    """Return the mean (texts, …) of the rows of each text, which has one for each window."""
    if len(rows) == len(counts):
        return rows
    return torch.stack([windows.mean(dim=0) for windows in torch.split(rows, counts)])
