"""From texts to logits: through the whole model, or past a trunk that never changes."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lora_core.data.batching import by_length, collate
from lora_core.encoders.base import EncoderFamily
from lora_core.events import Phase
from lora_core.specs.data import Split
from lora_core.tasks.base import Batch
from lora_core.training.part import Part
from lora_core.training.pulse import Pulse
from lora_core.training.runtime import Runtime

MAX_BYTES = 2**30  # of features kept in memory


class Forward(Protocol):
    """How a run computes logits."""

    model: PreTrainedModel
    seconds: float  # spent before the first step

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        """Logits (len(indices), classes) of these texts."""
        ...


class WholeModel:
    """Every text through every layer."""

    def __init__(self, model: PreTrainedModel, machine: Runtime) -> None:
        self.model = model
        self.seconds = 0.0
        self._machine = machine

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        batch = self._batch(part, indices)
        with self._machine.autocast():
            logits: Tensor = self.model(batch.input_ids, attention_mask=batch.attention_mask).logits
        return logits

    def _batch(self, part: Part, indices: Sequence[int]) -> Batch:
        batch = collate([part.ids[i] for i in indices], part.labels[indices], part.pad)
        return batch.to(self._machine.device)


class FrozenTrunk(WholeModel):
    """The encoder's answer to each text is computed once; only the head is computed again.

    The same function as `WholeModel` while nothing below the head trains or drops out.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        machine: Runtime,
        family: EncoderFamily,
        parts: Mapping[Split, Part],
        *,
        budget: int,
        pulse: Pulse,
    ) -> None:
        """Compute the features of every part, `budget` padded tokens at once."""
        super().__init__(model, machine)
        self._family = family
        began = time.monotonic()
        self._features = {
            split: self._compute(part, budget, pulse) for split, part in parts.items()
        }
        self.seconds = time.monotonic() - began

    def __call__(self, part: Part, indices: Sequence[int]) -> Tensor:
        x = self._features[part.split][list(indices)].to(self._machine.device)
        with self._machine.autocast():
            return head(self.model, self._family, x)

    @torch.no_grad()
    def _compute(self, part: Part, budget: int, pulse: Pulse) -> Tensor:
        """The first token's state of each text, (texts, width) in float32."""
        rows = torch.empty(len(part), self.model.config.hidden_size)
        for indices in by_length(part.lengths, budget):
            batch = self._batch(part, indices)
            with self._machine.autocast():
                states = self.model.base_model(
                    batch.input_ids, attention_mask=batch.attention_mask
                ).last_hidden_state
            rows[indices] = states[:, 0].float().cpu()
            pulse.beat()
        return rows


def head(model: PreTrainedModel, family: EncoderFamily, x: Tensor) -> Tensor:
    """What the classifiers of transformers do with the first token's state (batch, width)."""
    first, last = (model.get_submodule(name) for name in family.head)
    between = first(x)
    between = between.relu() if family.head_activation == "relu" else between.tanh()
    logits: Tensor = last(model.dropout(between))
    return logits


def choose(  # noqa: PLR0913 - everything that the rule looks at
    model: PreTrainedModel,
    machine: Runtime,
    family: EncoderFamily,
    parts: Mapping[Split, Part],
    *,
    encoder_dropout: float,
    budget: int,
    pulse: Pulse,
) -> Forward:
    """The cheapest way that is exact for what this run trains."""
    heads = tuple(f"{name}." for name in family.head)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    frozen = encoder_dropout == 0 and all(name.startswith(heads) for name in trained)
    texts = sum(len(part) for part in parts.values())
    if frozen and texts * model.config.hidden_size * 4 <= MAX_BYTES:
        pulse.enter(Phase.FEATURES)
        return FrozenTrunk(model, machine, family, parts, budget=budget, pulse=pulse)
    return WholeModel(model, machine)
