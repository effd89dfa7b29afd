"""Encoders for inference on padded batches, by the forward pass of transformers.

For the families that `packed_encoder` does not know. Versions with the same base share its weights:
each has modules of its own, whose tensors are those of the base, besides its LoRA weights and its
head. A batch is computed one version at a time.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lora_core import compatibility
from lora_core.artifact import SavedAdapter, head_layer_paths, inject_saved_adapter
from lora_core.data.batching import collate, length_sorted_batches
from lora_core.encoders.encoder_parts import blocks, family_of, mean_of_seen
from lora_core.inference.tokenization import TokenizedText


@dataclass(frozen=True, eq=False)
class SharedBaseClassifier:
    """The classifier of one version. Its encoder weights are those of the engine."""

    model: PreTrainedModel
    own: Sequence[Tensor]  # its LoRA weights and its head
    head_input: "HeadInputRecorder"

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes, without those that versions share."""
        return sum(t.nbytes for t in self.own)


class HeadInputRecorder:
    """What the head of a model read in the last forward pass of the calling thread."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def record(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """Keep the input of the head; a hook that torch calls before its first layer."""
        self._of_thread.x = arguments[0]

    def pop_pooled_states(self, attention_mask: Tensor) -> Tensor:
        """Return the states (texts, width) of the last forward pass, and release them.

        A head that reads every token, and averages its logits, has the mean of its inputs.
        """
        x: Tensor = self._of_thread.x
        del self._of_thread.x
        if x.dim() == 2:
            return x
        return mean_of_seen(x, attention_mask)


class PaddedEncoder:
    """The classifier of a base, whose head each version replaces. Thread-safe.

    Linear layers of the blocks compute in `dtype`; the rest, the head included, in float32.
    """

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype, device: str = "cpu") -> None:
        self.dtype, self.device = dtype, device
        self.family = family_of(model)
        shape = compatibility.read_encoder_shape(
            model.config.to_dict(), base=self.family.model_type
        )
        self._has_segments = shape.segments > 1
        # The padding id of the model, not of its tokenizer: some embeddings depend on it.
        self._pad_id = model.config.pad_token_id or 0
        self._model = model.eval().requires_grad_(False).to(device)
        if dtype != torch.float32:
            for block in blocks(model, self.family):
                for layer in block.modules():
                    if isinstance(layer, nn.Linear):
                        layer.to(dtype)

    @property
    def name(self) -> str:
        """The name of the engine, such as `torch-bf16`: backend and precision."""
        backend = "torch" if self.device == "cpu" else self.device
        return f"{backend}-{'bf16' if self.dtype == torch.bfloat16 else 'fp32'}"

    @property
    def nbytes(self) -> int:
        """Memory of the weights in bytes."""
        return sum(t.nbytes for t in self._model.parameters())

    @property
    def max_batch_tokens(self) -> int:
        """Maximum tokens of a batch; more are not faster. One text keeps a core busy, not a GPU."""
        return 1024 if self.device == "cpu" else 16_384

    def extract_adapter(self, model: PreTrainedModel) -> SharedBaseClassifier:
        """Return the adapter of a version whose model this engine was built of."""
        return self._adapter(model, list(model.parameters()))

    def build_adapter(
        self, saved: SavedAdapter | None, head: Mapping[str, Tensor]
    ) -> SharedBaseClassifier:
        """Return the adapter of a version on this base.

        Args:
            saved: Its LoRA weights, if it has some.
            head: The content of its head.safetensors.
        """
        shared = list(chain(self._model.parameters(), self._model.buffers()))
        model = deepcopy(self._model, {id(t): t for t in shared})
        for name, path in head_layer_paths(self.family).items():
            weight, bias = head[f"{name}.weight"], head[f"{name}.bias"]
            layer = nn.Linear(weight.shape[1], len(weight), device="meta")
            layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
            model.set_submodule(path, layer)
        if saved is not None:
            inject_saved_adapter(model, saved)
        model.eval().requires_grad_(False).to(self.device)
        return self._adapter(model, shared)

    def _adapter(self, model: PreTrainedModel, shared: Sequence[Tensor]) -> SharedBaseClassifier:
        if self.dtype != torch.float32:
            for path in self.family.head:
                if not isinstance(layer := model.get_submodule(path), _Float32):
                    model.set_submodule(path, _Float32(layer))
        known = {id(t) for t in shared}
        head_input = HeadInputRecorder()
        model.get_submodule(self.family.head[0]).register_forward_pre_hook(head_input.record)
        own = [p for p in model.parameters() if id(p) not in known]
        return SharedBaseClassifier(model, own, head_input)

    @torch.inference_mode()
    def logits(
        self,
        texts: Sequence[TokenizedText],
        adapters: Sequence[SharedBaseClassifier],
        *,
        threads: int | None = None,
    ) -> list[Tensor]:
        """Return the logits (classes,) of each text by its own adapter, in float32 on the CPU.

        Args:
            texts: Tokens of each text.
            adapters: Adapter of each text.
            threads: Number of intra-op threads of the calling thread from now on; None keeps it.
        """
        return [logits for logits, _ in self.logits_and_states(texts, adapters, threads=threads)]

    @torch.inference_mode()
    def logits_and_states(
        self,
        texts: Sequence[TokenizedText],
        adapters: Sequence[SharedBaseClassifier],
        *,
        threads: int | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Return what `logits` returns, each with the input of the head (width,) for that text."""
        if threads is not None and threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        rows: dict[int, tuple[Tensor, Tensor]] = {}
        for adapter, indices in _batches(texts, adapters, self.max_batch_tokens):
            computed = self._compute(adapter, [texts[i] for i in indices])
            logits, states = (each.float().cpu() for each in computed)
            rows.update(zip(indices, zip(logits, states, strict=True), strict=True))
        return [rows[i] for i in range(len(texts))]

    def _compute(
        self, adapter: SharedBaseClassifier, texts: Sequence[TokenizedText]
    ) -> tuple[Tensor, Tensor]:
        """Return logits (texts, classes) and states (texts, width) of one padded batch."""
        starts = None
        if self._has_segments and any(text.segment_start is not None for text in texts):
            starts = np.array([text.segment_start or text.length for text in texts])
        batch = collate([text.ids for text in texts], self._pad_id, None, starts).to(self.device)
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            logits: Tensor = adapter.model(
                **batch.embedding_inputs, attention_mask=batch.attention_mask
            ).logits
        return logits, adapter.head_input.pop_pooled_states(batch.attention_mask)


def _batches(
    texts: Sequence[TokenizedText], adapters: Sequence[SharedBaseClassifier], max_tokens: int
) -> Iterator[tuple[SharedBaseClassifier, list[int]]]:
    """Yield the indices of texts with the same adapter and similar lengths."""
    order = sorted(range(len(texts)), key=lambda i: id(adapters[i]))
    for _, group in groupby(order, key=lambda i: id(adapters[i])):
        indices = list(group)
        lengths = np.array([texts[i].length for i in indices])
        for batch in length_sorted_batches(lengths, max_tokens):
            yield adapters[indices[0]], [indices[i] for i in batch]


class _Float32(nn.Module):
    """A layer that computes in float32, also under autocast."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.layer(x.float())
        return y
