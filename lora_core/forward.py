"""The forward pass: from token ids through embeddings, blocks and head to logits."""

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from lora_core import compatibility
from lora_core.data.batching import TokenBatch, collate, mean_of_windows, padded_length
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders import encoder_parts, modernbert
from lora_core.encoders.encoder_parts import blocks, family_of
from lora_core.encoders.families import MODERNBERT, FastPathFamily
from lora_core.runtime import Runtime


class Forward:
    """The classifier of transformers, called on padded batches."""

    caches_features = False  # whether states of the frozen encoder are computed only once

    def __init__(self, model: PreTrainedModel, runtime: Runtime, *, pad_multiple: int = 1) -> None:
        """Batches are padded to a multiple of `pad_multiple` tokens."""
        self.model = model
        self.setup_seconds = 0.0  # spent before the first step
        self.cache_hit = False  # whether all features came from the cache
        self._runtime = runtime
        self._pad_multiple = pad_multiple
        self._max_length = compatibility.read_encoder_shape(
            model.config.to_dict(), base=model.config.model_type
        ).max_tokens

    def __call__(self, data: TokenizedSplit, indices: Sequence[int]) -> Tensor:
        """Return logits (len(indices), classes) of these texts."""
        batch = self._batch(data, indices)
        with self._runtime.autocast():
            logits: Tensor = self.model(
                **batch.embedding_inputs, attention_mask=batch.attention_mask
            ).logits
        return logits

    def _batch(self, data: TokenizedSplit, indices: Sequence[int]) -> TokenBatch:
        ids = [data.ids[i] for i in indices]
        length = self._padded_length(int(data.lengths[indices].max()))
        starts = None if data.segment_starts is None else data.segment_starts[indices]
        return collate(ids, data.pad_id, length, starts).to(self._runtime.device)

    def _padded_length(self, longest: int) -> int:
        return min(padded_length(longest, self._pad_multiple), self._max_length)

    def pooled_states(self, data: TokenizedSplit, indices: Sequence[int]) -> Tensor:
        """Return the input of the head for these texts, (len(indices), width).

        A head that reads every token, and averages its logits, gets the mean of its inputs here.
        """
        inputs: list[Tensor] = []  # (texts, width) or (texts, length, width)
        head = self.model.get_submodule(family_of(self.model).head[0])
        hook = head.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        try:
            self(data, indices)
        finally:
            hook.remove()
        [x] = inputs
        if x.dim() == 2:
            return x
        return encoder_parts.mean_of_seen(x, self._batch(data, indices).attention_mask)


class BlockwiseForward(Forward):
    """The same function, computed block by block.

    Its attention mask is one row per text, or None if nothing is padded. That of transformers is a
    square, which attention reads once per head.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        runtime: Runtime,
        family: FastPathFamily,
        *,
        pad_multiple: int = 1,
    ) -> None:
        super().__init__(model, runtime, pad_multiple=pad_multiple)
        if family is MODERNBERT:
            modernbert.patch_blocks(model, family)
        self._family = family
        self._embeddings = encoder_parts.embedding_modules(model, family)
        self._blocks = blocks(model, family)

    def __call__(self, data: TokenizedSplit, indices: Sequence[int]) -> Tensor:
        with self._runtime.autocast():
            return apply_head(self.model, self._family, self.pooled_states(data, indices))

    def pooled_states(self, data: TokenizedSplit, indices: Sequence[int]) -> Tensor:
        """Return the input of the head for these texts, (len(indices), width)."""
        batch = self._batch(data, indices)
        with self._runtime.autocast():
            x = encoder_parts.run_embedding_modules(self._embeddings, **batch.embedding_inputs)
            mask = encoder_parts.expand_mask(batch.attention_mask)
            x = encoder_parts.run_blocks(self._blocks, x, mask)
            return encoder_parts.pool(self.model, self._family, x, mask)


class WindowedForward(Forward):
    """Averages over the windows of each text what another forward pass computes of each window."""

    def __init__(self, of_windows: Forward) -> None:
        self.of_windows = of_windows
        self.model = of_windows.model
        self.setup_seconds = of_windows.setup_seconds
        self.cache_hit = of_windows.cache_hit
        self.caches_features = of_windows.caches_features

    def __call__(self, data: TokenizedSplit, indices: Sequence[int]) -> Tensor:
        """Return the mean of the logits of each text's windows, (len(indices), classes)."""
        return self._mean(self.of_windows, data, indices)

    def pooled_states(self, data: TokenizedSplit, indices: Sequence[int]) -> Tensor:
        """Return the mean of the inputs of the head, (len(indices), width).

        The last layer of a head is linear, so where the first one nearly is, as for a probe, the
        head of this mean is the mean of the logits.
        """
        return self._mean(self.of_windows.pooled_states, data, indices)

    def _mean(
        self,
        compute: Callable[[TokenizedSplit, Sequence[int]], Tensor],
        data: TokenizedSplit,
        indices: Sequence[int],
    ) -> Tensor:
        if data.windows is None or data.window_counts is None:
            raise TypeError("the split has no windows")
        rows = compute(data.windows, data.window_indices(indices)).float()
        return mean_of_windows(rows, data.window_counts[indices].tolist())


def apply_head(model: PreTrainedModel, family: FastPathFamily, x: Tensor) -> Tensor:
    """Return logits (batch, classes) from the pooled states x (batch, width).

    This is the head that the classifiers of transformers have.
    """
    first, last = (model.get_submodule(name) for name in family.head)
    dropout = model.get_submodule(family.head_dropout_layer)
    hidden = first(dropout(x) if family.drops_head_input else x)
    logits: Tensor = last(
        dropout(encoder_parts.apply_head_activation_and_norm(model, family, hidden))
    )
    return logits
