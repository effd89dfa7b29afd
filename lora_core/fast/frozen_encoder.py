"""Past a frozen trunk: what lies below the lowest trained layer answers each text only once."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from lora_core.data.batching import by_length
from lora_core.data.tokenized_split import Part
from lora_core.encoders import stack
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks
from lora_core.events import Phase
from lora_core.fast import feature_cache, unfused_attention
from lora_core.forward import BlockwiseForward
from lora_core.progress_reporter import Pulse
from lora_core.runtime import Runtime
from lora_core.specs.data import Split

MAX_BYTES = feature_cache.LIMIT // 2  # of the states of one run


class FrozenEncoderForward(BlockwiseForward):
    """The states below the first block that trains are kept; what lies above is computed again.

    The same function as `Forward` while nothing below trains or drops out. When no block trains,
    the head alone is left, and it reads one state of a text: that of its first token.
    """

    def __init__(  # noqa: PLR0913
        self,
        model: PreTrainedModel,
        runtime: Runtime,
        family: EncoderFamily,
        parts: Mapping[Split, Part],
        *,
        budget: int,
        pulse: Pulse,
        environment: Mapping[str, str],
    ) -> None:
        """Compute, or find, the states of every part; `budget` padded tokens at once.

        `environment` is what decides their last bits.
        """
        super().__init__(model, runtime, family, pad_multiple=_pad_multiple(runtime))
        self._budget = budget
        self._pulse = pulse
        every = blocks(model, family)
        frozen = stack.frozen_blocks(model, family)
        self._below, self._above = every[:frozen], every[frozen:]
        began = time.monotonic()
        below = [model.get_submodule(family.embeddings), *self._below]
        self._origin = feature_cache.origin(
            (f"{name}={value}" for name, value in environment.items()),
            chain.from_iterable(piece.parameters() for piece in below),
        )
        self._features = {split: self._states(part) for split, part in parts.items()}
        self.seconds = time.monotonic() - began
        self.found = all(states.found for states in self._features.values())

    def pooled(self, part: Part, indices: Sequence[int]) -> Tensor:
        states = self._features[part.split].of(indices)  # (n, width) of each text
        x = pad_sequence(states, batch_first=True).to(self._runtime.device)  # (texts, n, width)
        if self._above:
            x = F.pad(x, (0, 0, 0, self._padded(x.shape[1]) - x.shape[1]))
        seen = torch.from_numpy(part.lengths[indices]).to(x.device)[:, None]  # (texts, 1)
        mask = torch.arange(x.shape[1], device=x.device) < seen  # (texts, length)
        with self._runtime.autocast():
            return stack.run(self._above, x, stack.visible(mask))[:, 0]

    def _states(self, part: Part) -> feature_cache.Features:
        name = feature_cache.key(self._origin, part)
        counts = row_counts(part, len(self._above))
        width = self.model.config.hidden_size
        return feature_cache.kept(name, counts, width, lambda: self._compute(part, counts))

    @torch.no_grad()
    def _compute(self, part: Part, counts: NDArray[np.int64]) -> Iterator[tuple[int, Tensor]]:
        """Each text's number and states (rows, width)."""
        for indices in by_length(part.lengths, self._budget):
            batch = self._batch(part, indices)
            with self._runtime.autocast():
                x = stack.embed(self.model, self._family, batch.input_ids)
                x = stack.run(self._below, x, stack.visible(batch.attention_mask))
            for i, states in zip(indices, x, strict=True):
                yield i, states[: counts[i]]
            self._pulse.beat()


def row_counts(part: Part, blocks_above: int) -> NDArray[np.int64]:
    """States that are kept of each text: of every token, or of the first for the head alone."""
    return part.lengths if blocks_above else np.ones_like(part.lengths)


def fastest_forward(  # noqa: PLR0913 - everything that the rule looks at
    model: PreTrainedModel,
    runtime: Runtime,
    family: EncoderFamily,
    parts: Mapping[Split, Part],
    *,
    encoder_dropout: float,
    budget: int,
    pulse: Pulse,
    environment: Mapping[str, str],
) -> BlockwiseForward:
    """The cheapest way that is exact for what this run trains."""
    frozen = stack.frozen_blocks(model, family) if encoder_dropout == 0 else 0
    above = len(blocks(model, family)) - frozen
    rows = sum(int(row_counts(part, above).sum()) for part in parts.values())
    if frozen and rows * model.config.hidden_size * 4 <= MAX_BYTES:
        pulse.enter(Phase.FEATURES)
        return FrozenEncoderForward(
            model, runtime, family, parts, budget=budget, pulse=pulse, environment=environment
        )
    return BlockwiseForward(model, runtime, family, pad_multiple=_pad_multiple(runtime))


def _pad_multiple(runtime: Runtime) -> int:
    return unfused_attention.pad_multiple(runtime.device, runtime.precision)
