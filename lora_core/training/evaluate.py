"""The answers of a model to one part of the data."""

import numpy as np
import torch
from numpy.typing import NDArray

from lora_core.data.batching import by_length
from lora_core.training import ranks
from lora_core.training.forward import WholeModel
from lora_core.training.part import Part
from lora_core.training.pulse import Pulse


@torch.no_grad()
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
    model = forward.model
    which = np.arange(len(part)) if only is None else only
    rows = np.zeros((len(which), model.config.num_labels), dtype=np.float32)
    was_training = model.training
    model.eval()
    for indices in ranks.shard_batches(by_length(part.lengths[which], budget)):
        if indices:
            rows[indices] = forward(part, which[indices].tolist()).float().cpu().numpy()
        pulse.beat()
    ranks.all_reduce_rows(rows)
    model.train(was_training)
    return rows
