"""Compute the frozen blocks of an encoder only once for each text, and cache their outputs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from lora_core.data.batching import length_sorted_batches
from lora_core.data.tokens import TokenizedSplit
from lora_core.encoders import encoder_parts
from lora_core.encoders.encoder_parts import blocks
from lora_core.encoders.families import EncoderFamily, FastPathFamily
from lora_core.events import Phase
from lora_core.fast import feature_cache, unfused_attention
from lora_core.forward import BlockwiseForward, Forward
from lora_core.progress_reporter import ProgressReporter
from lora_core.runtime import Runtime
from lora_core.specs.data import Split

MAX_RUN_BYTES = feature_cache.MAX_BYTES // 2  # of the cached states of one run


class CachedBlockwiseForward(BlockwiseForward):
    """Caches the states below the first block that trains, and computes only the blocks above.

    It equals `Forward` as long as nothing below trains or has dropout. If no block trains, only the
    head is left, and only its input is cached, one state per text.
    """

    caches_features = True

    def __init__(  # noqa: PLR0913
        self,
        model: PreTrainedModel,
        runtime: Runtime,
        family: FastPathFamily,
        data: Mapping[Split, TokenizedSplit],
        *,
        budget: int,
        progress: ProgressReporter,
        environment: Mapping[str, str],
    ) -> None:
        """Load the states of every split from the cache, or compute them.

        A batch has at most `budget` padded tokens. `environment` is part of the cache key: it
        decides the last bits of the states.
        """
        super().__init__(model, runtime, family, pad_multiple=_pad_multiple(runtime))
        self._budget = budget
        self._progress = progress
        every = blocks(model, family)
        frozen = encoder_parts.count_leading_frozen_blocks(model, family)
        self._below, self._above = every[:frozen], every[frozen:]
        started = time.monotonic()
        below = [*self._embeddings, *self._below]
        if not self._above and family.final_norm is not None:
            below.append(model.get_submodule(family.final_norm))
        facts = {"config": feature_cache.serialize_encoder_config(model), **environment}
        self._encoder_hash = feature_cache.hash_encoder(
            (f"{name}={value}" for name, value in facts.items()),
            chain.from_iterable(module.parameters() for module in below),
        )
        self._features = {split: self._load_features(each) for split, each in data.items()}
        self.setup_seconds = time.monotonic() - started
        self.cache_hit = all(features.cache_hit for features in self._features.values())

    def pooled_states(self, data: TokenizedSplit, indices: Sequence[int]) -> Tensor:
        states = self._features[data.split].get(indices)  # (n, width) of each text
        x = pad_sequence(states, batch_first=True).to(self._runtime.device)  # (texts, n, width)
        if not self._above:
            return x[:, 0]
        x = F.pad(x, (0, 0, 0, self._padded_length(x.shape[1]) - x.shape[1]))
        lengths = torch.from_numpy(data.lengths[indices]).to(x.device)[:, None]  # (texts, 1)
        mask = encoder_parts.expand_mask(torch.arange(x.shape[1], device=x.device) < lengths)
        with self._runtime.autocast():
            x = encoder_parts.run_blocks(self._above, x, mask)
            return encoder_parts.pool(self.model, self._family, x, mask)

    def _load_features(self, data: TokenizedSplit) -> feature_cache.CachedFeatures:
        key = feature_cache.entry_key(self._encoder_hash, data)
        counts = count_cached_states_per_text(data, len(self._above))
        width = self.model.config.hidden_size
        return feature_cache.load_or_compute(
            key, counts, width, lambda: self._compute(data, counts)
        )

    @torch.no_grad()
    def _compute(
        self, data: TokenizedSplit, counts: NDArray[np.int64]
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the index and states (rows, width) of each text, pooled if no block is above."""
        for indices in length_sorted_batches(data.lengths, self._budget):
            batch = self._batch(data, indices)
            with self._runtime.autocast():
                x = encoder_parts.run_embedding_modules(self._embeddings, **batch.embedding_inputs)
                mask = encoder_parts.expand_mask(batch.attention_mask)
                x = encoder_parts.run_blocks(self._below, x, mask)
                if not self._above:
                    x = encoder_parts.pool(self.model, self._family, x, mask)[:, None]
            for i, states in zip(indices, x, strict=True):
                yield i, states[: counts[i]]
            self._progress.tick()


