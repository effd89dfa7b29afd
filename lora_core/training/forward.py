"""From texts to logits."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from lora_core.data.batching import collate
from lora_core.encoders import stack, unfused
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks
from lora_core.tasks.base import Batch
from lora_core.training.part import Part
from lora_core.training.runtime import Runtime


class Forward(Protocol):
    """How a run computes logits."""

    model: PreTrainedModel
    seconds: float  # spent before the first step
    found: bool  # what that would have computed was on the disk already

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        """Logits (len(indices), classes) of these texts."""
        ...


class WholeModel:
    """Every text through every layer."""

    def __init__(self, model: PreTrainedModel, machine: Runtime) -> None:
        self.model = model
        self.seconds, self.found = 0.0, False
        self._machine = machine

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        batch = self._batch(part, indices)
        with self._machine.autocast():
            logits: Tensor = self.model(batch.input_ids, attention_mask=batch.attention_mask).logits
        return logits

    def _batch(self, part: Part, indices: Sequence[int]) -> Batch:
        ids = [part.ids[i] for i in indices]
        length = self._padded(int(part.lengths[indices].max()))
        return collate(ids, part.labels[indices], part.pad, length).to(self._machine.device)

    def _padded(self, longest: int) -> int:
        """What a batch is padded to: one of few lengths where each new one costs time."""
        if not unfused.pays(self._machine.device, self._machine.precision):
            return longest
        return unfused.rounded(longest, self.model.config.max_position_embeddings)


class EveryBlock(WholeModel):
    """The same, block by block: its mask is a row for each text, and none where nothing is padded.

    That of transformers is a square, which attention reads once for each head.
    """

    def __init__(self, model: PreTrainedModel, machine: Runtime, family: EncoderFamily) -> None:
        super().__init__(model, machine)
        self._family = family
        self._blocks = blocks(model, family)

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        batch = self._batch(part, indices)
        with self._machine.autocast():
            x = stack.embed(self.model, self._family, batch.input_ids)
            x = stack.run(self._blocks, x, stack.visible(batch.attention_mask))
            return head(self.model, self._family, x[:, 0])


def head(model: PreTrainedModel, family: EncoderFamily, x: Tensor) -> Tensor:
    """What the classifiers of transformers do with the first token's state (batch, width)."""
    first, last = (model.get_submodule(name) for name in family.head)
    between = first(x)
    between = between.relu() if family.head_activation == "relu" else between.tanh()
    logits: Tensor = last(model.dropout(between))
    return logits
