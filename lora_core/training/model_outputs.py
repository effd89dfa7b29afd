"""Logits and pooled states of one split, in batches, shared among the processes of a run."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_core import distributed
from lora_core.data.batching import length_sorted_batches
from lora_core.data.tokens import TokenizedSplit
from lora_core.forward import Forward
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import Split
from lora_core.specs.train import TrainSpec


def compute_logits(
    forward: Forward,
    data: TokenizedSplit,
    *,
    budget: int,
    progress: ProgressReporter,
    only: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Return logits (texts, classes) in the order of the data, or of the indices `only`.

    A batch has at most `budget` padded tokens. Each process of a run computes a share, and all of
    them get the whole result. The model is put into evaluation mode and back.
    """
    indices = np.arange(len(data)) if only is None else only
    rows = np.zeros((len(indices), forward.model.config.num_labels), dtype=np.float32)
    _fill_rows(rows, forward, forward.model, data, indices, budget, progress)
    return rows


def compute_pooled_states(
    forward: Forward,
    data: TokenizedSplit,
    indices: NDArray[np.int64],
    *,
    budget: int,
    progress: ProgressReporter,
) -> NDArray[np.float32]:
    """Return the input of the head (texts, width) for these texts, like `compute_logits`."""
    rows = np.zeros((len(indices), forward.model.config.hidden_size), dtype=np.float32)
    _fill_rows(rows, forward.pooled_states, forward.model, data, indices, budget, progress)
    return rows


def eval_indices(spec: TrainSpec, split: Split, count: int) -> NDArray[np.int64]:
    """Return the ascending indices of the texts that a run is evaluated on, of `count` in a split.

    These are all texts, except on the validation split of a partial run that asks for fewer. They
    are drawn at random, since a split may be sorted by label, and they are the same in every trial
    of a sweep.
    """
    every = np.arange(count)
    limit = spec.trial.validation_texts if spec.trial else None
    if split is not Split.VALIDATION or limit is None or limit >= count:
        return every
    return np.sort(np.random.default_rng(0).permutation(every)[:limit])


@torch.no_grad()
def _fill_rows(  # noqa: PLR0913
    rows: NDArray[np.float32],
    compute: Callable[[TokenizedSplit, Sequence[int]], Tensor],
    model: torch.nn.Module,
    data: TokenizedSplit,
    indices: NDArray[np.int64],
    budget: int,
    progress: ProgressReporter,
) -> None:
    was_training = model.training
    model.eval()
    for batch in distributed.shard_batches(length_sorted_batches(data.lengths[indices], budget)):
        if batch:
            rows[batch] = compute(data, indices[batch].tolist()).float().cpu().numpy()
        progress.tick()
    distributed.all_reduce_rows(rows)
    model.train(was_training)