class FrozenBlockCacheForward(Forward):
    """Caches the states below the first block that trains, for the classes of transformers.

    The class is called as always, but its frozen blocks return what is cached. So whatever it
    computes outside of its blocks, such as masks and positions, need not be known here.
    """

    caches_features = True

    def __init__(  # noqa: PLR0913
        self,
        model: PreTrainedModel,
        runtime: Runtime,
        family: EncoderFamily,
        data: Mapping[Split, TokenizedSplit],
        *,
        budget: int,
        progress: ProgressReporter,
        environment: Mapping[str, str],
    ) -> None:
        """As in `CachedBlockwiseForward`, for a family whose blocks pass on states alone."""
        super().__init__(model, runtime)
        self._budget = budget
        self._progress = progress
        frozen = encoder_parts.count_leading_frozen_blocks(model, family)
        self._below = blocks(model, family)[:frozen]
        started = time.monotonic()
        every = range(frozen, len(blocks(model, family)))
        above = tuple(f"{name}." for name in family.head_module_names)
        above += tuple(f"{family.block_list}.{i}." for i in every)
        facts = {"config": feature_cache.serialize_encoder_config(model), **environment}
        self._encoder_hash = feature_cache.hash_encoder(
            (f"{name}={value}" for name, value in facts.items()),
            (p for name, p in model.named_parameters() if not name.startswith(above)),
        )
        self._output = self._frozen_output(data[Split.TRAIN], [0])
        self._features = {
            split: feature_cache.load_or_compute(
                feature_cache.entry_key(self._encoder_hash, each),
                each.lengths,
                model.config.hidden_size,
                partial(self._compute, each),
            )
            for split, each in data.items()
        }
        self.setup_seconds = time.monotonic() - started
        self.cache_hit = all(features.cache_hit for features in self._features.values())

    def __call__(self, data: TokenizedSplit, indices: Sequence[int]) -> Tensor:
        states = self._features[data.split].get(indices)  # (n, width) of each text
        kind = type(self._output)
        dtype = _states(self._output).dtype

        @cache  # all blocks return the same states
        def padded(length: int, device: torch.device) -> Tensor:
            y = pad_sequence(states, batch_first=True).to(device, dtype)
            return F.pad(y, (0, 0, 0, length - y.shape[1]))  # some pad to a multiple of a window

        def return_cached(x: Tensor, *_: Any, **__: Any) -> Any:
            y = padded(x.shape[1], x.device)
            return y if kind is Tensor else kind((y, *self._output[1:]))

        with ExitStack() as replaced:
            for block in self._below:
                replaced.enter_context(_forward_replaced(block, return_cached))
            return super().__call__(data, indices)

    def _compute(self, data: TokenizedSplit) -> Iterator[tuple[int, Tensor]]:
        """Yield the index and states (tokens, width) of each text."""
        for indices in length_sorted_batches(data.lengths, self._budget):
            x = _states(self._frozen_output(data, indices))
            for i, states in zip(indices, x, strict=True):
                yield i, states[: data.lengths[i]]
            self._progress.tick()

    @torch.no_grad()
    def _frozen_output(self, data: TokenizedSplit, indices: Sequence[int]) -> Any:
        """Return what the last frozen block returns. No random number is drawn."""
        outputs: list[Any] = []
        hook = self._below[-1].register_forward_hook(lambda _, __, output: outputs.append(output))
        was_training = self.model.training
        self.model.eval()
        try:
            super().__call__(data, indices)
        finally:
            hook.remove()
            self.model.train(was_training)
        return outputs[-1]  # ALBERT has one block, which runs many times


def _states(output: Any) -> Tensor:
    """Return the states (texts, length, width) that a block returns."""
    states: Tensor = output if isinstance(output, Tensor) else output[0]
    return states


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the forward pass of a module; its parameters keep their names."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def count_cached_states_per_text(data: TokenizedSplit, blocks_above: int) -> NDArray[np.int64]:
    """Return the number of cached states per text: all tokens, or 1 if only the head trains."""
    return data.lengths if blocks_above else np.ones_like(data.lengths)


def build_fastest_forward(  # noqa: PLR0913 - everything that the choice depends on
    model: PreTrainedModel,
    runtime: Runtime,
    family: EncoderFamily,
    data: Mapping[Split, TokenizedSplit],
    *,
    encoder_dropout: float,
    budget: int,
    progress: ProgressReporter,
    environment: Mapping[str, str],
) -> Forward:
    """Return the fastest forward pass that is exact for what this run trains.

    Without `data` nothing is cached: each text is computed once anyway.
    """
    fast = isinstance(family, FastPathFamily)
    can_cache = encoder_dropout == 0 and bool(data) and (fast or family.passes_states_only)
    frozen = encoder_parts.count_leading_frozen_blocks(model, family) if can_cache else 0
    above = len(blocks(model, family)) - frozen
    rows = sum(
        int((count_cached_states_per_text(each, above) if fast else each.lengths).sum())
        for each in data.values()
    )
    if frozen and rows * model.config.hidden_size * 4 <= MAX_RUN_BYTES:
        progress.enter_phase(Phase.FEATURES)
        cached: Any = CachedBlockwiseForward if fast else FrozenBlockCacheForward
        forward: Forward = cached(
            model, runtime, family, data, budget=budget, progress=progress, environment=environment
        )
        return forward
    if isinstance(family, FastPathFamily):
        return BlockwiseForward(model, runtime, family, pad_multiple=_pad_multiple(runtime))
    return Forward(model, runtime)


def _pad_multiple(runtime: Runtime) -> int:
    return unfused_attention.pad_multiple(runtime.device, runtime.precision)
