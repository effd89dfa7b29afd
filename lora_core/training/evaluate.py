"""From texts to logits."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from lora_core import compatibility
from lora_core.data.batching import Batch, by_length, collate
from lora_core.encoders import stack
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks, head_activation
from lora_core.fast import unfused_attention
from lora_core.training import distributed
from lora_core.training.progress_reporter import Pulse
from lora_core.training.runtime import Runtime
from lora_core.training.tokenized_split import Part


class WholeModel:
    """Every text through every layer. The shorter ways to the same logits are made from it."""

    def __init__(self, model: PreTrainedModel, runtime: Runtime) -> None:
        self.model = model
        self.seconds = 0.0  # spent before the first step
        self.found = False  # whether what that would have computed was on the disk already
        self._runtime = runtime
        self._most = compatibility.read_shape(
            model.config.to_dict(), base=model.config.model_type
        ).longest

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        """Logits (len(indices), classes) of these texts."""
        batch = self._batch(part, indices)
        with self._runtime.autocast():
            logits: Tensor = self.model(batch.input_ids, attention_mask=batch.attention_mask).logits
        return logits

    def _batch(self, part: Part, indices: Sequence[int]) -> Batch:
        ids = [part.ids[i] for i in indices]
        length = self._padded(int(part.lengths[indices].max()))
        return collate(ids, part.pad, length).to(self._runtime.device)

    def _padded(self, longest: int) -> int:
        """What a batch is padded to: one of few lengths where each new one costs time."""
        if not unfused_attention.pays(self._runtime.device, self._runtime.precision):
            return longest
        return min(unfused_attention.rounded(longest, unfused_attention.STEP), self._most)


class EveryBlock(WholeModel):
    """The same, block by block: its mask is a row for each text, and none where nothing is padded.

    That of transformers is a square, which attention reads once for each head.
    """

    def __init__(self, model: PreTrainedModel, runtime: Runtime, family: EncoderFamily) -> None:
        super().__init__(model, runtime)
        self._family = family
        self._blocks = blocks(model, family)

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        with self._runtime.autocast():
            return head(self.model, self._family, self.pooled(part, indices))

    def pooled(self, part: Part, indices: Sequence[int]) -> Tensor:
        """What the head reads of these texts, (len(indices), width)."""
        batch = self._batch(part, indices)
        with self._runtime.autocast():
            x = stack.embed(self.model, self._family, batch.input_ids)
            return stack.run(self._blocks, x, stack.visible(batch.attention_mask))[:, 0]


def head(model: PreTrainedModel, family: EncoderFamily, x: Tensor) -> Tensor:
    """What the classifiers of transformers do with the first token's state (batch, width)."""
    first, last = (model.get_submodule(name) for name in family.head)
    dropout = model.get_submodule(family.head_dropout_layer)
    between = first(dropout(x) if family.drops_head_input else x)
    logits: Tensor = last(dropout(head_activation(family)(between)))
    return logits


# MERGED lora_core.training.evaluate
# What a model computes of one part of the data.


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
    for indices in distributed.shard_batches(by_length(part.lengths[which], budget)):
        if indices:
            rows[indices] = compute(part, which[indices].tolist()).float().cpu().numpy()
        pulse.beat()
    distributed.all_reduce_rows(rows)
    model.train(was_training)
