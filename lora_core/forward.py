"""From token ids to logits: embeddings, blocks, head."""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedModel

from lora_core import compatibility
from lora_core.data.batching import Batch, collate, padded_length
from lora_core.data.tokenized_split import Part
from lora_core.encoders import stack
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks, head_activation
from lora_core.runtime import Runtime


class Forward:
    """The classifier of transformers, called on padded batches."""

    def __init__(self, model: PreTrainedModel, runtime: Runtime, *, pad_multiple: int = 1) -> None:
        """Batches are padded to a multiple of `pad_multiple` tokens."""
        self.model = model
        self.seconds = 0.0  # spent before the first step
        self.found = False  # whether cached features made those seconds unnecessary
        self._runtime = runtime
        self._pad_multiple = pad_multiple
        self._max_length = compatibility.read_shape(
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
        return min(padded_length(longest, self._pad_multiple), self._max_length)


class BlockwiseForward(Forward):
    """The same function, block by block.

    Its attention mask is one row per text, and None where nothing is padded; that of transformers
    is a square, which attention reads once per head.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        runtime: Runtime,
        family: EncoderFamily,
        *,
        pad_multiple: int = 1,
    ) -> None:
        super().__init__(model, runtime, pad_multiple=pad_multiple)
        self._family = family
        self._blocks = blocks(model, family)

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        with self._runtime.autocast():
            return head(self.model, self._family, self.pooled(part, indices))

    def pooled(self, part: Part, indices: Sequence[int]) -> Tensor:
        """The input of the head for these texts, (len(indices), width)."""
        batch = self._batch(part, indices)
        with self._runtime.autocast():
            x = stack.embed(self.model, self._family, batch.input_ids)
            return stack.run(self._blocks, x, stack.visible(batch.attention_mask))[:, 0]


def head(model: PreTrainedModel, family: EncoderFamily, x: Tensor) -> Tensor:
    """What the classifiers of transformers compute from the first token's state (batch, width)."""
    first, last = (model.get_submodule(name) for name in family.head)
    dropout = model.get_submodule(family.head_dropout_layer)
    between = first(dropout(x) if family.drops_head_input else x)
    logits: Tensor = last(dropout(head_activation(family)(between)))
    return logits
