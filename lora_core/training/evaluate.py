"""What a model computes of one part of the data."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_core.data.batching import by_length
from lora_core.training import ranks
from lora_core.training.forward import EveryBlock, WholeModel
from lora_core.training.part import Part
from lora_core.training.pulse import Pulse


def logits(
    forward: WholeModel,
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
    forward: EveryBlock, part: Part, which: NDArray[np.int64], *, budget: int, pulse: Pulse
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
    for indices in ranks.shard_batches(by_length(part.lengths[which], budget)):
        if indices:
            rows[indices] = compute(part, which[indices].tolist()).float().cpu().numpy()
        pulse.beat()
    ranks.all_reduce_rows(rows)
    model.train(was_training)
