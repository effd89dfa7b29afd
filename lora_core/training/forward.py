"""From texts to logits."""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from lora_core import fit
from lora_core.data.batching import Batch, collate
from lora_core.encoders import stack, unfused
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks, head_activation
from lora_core.training.part import Part
from lora_core.training.runtime import Runtime


class WholeModel:
    """Every text through every layer. The shorter ways to the same logits are made from it."""

    def __init__(self, model: PreTrainedModel, runtime: Runtime) -> None:
        self.model = model
        self.seconds = 0.0  # spent before the first step
        self.found = False  # whether what that would have computed was on the disk already
        self._runtime = runtime
        self._most = fit.read_shape(model.config.to_dict(), base=model.config.model_type).longest

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
        if not unfused.pays(self._runtime.device, self._runtime.precision):
            return longest
        return min(unfused.rounded(longest, unfused.STEP), self._most)


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
