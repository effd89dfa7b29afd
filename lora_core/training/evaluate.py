"""The answers of a model to one part of the data."""

from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_core.data.batching import by_length, collate
from lora_core.training.part import Part
from lora_core.training.runtime import Runtime, forked_rng


@torch.no_grad()
def logits(
    model: nn.Module, part: Part, runtime: Runtime, *, budget: int, exact: bool = False
) -> NDArray[np.float32]:
    """Logits (texts, classes) in the order of the part; `exact` computes in float32.

    The model is in evaluation mode only inside, and training's random state is left as it was.
    """
    rows: NDArray[np.float32] | None = None
    was_training = model.training
    model.eval()
    with forked_rng(runtime.device):
        for indices in by_length(part.lengths, budget):
            batch = collate([part.ids[i] for i in indices], part.labels[indices], part.pad)
            batch = batch.to(runtime.device)
            with nullcontext() if exact else runtime.autocast():
                out = model(batch.input_ids, attention_mask=batch.attention_mask).logits
            if rows is None:
                rows = np.empty((len(part), out.shape[1]), dtype=np.float32)
            rows[indices] = out.float().cpu().numpy()
    model.train(was_training)
    if rows is None:
        raise ValueError("an empty part has no logits")
    return rows
