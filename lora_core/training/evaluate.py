"""What a model computes of one split."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_core import distributed
from lora_core.data.batching import by_length
from lora_core.data.tokenized_split import Part
from lora_core.forward import BlockwiseForward, Forward
from lora_core.progress_reporter import Pulse


def logits(
    forward: Forward,
    part: Part,
    *,
    budget: int,
    pulse: Pulse,
    only: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Logits (texts, classes) in the order of the part, `budget` padded tokens at once; those of
    the texts of these numbers, if `only` some are wanted.

    Each process of a run computes a share and gets them all. The model is in evaluation mode only
    inside, where nothing is random.
    """
    which = np.arange(len(part)) if only is None else only
    rows = np.zeros((len(which), forward.model.config.num_labels), dtype=np.float32)
    _fill(rows, forward, forward.model, part, which, budget, pulse)
    return rows


def pooled(
    forward: BlockwiseForward, part: Part, which: NDArray[np.int64], *, budget: int, pulse: Pulse
) -> NDArray[np.float32]:
    """What the head reads of the texts with these numbers: (texts, width), shared like `logits`."""
    rows = np.zeros((len(which), forward.model.config.hidden_size), dtype=np.float32)
    _fill(rows, forward.pooled, forward.model, part, which, budget, pulse)
    return rows


@torch.no_grad()
def _fill(  # noqa: PLR0913
    rows: NDArray[np.float32],
    compute: Callable[[Part, Sequence[int]], Tensor],
    model: torch.nn.Module,
    part: Part,
    which: NDArray[np.int64],
    budget: int,
    pulse: Pulse,
) -> None:
    was_training = model.training
    model.eval()
    for indices in distributed.shard_batches(by_length(part.lengths[which], budget)):
        if indices:
            rows[indices] = compute(part, which[indices].tolist()).float().cpu().numpy()
        pulse.beat()
    distributed.all_reduce_rows(rows)
    model.train(was_training)
