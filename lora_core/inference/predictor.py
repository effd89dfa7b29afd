"""Texts in, labels with probabilities out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from lora_core.artifact import label_names, labels_of
from lora_core.data.batching import by_length
from lora_core.encoders import FAMILIES
from lora_core.inference.adapter import Adapter, head_of
from lora_core.inference.decoding import decode
from lora_core.inference.network import Network
from lora_core.inference.networks import Networks
from lora_core.inference.reader import Encoded, Reader
from lora_core.inference.words import Worded, read_words
from lora_core.specs.predict import Function, Side

BATCH_TOKENS = 4096  # computed at once


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model version that can answer. Several may share an engine."""

    engine: Network
    adapter: Adapter
    reader: Reader
    labels: Sequence[str]
    temperature: float = 1.0  # of softmax
    speeds: Mapping[str, float] = field(default_factory=dict)  # tokens/s by engine, if measured

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: Tokenizer, max_length: int) -> "Predictor":
        """A whole model in float32, with its adapters if it has some."""
        family = FAMILIES[model.config.model_type]
        network = Network(model, family, torch.float32)
        adapter = Adapter({}, head_of(model, family))
        return cls(network, adapter, Reader(tokenizer, max_length), label_names(model))

    @classmethod
    def load(
        cls, directory: Path, *, engine: str = "torch-fp32", networks: Networks | None = None
    ) -> "Predictor":
        """From an artifact directory, every digest checked. Raises `ArtifactCorrupt`.

        `networks`: what is in memory already and may be shared.
        """
        opened = (networks or Networks()).open(directory, engine)
        # Older artifacts have no temperature.
        temperature = opened.facts.get("calibration", {}).get("temperature", 1.0)
        labels = labels_of(directory)
        return cls(opened.engine, opened.adapter, opened.reader, labels, temperature)

    @property
    def max_length(self) -> int:
        """Tokens that it reads of a text."""
        return self.reader.max_length

    def encode(
        self, texts: Sequence[str], *, truncate: bool = True, side: Side = "right"
    ) -> list[Encoded]:
        """As `Reader.encode`."""
        return self.reader.encode(texts, truncate=truncate, side=side)

    def words(self, text: str) -> Worded:
        """The words of what it reads of a text. Raises `EmptyInput`."""
        return read_words(self.reader.tokenizer, text, self.max_length)

    def forward(self, items: Sequence[Encoded]) -> Tensor:
        """Logits (items, classes) in float32, in the order given; computed by length."""
        logits = torch.empty(len(items), len(self.labels))
        for indices in by_length(np.array([item.length for item in items]), BATCH_TOKENS):
            texts = [items[i].ids for i in indices]
            logits[indices] = torch.stack(self.engine.logits(texts, [self.adapter] * len(texts)))
        return logits

    def decode(
        self, logits: Any, function: Function | None = None
    ) -> list[list[tuple[str, float]]]:
        """All labels with their scores, highest first: by default calibrated probabilities.

        `logits` (items, classes) are a tensor or an array.
        """
        return decode(logits, self.labels, function, self.temperature)

    def predict(
        self, texts: Sequence[str], *, truncate: bool = True
    ) -> list[list[tuple[str, float]]]:
        """Encode, forward, decode."""
        return self.decode(self.forward(self.encode(texts, truncate=truncate)))
